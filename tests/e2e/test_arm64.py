"""A bundle on arm64, emulated: does it compute there what it must? Times of an emulator mean nothing and are not taken.

Everything arm64 is downloaded: a minimal Debian (Python and its libraries) and the wheels of NumPy and onnxruntime.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PACKAGES = "python3-minimal,libpython3-stdlib,libstdc++6"
PYTHON = "3.11"
#: onnxruntime asks the kernel which cores there are. The emulator would answer with those of this machine.
CORTEX_A76 = """\
processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, command))}: {result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def arm64_python(tmp_path_factory) -> Sequence[str]:
    """The words that start an emulated Python with NumPy and onnxruntime."""
    missing = [name for name in ("qemu-aarch64-static", "debootstrap", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        pytest.skip("an emulator of arm64 (install qemu-user-static and debootstrap)")
    folder = tmp_path_factory.mktemp("arm64")
    root, site = folder / "root", folder / "site"
    run(
        *("debootstrap", "--arch=arm64", "--variant=minbase", "--foreign", f"--include={PACKAGES}", "bookworm", root),
        cwd=folder,
    )
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        run("dpkg-deb", "-x", package, root, cwd=folder)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(CORTEX_A76)
    systems = [f"--platform=manylinux_2_{version}_aarch64" for version in (28, 27, 17)]
    options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", *systems]
    versions = [f"--python-version={PYTHON}", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
    run(
        *(sys.executable, "-m", "pip", "install", *options, *versions, "--target", site, "numpy", "onnxruntime"),
        cwd=folder,
    )
    emulator = ["qemu-aarch64-static", "-cpu", "max", "-L", str(root), "-E", f"PYTHONPATH={site}"]
    return [*emulator, str(root / "usr/bin" / f"python{PYTHON}")]


def test_bundle_computes_the_same_on_arm64(arm64_python, bundle):
    report: dict[str, Any] = json.loads(run(*arm64_python, "run.py", "--json", "--skip-latency", cwd=bundle))

    assert report["environment"]["machine"] == "aarch64"
    assert report["environment"]["cpu"] == "CPU implementer 0x41 CPU part 0xd0b"
    assert report["exit_code"] == 0
    assert report["parity"]["max_scaled_diff"] <= report["parity"]["tolerance"] == 1e-5


@pytest.mark.parametrize(("profile", "activations"), [("raspberry-pi-4", "s8"), ("x86-laptop", "u8")])
def test_int8_is_computed_on_arm64_as_far_as_its_gate_asks(arm64_python, workshop, tmp_path, profile, activations):
    """There is nothing exact about it: the processors round differently."""
    both = ["--precision", "fp32", "--precision", "int8", "--format", "onnx", "--over-limit"]
    words = ["runs/digits", "--arch", "smallest", "--profile", profile, *both, "--out", str(tmp_path)]
    [made] = workshop.json("export", *words)["bundles"]
    manifest = json.loads((Path(made["folder"]) / "manifest.json").read_text(encoding="utf-8"))
    gate = manifest["models"]["onnx-int8"]["gate"]
    assert gate["scheme"]["activations"] == activations

    report = json.loads(run(*arm64_python, "run.py", "--json", "--skip-latency", cwd=made["folder"]))

    assert report["exit_code"] == 0
    assert report["int8"]["max_scaled_diff"] <= gate["tolerance"]
    assert report["int8"]["num_classes_compared"] > 0


def test_altered_model_is_found_on_arm64(arm64_python, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\x00")

    command = [*arm64_python, "run.py", "--json", "--skip-latency"]
    ended = subprocess.run(command, cwd=tmp_path / "bundle", capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert json.loads(ended.stdout)["reason"].startswith("model.onnx was altered: ")
