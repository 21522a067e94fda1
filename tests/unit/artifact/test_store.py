"""Bundles appear whole or not at all.

The model is a real ONNX file: one convolution over the whole image by small integers, so that sums are exact.
"""

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy import files
from fedsup_deploy.artifact import failures
from fedsup_deploy.artifact.failures import raise_if_failed
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredBundle, MeasuredLatency
from fedsup_deploy.artifact.program import program
from fedsup_deploy.artifact.store import (
    ModelWriter,
    Vectors,
    WrittenFiles,
    load_manifest,
    load_measured,
    load_measurement,
    record_measurement,
    verify_bundle,
    write_bundle,
)
from fedsup_deploy.artifact.variants import ParityGate, PredictedLatency, VariantLatency
from fedsup_deploy.errors import ArtifactError, DependencyError, GateError, OutputError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.variant import MAIN, Variant

WEIGHT = (np.arange(64 * 3).reshape(64, 3) % 5 - 2).astype(np.float32)
INPUTS = (np.arange(16 * 64).reshape(16, 1, 8, 8) % 7).astype(np.float32)
VECTORS = Vectors(INPUTS, INPUTS.reshape(16, 64) @ WEIGHT)
FOUND = ParityGate(
    tolerance=1e-5,
    batch_tolerance=1e-5,
    batches=(1, 3, 8),
    num_inputs=16,
    max_abs_diff=0.0,
    max_scaled_diff=0.0,
    argmax_agreement=1.0,
    batch_invariance_max_abs_diff=0.0,
    batch_invariance_max_scaled_diff=0.0,
)
PREDICTED = PredictedLatency(value_ms=1.5, interval_ms=None, kind="roofline", provenance=("published",))
PLAIN = ("model.plain/layers.json", "model.plain/weights.bin")


def model_bytes(weight: np.ndarray = WEIGHT) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["sums"]), helper.make_node("Flatten", ["sums"], ["logits"])],
        "matrix",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T).reshape(3, 1, 8, 8), "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def writes(*names: str, content: bytes) -> Callable[[Path], tuple[str, ...]]:
    def write(folder: Path) -> tuple[str, ...]:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            files.write_bytes(folder / name, content)
        return names

    return write


def onnx_of(content: bytes) -> ModelWriter:
    return ModelWriter(MAIN, writes("model.onnx", content=content), 0.9, PREDICTED)


#: One file at one precision, and a folder at another.
WRITERS = (
    onnx_of(model_bytes()),
    ModelWriter(Variant("plain", "fp16"), writes(*PLAIN, content=b"any bytes"), None, None),
)


def passes(folder: Path, written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate]:
    return dict.fromkeys(written, FOUND)


def fails(folder: Path, written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate]:
    raise GateError("onnx-fp32, batch 3: wrong")


SPEED = {"times_as_fast": 1.5, "noise": 0.25, "faster_above": 1.25, "verdict": "stable"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bundle(tmp_path, draft) -> Path:
    folder = tmp_path / "exports" / "raspberry-pi-4" / draft.arch_id
    write_bundle(folder, draft, WRITERS, VECTORS, passes)
    return folder


def test_bundle_holds_exactly_its_files(bundle):
    names = ["MODEL_CARD.md", "install.py", "manifest.json", "model.onnx", *PLAIN, "run.py", "vectors.npz"]
    expected = ["MODEL_CARD.md", "SHA256SUMS", *names[1:]]
    assert sorted(contents(bundle)) == expected
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_manifest_lists_the_models_and_sha256sums_every_other_file(bundle):
    models = load_manifest(bundle).models
    assert {name: (record.variant, record.files) for name, record in models.items()} == {
        "onnx-fp32": (MAIN, {"model.onnx": len(model_bytes())}),
        "plain-fp16": (Variant("plain", "fp16"), dict.fromkeys(PLAIN, 9)),
    }

    names = sorted(contents(bundle).keys() - {"SHA256SUMS"})
    expected = "".join(f"{files.sha256(bundle / name)}  {name}\n" for name in names)
    assert (bundle / "SHA256SUMS").read_text() == expected
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=bundle, check=False).returncode == 0


def test_manifest_is_the_draft_with_what_was_found(bundle, draft):
    manifest = load_manifest(bundle)

    main, other = manifest.models.values()
    assert main.gate == other.gate == FOUND
    assert (main.accuracy, other.accuracy) == (0.9, None)
    assert (main.latency.predicted, other.latency.predicted) == (PREDICTED, None)
    assert ManifestDraft.model_validate(manifest.model_dump(by_alias=True, exclude={"models"})) == draft


