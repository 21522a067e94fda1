"""Bundles and random networks in real environments of old and new runtimes: the rule and the runtime have to agree.

What is run stands in `benchmarks/runtimes.py` and `benchmarks/runtime_matrix.py`, which prints it as tables.
"""

import functools
import json
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import runtime_matrix as matrix
from runtimes import RUNTIMES, Installed, Runtime

from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.bundle_outputs import BATCHES, INT8_TOLERANCE, TOLERANCE
from fedsup_deploy.ondevice.model_versions import known_to

pytestmark = pytest.mark.slow

InstalledOf = Callable[[Runtime], Installed]
every_runtime = pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
#: What is done to a bundle, and what run.py has to make of it wherever it runs. In the reason {} is the release.
DAMAGE = {
    "a weight": (bundle_files.PARITY, "outputs at batch 1: scaled difference "),
    "a weight of int8": (bundle_files.PARITY, "outputs of int8 at batch 1: scaled difference "),
    "cut": (bundle_files.UNRUNNABLE, "onnxruntime {} cannot run model.onnx: "),
    "int8 cut": (bundle_files.UNRUNNABLE, "onnxruntime {} cannot run model.int8.onnx: "),
    "too new": (bundle_files.USAGE, "onnxruntime {} is too old for model.onnx (opset 99, IR version 7), which needs "),
    "known bad": (bundle_files.KNOWN_BAD, "onnxruntime {} is known to be bad on this device: wrong sums; take another"),
    "known bad elsewhere": (bundle_files.OK, ""),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return matrix.make_bundles(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def report_of(bundles: dict[str, Path], installed: InstalledOf) -> Callable[[str, Runtime], dict[str, Any]]:
    return functools.cache(lambda profile, runtime: matrix.run_bundle(installed(runtime), bundles[profile]))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("networks")
    return folder, matrix.write_networks(folder)


@pytest.fixture(scope="module")
def damaged(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A copy of a bundle for each kind of damage; the hashes of all files are right."""
    folders = {}
    for damage in DAMAGE:
        folder = folders[damage] = tmp_path_factory.mktemp("damaged") / "bundle"
        shutil.copytree(bundles["raspberry-pi-4"], folder)
        model, int8 = folder / bundle_files.MODEL, folder / bundle_files.INT8_MODEL
        if damage.startswith("known bad"):
            path = folder / bundle_files.MANIFEST
            manifest = json.loads(path.read_text(encoding="utf-8"))
            bad = {"symptom": "wrong sums", "cure": "take another", "source": "somebody/somewhere#1"}
            manifest["device"]["system"]["arch"] = "riscv64" if damage.endswith("elsewhere") else platform.machine()
            manifest["device"]["known_bad"] = [{"runtime": "onnxruntime", "versions": ">=1.8", **bad}]
            path.write_text(json.dumps(manifest), encoding="utf-8")
        elif damage == "too new":
            written = onnx.load(model)
            written.opset_import[0].version = 99
            model.write_bytes(written.SerializeToString())
        elif damage.endswith("cut"):
            path = int8 if damage == "int8 cut" else model
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            change_a_weight(int8 if damage == "a weight of int8" else model)
        names = set(bundle_files.list_files(folder)) - bundle_files.BESIDE_SUMS
        (folder / bundle_files.SUMS).write_text("".join(bundle_files.sha256sums(folder, names)), encoding="utf-8")
    return folders


def change_a_weight(path: Path) -> None:
    """Change the sign of one weight of the classifier, the largest one."""
    model = onnx.load(path)
    [tensor] = [each for each in model.graph.initializer if re.fullmatch(r"head\.weight(_quantized)?", each.name)]
    weights = onnx.numpy_helper.to_array(tensor).copy()
    largest = np.unravel_index(np.argmax(np.abs(weights.astype(np.float32))), weights.shape)
    weights[largest] = -weights[largest]
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    path.write_bytes(model.SerializeToString())


def test_what_a_profile_says_that_its_runtime_loads_is_what_one_of_these_loads() -> None:
    """So each profile is run in the release that it is about, and a phone, of which nothing is known, in all."""
    loads = {known_to(runtime.onnxruntime or "99.0") for runtime in RUNTIMES}
    about = {
        name: (matrix.PROFILES[name].accepts.onnx_opset, matrix.PROFILES[name].accepts.onnx_ir) for name in matrix.RUN
    }
    assert {name for name, versions in about.items() if versions not in loads} == {"pixel-class-phone"}
    assert about["pixel-class-phone"] == (None, None)


@every_runtime
@pytest.mark.parametrize("profile", matrix.RUN)
def test_a_bundle_ends_as_the_lists_of_releases_say(
    report_of: Callable[[str, Runtime], dict[str, Any]],
    bundles: dict[str, Path],
    installed: InstalledOf,
    profile: str,
    runtime: Runtime,
) -> None:
    release = installed(runtime).versions["onnxruntime"]
    assert runtime.onnxruntime in {release, ""}
    expected = matrix.by_rule(matrix.PROFILES[profile], bundles[profile], release)
    report = report_of(profile, runtime)
    assert (report["exit_code"], report["reason"]) == expected
    assert report["runtime"] == {"name": "onnxruntime", "version": release, "least_version": "1.8"}
    if expected.exit_code == bundle_files.OK:
        assert report["environment"]["onnxruntime"] == release
        assert report["environment"]["python"].startswith(f"{runtime.python}.")
        for found, tolerance in ((report["parity"], TOLERANCE), (report["int8"], INT8_TOLERANCE)):
            assert found["batches"] == list(BATCHES)
            assert found["max_scaled_diff"] <= found["tolerance"] == tolerance
        assert 0 < report["int8"]["num_classes_compared"] <= report["int8"]["num_inputs"]


@every_runtime
def test_every_failure_has_its_exit_code_in_every_runtime(
    damaged: dict[str, Path], installed: InstalledOf, runtime: Runtime
) -> None:
    old = installed(runtime)
    for damage, (exit_code, reason) in DAMAGE.items():
        report = matrix.run_bundle(old, damaged[damage])
        assert report["exit_code"] == exit_code, (damage, report["reason"])
        assert (report["reason"] or "").startswith(reason.format(old.versions["onnxruntime"]))
    assert len({DAMAGE[damage][0] for damage in ("a weight", "cut", "too new", "known bad")}) == 4


@every_runtime
def test_random_networks_of_every_family_compute_the_same(
    networks: tuple[Path, dict[str, list[str]]], installed: InstalledOf, runtime: Runtime
) -> None:
    """Each has passed the gate of fp32 here. Those of int8 are also accepted and right, with every batch."""
    folder, names = networks
    assert {form: len(each) for form, each in names.items()} == dict.fromkeys(
        matrix.FORMS, matrix.NUM_NETWORKS * len(matrix.FAMILIES)
    )
    for form, found in matrix.check_networks(installed(runtime), folder, names).items():
        wrong = {name: each["reason"] for name, each in zip(names[form], found, strict=True) if "reason" in each}
        assert wrong == {}
        assert all(each["batches"] == list(BATCHES) for each in found)
        if form != matrix.FP32:
            assert sum(each["num_classes_compared"] for each in found) > 0


def test_a_wrong_network_is_found(networks: tuple[Path, dict[str, list[str]]], installed: InstalledOf) -> None:
    folder, names = networks
    for form in matrix.FORMS:
        first, second = names[form][:2]
        shutil.copy(folder / f"{first}.npz", folder / f"0 {form}.npz")
        shutil.copy(folder / f"{first}.onnx", folder / f"0 {form}.onnx")
        change_a_weight(folder / f"0 {form}.onnx")
        [wrong, right] = matrix.check_networks(installed(RUNTIMES[0]), folder, {form: [f"0 {form}", second]})[form]
        assert "scaled difference" in wrong["reason"]
        assert "reason" not in right


def test_the_table_in_the_docs_is_what_is_found(
    report_of: Callable[[str, Runtime], dict[str, Any]], installed: InstalledOf, repository: Path
) -> None:
    """But for the figures, which depend on the processor, and for which release is the newest."""
    reports = {profile: [report_of(profile, runtime) for runtime in RUNTIMES] for profile in matrix.RUN}
    table = list(matrix.bundle_table([installed(runtime) for runtime in RUNTIMES], reports))
    page = (repository / "docs" / "devices.md").read_text(encoding="utf-8").splitlines()
    rows, told = ([without_figures(line) for line in lines if is_row(line)] for lines in (table, page))
    assert len(rows) == 2 * len(matrix.PROFILES)
    assert rows == told


def is_row(line: str) -> bool:
    """Return whether a line is a row of the table of bundles: profile, file, and a cell for each runtime."""
    cells = line.split(" | ")
    return len(cells) == 2 + len(RUNTIMES) and cells[0].removeprefix("| ") in matrix.PROFILES


def without_figures(row: str) -> str:
    """Return a row of the table with no differences in it."""
    return re.sub(r"run, [\d.e-]+", "run", row)
