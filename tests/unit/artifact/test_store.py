"""Bundles appear whole or not at all.

The model is a real ONNX file: one matrix of small integers, so that sums are exact.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy import files
from fedsup_deploy.artifact import runner, store
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.store import (
    Vectors,
    load_manifest,
    raise_if_failed,
    record_measurement,
    verify_bundle,
    write_bundle,
)
from fedsup_deploy.errors import ArtifactError, DependencyError, GateError, OutputError

WEIGHT = (np.arange(64 * 3).reshape(64, 3) % 5 - 2).astype(np.float32)
INPUTS = (np.arange(16 * 64).reshape(16, 1, 8, 8) % 7).astype(np.float32)
VECTORS = Vectors(INPUTS, INPUTS.reshape(16, 64) @ WEIGHT)
FOUND = {
    "max_abs_diff": 0.0,
    "max_scaled_diff": 0.0,
    "argmax_agreement": 1.0,
    "batch_invariance_max_abs_diff": 0.0,
    "batch_invariance_max_scaled_diff": 0.0,
}
PARITY = {
    "tolerance": 1e-5,
    "batch_tolerance": 1e-5,
    "batches": [1, 3, 8],
    "num_inputs": 16,
    "formats": {"onnx": FOUND},
}


def model_bytes(weight: np.ndarray = WEIGHT) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "matrix",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def writes(content: bytes) -> Callable[[Path], None]:
    return lambda path: files.write_bytes(path, content)


WRITERS = {"model.onnx": writes(model_bytes()), "model.pt2": writes(b"any bytes")}


def passes(folder: Path, vectors: Vectors) -> dict[str, Any]:
    return PARITY


def fails(folder: Path, vectors: Vectors) -> dict[str, Any]:
    raise GateError("onnx, batch 3: wrong")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bundle(tmp_path, draft) -> Path:
    folder = tmp_path / "exports" / "raspberry-pi-4" / draft.arch_id
    write_bundle(folder, draft, WRITERS, VECTORS, passes)
    return folder


def test_bundle_holds_exactly_its_files(bundle):
    expected = ["MODEL_CARD.md", "manifest.json", "model.onnx", "model.pt2", "run.py", "vectors.npz"]
    assert sorted(contents(bundle)) == expected
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_manifest_lists_every_other_file_with_hash_and_size(bundle):
    manifest = load_manifest(bundle)

    others = {name: content for name, content in contents(bundle).items() if name != "manifest.json"}
    assert {name: record.bytes for name, record in manifest.files.items()} == {n: len(c) for n, c in others.items()}
    assert {name: record.sha256 for name, record in manifest.files.items()} == {
        name: files.sha256(bundle / name) for name in others
    }


def test_manifest_is_the_draft_with_what_was_found(bundle, draft):
    manifest = load_manifest(bundle)

    assert manifest.parity.model_dump(mode="json") == PARITY
    assert ManifestDraft.model_validate(manifest.model_dump(by_alias=True, exclude={"parity", "files"})) == draft


def test_runner_is_the_one_of_the_package(bundle):
    assert (bundle / "run.py").read_bytes() == Path(runner.__file__).read_bytes()


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

    def looks(folder: Path, vectors: Vectors) -> dict[str, Any]:
        seen.append((contents(folder)["model.onnx"], vectors, (tmp_path / "bundle").exists()))
        return PARITY

    write_bundle(tmp_path / "bundle", draft, WRITERS, VECTORS, looks)

    assert seen == [(model_bytes(), VECTORS, False)]


def test_measurement_goes_into_its_own_field(tmp_path, draft, latency):
    measured = MeasuredLatency.model_validate(latency)

    written = write_bundle(tmp_path / "bundle", draft, WRITERS, VECTORS, passes, lambda _: measured)

    assert load_manifest(tmp_path / "bundle") == written
    assert written.latency_measured == measured
    assert written.latency_predicted == draft.latency_predicted
    assert "p50 1 ms" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_recorded_measurement_makes_the_bundle_it_would_have_been(bundle, tmp_path, draft, latency):
    measured = MeasuredLatency.model_validate(latency)
    write_bundle(tmp_path / "expected", draft, WRITERS, VECTORS, passes, lambda _: measured)

    written = record_measurement(bundle, measured)

    assert contents(bundle) == contents(tmp_path / "expected")
    assert load_manifest(bundle) == written
    assert verify_bundle(bundle)["unlisted_files"] == []


def test_recorded_measurement_replaces_an_older_one(bundle, latency):
    record_measurement(bundle, MeasuredLatency.model_validate(latency))
    newer = MeasuredLatency.model_validate({**latency, "load_ms": 11.0})

    assert record_measurement(bundle, newer).latency_measured == newer
    assert "p50 1 ms" in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_recording_keeps_what_is_not_part_of_the_bundle(bundle, latency):
    (bundle / "notes").mkdir()
    (bundle / "notes" / "mine.txt").write_text("mine")

    record_measurement(bundle, MeasuredLatency.model_validate(latency))

    assert (bundle / "notes" / "mine.txt").read_text() == "mine"
    assert verify_bundle(bundle)["unlisted_files"] == ["notes/mine.txt"]


def test_recording_does_not_make_an_altered_bundle_whole(bundle, latency):
    (bundle / "model.onnx").write_bytes(model_bytes(-WEIGHT))

    record_measurement(bundle, MeasuredLatency.model_validate(latency))

    with pytest.raises(ArtifactError, match="was altered"):
        verify_bundle(bundle)


def test_recording_works_where_a_file_cannot_have_two_names(bundle, latency, monkeypatch):
    """As on the exFAT card that a bundle is carried to a device on."""

    def refuse(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    record_measurement(bundle, MeasuredLatency.model_validate(latency))

    assert verify_bundle(bundle)["files"]["num_files"] == 5


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
    with pytest.raises(GateError, match=r"^onnx, batch 3: wrong$"):
        write_bundle(tmp_path / "exports" / "bundle", draft, WRITERS, VECTORS, fails)

    assert contents(tmp_path) == {}


def test_failed_gate_leaves_the_old_bundle(bundle, draft):
    before = contents(bundle.parent)

    with pytest.raises(GateError):
        write_bundle(bundle, draft, {"model.onnx": writes(b"new")}, VECTORS, fails)

    assert contents(bundle.parent) == before


def test_model_that_its_own_runner_refuses_never_appears(tmp_path, draft):
    """The gate was too kind; the last look is the one a user takes."""
    wrong = {"model.onnx": writes(model_bytes(WEIGHT * np.float32(1.5)))}

    with pytest.raises(GateError, match=r"^.*/bundle: outputs at batch 1: scaled difference 0\.5, .* of scale 7$"):
        write_bundle(tmp_path / "bundle", draft, wrong, VECTORS, passes)
    assert contents(tmp_path) == {}


def test_writer_that_fails_leaves_nothing(tmp_path, draft):
    def breaks(path: Path) -> None:
        path.write_bytes(b"half")
        raise OutputError("the disk is full")

    with pytest.raises(OutputError):
        write_bundle(tmp_path / "bundle", draft, {**WRITERS, "model.ts.pt": breaks}, VECTORS, passes)
    assert contents(tmp_path) == {}


def test_new_bundle_replaces_the_old_one_as_a_whole(bundle, draft):
    write_bundle(bundle, draft, {"model.onnx": WRITERS["model.onnx"]}, VECTORS, passes)

    assert "model.pt2" not in contents(bundle)
    assert verify_bundle(bundle)["unlisted_files"] == []


def test_place_that_cannot_be_written_is_an_output_error(tmp_path, draft):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="cannot write"):
        write_bundle(tmp_path / "file" / "bundle", draft, WRITERS, VECTORS, passes)


def test_bundle_without_onnx_is_refused(tmp_path, draft):
    with pytest.raises(AssertionError, match=r"every bundle has model\.onnx"):
        write_bundle(tmp_path / "bundle", draft, {"model.pt2": WRITERS["model.pt2"]}, VECTORS, passes)


def test_verified_bundle_is_reported(bundle):
    report = verify_bundle(bundle)

    assert report["arch_id"] == "a0123456789a"
    assert report["profile"] == "raspberry-pi-4"
    assert report["files"]["num_files"] == 5
    assert (report["parity"]["max_abs_diff"], report["parity"]["max_scaled_diff"]) == (0.0, 0.0)
    assert report["unlisted_files"] == []
    assert json.loads(json.dumps(report)) == report


def test_file_that_is_not_of_the_bundle_is_listed(bundle):
    (bundle / "notes.txt").write_text("mine")

    assert verify_bundle(bundle)["unlisted_files"] == ["notes.txt"]


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "model.onnx", "model.pt2", "run.py", "vectors.npz"])
def test_altered_file_is_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)

    with pytest.raises(ArtifactError, match=rf"{name} was altered"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "model.onnx", "model.pt2", "run.py", "vectors.npz", "manifest.json"])
def test_missing_file_is_named(bundle, name):
    (bundle / name).unlink()

    with pytest.raises(ArtifactError, match=name):
        verify_bundle(bundle)


def test_exchanged_vectors_fail_the_gate_although_their_hash_is_right(bundle):
    """Somebody replaced the vectors and mended the manifest."""
    changed = Vectors(VECTORS.inputs_VCSS, VECTORS.outputs_VK + np.float32(0.5)).to_bytes()
    (bundle / "vectors.npz").write_bytes(changed)
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    document["files"]["vectors.npz"] = {"sha256": files.sha256(bundle / "vectors.npz"), "bytes": len(changed)}
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")

    with pytest.raises(GateError, match=r"outputs at batch 1: scaled difference 0\.11, .* of scale 4\.5$"):
        verify_bundle(bundle)


def test_folder_that_is_no_bundle_says_so(tmp_path):
    with pytest.raises(ArtifactError, match=r"got no manifest.json, expected a bundle"):
        load_manifest(tmp_path)


def test_manifest_that_is_no_text_is_an_artifact_error(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ArtifactError, match=r"manifest.json: cannot be read"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (INPUTS[:15], VECTORS.outputs_VK[:15]),
        (INPUTS, VECTORS.outputs_VK[:15]),
        (INPUTS.astype(np.float64), VECTORS.outputs_VK),
        (INPUTS.reshape(16, 64), VECTORS.outputs_VK),
    ],
    ids=["too few", "unequal", "float64", "flat"],
)
def test_impossible_vectors_are_refused(inputs, outputs):
    with pytest.raises(AssertionError):
        Vectors(inputs, outputs)


def test_every_exit_of_the_runner_has_an_error_class():
    exits = {runner.ALTERED, runner.USAGE, runner.PARITY, runner.BATCH_INVARIANCE, runner.MISSING}

    assert set(store._ERRORS) == exits