def test_runner_is_the_one_of_the_package(bundle):
    assert (bundle / "run.py").read_bytes() == program()


def test_vectors_are_those_that_were_given(bundle):
    with np.load(bundle / "vectors.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["inputs", "outputs"]
        np.testing.assert_array_equal(archive["inputs"], VECTORS.inputs_VCSS)
        np.testing.assert_array_equal(archive["outputs"], VECTORS.outputs_VK)


def test_same_content_gives_the_same_bytes_elsewhere(bundle, draft, tmp_path):
    write_bundle(tmp_path / "other", draft, WRITERS, VECTORS, passes)

    assert contents(tmp_path / "other") == contents(bundle)


def test_gate_sees_the_written_files_and_the_vectors(tmp_path, draft):
    seen = []

    def looks(folder: Path, written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate]:
        seen.append((contents(folder)["model.onnx"], written["plain-fp16"], vectors, (tmp_path / "bundle").exists()))
        return passes(folder, written, vectors)

    write_bundle(tmp_path / "bundle", draft, WRITERS, VECTORS, looks)

    assert seen == [(model_bytes(), PLAIN, VECTORS, False)]


def test_measurement_goes_into_its_own_field(tmp_path, draft, latency):
    measured = MeasuredLatency.model_validate(latency)

    written = write_bundle(tmp_path / "bundle", draft, WRITERS, VECTORS, passes, lambda _: {"onnx-fp32": measured})

    assert load_manifest(tmp_path / "bundle") == written
    assert written.main.latency == VariantLatency(predicted=PREDICTED, measured=measured)
    assert written.models["plain-fp16"].latency.measured is None
    assert "p50 1 ms" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_measurement_is_recorded_beside_the_bundle(bundle, latency):
    measured = MeasuredBundle.model_validate(latency)
    before = contents(bundle)

    record_measurement(bundle, measured)

    assert contents(bundle).keys() - before.keys() == {"measured.json"}
    assert before.items() <= contents(bundle).items()
    assert json.loads(contents(bundle)["measured.json"])["latency"] == measured.model_dump(mode="json")
    assert load_measurement(bundle) == measured
    assert verify_bundle(bundle).measured == measured


def test_a_measurement_keeps_both_files_and_an_older_one_without_int8_is_read(bundle, latency):
    int8 = {**latency, "ruler": None, "energy": None, "speed": SPEED}
    both = MeasuredBundle.model_validate({**latency, "int8": int8})
    record_measurement(bundle, both)
    found = verify_bundle(bundle).measured
    assert found == both
    assert found.int8.speed.words(may_be_device=True) == "1.5 times as fast as fp32 (stable)"
    document = json.loads(contents(bundle)["measured.json"])
    del document["latency"]["int8"], document["sha256"]
    older = json.dumps(document, indent=2).removesuffix("\n}") + ",\n"
    (bundle / "measured.json").write_bytes(bundle_files.sealed(older.encode(), contents(bundle)["SHA256SUMS"]))
    assert verify_bundle(bundle).measured == MeasuredBundle.model_validate(latency)


def test_recorded_measurement_replaces_an_older_one(bundle, latency):
    record_measurement(bundle, MeasuredBundle.model_validate(latency))
    newer = MeasuredBundle.model_validate({**latency, "load_ms": 11.0})

    record_measurement(bundle, newer)

    assert load_measurement(bundle) == newer


def test_a_measurement_of_before_there_were_engines_is_read(bundle, latency):
    body = json.dumps({"schema": 1, "latency": latency}, indent=2).removesuffix("\n}") + ",\n"
    sealed = bundle_files.sealed(body.encode(), (bundle / "SHA256SUMS").read_bytes())
    (bundle / "measured.json").write_bytes(sealed)

    assert load_measured(bundle).engine is None
    assert verify_bundle(bundle).measured == MeasuredBundle.model_validate(latency)


def test_a_measurement_replaces_what_is_damaged(bundle, latency):
    measured = MeasuredBundle.model_validate(latency)
    (bundle / "measured.json").write_bytes(b"half")

    record_measurement(bundle, measured)

    assert load_measurement(bundle) == measured


def test_recording_that_was_killed_leaves_what_was_there(bundle, latency):
    """Killed while it writes: beside its place, under a name that is no part of a bundle."""
    older = MeasuredBundle.model_validate(latency)
    record_measurement(bundle, older)
    with files.atomic_file(bundle / "measured.json") as partial:
        name = partial.name
        partial.write_text("half")
        left = partial.rename(bundle / "left")
        partial.write_bytes((bundle / "measured.json").read_bytes())
    left.rename(bundle / name)

    assert verify_bundle(bundle).measured == older
    record_measurement(bundle, older)
    assert not (bundle / name).exists()


def test_measurement_of_another_bundle_is_refused(bundle, tmp_path, draft, latency):
    other = draft.model_copy(update={"classes": ("one", "two", "three")})
    write_bundle(tmp_path / "other", other, WRITERS, VECTORS, passes)
    record_measurement(tmp_path / "other", MeasuredBundle.model_validate(latency))
    (bundle / "measured.json").write_bytes((tmp_path / "other" / "measured.json").read_bytes())

    for look in (verify_bundle, load_measurement):
        with pytest.raises(ArtifactError, match=r"measured\.json was altered, or is of another bundle"):
            look(bundle)


def test_measurement_that_is_none_is_refused_though_its_seal_is_right(bundle, latency):
    sums = (bundle / "SHA256SUMS").read_bytes()
    (bundle / "measured.json").write_bytes(bundle_files.sealed(b'{\n  "schema": 1,\n', sums))

    with pytest.raises(ArtifactError, match=r"measured\.json: latency: missing key; copy or measure the bundle again$"):
        verify_bundle(bundle)


def test_nothing_is_recorded_in_a_folder_that_is_no_bundle(tmp_path, latency):
    with pytest.raises(ArtifactError, match=r"SHA256SUMS is missing; export the bundle again$"):
        record_measurement(tmp_path, MeasuredBundle.model_validate(latency))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("exit_code", "error"),
    [(1, ArtifactError), (2, DependencyError), (3, GateError), (4, GateError), (5, ArtifactError)],
)
def test_report_of_a_failed_runner_is_an_error(exit_code, error):
    with pytest.raises(error, match=r"^there: it is wrong$"):
        raise_if_failed({"exit_code": exit_code, "reason": "it is wrong"}, "there")


