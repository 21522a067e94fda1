"""A bundle as a user meets it: real exporters, real images, the bundle's own runner, and a writer that is killed."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from fedsup_deploy import registry, rng
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.store import Vectors, Writer, load_manifest, verify_bundle, write_bundle
from fedsup_deploy.device.measure import measure_onnx
from fedsup_deploy.errors import GateError
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.parity import check_parity

EXPORTERS = {name: exporter_for(name) for name in registry.names("exporter")}

# Rewrites a bundle from the content of another one, and stops where it is told to, to be killed there.
WRITER = """
import itertools, json, sys, time
from pathlib import Path
import numpy as np
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.store import Vectors, load_manifest, write_bundle

source, folder, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
document = load_manifest(source).model_dump(mode="json", by_alias=True, exclude={"files", "parity"})
parity = load_manifest(source).parity.model_dump(mode="json")
with np.load(source / "vectors.npz") as archive:
    vectors = Vectors(archive["inputs"], archive["outputs"])


def pause(here):
    if here == stage:
        print(here, flush=True)
        time.sleep(60)


def write_model(path):
    content = (source / "model.onnx").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    pause("half a file")
    path.write_bytes(content)
    pause("one file")


def gate(partial, vectors):
    pause("gate")
    return parity


for arch_id in itertools.cycle(["new-1", "new-2"]):
    draft = ManifestDraft.model_validate_json(json.dumps({**document, "arch_id": arch_id}))
    write_bundle(folder, draft, {"model.onnx": write_model}, vectors, gate)
    print("written", flush=True)
