"""A bundle as a user meets it: real exporters, real images, the bundle's own runner, and a writer that is killed."""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits

from fedsup_deploy import rng
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredBundle, MeasuredLatency
from fedsup_deploy.artifact.model_card import render_model_card
from fedsup_deploy.artifact.signing import checked_hashes, load_signing_key, sign_bundle
from fedsup_deploy.artifact.store import (
    ModelWriter,
    Vectors,
    WrittenFiles,
    load_manifest,
    record_measurement,
    verify_bundle,
    write_bundle,
)
from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands import sign, verify
from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.device.measure import measure_onnx
from fedsup_deploy.errors import ArtifactError, FedsupError, GateError
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.export.referee import count_macs
from fedsup_deploy.ondevice import bundle_files, run
from fedsup_deploy.ondevice.timing import QUICK
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import FoldedNetwork
from fedsup_deploy.variant import MAIN, Variant

Writer = Callable[[Path], tuple[str, ...]]
EXPORTERS = {name: exporter_for(name) for name in ("onnx", "torchscript", "pt2", "ort")}
VARIANTS = {f"{name}-fp32": Variant(name, "fp32") for name in EXPORTERS}

# Rewrites a bundle from the content of another one, and stops where it is told to, to be killed there.
WRITER = """
import copy, itertools, json, sys, time
from pathlib import Path
import numpy as np
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.store import ModelWriter, Vectors, load_manifest, write_bundle
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.variant import MAIN

source, folder, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
document = load_manifest(source).model_dump(mode="json", by_alias=True, exclude={"models"})
gates = {MAIN.name: load_manifest(source).main.gate}
with np.load(source / "vectors.npz") as archive:
    vectors = Vectors(archive["inputs"], archive["outputs"])


def pause(here):
    if here == stage:
        print(here, flush=True)
        time.sleep(600)


def write_model(partial):
    content, path = (source / "model.onnx").read_bytes(), partial / "model.onnx"
    path.write_bytes(content[: len(content) // 2])
    pause("half a file")
    path.write_bytes(content)
    pause("one file")
    return (path.name,)


def gate(partial, written, vectors):
    pause("gate")
    return gates


for kernel_size in itertools.cycle([5, 7]):
    arch = copy.deepcopy(document["arch"])
    arch["stages"][0][0]["kernel_size"] = kernel_size
    new = {"arch": arch, "arch_id": Architecture.from_dict(arch).arch_id}
    draft = ManifestDraft.model_validate_json(json.dumps({**document, **new}))
    write_bundle(folder, draft, [ModelWriter(MAIN, write_model, None, None)], vectors, gate)
    print("written", flush=True)
"""


def digit_net(seed: int, *, width: int = 16) -> FoldedNetwork:
    """A small network. Untrained: its logits are as good as any to compare."""
    document = {
        "schema": 1,
        "name": "digit-net",
        "family": "mobilenet",
        "in_channels": 1,
        "num_classes": 10,
        "resolutions": [8],
        "stem": {"widths": [8]},
        "stages": [{"name": "s1", "widths": [width], "depths": [1], "stride": 2}],
    }
    space = SearchSpace.model_validate(document)
    plan = space.plan(space.largest)
    weights = random_weights(parts_of(plan), seed)
    return FoldedNetwork(plan, {name: torch.from_numpy(array) for name, array in weights.items()})


def digit_vectors(net: FoldedNetwork) -> Vectors:
    images = (load_digits().images[:24, np.newaxis] / 16).astype(np.float32)
    return Vectors(images, net.module()(torch.from_numpy(images)).numpy())


def digit_draft() -> ManifestDraft:
    """What is said of the network; fvcore counts what it costs."""
    path = Path(__file__).parents[1] / "unit" / "artifact" / "draft.json"
    document, net = json.loads(path.read_text(encoding="utf-8")), digit_net(0)
    document["arch"]["stem_width"] = 8
    document["arch_id"] = Architecture.from_dict(document["arch"]).arch_id
    document["classes"] = [f"digit {k}" for k in range(10)]
    document["outputs"][0]["shape"] = ["batch", 10]
    document["costs"]["num_macs"] = count_macs(net)
    document["costs"]["num_params"] = sum(parameter.numel() for parameter in net.module().parameters())
    return ManifestDraft.model_validate_json(json.dumps(document))


