"""Releases that are known to fail on a device: which they are, and that `run.py` runs nothing with one."""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fedsup_deploy.ondevice.known_bad import comparisons_of, is_among, why_known_bad

PI = {
    "runtime": "onnxruntime",
    "versions": "==1.21.0",
    "symptom": "illegal instruction",
    "cure": "run: pip install 'onnxruntime!=1.21.0'",
    "source": "microsoft/onnxruntime#23957",
}


@pytest.mark.parametrize(
    ("versions", "among", "others"),
    [
        ("==1.21.0", ["1.21.0", "1.21", "1.21.0+jetson", "1.21.0rc1"], ["1.21.1", "1.2.10", "1.20.0", "11.21.0"]),
        (">=1.23,<1.24", ["1.23", "1.23.0", "1.23.99"], ["1.24.0", "1.22.9", "1.3"]),
        (" > 1.9 , != 1.10.0", ["1.9.1", "1.10.1", "2"], ["1.9", "1.9.0", "1.10", "1.8.1"]),
        ("<=1.8", ["1.8.0", "0.9"], ["1.8.1"]),
    ],
)
def test_which_releases_are_meant(versions: str, among: list[str], others: list[str]) -> None:
    assert [version for version in among if not is_among(version, versions)] == []
    assert [version for version in others if is_among(version, versions)] == []


def test_a_version_that_is_none_is_no_bad_one() -> None:
    assert not is_among("", "<99")
    assert not is_among("unknown", "!=1.0")


@pytest.mark.parametrize("versions", ["", "1.21.0", "==1.21.*", "~=1.2", "==1.21.0,", "=1", "== 1.2 1.3", "==1..2"])
def test_what_is_no_comparison_is_refused(versions: str) -> None:
    with pytest.raises(ValueError, match=r"expected comparisons with a version, such as ==1\.21\.0 or >=1\.23,<1\.24"):
        comparisons_of(versions)


def test_another_runtime_is_not_meant() -> None:
    assert why_known_bad("onnxruntime", "1.21.0", [{**PI, "runtime": "tflite"}]) is None  # type: ignore[list-item]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_known_bad_release_is_refused_before_it_is_imported(bundle: Any, tmp_path: Path, as_json: bool) -> None:
    """This one does what 1.21.0 does on a Raspberry Pi 4: it ends the process that imports it."""
    libraries = tmp_path / "libraries"
    (libraries / "onnxruntime").mkdir(parents=True)
    (libraries / "numpy").symlink_to(Path(np.__file__).parent)
    text = '__version__ = "1.21.0"\nimport os; os.kill(os.getpid(), 4)\n'
    (libraries / "onnxruntime" / "__init__.py").write_text(text)
    bundle.write_manifest(known_bad=[{**PI, "versions": "<1.9"}, PI])
    arguments = ["--json"] if as_json else []
    result = bundle.run(*arguments, python=(sys.executable, "-S"), PYTHONPATH=str(libraries))
    assert (result.returncode, result.stderr) == (8, "")
    expected = (
        "onnxruntime 1.21.0 is known to be bad on this device: illegal instruction; run: pip install "
        "'onnxruntime!=1.21.0' (source: microsoft/onnxruntime#23957)"
    )
    if as_json:
        report = json.loads(result.stdout)
        assert (report["reason"], report["exit_code"]) == (expected, 8)
        assert report["runtime"] == {"name": "onnxruntime", "version": "1.21.0", "least_version": "1.8"}
        assert report.keys() & {"parity", "latency", "environment"} == set()
    else:
        assert result.stdout.splitlines()[-2:] == [
            "runtime   onnxruntime 1.21.0, the model needs 1.8 or later",
            f"FAIL: {expected}",
        ]


def test_any_other_release_runs(bundle: Any) -> None:
    bundle.write_manifest(known_bad=[PI, {**PI, "versions": f"!={onnxruntime.__version__}"}])
    assert bundle.run_here("--skip-latency")[0] == 0
    bundle.write_manifest(known_bad=[PI, {**PI, "versions": f"=={onnxruntime.__version__}"}])
    bundle.check(exit_code=8, reason=f"onnxruntime {onnxruntime.__version__} is known to be bad on this device")


@pytest.mark.parametrize("words", [["--skip-latency"], ["--classify", "no such image"]])
def test_a_release_that_is_bad_on_the_device_runs_on_a_machine_of_another_instruction_set(
    bundle: Any, words: list[str]
) -> None:
    """Which it is not bad on; a line says first that this is not the device."""
    bad = {**PI, "versions": f"=={onnxruntime.__version__}"}
    for arch, code in ((platform.machine(), 8), (None, 8), ("riscv64", 7 if "--classify" in words else 0)):
        bundle.write_manifest(known_bad=[bad], arch=arch)
        found, output = bundle.run_here(*words)
        assert found == code
        is_told = ["not the device (" in line for line in output.splitlines()]
        assert sum(is_told) == (code != 8)
        assert ("is known to be bad" in output) is (code == 8)


@pytest.mark.parametrize("listed", [[{**PI, "versions": "1.21.0"}], [{"runtime": "onnxruntime"}], ["bad"], 7])
def test_a_list_that_is_none_is_a_damaged_manifest(bundle: Any, listed: Any) -> None:
    bundle.write_manifest(known_bad=listed)
    bundle.check(exit_code=1, reason="manifest.json is damaged")