"""


def digit_net(seed: int) -> nn.Module:
    """A small network with what folded subnets have. Untrained: its logits are as good as any to compare."""
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    features = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), depthwise, nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 1)]
    net = nn.Sequential(*features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()
    generator = rng.torch_generator(seed, "digit net")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
    return net


def digit_vectors(net: nn.Module) -> Vectors:
    images = (load_digits().images[:24, np.newaxis] / 16).astype(np.float32)
    with torch.no_grad():
        return Vectors(images, net(torch.from_numpy(images)).numpy())


def digit_draft() -> ManifestDraft:
    path = Path(__file__).parents[1] / "unit" / "artifact" / "draft.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["classes"] = [f"digit {k}" for k in range(10)]
    document["outputs"][0]["shape"] = ["batch", 10]
    return ManifestDraft.model_validate_json(json.dumps(document))


def gate(folder: Path, vectors: Vectors) -> dict[str, Any]:
    candidates = {name: exporter.load(folder / exporter.filename) for name, exporter in EXPORTERS.items()}
    return check_parity(vectors.outputs_VK, candidates, vectors.inputs_VCSS).to_dict()


def exporting(name: str, seed: int) -> Writer:
    net = digit_net(seed)
    return functools.partial(EXPORTERS[name].export, net, torch.zeros(1, 1, 8, 8))


def copying(source: Path) -> Writer:
    return lambda path: path.write_bytes(source.read_bytes())


def write_digit_bundle(folder: Path, writers: dict[str, Writer]) -> None:
    """Write a bundle with one writer for each format; they are gated against the network of seed 0."""
    named = {EXPORTERS[name].filename: writer for name, writer in writers.items()}
    write_bundle(folder, digit_draft(), named, digit_vectors(digit_net(0)), gate)


def write_again(bundle: Path, folder: Path, changed: dict[str, Writer] | None = None) -> None:
    """Write a bundle whose model files are copies, but for those that are changed."""
    copies = {name: copying(bundle / exporter.filename) for name, exporter in EXPORTERS.items()}
    write_digit_bundle(folder, {**copies, **(changed or {})})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "raspberry-pi-4" / "a0123456789a"
    write_digit_bundle(folder, {name: exporting(name, 0) for name in EXPORTERS})
    return folder


def test_every_format_is_in_the_bundle_and_in_the_parity_record(bundle):
    manifest = load_manifest(bundle)

    assert list(manifest.parity.formats) == list(EXPORTERS)
    assert {exporter.filename for exporter in EXPORTERS.values()} < set(manifest.files)
    assert verify_bundle(bundle)["unlisted_files"] == []


def test_runner_in_the_bundle_passes(bundle):
    result = subprocess.run(
        [sys.executable, "run.py", "--json", "--skip-latency"], cwd=bundle, capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")
    parity = json.loads(result.stdout)["parity"]
    assert parity["num_inputs"] == 24
    recorded = load_manifest(bundle).parity.formats["onnx"]
    assert parity["max_scaled_diff"] == recorded.max_scaled_diff <= 1e-5


def test_code_in_the_model_card_runs_and_names_the_classes(bundle):
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)

    result = subprocess.run([sys.executable, "-c", code], cwd=bundle, capture_output=True, text=True, check=True)

    labels = digit_vectors(digit_net(0)).outputs_VK.argmax(axis=1)
    assert result.stdout.strip() == str([f"digit {label}" for label in labels])


def test_no_file_tells_where_it_was_made(bundle):
    places = [Path(sys.prefix), Path(torch.__file__).parents[1], Path(__file__).parents[2], bundle, Path.home() / "x"]
    traces = [str(place).encode().removesuffix(b"x") for place in places] + [tempfile.gettempdir().encode() + b"/"]

    found = [(path.name, trace) for path in bundle.iterdir() for trace in traces if trace in path.read_bytes()]
    assert found == []


def test_bundle_is_byte_identical_when_written_again(bundle, tmp_path):
    write_digit_bundle(tmp_path / "elsewhere", {name: exporting(name, 0) for name in EXPORTERS})

    again = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    assert again == {path.name: path.read_bytes() for path in bundle.iterdir()}


def test_measurement_on_this_machine_fits_into_the_manifest(bundle, tmp_path):
    def measure(model: Path) -> MeasuredLatency:
        return MeasuredLatency.model_validate(measure_onnx(model))

    vectors = digit_vectors(digit_net(0))
    writers = {"model.onnx": copying(bundle / "model.onnx")}
    record = load_manifest(bundle).parity.model_dump(mode="json")
    write_bundle(tmp_path / "bundle", digit_draft(), writers, vectors, lambda *_: record, measure)

    latency = load_manifest(tmp_path / "bundle").latency_measured
    assert latency is not None
    assert 0 < latency.statistics.min_ms <= latency.statistics.p50_ms
    assert latency.environment["threads"] == 1


@pytest.mark.parametrize("wrong", EXPORTERS)
def test_format_of_another_network_fails_the_gate_and_leaves_nothing(wrong, bundle, tmp_path):
    with pytest.raises(GateError, match=rf"^{wrong}, batch 1: max scaled difference .* expected <= 1e-05") as caught:
        write_again(bundle, tmp_path / "bundle", {wrong: exporting(wrong, 1)})

    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def start_writer(source: Path, folder: Path, stage: str) -> "subprocess.Popen[str]":
    """Return a process that rewrites a bundle and says so when it is at the stage."""
    command = [sys.executable, "-c", WRITER, str(source), str(folder), stage]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    assert writer.stdout is not None
    assert writer.stdout.readline().strip() == stage
    return writer


def kill(writer: "subprocess.Popen[str]") -> None:
    writer.kill()
    writer.communicate()


@pytest.mark.parametrize("has_old", [False, True])
@pytest.mark.parametrize("stage", ["half a file", "one file", "gate"])
def test_killed_writer_leaves_the_old_bundle_or_none(bundle, tmp_path, stage, has_old):
    folder = tmp_path / "bundle"
    if has_old:
        shutil.copytree(bundle, folder)

    kill(start_writer(bundle, folder, stage))

    assert folder.exists() == has_old
    if has_old:
        assert verify_bundle(folder)["arch_id"] == "a0123456789a"


def test_writer_killed_at_any_moment_leaves_a_whole_bundle(bundle, tmp_path):
    folder = tmp_path / "bundle"
    moments_s = rng.generator(0, "kill").uniform(0.0, 0.15, size=5)
    for moment_s in moments_s:
        writer = start_writer(bundle, folder, "written")
        time.sleep(moment_s)
        kill(writer)

        assert verify_bundle(folder)["arch_id"] in {"new-1", "new-2"}
        assert verify_bundle(folder)["unlisted_files"] == []


def test_next_writer_removes_what_a_killed_one_left(bundle, tmp_path):
    folder = tmp_path / "bundle"
    kill(start_writer(bundle, folder, "gate"))
    left = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert left == [".bundle.fedsup", ".bundle.partial"], "its lock, which nobody holds, and what it was writing"

    write_again(bundle, folder)

    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
