"""`recalibrate`, `export`, `deploy` and `inspect` on a real, if briefly trained, run, in this process."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_runs
import yaml

from fedsup_deploy import files
from fedsup_deploy.api import load_artifact
from fedsup_deploy.artifact import weights
from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.cli.main import main
from fedsup_deploy.cli.progress import Lines
from fedsup_deploy.commands.deploy import deploy
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.extract import extract
from fedsup_deploy.commands.inspect import inspect
from fedsup_deploy.commands.measure import measure
from fedsup_deploy.commands.recalibrate import recalibrate
from fedsup_deploy.commands.search import SearchRequest, search
from fedsup_deploy.commands.verify import verify
from fedsup_deploy.device.building.assemble import device_facts
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ArtifactError, ConfigError, GateError, InfeasibleError, OutputError
from fedsup_deploy.events import read_events
from fedsup_deploy.export.exporter import Facts
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.ondevice import machine
from fedsup_deploy.runs.run import COMMAND, CONFIG, EVENTS, SUPERNET, open_run
from fedsup_deploy.searchers.result import load_result
from fedsup_deploy.space.layers.convolution import ConvolutionKind
from fedsup_deploy.space.layers.kind import Operation
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.onnx_graph import OPSET
from fedsup_deploy.supernet.deployable import FoldedNetwork

EVALUATIONS = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.trained(small_runs.SUPERNET, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, for one test alone."""
    return Path(shutil.copytree(trained, tmp_path / "small"))