def gate(folder: Path, written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate]:
    models = {name: EXPORTERS[VARIANTS[name].format].load(folder / names[0]) for name, names in written.items()}
    return check_parity(vectors.outputs_VK, models, vectors.inputs_VCSS)


def exporting(name: str, seed: int) -> Writer:
    net = digit_net(seed)
    return functools.partial(EXPORTERS[name].export, net, {})


def copying(*sources: Path) -> Writer:
    def write(folder: Path) -> tuple[str, ...]:
        for source in sources:
            (folder / source.name).write_bytes(source.read_bytes())
        return tuple(source.name for source in sources)

    return write


def write_digit_bundle(folder: Path, writers: dict[str, Writer]) -> None:
    """Write a bundle with one writer for each format; they are gated against the network of seed 0."""
    named = [ModelWriter(Variant(name, "fp32"), writer, 0.9, None) for name, writer in writers.items()]
    write_bundle(folder, digit_draft(), named, digit_vectors(digit_net(0)), gate)


def write_again(bundle: Path, folder: Path, changed: dict[str, Writer] | None = None) -> None:
    """Write a bundle whose model files are copies, but for those that are changed."""
    records = load_manifest(bundle).models.values()
    copies = {record.format: copying(*(bundle / name for name in record.files)) for record in records}
    write_digit_bundle(folder, {**copies, **(changed or {})})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "raspberry-pi-4" / digit_draft().arch_id
    write_digit_bundle(folder, {name: exporting(name, 0) for name in EXPORTERS})
    return folder


def test_every_variant_is_in_the_bundle_and_has_passed_its_gate(bundle):
    manifest = load_manifest(bundle)

    assert {name: record.variant for name, record in manifest.models.items()} == VARIANTS
    assert [list(record.files) for record in manifest.models.values()] == [
        ["model.onnx"],
        ["model.ts.pt"],
        ["model.pt2"],
        ["model.ort"],
    ]
    assert {record.gate.num_inputs for record in manifest.models.values()} == {24}
    assert verify_bundle(bundle).not_executed == ("model.ort", "model.pt2", "model.ts.pt")