def test_report_of_a_runner_that_passed_is_none():
    raise_if_failed({"exit_code": 0, "reason": None}, "there")


def test_failed_gate_leaves_nothing(tmp_path, draft):
    with pytest.raises(GateError, match=r"^onnx-fp32, batch 3: wrong$"):
        write_bundle(tmp_path / "exports" / "bundle", draft, WRITERS, VECTORS, fails)

    assert contents(tmp_path) == {}


def test_failed_gate_leaves_the_old_bundle(bundle, draft):
    before = contents(bundle.parent)

    with pytest.raises(GateError):
        write_bundle(bundle, draft, [onnx_of(b"new")], VECTORS, fails)

    assert contents(bundle.parent) == before


def test_model_that_its_own_runner_refuses_never_appears(tmp_path, draft):
    """The gate was too kind; the last look is the one a user takes."""
    wrong = onnx_of(model_bytes(WEIGHT * np.float32(1.5)))

    with pytest.raises(GateError, match=r"^.*/bundle: outputs at batch 1: scaled difference 0\.5, .* of scale 7$"):
        write_bundle(tmp_path / "bundle", draft, [wrong], VECTORS, passes)
    assert contents(tmp_path) == {}


def test_writer_that_fails_leaves_nothing(tmp_path, draft):
    def breaks(folder: Path) -> tuple[str, ...]:
        (folder / "model.ts.pt").write_bytes(b"half")
        raise OutputError("the disk is full")

    broken = ModelWriter(Variant("ts", "fp32"), breaks, None, None)
    with pytest.raises(OutputError):
        write_bundle(tmp_path / "bundle", draft, [*WRITERS, broken], VECTORS, passes)
    assert contents(tmp_path) == {}


def test_new_bundle_replaces_the_old_one_as_a_whole(bundle, draft):
    write_bundle(bundle, draft, WRITERS[:1], VECTORS, passes)

    assert not contents(bundle).keys() & set(PLAIN)
    assert verify_bundle(bundle).files["num_files"] == 7


def test_place_that_cannot_be_written_is_an_output_error(tmp_path, draft):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="cannot write"):
        write_bundle(tmp_path / "file" / "bundle", draft, WRITERS, VECTORS, passes)


def test_bundle_without_onnx_is_refused(tmp_path, draft):
    with pytest.raises(ValueError, match=r"expected the file model\.onnx, which every bundle has"):
        write_bundle(tmp_path / "bundle", draft, WRITERS[1:], VECTORS, passes)
    assert contents(tmp_path) == {}