@pytest.fixture
def mine(repository: Path, tmp_path: Path) -> Path:
    """A profile of the user's own: the Raspberry Pi 4 under another name."""
    document = yaml.safe_load((repository / "profiles" / "raspberry-pi-4.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**document, "name": "mine"}, sort_keys=False), encoding="utf-8")
    return path


def searching(run: Path, *profiles: str) -> Path:
    request = SearchRequest(profiles, run, method="random", evaluations=EVALUATIONS)
    return search(request).out


def picks(search_file: Path, out: Path, **changes: Any) -> ExportRequest:
    request = ExportRequest(None, None, search_file, (), ("onnx",), ("fp32",), out)
    return dataclasses.replace(request, **changes)


def named(run: Path, architecture: str, out: Path, **changes: Any) -> ExportRequest:
    request = ExportRequest(run, architecture, None, ("x86-laptop",), ("onnx",), ("fp32",), out)
    return dataclasses.replace(request, **changes)


# Statistics


def test_statistics_are_taken_once_and_kept(run):
    events: list[dict[str, Any]] = []
    first = recalibrate(run, "smallest", None, None, (events.append,))
    taken = first.statistics.read_bytes()
    assert len(events) == first.num_layers, "layer-wise: one exchange per layer"
    again = recalibrate(run, "smallest", None, None, (events.append,))
    assert again == first
    assert len(events) == first.num_layers
    assert first.statistics.read_bytes() == taken


def test_statistics_of_images_chosen_another_way_are_not_used(run):
    """As before calibration images were drawn: the file names no draw."""
    path = recalibrate(run, "smallest", None, None).statistics
    taken = path.read_bytes()
    arrays, document = weights.read_arrays(path, "statistics")
    assert document.pop("draw") == "random"
    weights.write_arrays(path, "statistics", {name: 2 * sums for name, sums in arrays.items()}, document)
    recalibrate(run, "smallest", None, None)
    assert path.read_bytes() == taken


def test_damaged_statistics_are_named(run):
    path = recalibrate(run, "smallest", None, None).statistics
    arrays, document = weights.read_arrays(path, "statistics")
    weights.write_arrays(path, "statistics", {name: sums * np.nan for name, sums in arrays.items()}, document)
    with pytest.raises(
        ArtifactError, match=rf"^{re.escape(str(path))}: damaged: layer .*: count nan; remove the file$"
    ):
        recalibrate(run, "smallest", None, None)


def test_statistics_of_another_supernet_are_not_used(run):
    before = evaluate(run, "smallest").accuracy
    arrays, document = weights.read_arrays(run / SUPERNET, "supernet")
    generator = np.random.Generator(np.random.PCG64(0))
    stem = next(name for name in arrays if name.startswith("stem") and arrays[name].ndim == 4)
    arrays[stem] = generator.normal(size=arrays[stem].shape).astype(np.float32)
    weights.write_arrays(run / SUPERNET, "supernet", arrays, document)
    events: list[dict[str, Any]] = []
    assert evaluate(run, "smallest", listeners=(events.append,)).accuracy != before
    assert [event["event"] for event in events] == ["calibration"] * len(events) != []


def test_a_calibrated_subnet_holds_the_sums_of_its_clients(run, tmp_path):
    made = recalibrate(run, "largest", tmp_path / "new" / "subnet.safetensors", "one-shot")
    arrays, document = weights.read_arrays(tmp_path / "new" / "subnet.safetensors", "subnet")
    kept, _ = weights.read_arrays(made.statistics, "statistics")
    assert document["is_calibrated"]
    for name, sums in kept.items():
        np.testing.assert_array_equal(arrays[f"statistics.{name}"], sums)
    # Each row of channels once for the sums and once for the squares, and one count per layer, of eight bytes each.
    num_channels = sum(sums.shape[1] for sums in kept.values())
    assert made.uplink_bytes_per_client == 8 * (made.num_layers + 2 * num_channels)


def test_an_extracted_subnet_is_the_corner_of_the_supernet(run, tmp_path):
    """The first channels of each tensor and the middle of each kernel, here 3 of 5, cut by hand."""
    extract(run, "smallest", tmp_path / "subnet.safetensors")
    subnet, document = weights.read_arrays(tmp_path / "subnet.safetensors", "subnet")
    whole, _ = weights.read_arrays(run / SUPERNET, "supernet")
    space = open_run(run).space
    width = space.smallest.stem_width
    assert width < space.largest.stem_width
    np.testing.assert_array_equal(subnet["stem.weight"], whole["stem.weight"][:width])
    expected = whole["mb1.0.depthwise.weight"][:width, :, 1:4, 1:4]
    np.testing.assert_array_equal(subnet["mb1.0.depthwise.weight"], expected)
    assert not document["is_calibrated"]


# Bundles


def test_devices_with_the_same_pick_share_the_model_but_not_the_manifest(run, tmp_path):
    found = searching(run, "x86-laptop", "jetson-nano")
    made = export(picks(found, tmp_path / "out")).bundles
    laptop, nano = (load_manifest(bundle.folder) for bundle in made)
    assert laptop.arch_id == nano.arch_id
    assert len({(bundle.folder / "model.onnx").read_bytes() for bundle in made}) == 1
    assert (laptop.profile.name, nano.profile.name) == ("x86-laptop", "jetson-nano")
    assert laptop.main.latency.predicted.value_ms < nano.main.latency.predicted.value_ms
    assert laptop.accuracy == nano.accuracy


def test_the_lineage_is_that_of_the_files(run, tmp_path):
    found = searching(run, "x86-laptop")
    [made] = export(picks(found, tmp_path / "out")).bundles
    lineage = load_manifest(made.folder).lineage
    [statistics] = (run / "statistics").glob(f"{made.arch_id}-layer-wise.*")
    assert lineage.run == files.sha256(run / CONFIG)
    assert lineage.space == files.sha256_of(open_run(run).space.to_dict())
    assert lineage.statistics == files.sha256(statistics)
    assert lineage.profile == load_profile("x86-laptop").profile_hash
    assert lineage.search == files.sha256(found)


def test_an_architecture_file_is_as_good_as_its_name(run, tmp_path):
    found = evaluate(run, "smallest")
    (tmp_path / "mine.json").write_text(json.dumps(found.architecture), encoding="utf-8")
    [made] = export(named(run, str(tmp_path / "mine.json"), tmp_path / "out")).bundles
    assert made.arch_id == found.arch_id
    assert made.accuracy == found.accuracy
    assert load_manifest(made.folder).lineage.search is None


def test_vectors_hold_nobodys_image(run, tmp_path):
    [made] = export(named(run, "smallest", tmp_path / "out")).bundles
    opened = open_run(run)
    data = opened.data
    with np.load(made.folder / "vectors.npz") as vectors:
        inputs = vectors["inputs"]
    held = np.concatenate([part.images_NHWC for part in (data.train, data.validation, data.test)])
    known = {image.tobytes() for image in opened.preprocessing.for_size(inputs.shape[-1]).apply(held)}
    assert len(inputs) == 32
    assert not {image.tobytes() for image in inputs} & known


def test_every_bundle_has_the_model_its_runner_checks(run, tmp_path):
    [made] = export(named(run, "smallest", tmp_path / "out", formats=("torchscript",))).bundles
    assert made.bytes.keys() == {"onnx-fp32", "torchscript-fp32"}


def test_a_model_that_computes_something_else_is_not_written(run, tmp_path, monkeypatch):
    """The exporter is handed a network whose logits are a thousandth too large."""
    right = OnnxExporter.export

    def export_wrong(self: OnnxExporter, network: FoldedNetwork, facts: Facts, folder: Path) -> tuple[str, ...]:
        wrong = {
            name: tensor * 1.001 if name.startswith("head.") else tensor for name, tensor in network.weights.items()
        }
        return right(self, FoldedNetwork(network.plan, wrong), facts, folder)

    monkeypatch.setattr(OnnxExporter, "export", export_wrong)
    with pytest.raises(GateError, match="onnx"):
        export(named(run, "smallest", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"profiles": ()}, ConfigError, "neither a search nor a run"),
        ({"architecture": None}, ConfigError, "neither a search nor a run"),
        ({"profiles": ("jetson-nana",)}, ConfigError, "did you mean 'jetson-nano'"),
        ({"profiles": ("jetson-nano",) * 2}, ConfigError, "got profile jetson-nano 2 times, expected each once"),
        ({"formats": ("onyx",)}, ConfigError, "unknown exporter 'onyx'; did you mean 'onnx'"),
        ({"architecture": "a00000000000"}, ConfigError, "a00000000000"),
        ({"run": Path("nowhere")}, ArtifactError, "no run at nowhere"),
    ],
)
def test_what_is_wrong_with_an_export_is_said_before_any_work(changes, kind, expected, run, tmp_path):
    with pytest.raises(kind, match=expected):
        export(dataclasses.replace(named(run, "smallest", tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()
    assert not (run / "statistics").exists()


def test_a_profile_of_the_users_own_is_given_again(run, mine, tmp_path):
    found = searching(run, str(mine))
    with pytest.raises(ConfigError, match="no profile 'mine'"):
        export(picks(found, tmp_path / "out"))
    [made] = export(picks(found, tmp_path / "out", profiles=(str(mine),))).bundles
    assert made.profile == "mine"


def test_two_profiles_of_one_name_are_refused_also_with_a_search(run, mine, tmp_path):
    """Their bundles would have one place, and the second alone would be there."""
    found = searching(run, str(mine))
    other = shutil.copy(mine, tmp_path / "other.yaml")
    with pytest.raises(ConfigError, match="got profile mine 2 times, expected each once"):
        export(picks(found, tmp_path / "out", profiles=(str(mine), str(other))))


def test_a_number_format_that_was_not_searched_is_refused(run, mine, tmp_path):
    """The predictions of such a profile are about a model that an export would not give."""
    mine.write_text(mine.read_text(encoding="utf-8").replace("- fp32", "- int8"))
    refused = "profile mine: its latencies are of fp32, so an export of int8 would not be what was searched"
    with pytest.raises(ConfigError, match=refused):
        export(named(run, "smallest", tmp_path / "out", profiles=(str(mine),), precisions=()))
    assert not (tmp_path / "out").exists()


def test_a_device_of_int8_gets_no_export_in_fp32_alone(run, tmp_path):
    """What was predicted would not be what it is given."""
    found = searching(run, "stm32h7")
    reason = "profile stm32h7: its latencies are of int8, so an export of fp32 would not be what was searched"
    with pytest.raises(ConfigError, match=reason):
        export(picks(found, tmp_path / "out", precisions=("fp32",)))
    assert not (tmp_path / "out").exists()


def test_a_device_whose_form_nothing_writes_can_be_searched_for_and_gets_no_export(run, tmp_path):
    name = "coral-edge-tpu"
    found = searching(run, name)
    form = f"profile {name}: format onnx: its runtime takes images as NHWC, and files of this format take them as NCHW"
    for precisions, reason in (
        ((), form),
        (("int8",), form),
        (("fp32",), f"profile {name}: its latencies are of int8, so an export of fp32 would not be what was searched"),
    ):
        with pytest.raises(ConfigError, match=reason):
            export(picks(found, tmp_path / "out", precisions=precisions))
    before = found.read_bytes()
    for fleet, formats, advice in (
        ((name,), (), "searched all the same$"),
        (("jetson-nano", name), ("onnx",), f"searched all the same; without {name} the other 1 can be deployed$"),
    ):
        with pytest.raises(ConfigError, match=f"{re.escape(form)}; subnets .*{advice}"):
            deploy(SearchRequest(fleet, run), tmp_path / "out", formats)
    assert not (tmp_path / "out").exists()
    assert found.read_bytes() == before


def test_a_search_suggests_only_the_exports_that_can_be_made(run, tmp_path, capsys):
    """And says which cannot, and why, in one line."""
    refused = (
        "no bundle can be made: profile coral-edge-tpu: format onnx: its runtime takes images as NHWC, and files "
        "of this format take them as NCHW"
    )
    out = tmp_path / "s.json"
    words = ["search", "--run", str(run), "--out", str(out), "--method", "random", "--evaluations", "2"]
    for profiles, lines in (
        (["coral-edge-tpu"], [f"wrote {out}", refused]),
        (
            ["jetson-nano", "coral-edge-tpu"],
            [f"wrote {out}", refused, f"next: fedsup-deploy export --search {out} --profile jetson-nano"],
        ),
        (["jetson-nano"], [f"wrote {out}", f"next: fedsup-deploy export --search {out}"]),
    ):
        assert main([*words, *(word for name in profiles for word in ("--profile", name))]) == 0
        assert capsys.readouterr().out.splitlines()[-len(lines) :] == lines
    assert main([*words, "--profile", "coral-edge-tpu", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["not_exportable"]) == ["coral-edge-tpu"]


def test_a_network_that_does_not_cost_what_it_is_said_to_gets_no_bundle(run, tmp_path, monkeypatch):
    """Fvcore counts what is exported."""
    right = ConvolutionKind.operations

    def one_more(self: ConvolutionKind, layer: Layer) -> list[Operation]:
        return [each._replace(num_macs=each.num_macs + 1) for each in right(self, layer)]

    monkeypatch.setattr(ConvolutionKind, "operations", one_more)
    with pytest.raises(GateError, match=r"num_macs: got \d+, expected \d+ as fvcore counts the exported network"):
        export(named(run, "smallest", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("accepts", "reason"),
    [
        ({"onnx_opset": 12}, "accepts ONNX opset 12 at most"),
        ({"layout": "nhwc"}, "takes images as NHWC"),
    ],
)
def test_a_runtime_that_does_not_take_a_format_is_refused_before_any_work(run, mine, tmp_path, accepts, reason):
    document = yaml.safe_load(mine.read_text(encoding="utf-8"))
    document["accepts"] |= accepts
    mine.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"profile mine: format onnx: its runtime {reason}"):
        export(named(run, "smallest", tmp_path / "out", profiles=(str(mine),)))
    assert not (run / "statistics").exists()


def test_a_bundle_says_what_its_device_has_and_which_releases_fail_there(run, tmp_path, capsys):
    """And its runner runs nothing with one of these: here with one in name, which ends the process that imports it."""
    words = ["export", str(run), "--arch", "smallest", "--out", str(tmp_path / "out")]
    assert main([*words, "--profile", "raspberry-pi-4", "--profile", "jetson-nano"]) == 0
    text = capsys.readouterr().out
    assert "raspberry-pi-4: Python 3.11, glibc 2.36, aarch64; known bad there: onnxruntime ==1.21.0\n" in text
    assert "jetson-nano: Python 3.6, glibc 2.27, aarch64\n" in text
    command = load_profile("jetson-nano").build_on_device
    making = f"on a jetson-nano, this makes an engine for its GPU; never tried by us:\n  {command}\n"
    assert making in text
    assert text.count("this makes an engine") == 1
    folders = {name: next((tmp_path / "out" / name).iterdir()) for name in ("raspberry-pi-4", "jetson-nano")}
    for name, folder in folders.items():
        profile, device = load_profile(name), load_manifest(folder).device
        assert device is not None
        assert (device.system, device.known_bad) == (profile.system, profile.known_bad)
        assert device.build_on_device == profile.build_on_device
        assert verify(folder).verdict == "ok"
    for name, is_shown in (("jetson-nano", True), ("raspberry-pi-4", False)):
        assert main(["inspect", str(folders[name])]) == 0
        assert (making in capsys.readouterr().out) is is_shown
    assert "trtexec --onnx=model.onnx" in (folders["jetson-nano"] / "MODEL_CARD.md").read_text(encoding="utf-8")
    libraries = tmp_path / "libraries"
    (libraries / "onnxruntime").mkdir(parents=True)
    (libraries / "onnxruntime" / "__init__.py").write_text('__version__ = "1.21.0"\nimport os; os.kill(os.getpid(), 4)')
    # As on such a device; on a machine of another instruction set it would be run.
    (libraries / "sitecustomize.py").write_text("import platform; platform.machine = lambda: 'aarch64'")
    program = [sys.executable, str(folders["raspberry-pi-4"] / "run.py"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(libraries)}
    result = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 8
    reason = json.loads(result.stdout)["reason"]
    [known] = load_profile("raspberry-pi-4").known_bad
    for told in ("onnxruntime 1.21.0", known.symptom, known.cure, known.source):
        assert told in reason


@pytest.mark.parametrize("place", ["", "old/", "beside a bundle/"])
def test_what_is_of_no_bundle_is_not_replaced(run, tmp_path, place):
    """Not even deep in the folder, nor beside a bundle that is to be replaced."""
    out = tmp_path / "out"
    if place == "beside a bundle/":
        (made,) = export(named(run, "smallest", out)).bundles
        folder = made.folder
    else:
        folder = out / "x86-laptop" / open_run(run).space.smallest.arch_id
    thesis = folder / place / "thesis.txt"
    thesis.parent.mkdir(parents=True, exist_ok=True)
    thesis.write_text("precious", encoding="utf-8")
    (folder / ".DS_Store").write_bytes(b"litter")
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        OutputError, match=rf"{folder}: it holds {place}thesis.txt, which is of no bundle; move it away"
    ):
        export(named(run, "smallest", out))
    assert thesis.read_text(encoding="utf-8") == "precious"
    assert sorted(folder.rglob("*")) == before
    shutil.rmtree(thesis.parent) if place else thesis.unlink()
    (again,) = export(named(run, "smallest", out)).bundles
    assert verify(again.folder).verdict == "ok"


def test_a_run_may_be_a_link_and_folders_may_have_spaces(run, tmp_path):
    named_twice = tmp_path / "two words" / "a link"
    named_twice.parent.mkdir()
    named_twice.symlink_to(run)
    (made,) = export(named(named_twice, "smallest", tmp_path / "two words" / "out")).bundles
    assert verify(made.folder).verdict == "ok"
    assert named_twice.is_symlink()


@pytest.mark.parametrize(
    "write", [lambda run, out: extract(run, "smallest", out), lambda run, out: recalibrate(run, "smallest", out, None)]
)
def test_what_is_no_subnet_is_not_replaced(run, tmp_path, write):
    """The run's own supernet least of all."""
    (tmp_path / "text.safetensors").write_text("precious", encoding="utf-8")
    (tmp_path / "folder.safetensors").mkdir()
    for out in (run / SUPERNET, tmp_path / "text.safetensors", tmp_path / "folder.safetensors"):
        before = out.read_bytes() if out.is_file() else None
        with pytest.raises(
            OutputError, match=f"cannot write {out}: it is there and holds no subnet; give --out another"
        ):
            write(run, out)
        assert (out.read_bytes() if out.is_file() else None) == before
    with pytest.raises(OutputError, match=r"small\.bin: expected a name that ends in \.safetensors"):
        write(run, tmp_path / "small.bin")
    with pytest.raises(OutputError, match=r"expected a name that ends in \.safetensors"):
        write(run, Path())  # what an empty --out is
    for _ in range(2):
        assert write(run, tmp_path / "small.safetensors").out.is_file()


def test_a_search_for_a_profile_of_ones_own_is_exported_by_its_file(run, mine, tmp_path, capsys):
    """As the search says at its end: the name alone finds shipped profiles only."""
    words = ("--run", str(run), "--method", "random", "--evaluations", "2")
    assert main(["search", "--profile", str(mine), "--out", str(tmp_path / "s.json"), *words]) == 0
    expected = f"next: fedsup-deploy export --search {tmp_path / 's.json'} --profile {mine}"
    assert expected in " ".join(capsys.readouterr().out.split())
    with pytest.raises(
        ConfigError, match=r"no profile 'mine': .*; name the file of a profile of your own with --profile"
    ):
        export(picks(tmp_path / "s.json", tmp_path / "out"))
    (made,) = export(picks(tmp_path / "s.json", tmp_path / "out", profiles=(str(mine),))).bundles
    assert made.profile == "mine"
    with pytest.raises(ConfigError, match=r"holds no result for profile stm32h7; it has mine$"):
        export(picks(tmp_path / "s.json", tmp_path / "out", profiles=("stm32h7",)))


def test_a_bound_is_recorded_with_its_risk(run, measured_profile, tmp_path):
    """Else the cost of a latency would not be what prediction and ratio give."""
    profile = of_this_machine(measured_profile)
    search(SearchRequest([profile], run, method="random", evaluations=EVALUATIONS, risk=0.9))
    (made,) = export(picks(run / "search.json", tmp_path / "out", profiles=(profile,))).bundles
    record = load_manifest(made.folder).limits["latency_ms"]
    assert record.risk == 0.9
    assert record.percentile is not None
    assert record.cost > record.percentile.ratio * made.latency_ms_predicted
    assert "an upper bound, which holds with a probability of 0.9." in (made.folder / "MODEL_CARD.md").read_text(
        "utf-8"
    )


def test_a_profile_may_have_been_searched_with_other_limits(run, tmp_path):
    """As the demo does; the limits in force stand in the search."""
    profile = load_profile("jetson-nano")
    limits = profile.limits.model_copy(update={"latency_ms": 0.9})
    found = search(SearchRequest([profile.model_copy(update={"limits": limits})], run, method="random", evaluations=2))
    (made,) = export(picks(found.out, tmp_path / "out", profiles=("jetson-nano",))).bundles
    assert load_manifest(made.folder).limits["latency_ms"].limit == 0.9


def test_a_profile_that_changed_since_the_search_is_refused(run, mine, tmp_path):
    found = searching(run, str(mine))
    mine.write_text(mine.read_text(encoding="utf-8").replace("cores: 4", "cores: 2"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="profile mine is not as it was searched; search again"):
        export(picks(found, tmp_path / "out", profiles=(str(mine),)))


def test_a_limit_on_storage_is_about_the_file_as_it_is(run, mine, tmp_path):
    """The names of classes are in the file and in no search: a limit just below it holds before, and not after."""
    document = yaml.safe_load(mine.read_text(encoding="utf-8"))
    document["limits"] = {"latency_ms": 100.0, "storage_mib": 5.0}
    mine.write_text(yaml.safe_dump(document, sort_keys=False))
    request = named(run, "smallest", tmp_path / "out", profiles=(str(mine),))
    (made,) = export(request).bundles
    size = (made.folder / "model.onnx").stat().st_size
    assert load_manifest(made.folder).limits["storage_mib"].cost == size / 2**20 == made.bytes["onnx-fp32"] / 2**20
    document["limits"]["storage_mib"] = (size - 1) / 2**20
    mine.write_text(yaml.safe_dump(document, sort_keys=False))
    tight = dataclasses.replace(request, out=tmp_path / "tight")
    with pytest.raises(InfeasibleError, match=r"its file exceeds limits of mine: storage_mib is .*names of classes"):
        export(tight)
    assert not list((tmp_path / "tight").rglob("manifest.json"))
    (over,) = export(dataclasses.replace(tight, over_limit=True)).bundles
    assert over.exceeded_limits == ("storage_mib",)


def test_a_subnet_beyond_the_limits_is_exported_only_if_asked_for(run, mine, tmp_path):
    """By a limit on latency and one on memory; its bundle says so wherever one looks."""
    document = yaml.safe_load(mine.read_text(encoding="utf-8"))
    mine.write_text(yaml.safe_dump({**document, "limits": {"latency_ms": 0.7, "storage_mib": 5.0}}, sort_keys=False))
    request = named(run, "largest", tmp_path / "out", profiles=(str(mine),))
    with pytest.raises(
        InfeasibleError, match=r"exceeds the limits of mine: latency_ms is .* \(limit 0\.7, p50, assumed\); search"
    ):
        export(request)
    assert not (tmp_path / "out").exists()
    (made,) = export(dataclasses.replace(request, over_limit=True)).bundles
    assert made.exceeded_limits == ("latency_ms",)
    folder = made.folder
    limits = load_manifest(folder).limits
    assert {name: record.is_exceeded for name, record in limits.items()} == {"latency_ms": True, "storage_mib": False}
    assert limits["latency_ms"].cost == made.latency_ms_predicted > limits["latency_ms"].limit == 0.7
    assert "**Over the limits of mine:** latency_ms is" in (folder / "MODEL_CARD.md").read_text("utf-8").splitlines()[2]
    assert verify(folder).exceeded_limits == ("latency_ms",)
    assert inspect(folder).to_dict()["limits"]["latency_ms"]["is_exceeded"] is True


def test_the_limits_of_a_bundle_are_those_of_its_search(run, tmp_path):
    search(SearchRequest(["x86-laptop"], run, {"macs": 400_000.0}, method="random", evaluations=EVALUATIONS))
    (made,) = export(picks(run / "search.json", tmp_path / "out")).bundles
    limits = load_manifest(made.folder).limits
    assert limits["macs"].limit == 400_000
    assert (made.exceeded_limits, "Over the limits" in (made.folder / "MODEL_CARD.md").read_text()) == (
        (),
        False,
    )


def test_a_search_goes_with_its_run_wherever_that_was_moved(run, tmp_path, monkeypatch):
    found = searching(run, "x86-laptop")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    moved = shutil.move(run, tmp_path / "runs" / "small")
    assert export(picks(Path(moved) / found.name, tmp_path / "out")).bundles
    aside = shutil.copy(Path(moved) / found.name, tmp_path / "elsewhere.json")
    with pytest.raises(ArtifactError, match=r"its run 'small' is not at .*; name it with --run RUN"):
        export(picks(Path(aside), tmp_path / "out"))
    assert export(picks(Path(aside), tmp_path / "out", run=Path(moved))).bundles


def test_a_search_written_elsewhere_finds_its_run(run, tmp_path, monkeypatch):
    """Whatever the working folder, and through a link to the file."""
    out = tmp_path / "searches" / "deep" / "found.json"
    out.parent.mkdir(parents=True)
    search(SearchRequest(["x86-laptop"], run, method="random", evaluations=EVALUATIONS, out=out))
    assert json.loads(out.read_text(encoding="utf-8"))["run"]["path"] == "../../small"
    (tmp_path / "link.json").symlink_to(out)
    monkeypatch.chdir(tmp_path / "searches")
    assert export(picks(tmp_path / "link.json", tmp_path / "out")).bundles


def test_a_run_that_is_not_the_one_searched_is_refused(run, trained, tmp_path):
    found = searching(run, "x86-laptop")
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    arrays, document = weights.read_arrays(other / SUPERNET, "supernet")
    arrays[min(arrays)] += 1
    weights.write_arrays(other / SUPERNET, "supernet", arrays, document)
    with pytest.raises(ArtifactError, match=r"got another supernet at .*other than that of its run 'small'"):
        export(picks(found, tmp_path / "out", run=other))
    text = found.read_text(encoding="utf-8").replace('"path": "."', '"path": null')
    found.write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match="says not where its run 'small' is; name it with --run RUN"):
        export(picks(found, tmp_path / "out"))


def test_whether_the_limit_is_met_is_said_where_the_device_is_this_machine(run, mine, tmp_path):
    """A generous limit, so that it is met however busy the machine; of another device nobody can say it here."""
    document = yaml.safe_load(mine.read_text(encoding="utf-8"))
    about = {"kind": "measured", "protocol": "quick", "date": "2026-01-31", "environment": "here"}
    document["provenance"][next(iter(document["provenance"]))] = about
    document |= {"device": device_facts(machine.environment(1)).model_dump(), "limits": {"latency_ms": 1000.0}}
    mine.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    found = searching(run, str(mine), "x86-laptop")
    here, other = export(picks(found, tmp_path / "out", profiles=(str(mine), "x86-laptop"))).bundles
    assert (here.latency_limit, other.latency_limit) == ("met", None)
    measured = load_manifest(here.folder).main.latency.measured
    assert measured is not None
    assert measured.limit is not None
    assert measured.limit.limit_ms == 1000.0
    assert (measured.limit.percentile, measured.limit.measured_ms) == ("p50", measured.statistics.p50_ms)
    assert measured.protocol["name"] == "quick"
    glanced = load_manifest(other.folder).main.latency.measured
    assert glanced is not None
    assert glanced.limit is None


def of_this_machine(measured_profile: Any) -> DeviceProfile:
    """A profile of this machine whose p90 is 1.5 times what it predicts, and whose limit means that."""
    device = device_facts(machine.environment(1)).model_dump()
    profile: DeviceProfile = measured_profile(
        device=device, limits={"latency_ms": 1000.0, "latency_percentile": "p90"}, formats=("onnx",)
    )
    return profile


def test_the_percentile_of_a_limit_decides_its_price_and_its_verdict(run, measured_profile, tmp_path):
    """From the profile over the search to the bundle."""
    profile = of_this_machine(measured_profile)
    (found,) = search(SearchRequest([profile], run, method="random", evaluations=EVALUATIONS)).results
    assert found.percentile is not None
    assert found.percentile.model_dump() == {"name": "p90", "ratio": 1.5, "is_assumed": False}
    (made,) = export(picks(run / "search.json", tmp_path / "out", profiles=(profile,))).bundles
    assert made.percentile == found.percentile
    manifest = load_manifest(made.folder)
    record, measured = manifest.limits["latency_ms"], manifest.main.latency.measured
    assert record.cost == manifest.main.latency.predicted.value_ms * 1.5
    assert record.percentile == found.percentile
    assert measured is not None
    assert measured.noise is not None
    assert measured.limit is not None
    assert (measured.limit.percentile, measured.limit.measured_ms) == ("p90", measured.statistics.p90_ms)


def test_a_search_from_before_there_were_percentiles_held_predictions_to_the_limit(run, measured_profile, tmp_path):
    profile = of_this_machine(measured_profile)
    search(SearchRequest([profile], run, method="random", evaluations=EVALUATIONS, percentile="p10"))
    document = json.loads((run / "search.json").read_text(encoding="utf-8"))
    (found,) = document["results"]
    del found["percentile"]
    for candidate in found["candidates"]:
        del candidate["latency_percentile_ms"]
    files.write_json(run / "search.json", document)
    (made,) = export(picks(run / "search.json", tmp_path / "out", profiles=(profile,))).bundles
    assert made.percentile.model_dump() == {"name": "p10", "ratio": 1.0, "is_assumed": False}
    manifest = load_manifest(made.folder)
    assert manifest.limits["latency_ms"].cost == manifest.main.latency.predicted.value_ms


def test_a_search_that_claims_another_ratio_than_its_profile_is_refused(run, measured_profile, tmp_path):
    profile = of_this_machine(measured_profile)
    search(SearchRequest([profile], run, method="random", evaluations=EVALUATIONS))
    document = json.loads((run / "search.json").read_text(encoding="utf-8"))
    (found,) = document["results"]
    found["percentile"]["ratio"] = 1.25
    for candidate in found["candidates"]:
        candidate["latency_percentile_ms"] = candidate["latency_ms_predicted"] * 1.25
    files.write_json(run / "search.json", document)
    with pytest.raises(
        ArtifactError, match=r"percentile: got p90, 1\.25 x predicted, expected p90, 1\.5 x predicted; search again"
    ):
        export(picks(run / "search.json", tmp_path / "out", profiles=(profile,)))


def test_an_altered_bundle_is_not_timed(run, tmp_path):
    [made] = export(named(run, "smallest", tmp_path / "out")).bundles
    with (made.folder / "model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ArtifactError, match=r"model\.onnx was altered"):
        measure(made.folder, 1, "quick")


def test_a_measured_bundle_keeps_what_was_found_and_stays_what_it_is(run, tmp_path):
    [made] = export(named(run, "smallest", tmp_path / "out")).bundles
    folder = made.folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines: list[str] = []
    found = measure(folder, 1, "quick", listeners=(Lines(lines.append),))
    assert lines == ["quick measurement 0/1", "quick measurement 1/1"]
    assert found.is_recorded
    assert {path.name for path in folder.iterdir()} == {*before, "measured.json"}
    assert before.items() <= {path.name: path.read_bytes() for path in folder.iterdir()}.items()
    for shown in (inspect(folder).to_dict(), verify(folder).to_dict()):
        assert shown["measured"]["statistics"] == found.statistics
        assert shown["measured"]["environment"] == found.environment


def test_deploy_is_search_and_export(run, tmp_path, capsys):
    """By its command: a limit that lets few subnets through, so that little has to be evaluated."""
    profiles = ["--profile", "x86-laptop", "--profile", "raspberry-pi-4"]
    limits = ["--max-params", str(evaluate(run, "smallest").costs["num_params"])]
    assert main(["deploy", *profiles, *limits, "--run", str(run), "--out", str(tmp_path / "out"), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["search"] == str(run / "search.json")
    assert [bundle["profile"] for bundle in done["bundles"]] == ["x86-laptop", "raspberry-pi-4"]
    assert all(Path(bundle["folder"], "manifest.json").is_file() for bundle in done["bundles"])
    assert json.loads((run / "search.json").read_text(encoding="utf-8"))["results"][0]["certified"]
    assert done["run"] == {"name": "small", "hash": files.sha256(run / SUPERNET), "rounds": 1, "path": "."}
    for bundle, found in zip(done["bundles"], load_result(run / "search.json").results, strict=True):
        assert bundle["limits"] == found.limits
        assert bundle["limits"]["params"] == float(limits[1])
        assert bundle["certified"] is True
        assert bundle["certified_relative_to"] == found.certified_relative_to


def test_deploy_names_its_run_and_how_long_it_was_trained(run, tmp_path, monkeypatch, capsys):
    """Which nobody named: it is the newest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.move(run, tmp_path / "runs" / "trial")
    words = ["deploy", "--profile", "x86-laptop", "--method", "random", "--evaluations", "1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "run: runs/trial (1 round)" in out
    limit = load_profile("x86-laptop").limits.latency_ms
    assert f"latency_ms <= {limit:g}" in out
    assert "certified best" in out


def test_deploy_finds_out_first_where_it_cannot_write(run, tmp_path):
    (tmp_path / "file").touch()
    request = SearchRequest(("x86-laptop",), run, method="random", evaluations=EVALUATIONS)
    with pytest.raises(OutputError):
        deploy(request, tmp_path / "file" / "out")
    assert not (run / "search.json").exists()


# Inspection and damage


def test_inspect_knows_configs_manifests_and_profiles(run, mine, repository, tmp_path):
    [made] = export(named(run, "smallest", tmp_path / "out")).bundles
    folder = made.folder
    expected = {**inspect(folder).to_dict(), "path": str(folder / "manifest.json")}
    assert inspect(folder / "manifest.json").to_dict() == expected
    assert inspect(run / CONFIG).kind == "training config"
    assert inspect(mine).kind == "device profile"
    assert inspect(repository / "configs" / "spaces" / "fedsup-mobilenet.yaml").about.num_architectures == 10368
    assert inspect(run).about.command == ()


def test_inspect_knows_shipped_names_and_files_before_them(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = inspect(repository / "configs" / "spaces" / "fedsup-mobilenet.yaml").to_dict()
    assert inspect(Path("fedsup-mobilenet")).to_dict() == expected
    assert inspect(Path("jetson-nano")).kind == "device profile"
    assert inspect(Path("cifar10")).kind == "training config"
    with pytest.raises(ConfigError, match=r"'digits' stands for several files; give one of .*spaces/digits\.yaml, .*"):
        inspect(Path("digits"))
    with pytest.raises(
        ConfigError, match=r"and no shipped space, config or profile of that name; did you mean 'cifar10'"
    ):
        inspect(Path("cifar100"))
    with pytest.raises(ConfigError, match=r"no file or folder 'runs/gone', and no shipped space.* of that name$"):
        inspect(Path("runs/gone"))
    Path("fedsup-mobilenet").mkdir()
    with pytest.raises(ArtifactError, match=r"neither a run .* nor a bundle"):
        inspect(Path("fedsup-mobilenet"))


def test_profiles_are_compared_for_the_networks_of_a_run(run, mine, capsys):
    assert main(["profile", "diff", "jetson-nano", str(mine), "--space", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    space = open_run(run).space
    assert (found["space"], found["num_architectures"]) == (space.name, space.num_architectures)


def test_inspect_reads_the_graph_of_a_model(run, tmp_path):
    [made] = export(named(run, "smallest", tmp_path / "out")).bundles
    costs = load_manifest(made.folder).costs
    size = open_run(run).space.smallest.resolution
    assert inspect(made.folder / "model.onnx").to_dict() == {
        "path": str(made.folder / "model.onnx"),
        "kind": "ONNX model",
        "num_bytes": (made.folder / "model.onnx").stat().st_size,
        "opset": OPSET,
        "inputs": {"input": ["batch", 1, size, size]},
        "outputs": {"logits": ["batch", 10]},
        "num_macs": costs.num_macs,
        "num_params": costs.num_params,
    }
    onnx.save(
        onnx.load(made.folder / "model.onnx"),
        tmp_path / "apart.onnx",
        save_as_external_data=True,
        location="apart.data",
        size_threshold=0,
    )
    apart = inspect(tmp_path / "apart.onnx").to_dict()
    assert (apart["num_macs"], apart["num_params"]) == (costs.num_macs, costs.num_params)
    sizes = [(tmp_path / name).stat().st_size for name in ("apart.onnx", "apart.data")]
    assert apart["num_bytes"] == sum(sizes)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ArtifactError, match=r"text\.onnx: got no graph"):
        inspect(tmp_path / "text.onnx")


def test_an_artifact_is_told_in_a_line(run, tmp_path):
    [made] = export(named(run, "smallest", tmp_path / "out")).bundles
    artifact = load_artifact(made.folder)
    assert str(artifact) == (
        f"{made.arch_id} for {made.profile}, accuracy {made.accuracy:.1%} on {made.num_images:,} {made.split} images, "
        f"{', '.join(made.bytes)}: {made.folder}"
    )
    assert len(repr(artifact)) < 100 + len(repr(made.folder))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"command": 3}', b"\xff"])
def test_a_damaged_command_is_said_by_inspect(content, run):
    (run / COMMAND).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"command\.json: missing or damaged"):
        inspect(run)


@pytest.mark.parametrize("line", ["[1]", "x", '{"event": "round"'])
def test_a_damaged_log_is_said_with_its_line(line, run):
    with (run / EVENTS).open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")
    number = len((run / EVENTS).read_text(encoding="utf-8").splitlines())
    with pytest.raises(ArtifactError, match=rf"events\.jsonl:{number}: .*; remove the line"):
        read_events(run / EVENTS)