def test_runner_in_the_bundle_passes(bundle):
    result = subprocess.run(
        [sys.executable, "run.py", "--json", "--skip-latency"], cwd=bundle, capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")
    parity = json.loads(result.stdout)["parity"]
    assert parity["num_inputs"] == 24
    recorded = load_manifest(bundle).main.gate
    assert parity["max_scaled_diff"] == recorded.max_scaled_diff <= 1e-5


def test_runner_in_the_bundle_is_interrupted_without_a_traceback(bundle, children, eventually):
    """While it times the model, for which it has loaded the runtime."""
    words = [sys.executable, "run.py", "--protocol", "full", "--seconds", "60"]
    runner = children.start(words, cwd=bundle, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    maps = Path("/proc") / str(runner.pid) / "maps"
    assert eventually(lambda: "onnxruntime" in maps.read_text(encoding="utf-8"))
    time.sleep(1)
    runner.send_signal(signal.SIGINT)
    assert runner.communicate() == ("", "")
    assert runner.returncode == 130


def test_code_in_the_model_card_runs_and_names_the_classes(bundle):
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)

    result = subprocess.run([sys.executable, "-c", code], cwd=bundle, capture_output=True, text=True, check=True)

    labels = digit_vectors(digit_net(0)).outputs_VK.argmax(axis=1)
    assert result.stdout.strip() == str([f"digit {label}" for label in labels])


def test_no_file_tells_where_it_was_made(bundle):
    places = [Path(sys.prefix), Path(torch.__file__).parents[1], Path(__file__).parents[2], bundle, Path.home()]
    traces = [str(place).encode() for place in places] + [tempfile.gettempdir().encode() + b"/"]

    found = [(path.name, trace) for path in bundle.iterdir() for trace in traces if trace in path.read_bytes()]
    assert found == []


def test_bundle_is_byte_identical_when_written_again(bundle, tmp_path):
    write_digit_bundle(tmp_path / "elsewhere", {name: exporting(name, 0) for name in EXPORTERS})

    again = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    assert again == {path.name: path.read_bytes() for path in bundle.iterdir()}


def test_measurement_on_this_machine_fits_into_the_manifest(bundle, tmp_path):
    def measure(folder: Path) -> dict[str, MeasuredLatency]:
        found = {**measure_onnx(folder / "model.onnx")}
        assert found.pop("int8") is None
        return {MAIN.name: MeasuredLatency.model_validate(found)}

    vectors = digit_vectors(digit_net(0))
    writers = [ModelWriter(MAIN, copying(bundle / "model.onnx"), 0.9, None)]
    write_bundle(tmp_path / "bundle", digit_draft(), writers, vectors, gate, measure)

    latency = load_manifest(tmp_path / "bundle").main.latency.measured
    assert latency is not None
    assert 0 < latency.statistics.min_ms <= latency.statistics.p50_ms
    assert latency.environment["threads"] == 1


@pytest.mark.parametrize("wrong", EXPORTERS)
def test_format_of_another_network_fails_the_gate_and_leaves_nothing(wrong, bundle, tmp_path):
    with pytest.raises(GateError, match=rf"^{wrong}-fp32, batch 1: .* expected <= 1e-05") as caught:
        write_again(bundle, tmp_path / "bundle", {wrong: exporting(wrong, 1)})

    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def start_writer(children):
    def start(source: Path, folder: Path, stage: str) -> "subprocess.Popen[str]":
        """Return a process that rewrites a bundle and says so when it is at the stage."""
        command = [sys.executable, "-c", WRITER, source, folder, stage]
        writer = children.start(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        assert writer.stdout.readline().strip() == stage
        return writer

    return start


def kill(writer: "subprocess.Popen[str]") -> None:
    writer.kill()
    writer.communicate()


@pytest.mark.parametrize("has_old", [False, True])
@pytest.mark.parametrize("stage", ["half a file", "one file", "gate"])
def test_killed_writer_leaves_the_old_bundle_or_none(bundle, start_writer, tmp_path, stage, has_old):
    folder = tmp_path / "bundle"
    if has_old:
        shutil.copytree(bundle, folder)

    kill(start_writer(bundle, folder, stage))

    assert folder.exists() == has_old
    if has_old:
        assert verify_bundle(folder).arch_id == bundle.name


def test_writer_killed_at_any_moment_leaves_a_whole_bundle(bundle, start_writer, tmp_path):
    folder = tmp_path / "bundle"
    moments_s = rng.generator(0, "kill").uniform(0.0, 0.15, size=5)
    for moment_s in moments_s:
        writer = start_writer(bundle, folder, "written")
        time.sleep(moment_s)
        kill(writer)

        assert verify_bundle(folder).arch_id != bundle.name


def test_next_writer_removes_what_a_killed_one_left(bundle, start_writer, tmp_path):
    folder = tmp_path / "bundle"
    kill(start_writer(bundle, folder, "gate"))
    left = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert left == [".bundle.fedsup", ".bundle.partial"], "its lock, which nobody holds, and what it was writing"

    write_again(bundle, folder)

    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# Altered bundles: what `verify` and the bundle's own runner say.


def verdicts(folder: Path) -> tuple[str, str]:
    """Return why `verify` and the runner refuse a bundle; an empty text where they do not."""
    try:
        verify_bundle(folder)
        verified = ""
    except FedsupError as error:
        verified = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = run.main([str(folder), "--skip-latency", "--json"])
    report = json.loads(output.getvalue())
    assert (code == 0) == (report["reason"] is None)
    return verified, report["reason"] or ""


def measured_bundle(bundle: Path, folder: Path) -> Path:
    """Copy a bundle and add a measurement to it, which is made up."""
    shutil.copytree(bundle, folder)
    statistics = dict.fromkeys(("min_ms", "p10_ms", "p50_ms", "p90_ms", "mean_ms"), 1.0)
    stability = {"statistic": "p10", "disagreement": 0.01, "stable_within": 0.05, "verdict": "stable"}
    times = {"load_ms": 1.0, "first_run_ms": 1.0, "peak_rss_mib": None, "protocol": {}, "environment": {"cpu": "any"}}
    latency = {"statistics": {"num_runs": 200, **statistics}, "stability": stability, **times}
    record_measurement(folder, MeasuredBundle.model_validate(latency))
    return folder


def test_every_flipped_bit_is_found_by_both(bundle, tmp_path):
    """500 bits of all files, each of which gets its share however small it is; both checkers say the same."""
    folder = measured_bundle(bundle, tmp_path / "bundle")
    contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    generator, missed = rng.generator(0, "flips"), []
    for number in range(500):
        path = list(contents)[number % len(contents)]
        position, bit = int(generator.integers(len(contents[path]))), int(generator.integers(8))
        altered = bytearray(contents[path])
        altered[position] ^= 1 << bit
        path.write_bytes(altered)
        verified, ran = verdicts(folder)
        if not verified or verified != ran:
            missed.append((path.name, position, bit, verified, ran))
        path.write_bytes(contents[path])
    assert missed == []
    assert verdicts(folder) == ("", "")


Change = Callable[[Path], None]


def edited(name: str, edit: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes())) and None


def linked(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def lines(edit: Callable[[list[bytes]], list[bytes]]) -> Change:
    return edited("SHA256SUMS", lambda text: b"".join(edit(text.splitlines(keepends=True))))


def huge(name: str) -> Change:
    return lambda folder: os.truncate(folder / name, 2**40)


def pipe(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


IRREGULAR = "is no regular file"
SPELLING = "SHA256SUMS was altered: its lines are not those of sha256sum, sorted by name"


def malformed(number: int) -> str:
    return f"SHA256SUMS was altered: line {number} is no hash, two spaces and a name; copy the bundle again"


ALTERATIONS: dict[str, tuple[Change, str]] = {
    "pipe": (pipe("pipe"), f"pipe {IRREGULAR}"),
    "manifest that is a pipe": (pipe("manifest.json"), "manifest.json was altered: it is no regular file"),
    "hashes that are a pipe": (pipe("SHA256SUMS"), "SHA256SUMS was altered: it is no regular file"),
    "measurement that is a pipe": (pipe("measured.json"), f"measured.json {IRREGULAR}"),
    "litter that is a pipe": (pipe(".DS_Store"), f".DS_Store {IRREGULAR}"),
    "link that leads nowhere": (linked("lost", "nowhere"), f"lost {IRREGULAR}"),
    "link to a folder": (linked("numpy", ".."), f"numpy {IRREGULAR}"),
    "link to a file outside": (linked("MODEL_CARD.md", "/etc/hostname"), f"MODEL_CARD.md {IRREGULAR}"),
    "link to its own content": (linked("run.py", "run.py.real"), f"run.py {IRREGULAR}"),
    "manifest that never ends": (linked("manifest.json", "/dev/zero"), "manifest.json was altered: it is no"),
    "empty folder": (lambda folder: (folder / "empty").mkdir(), "empty/ is no folder of the bundle; remove it"),
    "cache of bytecode": (lambda folder: (folder / "__pycache__").mkdir(), "__pycache__/ is no folder of the bundle"),
    "manifest of a tebibyte": (huge("manifest.json"), "manifest.json was altered: "),
    "hashes of a tebibyte": (huge("SHA256SUMS"), "SHA256SUMS was altered: "),
    "measurement of a tebibyte": (huge("measured.json"), "measured.json was altered: "),
    "stranger of a tebibyte": (
        lambda folder: (folder / "stranger").touch() or os.truncate(folder / "stranger", 2**40),
        "stranger is no file of the bundle; remove it",
    ),
    "stranger that speaks to terminals": (
        lambda folder: (folder / "\x1b]0;x\x07").touch(),
        "\\x1b]0;x\\x07 is no file of the bundle",
    ),
    "hidden stranger": (lambda folder: (folder / ".hidden").touch(), ".hidden is no file of the bundle"),
    "format without its file": (lambda folder: (folder / "model.pt2").unlink(), "model.pt2 is missing"),
    "no hashes": (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing; export the bundle again"),
    "empty hashes": (
        edited("SHA256SUMS", lambda _: b""),
        "SHA256SUMS was altered: it does not list manifest.json; copy the bundle again",
    ),
    "hashes that are no text": (edited("SHA256SUMS", lambda _: b"\xff\xfe"), malformed(1)),
    "hashes cut in half": (edited("SHA256SUMS", lambda text: text[: text.index(b"  mode") + 6]), malformed(4)),
    "hashes in capitals": (edited("SHA256SUMS", bytes.upper), malformed(1)),
    "hash in capitals": (lines(lambda each: [each[0], each[1][:64].upper() + each[1][64:], *each[2:]]), malformed(2)),
    "hashes in another order": (lines(lambda each: each[::-1]), SPELLING),
    "hash twice": (lines(lambda each: [each[0], *each]), SPELLING),
    "mode of binary files": (edited("SHA256SUMS", lambda text: text.replace(b"  ", b" *")), malformed(1)),
    "line ends of Windows": (edited("SHA256SUMS", lambda text: text.replace(b"\n", b"\r\n")), malformed(1)),
    "no last line end": (edited("SHA256SUMS", lambda text: text[:-1]), "is no hash, two spaces and a name"),
    "another empty line": (edited("SHA256SUMS", lambda text: text + b"\n"), "is no hash, two spaces and a name"),
    "manifest spelt otherwise": (edited("manifest.json", lambda text: text + b"\n"), "manifest.json was altered"),
    "measurement spelt otherwise": (edited("measured.json", lambda text: text + b"\n"), "measured.json was altered"),
    "measurement without its end": (edited("measured.json", lambda text: text[:40]), "measured.json was altered"),
    "measurement without hash": (edited("measured.json", lambda _: b"{}"), "measured.json was altered"),
    "empty measurement": (edited("measured.json", lambda _: b""), "measured.json was altered"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_bundle_is_refused_by_both_in_the_same_words(bundle, tmp_path, name):
    change, reason = ALTERATIONS[name]
    folder = measured_bundle(bundle, tmp_path / "bundle")
    change(folder)

    verified, ran = verdicts(folder)

    assert verified == ran
    assert reason in verified


def manifest_with(*path: Any, value: Any) -> Change:
    """Replace a value of the manifest."""

    def change(folder: Path) -> None:
        document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (folder / "manifest.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    return change


def drop_format(folder: Path) -> None:
    (folder / "model.pt2").unlink()


def drop_format_from_the_list(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del document["models"]["pt2-fp32"]
    (folder / "manifest.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def another_network(folder: Path) -> None:
    """Model and vectors of a network with other layers."""
    net = digit_net(0, width=8)
    EXPORTERS["onnx"].export(net, {}, folder)
    (folder / "vectors.npz").write_bytes(digit_vectors(net).to_bytes())
    manifest_with("models", MAIN.name, "files", "model.onnx", value=(folder / "model.onnx").stat().st_size)(folder)


def endless(folder: Path) -> None:
    """Repeat what the model computes, again and again."""
    model = onnx.load(folder / "model.onnx")
    (output,) = model.graph.output
    (last,) = [node for node in model.graph.node if output.name in node.output]
    last.output[0] = "once"
    value = onnx.helper.make_tensor_value_info
    before = [value("number", onnx.TensorProto.INT64, []), value("go_on", onnx.TensorProto.BOOL, [])]
    before.append(value("state", onnx.TensorProto.FLOAT, ["batch", 10]))
    after = [value("still", onnx.TensorProto.BOOL, []), value("same", onnx.TensorProto.FLOAT, ["batch", 10])]
    inner = [onnx.helper.make_node("Identity", *names) for names in ((["go_on"], ["still"]), (["state"], ["same"]))]
    body = onnx.helper.make_graph(inner, "body", before, after)
    constants = {"times": np.array(2**62), "true": np.array(True)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    model.graph.node.append(onnx.helper.make_node("Loop", ["times", "true", "once"], [output.name], body=body))
    onnx.save(model, folder / "model.onnx")
    manifest_with("models", MAIN.name, "files", "model.onnx", value=(folder / "model.onnx").stat().st_size)(folder)


def other_arch(key: str, value: int) -> Change:
    """Replace a value of the architecture, and its arch_id with it."""

    def change(folder: Path) -> None:
        arch = {**load_manifest(folder).arch, key: value}
        manifest_with("arch", value=arch)(folder)
        manifest_with("arch_id", value=Architecture.from_dict(arch).arch_id)(folder)

    return change


#: What is refused although all hashes are right, because it does not follow from the rest.
FORGERIES: dict[str, tuple[Change, str]] = {
    "arch_id": (manifest_with("arch_id", value="a00000000000"), "arch_id: got a00000000000, expected a"),
    "arch": (manifest_with("arch", "stages", 0, 0, "width", value=16), "arch_id: got a"),
    "stem": (other_arch("stem_width", 16), "the stem's width in arch: got 16, expected 8 as in model.onnx"),
    "resolution": (other_arch("resolution", 16), "preprocessing.size: got 8, expected 16 as of arch"),
    "MACs": (manifest_with("costs", "num_macs", value=1), "costs.num_macs: got 1, expected"),
    "parameters": (manifest_with("costs", "num_params", value=1), "costs.num_params: got 1, expected"),
    "bytes": (
        manifest_with("models", "torchscript-fp32", "files", "model.ts.pt", value=1),
        "models: got 1 bytes for model.ts.pt, expected",
    ),
    "input's name": (manifest_with("inputs", 0, "name", value="x"), "inputs: got {'x': "),
    "input's size": (manifest_with("inputs", 0, "shape", value=["batch", 1, 9, 9]), "inputs: got "),
    "outputs": (manifest_with("outputs", 0, "shape", value=["batch", 9]), "outputs: got 9 logits"),
    "a class less": (manifest_with("classes", value=["digit"] * 9), "outputs: got 10 logits"),
    "padding": (manifest_with("preprocessing", "padding", "top", value=0), "preprocessing: padding is"),
    "native size": (manifest_with("preprocessing", "native_size", value=8), "preprocessing: padding is"),
    "tolerance": (manifest_with("models", MAIN.name, "gate", "tolerance", value=1e9), "got a tolerance of 1e+09"),
    "batches": (manifest_with("models", MAIN.name, "gate", "batches", value=[1]), "got the batches [1]"),
    "profile's hash": (manifest_with("profile", "hash", value="0" * 64), "lineage.profile: differs"),
    "a fact that the card tells otherwise": (
        manifest_with("accuracy", "dataset", value="another"),
        "MODEL_CARD.md: got another text",
    ),
    "an accuracy without its interval": (
        manifest_with("accuracy", "recalibrated", value=0.99),
        "accuracy: got 0.99, which is no share of 450 images; copy or export the bundle again",
    ),
    "schema": (manifest_with("schema", value=1), "schema: got 1, expected 3; export the bundle again"),
    "card": (edited("MODEL_CARD.md", lambda text: text.replace(b"90.00%", b"99.00%")), "MODEL_CARD.md: got another"),
    "run.py": (edited("run.py", lambda text: text + b"\n"), "run.py: got another text, expected that of fedsup-deploy"),
    "no model.onnx": (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
    "model that is none": (edited("model.onnx", lambda _: b"no model"), "model.onnx: got no graph that can be counted"),
    "another network": (another_network, "costs.num_macs: got "),
    "a network without an end": (endless, "model.onnx: got no graph that can be counted (it has functions or control"),
    "a format less": (
        drop_format,
        "models: got model.onnx, model.ort, model.pt2, model.ts.pt, expected model.onnx, model.ort, model.ts.pt",
    ),
    "a format that is not listed": (
        drop_format_from_the_list,
        "models: got model.onnx, model.ort, model.ts.pt, expected model.onnx, model.ort, model.pt2, model.ts.pt",
    ),
    "a file more": (lambda folder: (folder / "numpy.py").touch(), "models: got model.onnx, "),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_bundle_that_contradicts_itself_is_refused_though_its_hashes_are_right(bundle, tmp_path, name):
    change, reason = FORGERIES[name]
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    change(folder)
    names = {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    (folder / "SHA256SUMS").write_text("".join(bundle_files.sha256sums(folder, names)))

    with pytest.raises(ArtifactError) as caught:
        verify_bundle(folder)

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("on-the-device", ""),
        ("a-model", ""),
        ("elsewhere/{arch_id}", ""),
        ("raspberry-pi-4/{arch_id}", ""),
        ("jetson-nano/current", ""),
        ("jetson-nano/{arch_id}", "profile.name: got raspberry-pi-4, expected jetson-nano as the folder's above"),
        ("raspberry-pi-4/a00000000000", "expected a00000000000 as the folder's name"),
    ],
)
def test_bundle_may_have_any_name_but_that_of_another(bundle, tmp_path, monkeypatch, place, reason):
    folder = tmp_path / place.format(arch_id=bundle.name)
    shutil.copytree(bundle, folder)
    monkeypatch.chdir(folder)

    for given in (folder, Path()):
        verified, ran = verdicts(given)
        assert ran == ""
        assert reason in verified
        assert bool(verified) == bool(reason)


def test_bundle_of_another_version_is_verified_without_what_only_that_one_could_write(bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    manifest_with("versions", "fedsup-deploy", value="0.0.1")(folder)
    (folder / "MODEL_CARD.md").write_text("An older card.")
    (folder / "SHA256SUMS").write_text(
        "".join(bundle_files.sha256sums(folder, {path.name for path in folder.iterdir()} - {"SHA256SUMS"}))
    )

    assert verify_bundle(folder).not_compared == ("MODEL_CARD.md", "run.py", "install.py")


def test_no_format_but_onnx_is_loaded_by_verify(bundle, tmp_path):
    """Both would be able to run code: what is no archive at all is as good to it as any, once the hashes are right."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    for name, path in (("torchscript-fp32", "model.ts.pt"), ("pt2-fp32", "model.pt2")):
        (folder / path).write_bytes(b"none")
        manifest_with("models", name, "files", path, value=4)(folder)
    (folder / "MODEL_CARD.md").write_text(render_model_card(load_manifest(folder)))
    (folder / "SHA256SUMS").write_text(
        "".join(bundle_files.sha256sums(folder, {path.name for path in folder.iterdir()} - {"SHA256SUMS"}))
    )

    assert verify_bundle(folder).not_executed == ("model.ort", "model.pt2", "model.ts.pt")


# Signed bundles.


def run_command(*words: object) -> tuple[int, dict[str, Any]]:
    """Return exit code and document of a command, run inside this process."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()):
        code = main([*map(str, words), "--json", "--quiet"])
    return code, json.loads(output.getvalue())


@pytest.fixture
def keys(tmp_path) -> Path:
    """A folder with key.pem and key.pub, and those of somebody else: other.pem, other.pub."""
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec", reason="cryptography (the extra sign)")
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("key", "other"):
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (folder / f"{name}.pem").write_bytes(pem)
        (folder / f"{name}.pem").chmod(0o600)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
    return folder


def with_hashes(folder: Path) -> None:
    names = bundle_files.list_files(folder).keys() - bundle_files.BESIDE_SUMS
    (folder / "SHA256SUMS").write_text("".join(bundle_files.sha256sums(folder, names)))


def test_what_its_owner_signed_is_run_in_every_format_and_stays_so_when_it_is_measured(bundle, tmp_path, keys):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, signed = run_command("sign", folder, "--key", keys / "key.pem", "--version", 3)
    assert (code, signed["version"], signed["is_key_readable_by_others"]) == (0, 3, False)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "model.sig"} == before

    code, unlocked = run_command("verify", folder)
    assert (code, unlocked["is_signed"], unlocked["signature"]) == (0, True, None)
    assert [(each["file"], each["ran_by"]) for each in unlocked["executed"]] == [("model.ort", "onnxruntime")]
    assert unlocked["not_executed"] == ["model.pt2", "model.ts.pt"]

    for _ in range(2):
        code, verified = run_command("verify", folder, "--key", keys / "key.pub")
        assert (code, verified["not_executed"]) == (0, [])
        assert verified["signature"] == {"key_sha256": signed["key_sha256"], "version": 3}
        assert {each["file"] for each in verified["executed"]} == {"model.ort", "model.pt2", "model.ts.pt"}
        assert all(each["num_inputs"] == 24 and each["max_scaled_diff"] <= 1e-5 for each in verified["executed"])
        result = measure_onnx(folder / "model.onnx", threads=1, protocol=QUICK._replace(min_seconds=0.1))
        record_measurement(folder, MeasuredBundle.model_validate({**result, "int8": None, "pictures": None}))


def test_inspect_says_who_signed_a_bundle_and_whether_anybody_has_checked(bundle, tmp_path, keys):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    assert run_command("inspect", folder)[1]["signature"] is None
    code, refused = run_command("inspect", folder, "--key", keys / "key.pub")
    assert (code, "it is not signed: model.sig is missing" in refused["error"]["message"]) == (4, True)

    _, signed = run_command("sign", folder, "--key", keys / "key.pem", "--version", 3)
    said = {"version": 3, "key_sha256": signed["key_sha256"]}
    for path in (folder, folder / "manifest.json"):
        assert run_command("inspect", path)[1]["signature"] == {**said, "verdict": "not checked"}
        assert run_command("inspect", path, "--key", keys / "key.pub")[1]["signature"] == {**said, "verdict": "valid"}
    code, refused = run_command("inspect", folder, "--key", keys / "other.pub")
    assert (code, "model.sig is not by this key" in refused["error"]["message"]) == (4, True)

    card = (folder / "MODEL_CARD.md").read_bytes()
    (folder / "MODEL_CARD.md").write_bytes(card + b"x")
    assert run_command("inspect", folder)[0] == 0, "what it says of itself"
    assert run_command("inspect", folder, "--key", keys / "key.pub")[0] == 4
    (folder / "MODEL_CARD.md").write_bytes(card)
    (folder / "model.sig").write_bytes(b"{}")
    code, refused = run_command("inspect", folder)
    assert (code, "model.sig is no signature of a bundle" in refused["error"]["message"]) == (4, True)
    assert run_command("inspect", folder / "model.onnx", "--key", keys / "key.pub")[0] == 2


def test_files_that_need_a_signature_are_not_opened_before_the_key_has_proved_who_made_them(bundle, tmp_path, keys):
    """With what is no archive at all: whoever opens it says so."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    (folder / "model.pt2").write_bytes(b"none")
    manifest_with("models", "pt2-fp32", "files", "model.pt2", value=4)(folder)
    (folder / "MODEL_CARD.md").write_text(render_model_card(load_manifest(folder)))
    with_hashes(folder)
    assert run_command("sign", folder, "--key", keys / "other.pem", "--version", 3)[0] == 0

    code, refused = run_command("verify", folder, "--key", keys / "key.pub")
    assert (code, "is not by this key" in refused["error"]["message"]) == (4, True)
    code, refused = run_command("verify", folder, "--key", keys / "other.pub")
    assert (code, "model.pt2: not loadable" in refused["error"]["message"]) == (4, True)


def test_a_format_that_computes_something_else_is_found_though_its_owner_signed_it(bundle, tmp_path, keys):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    EXPORTERS["torchscript"].export(digit_net(1), {}, folder)
    manifest_with("models", "torchscript-fp32", "files", "model.ts.pt", value=(folder / "model.ts.pt").stat().st_size)(
        folder
    )
    (folder / "MODEL_CARD.md").write_text(render_model_card(load_manifest(folder)))
    with_hashes(folder)
    assert run_command("verify", folder)[0] == 0
    assert run_command("sign", folder, "--key", keys / "key.pem", "--version", 3)[0] == 0

    code, refused = run_command("verify", folder, "--key", keys / "key.pub")
    assert (code, refused["error"]["message"].startswith("model.ts.pt, batch 1: ")) == (6, True)


@pytest.fixture
def exchanged_once_verified(monkeypatch):
    """Have somebody put another model into a bundle, and its hash into SHA256SUMS, while a command looks at it."""

    def watched(verify_bundle, folder):
        verified = verify_bundle(folder)
        (folder / "model.ts.pt").write_bytes(b"x" * (folder / "model.ts.pt").stat().st_size)
        with_hashes(folder)
        return verified

    for command in (verify, sign):
        monkeypatch.setattr(command, "verify_bundle", functools.partial(watched, command.verify_bundle))


@pytest.mark.usefixtures("exchanged_once_verified")
def test_what_the_key_has_not_signed_is_not_run_whenever_it_came(bundle, tmp_path, keys):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    signing_key = load_signing_key(keys / "key.pem", lambda: None)
    sign_bundle(folder, signing_key, "a123", 3, checked_hashes(folder))
    code, refused = run_command("verify", folder, "--key", keys / "key.pub")
    assert (code, "model.ts.pt was altered while it was looked at" in refused["error"]["message"]) == (4, True)


@pytest.mark.usefixtures("exchanged_once_verified")
def test_what_was_not_verified_is_not_signed(bundle, tmp_path, keys):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    code, refused = run_command("sign", folder, "--key", keys / "key.pem", "--version", 3)
    assert (code, "altered while it was verified; nothing is signed" in refused["error"]["message"]) == (4, True)
    assert not (folder / "model.sig").exists()


def test_what_is_wrong_with_a_bundle_or_key_is_said_before_anything_is_signed(bundle, tmp_path, keys, monkeypatch):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    words = ("sign", folder, "--version", 3, "--key")
    assert run_command(*words, keys / "key.pub")[0] == 2
    assert run_command("sign", folder, "--key", keys / "key.pem", "--version", 0)[0] == 2
    (folder / "vectors.npz").write_bytes(b"x")
    assert run_command(*words, keys / "key.pem")[0] == 4
    assert run_command("verify", folder, "--key", keys / "key.pem")[0] == 2
    assert not (folder / "model.sig").exists()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    code, refused = run_command("verify", folder, "--key", keys / "key.pub")
    assert (code, "run: pip install 'fedsup-deploy[sign]'" in refused["error"]["message"]) == (9, True)


def test_a_signed_bundle_is_replaced_by_the_next_export(bundle, tmp_path, keys):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    assert run_command("sign", folder, "--key", keys / "key.pem", "--version", 3)[0] == 0
    write_again(bundle, folder)
    assert not (folder / "model.sig").exists()