def test_verified_bundle_is_reported(bundle):
    report = verify_bundle(bundle)

    assert report.arch_id == "afd02a30afb7"
    assert report.profile == "raspberry-pi-4"
    assert report.files["num_files"] == 9
    assert (report.parity["max_abs_diff"], report.parity["max_scaled_diff"]) == (0.0, 0.0)
    assert (report.measured, report.not_executed, report.not_compared) == (None, PLAIN, ())


def test_file_that_is_not_of_the_bundle_is_refused(bundle):
    (bundle / "notes.txt").write_text("mine")

    with pytest.raises(ArtifactError, match=r": notes\.txt is no file of the bundle; remove it$"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "model.onnx", PLAIN[1], "run.py", "vectors.npz"])
def test_altered_file_is_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)

    with pytest.raises(ArtifactError, match=rf"{name} was altered"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "model.onnx", PLAIN[0], "run.py", "vectors.npz", "manifest.json"])
def test_missing_file_is_named(bundle, name):
    (bundle / name).unlink()

    with pytest.raises(ArtifactError, match=name):
        verify_bundle(bundle)


def test_exchanged_vectors_fail_the_gate_although_their_hash_is_right(bundle):
    """Somebody replaced the vectors and mended SHA256SUMS."""
    changed = Vectors(VECTORS.inputs_VCSS, VECTORS.outputs_VK + np.float32(0.5)).to_bytes()
    (bundle / "vectors.npz").write_bytes(changed)
    names = contents(bundle).keys() - {"SHA256SUMS"}
    (bundle / "SHA256SUMS").write_text("".join(bundle_files.sha256sums(bundle, names)))

    with pytest.raises(GateError, match=r"outputs at batch 1: scaled difference 0\.11, .* of scale 4\.5$"):
        verify_bundle(bundle)


def test_folder_that_is_no_bundle_says_so(tmp_path):
    with pytest.raises(ArtifactError, match=r"manifest.json is missing; expected the folder of a bundle$"):
        load_manifest(tmp_path)


def test_manifest_that_is_no_text_is_an_artifact_error(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ArtifactError, match=r"manifest.json: cannot be read"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (INPUTS, VECTORS.outputs_VK[:15]),
        (INPUTS.astype(np.float64), VECTORS.outputs_VK),
        (INPUTS.reshape(16, 64), VECTORS.outputs_VK),
    ],
    ids=["unequal", "float64", "flat"],
)
def test_impossible_vectors_are_refused(inputs, outputs):
    with pytest.raises(AssertionError):
        Vectors(inputs, outputs)


def test_too_few_vectors_do_not_travel():
    """Fewer may be compared, as of a run with few validation images."""
    few = Vectors(INPUTS[:15], VECTORS.outputs_VK[:15])
    with pytest.raises(AssertionError, match="16 or more"):
        few.to_bytes()


@pytest.mark.parametrize(("arch", "is_refused"), [(platform.machine(), True), (None, True), ("riscv64", False)])
def test_a_release_that_fails_on_the_device_is_not_used_where_this_may_be_it(
    tmp_path, draft_document, arch, is_refused
):
    """A desk with another instruction set has a runtime of its own."""
    bad = {
        "runtime": "onnxruntime",
        "versions": f"=={onnxruntime.__version__}",
        "symptom": "wrong answers",
        "cure": "take another",
        "source": "somebody/somewhere#1",
    }
    system = {"python": None, "glibc": None, "arch": arch}
    device = {"runtime": "onnxruntime", "system": system, "known_bad": [bad], "build_on_device": None}
    draft = ManifestDraft.model_validate_json(json.dumps({**draft_document, "device": device}))
    folder = tmp_path / "bundle"
    if is_refused:
        reason = r"is known to be bad on this device: wrong answers; take another \(source: somebody/somewhere#1\)"
        with pytest.raises(DependencyError, match=reason):
            write_bundle(folder, draft, WRITERS[:1], VECTORS, passes)
        assert not folder.exists()
    else:
        write_bundle(folder, draft, WRITERS[:1], VECTORS, passes)
        assert verify_bundle(folder).verdict == "ok"


def test_every_exit_of_the_runner_has_an_error_class():
    assert {bundle_files.OK, *failures._ERRORS} == set(bundle_files.CHECKED)
    assert len(set(bundle_files.CHECKED)) == len(bundle_files.CHECKED), "no two failures look the same"
