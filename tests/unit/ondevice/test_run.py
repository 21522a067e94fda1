"""`run.py` as a program in a real bundle, and the checks in it."""

import json
import os
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fedsup_deploy.ondevice import bundle_files, bundle_outputs, inference, timing

ALLOWED = {"tolerance": 1e-5, "batch_tolerance": 1e-5}


def test_nothing_is_left_in_the_home_of_who_runs_it(bundle: Any, tmp_path: Path) -> None:
    """Where libraries would keep what their telemetry knows this machine by."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    result = bundle.run("--skip-latency", HOME=str(home), TMPDIR=str(temporary))
    assert (result.returncode, result.stderr) == (0, "")
    assert [*home.iterdir(), *temporary.iterdir()] == []


def test_a_whole_bundle_passes_and_is_timed(bundle: Any) -> None:
    result = bundle.run("--json", "--seconds", "0.2", "--threads", "2")
    report = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert (report["exit_code"], report["reason"], report["arch_id"]) == (0, None, "toy")
    assert report["files"]["num_files"] == 5
    parity = report["parity"]
    assert (parity["batches"], parity["num_inputs"], parity["argmax_agreement"]) == ([1, 3, 8], 16, 1.0)
    assert 0 <= parity["max_scaled_diff"] <= parity["max_abs_diff"] <= 1e-5
    assert 0 <= parity["batch_invariance_max_scaled_diff"] <= parity["batch_invariance_max_abs_diff"] <= 1e-5
    latency = report["latency"]
    assert latency["statistics"]["num_runs"] >= 200
    assert latency["statistics"]["p90_bound_ms"] >= latency["statistics"]["p90_ms"]
    assert (latency["protocol"]["name"], latency["protocol"]["min_seconds"]) == ("quick", 0.2)
    assert (latency["is_min_runs_met"], latency["is_min_duration_met"]) == (True, True)
    assert report["environment"]["threads"] == 2
    expected = {"name": "onnxruntime", "version": onnxruntime.__version__, "least_version": "1.8"}
    assert report["runtime"] == expected


def test_the_full_protocol_can_be_asked_for(bundle: Any) -> None:
    """Its minute is cut short here, its 1,024 runs are not."""
    code, output = bundle.run_here("--json", "--protocol", "full", "--seconds", "0.05")
    latency = json.loads(output)["latency"]
    assert (code, latency["protocol"]["name"], latency["is_min_runs_met"]) == (0, "full", True)
    assert latency["statistics"]["num_runs"] >= 1024
    assert timing.FULL.min_seconds == 60.0


def test_the_report_for_people_ends_with_pass(bundle: Any) -> None:
    code, output = bundle.run_here("--seconds", "0.05")
    lines = output.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == [
        "files",
        "runtime",
        "parity",
        "latency",
        "noise",
        "start",
        "device",
        "PASS",
    ]
    assert lines[1] == f"runtime   onnxruntime {onnxruntime.__version__}, the model needs 1.8 or later"


def test_both_files_of_a_bundle_are_timed_in_turns_and_compared(bundle: Any) -> None:
    bundle.write_int8()
    code, output = bundle.run_here("--json", "--seconds", "0.05")
    report = json.loads(output)
    assert code == 0
    fp32, int8 = report["latency"], report["int8_latency"]
    assert list(int8) == [*fp32, "speed"]
    assert int8["protocol"] == fp32["protocol"]
    assert (int8["is_min_runs_met"], int8["is_min_duration_met"]) == (True, True)
    speed = int8["speed"]
    assert speed["times_as_fast"] == pytest.approx(fp32["statistics"]["p10_ms"] / int8["statistics"]["p10_ms"])
    assert speed["faster_above"] == 1 + max(speed["noise"], 0.02)
    code, output = bundle.run_here("--skip-latency", "--json")
    assert (code, "int8" in output, "int8_latency" in output) == (0, True, False)


def test_people_read_how_fast_int8_is(bundle: Any) -> None:
    bundle.write_int8()
    code, output = bundle.run_here("--seconds", "0.05")
    words = [line for line in output.splitlines() if line.startswith("int8 ")]
    assert code == 0
    assert words[0].startswith("int8      16 images, ")
    assert re.match(r"int8      p10 [\d.e-]+ ms, [\d.]+ times as fast as fp32 \((un)?stable\)", words[1])
    assert len(words) == 2


def test_where_this_is_not_the_device_a_line_says_so_before_anything_is_judged(bundle: Any) -> None:
    """And the speed of int8 is not told as if it were the device's, nor what to do about it."""
    bundle.write_int8(arch="riscv64")
    code, output = bundle.run_here("--seconds", "0.05")
    lines = output.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[:4]] == ["files", "machine", "runtime", "parity"]
    assert lines[1] == (
        f"machine   not the device ({platform.machine()} here, riscv64 there): times say nothing of it, and "
        "releases that fail there may run"
    )
    [of_speed] = [line for line in lines if line.startswith("int8      p10 ")]
    speed = r"p10 [\d.e-]+ ms, [\d.]+ times as fast as fp32 \(\w+\), not on the device"
    assert re.fullmatch(rf"int8      {speed}", of_speed)
    _, output = bundle.run_here("--skip-latency", "--json")
    expected = {"arch": "riscv64", "arch_here": platform.machine(), "may_be_here": False}
    assert json.loads(output)["device"] == expected


@pytest.mark.parametrize("arch", [platform.machine(), None])
def test_where_this_may_be_the_device_no_line_says_otherwise(bundle: Any, arch: Any) -> None:
    bundle.write_manifest(arch=arch)
    _, output = bundle.run_here("--skip-latency")
    assert "machine " not in output
    _, output = bundle.run_here("--skip-latency", "--json")
    assert json.loads(output)["device"] == {"arch": arch, "arch_here": platform.machine(), "may_be_here": True}


def test_on_another_machine_than_the_device_wrong_outputs_and_models_are_what_they_are(bundle: Any) -> None:
    bundle.write_vectors(bundle.inputs, slightly_off(bundle))
    bundle.write_manifest(arch="riscv64")
    bundle.check(exit_code=3, reason="outputs at batch 1: scaled difference 0.001, allowed 1e-05")
    (bundle.folder / "model.onnx").write_bytes(b"\x08\x07")
    bundle.write_manifest(arch="riscv64")
    bundle.check(exit_code=6, reason=f"onnxruntime {onnxruntime.__version__} cannot run model.onnx: ")


def test_it_runs_from_another_folder_and_writes_nothing(bundle: Any, tmp_path: Path) -> None:
    before = sorted(bundle.folder.rglob("*"))
    program = [sys.executable, str(bundle.folder / "run.py"), "--skip-latency"]
    assert subprocess.run(program, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert sorted(bundle.folder.rglob("*")) == before


def test_the_report_names_no_place_and_no_person(bundle: Any) -> None:
    text = bundle.run("--json", "--seconds", "0.05", USER="somebody", HOSTNAME="somewhere").stdout
    assert str(bundle.folder.parent) not in text
    assert str(Path(sys.prefix)) not in text
    assert "somebody" not in text
    assert "somewhere" not in text
    assert f'"{platform.node()}"' not in text


def test_an_altered_file_is_found(bundle: Any) -> None:
    model = bundle.folder / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    bundle.check(exit_code=1, reason="model.onnx was altered: its sha256 is not that of SHA256SUMS")


def test_a_program_with_the_line_ends_of_windows_says_that_it_was_altered(bundle: Any) -> None:
    """As an editor or a download leaves it: it still runs."""
    program = bundle.folder / "run.py"
    program.write_bytes(program.read_bytes().replace(b"\n", b"\r\n"))
    bundle.check(exit_code=1, reason="run.py was altered: its sha256 is not that of SHA256SUMS")


def test_it_needs_no_home_and_no_folder_for_temporary_files(bundle: Any) -> None:
    result = bundle.run("--skip-latency", TMPDIR="/nowhere")
    assert (result.returncode, result.stderr) == (0, "")


def with_tolerance(value: str) -> str:
    """Return a manifest that allows so much, and says nothing else."""
    return f'{{"models": {{"onnx-fp32": {{"gate": {{"tolerance": {value}, "batch_tolerance": 1e-5}}}}}}}}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "manifest.json is damaged"),
        ("[]", "manifest.json is damaged"),
        ('{"arch_id": 1}', "manifest.json is damaged: KeyError: 'models'"),
        (with_tolerance("1e9"), "manifest.json was altered: a tolerance of 1e+09, expected at most 1e-05"),
        (with_tolerance("NaN"), "manifest.json is damaged: ValueError: got NaN, expected a finite number"),
        ("[" * 100_000, "manifest.json is damaged: ValueError: nested deeper than 32 levels"),
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_manifest_is_refused_though_its_hash_is_right(bundle: Any, content: str, reason: str) -> None:
    bundle.write_sums(content)
    bundle.check(exit_code=1, reason=reason)


@pytest.mark.parametrize("name", ["model.onnx", "vectors.npz", "manifest.json", "SHA256SUMS"])
def test_a_missing_file_is_named(bundle: Any, name: str) -> None:
    (bundle.folder / name).unlink()
    bundle.check(exit_code=5, reason=f"{name} is missing")


def with_nan(bundle: Any) -> Any:
    return np.where(np.arange(5) == 0, np.nan, bundle.outputs).astype(np.float32)


def with_a_class_less(bundle: Any) -> Any:
    return bundle.outputs[:, 1:]


def as_text(bundle: Any) -> Any:
    return bundle.outputs.astype(str)


def as_one_number(bundle: Any) -> Any:
    return np.float32(0.5)


def slightly_off(bundle: Any) -> Any:
    return bundle.outputs + np.float32(1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (slightly_off, "outputs at batch 1: scaled difference 0.001, allowed 1e-05, on an image of scale 1"),
        (with_nan, "vectors.npz holds NaN or infinite outputs, expected finite ones"),
        (with_a_class_less, "vectors.npz holds outputs of type float32 and shape [4], expected float32 [5]"),
        (as_text, "vectors.npz holds outputs of type <U32 and shape [5], expected float32 [5]"),
        (as_one_number, "vectors.npz holds outputs of type float32 and shape [], expected float32 [5]"),
    ],
)
def test_wrong_outputs_are_found(bundle: Any, change: Callable[[Any], Any], reason: str) -> None:
    bundle.write_vectors(bundle.inputs, change(bundle))
    bundle.write_manifest()
    bundle.check(exit_code=3, reason=reason)


@pytest.mark.parametrize(("first", "expected"), [("batch", (1, 3, 8)), (1, (1,))])
def test_the_input_says_how_many_images_at_once_a_model_is_checked_with(first: Any, expected: tuple[int, ...]) -> None:
    """And no more are given to it: a model for one image alone could not take them."""
    outputs_VK = np.eye(8, 3, dtype=np.float32)
    asked: list[int] = []

    def run(i: Any) -> Any:
        asked.append(len(i))
        return outputs_VK[i]

    batches = bundle_outputs.batches_of([first, 3, 8, 8])
    assert batches == expected
    assert bundle_outputs.check_outputs(run, np.arange(8), outputs_VK, ALLOWED, batches)["batches"] == list(expected)
    assert bundle_outputs.check_int8_outputs(run, np.arange(8), outputs_VK, 0.1, batches)["batches"] == list(expected)
    assert max(asked) == max(expected)


def test_a_model_for_another_number_of_images_is_damage() -> None:
    with pytest.raises(ValueError, match="the model takes 4 images at once, expected any number or 1"):
        bundle_outputs.batches_of([4, 3, 8, 8])


def test_another_class_is_found_where_the_logits_are_close() -> None:
    recorded_VK = np.tile(np.array([0.5, 0.5 + 1e-6], np.float32), (8, 1))
    with pytest.raises(bundle_files.CheckError, match="8 of 8 images get another class at batch 1") as caught:
        bundle_outputs.check_outputs(lambda i: recorded_VK[i][:, ::-1], np.arange(8), recorded_VK, ALLOWED)
    assert caught.value.exit_code == bundle_files.PARITY


def test_an_output_that_depends_on_the_batch_is_found(bundle: Any) -> None:
    """The recorded outputs lie midway between those at batch 1 and 8, so only the comparison of the two fails."""
    slope = 2e-6
    bundle.write_model(slope)
    bundle.write_vectors(bundle.inputs, bundle.outputs + np.float32(4.5 * slope))
    bundle.write_manifest()
    reason = "an image alone and inside a batch of 8: scaled difference 1.4e-05, allowed 1e-05, on an image of scale 1"
    bundle.check(exit_code=4, reason=reason)


def test_a_model_that_computes_nan_is_found(bundle: Any) -> None:
    bundle.write_model(float("nan"))
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="outputs at batch 1: scaled difference nan, allowed 1e-05")


@pytest.mark.parametrize("for_one", [True, False])
def test_a_model_that_does_not_end_is_ended(bundle: Any, monkeypatch: pytest.MonkeyPatch, for_one: bool) -> None:
    """Whether it ends may depend on how many images it is given."""
    monkeypatch.setattr(inference, "MOST_SECONDS", 0.2)
    bundle.write_endless_model(for_one=for_one)
    bundle.write_manifest()
    code, output = bundle.run_here("--skip-latency", "--json")
    assert code == bundle_files.UNRUNNABLE
    assert json.loads(output)["reason"].startswith(f"onnxruntime {onnxruntime.__version__} cannot run model.onnx: ")
    assert "terminate flag" in output


def outputs_of_scale(scale: float) -> Any:
    """Eight images, the last of scale 100: the scale must be that of each image, not of all."""
    outputs = np.tile(np.array([-scale, 0.0, scale / 2]), (8, 1))
    outputs[7] = [-100.0, 0.0, 50.0]
    return outputs.astype(np.float32)


def check_first_image_off_by(difference: float, outputs: Any, only_in_batches: bool = False) -> dict[str, Any]:
    """Check a model that adds the difference to the middle logit of image 0."""
    shift_VK = np.zeros(outputs.shape, np.float32)
    shift_VK[0, 1] = difference

    def run(indices: Any) -> Any:
        is_shifted = len(indices) > 1 or not only_in_batches
        return outputs[indices] + shift_VK[indices] * is_shifted

    return bundle_outputs.check_outputs(run, np.arange(8), outputs, ALLOWED)


def test_what_is_allowed_grows_with_the_logits_of_the_image() -> None:
    found = check_first_image_off_by(1e-4, outputs_of_scale(100.0))

    assert found["max_abs_diff"] == pytest.approx(1e-4)
    assert found["max_scaled_diff"] == pytest.approx(1e-6)
    assert found["batch_invariance_max_abs_diff"] == 0.0


def test_what_is_allowed_is_absolute_for_logits_up_to_one() -> None:
    what = r"difference 0\.0001, allowed 1e-05, on an image of scale 1$"
    for scale in (0.01, 1.0):
        assert check_first_image_off_by(9e-6, outputs_of_scale(scale))["max_scaled_diff"] == pytest.approx(9e-6)
        with pytest.raises(bundle_files.CheckError, match=what) as caught:
            check_first_image_off_by(1e-4, outputs_of_scale(scale))
        assert caught.value.exit_code == bundle_files.PARITY


def test_alone_against_in_a_batch_has_the_same_scale() -> None:
    found = check_first_image_off_by(1e-4, outputs_of_scale(100.0), only_in_batches=True)

    assert found["batch_invariance_max_abs_diff"] == pytest.approx(1e-4)
    assert found["batch_invariance_max_scaled_diff"] == pytest.approx(1e-6)


def test_vectors_that_cannot_be_used_are_refused(bundle: Any) -> None:
    bundle.write_vectors(bundle.inputs[:5], bundle.outputs[:5])
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz holds 5 inputs and 5 outputs, expected equally many, at least 8")
    np.savez(bundle.folder / "vectors.npz", images=bundle.inputs)
    bundle.write_manifest()
    bundle.check(exit_code=1, reason="vectors.npz was altered: it has no array inputs; copy the bundle again")
    (bundle.folder / "vectors.npz").write_bytes(b"PK\x03\x04 no archive")
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz cannot be used")
    np.savez_compressed(bundle.folder / "vectors.npz", inputs=0 * bundle.inputs, outputs=bundle.outputs)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz is compressed, expected plain arrays")
    with (bundle.folder / "vectors.npz").open("wb") as file:
        np.save(file, bundle.inputs)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz cannot be used")


def member(header: str, content: bytes = b"") -> bytes:
    """An array as NumPy writes it, under any header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def of_shape(shape: str, dtype: str = "'<f4'") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "vectors.npz holds outputs of type"),
        (member("((("), "vectors.npz cannot be used"),
        (member("{" * 200), "vectors.npz cannot be used"),
        (member(of_shape("(1099511627776, 3, 8, 8)"), bytes(64)), "vectors.npz cannot be used"),
        (member(of_shape("(-1,)"), bytes(64)), "vectors.npz cannot be used"),
        (member(of_shape("(16, 5)", "[('a', '<f4')]"), bytes(320)), "vectors.npz holds outputs of type"),
    ],
    ids=["empty", "no header", "deep header", "terabytes", "negative", "fields"],
)
def test_outputs_that_are_no_array_are_refused(bundle: Any, content: bytes, reason: str) -> None:
    """NumPy says it with whatever exception it comes upon, and takes the memory that a header asks for."""
    with zipfile.ZipFile(bundle.folder / "vectors.npz") as archive:
        inputs = archive.read("inputs.npy")
    with zipfile.ZipFile(bundle.folder / "vectors.npz", "w") as archive:
        archive.writestr("inputs.npy", inputs)
        archive.writestr("outputs.npy", content)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason=reason)


def test_an_empty_file_of_vectors_is_refused(bundle: Any) -> None:
    (bundle.folder / "vectors.npz").write_bytes(b"")
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz cannot be used")


def test_pickled_vectors_are_not_unpickled(bundle: Any) -> None:
    bundle.write_vectors(np.array([{"a": 1}] * 16, dtype=object), bundle.outputs)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="Object arrays cannot be loaded when allow_pickle=False")


def test_a_model_the_runtime_cannot_load_is_one_line(bundle: Any) -> None:
    (bundle.folder / "model.onnx").write_bytes(b"not a model")
    bundle.write_manifest()
    bundle.check(exit_code=6, reason=f"onnxruntime {onnxruntime.__version__} cannot run model.onnx: ")
    assert str(bundle.folder) not in bundle.run("--skip-latency").stdout


def test_an_input_the_model_cannot_take_is_one_line(bundle: Any) -> None:
    bundle.write_vectors(bundle.inputs[:, :2], bundle.outputs)
    bundle.write_manifest()
    bundle.check(
        exit_code=3, reason="vectors.npz holds inputs of type float32 and shape [2, 8, 8], expected float32 [3"
    )


@pytest.mark.parametrize("has_switch", [True, False])
def test_opening_a_model_turns_telemetry_off_where_the_runtime_has_the_switch(
    bundle: Any, monkeypatch: pytest.MonkeyPatch, has_switch: bool
) -> None:
    turned_off: list[str] = []
    if has_switch:
        monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: turned_off.append("off"))
    else:
        monkeypatch.delattr(onnxruntime, "disable_telemetry_events")
    session = inference.open_session(str(bundle.folder / "model.onnx"), threads=1)
    assert session.get_inputs()[0].name == "input"
    assert turned_off == ["off"] * has_switch


def test_without_numpy_it_says_what_to_install(bundle: Any) -> None:
    result = bundle.run("--skip-latency", python=(sys.executable, "-I", "-S"))
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.splitlines()[-1] == ("FAIL: numpy cannot be imported; run: pip install numpy onnxruntime")


def test_without_onnxruntime_it_says_what_to_install(bundle: Any, tmp_path: Path) -> None:
    """A Python that finds NumPy and nothing else."""
    only_numpy = tmp_path / "only-numpy"
    only_numpy.mkdir()
    installed = Path(np.__file__).parent
    for folder in (installed, installed.with_name("numpy.libs")):
        if folder.is_dir():
            (only_numpy / folder.name).symlink_to(folder)
    result = bundle.run("--skip-latency", python=(sys.executable, "-S"), PYTHONPATH=str(only_numpy))
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.splitlines()[-1] == (
        "FAIL: onnxruntime cannot be imported; run: pip install numpy onnxruntime"
    )


OLD_RUNTIME = """
__version__ = "1.12.1"
class SessionOptions: pass
class ExecutionMode: ORT_SEQUENTIAL = 0
class GraphOptimizationLevel: ORT_ENABLE_ALL = 0
def InferenceSession(path, sess_options, providers): raise RuntimeError("Opset 18 is under development")
"""


def installed(folder: Path, *names: str) -> Path:
    """Make a folder that has nothing but these of this Python's packages."""
    folder.mkdir()
    place = Path(np.__file__).parents[1]
    for path in (path for name in names for path in (place / name, place / f"{name}.libs") if path.is_dir()):
        (folder / path.name).symlink_to(path)
    return folder


def package(folder: Path, name: str, text: str) -> None:
    """Write a package that stands in for one of a device."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


@pytest.mark.parametrize(
    "how_it_ends",
    [
        "import os; os.kill(os.getpid(), 11)",
        "raise ImportError('numpy.core.multiarray failed to import')",
        # What 1.16 does: it is imported, and ends the process when it is given an array.
        "import sys; sys.stderr.write('A module that was compiled using NumPy 1.x cannot be run in\\nNumPy 2.2.6')",
    ],
)
def test_an_onnxruntime_made_for_numpy_1_is_named_beside_numpy_2(bundle: Any, tmp_path: Path, how_it_ends: str) -> None:
    libraries = installed(tmp_path / "libraries", "numpy")
    package(libraries, "onnxruntime", f'__version__ = "1.16.3"\n{how_it_ends}\n')
    result = bundle.run("--skip-latency", python=(sys.executable, "-S"), PYTHONPATH=str(libraries))
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.splitlines()[-1] == (
        "FAIL: onnxruntime cannot be imported: version 1.16.3 was made for NumPy 1, and NumPy "
        f"{np.__version__} is installed; run: pip install 'numpy<2', or a newer onnxruntime"
    )


@pytest.mark.parametrize(
    ("package_text", "expected"),
    [
        (
            "raise ImportError('/home/pi/a b/_pybind.so: undefined symbol: x\\nand more')",
            "onnxruntime cannot be imported: _pybind.so: undefined symbol: x",
        ),
        (
            "raise ImportError('libgomp.so.1: failed to map segment from shared object')",
            "onnxruntime cannot be imported: libgomp.so.1: failed to map segment from shared object; the file system "
            "that it lies on lets nothing be loaded: it is mounted noexec",
        ),
        (
            "try:\n    raise ImportError('libx.so: no such file', name='onnxruntime.capi._x')\n"
            "except ImportError as error:\n    raise ImportError('IMPORTANT: READ THIS') from error",
            "onnxruntime cannot be imported: libx.so: no such file",
        ),
        ("import no_such_library", "no_such_library cannot be imported; run: pip install numpy onnxruntime"),
    ],
)
def test_why_onnxruntime_cannot_be_imported_is_kept(
    bundle: Any, tmp_path: Path, package_text: str, expected: str
) -> None:
    libraries = installed(tmp_path / "libraries", "numpy")
    package(libraries, "onnxruntime", package_text)
    result = bundle.run("--skip-latency", python=(sys.executable, "-S"), PYTHONPATH=str(libraries))
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.splitlines()[-1] == f"FAIL: {expected}"


def test_an_onnxruntime_older_than_the_model_is_named_with_the_one_it_needs(bundle: Any, tmp_path: Path) -> None:
    """One that says of a model what 1.12 says of opset 18."""
    libraries = installed(tmp_path / "libraries", "numpy")
    package(libraries, "onnxruntime", OLD_RUNTIME)
    package(libraries / "onnxruntime", "capi", "")
    (libraries / "onnxruntime" / "capi" / "onnxruntime_pybind11_state.py").touch()
    model = onnx.load(bundle.folder / "model.onnx")
    for opset, code, reason in (
        (
            18,
            2,
            "onnxruntime 1.12.1 is too old for model.onnx (opset 18, IR version 7), which needs 1.14 or later; run: ",
        ),
        (17, 6, "onnxruntime 1.12.1 cannot run model.onnx: Opset 18 is under development"),
    ):
        model.opset_import[0].version = opset
        (bundle.folder / "model.onnx").write_bytes(model.SerializeToString())
        bundle.write_manifest()
        result = bundle.run("--skip-latency", python=(sys.executable, "-S"), PYTHONPATH=str(libraries))
        assert (result.returncode, result.stderr) == (code, "")
        assert result.stdout.splitlines()[-1].startswith(f"FAIL: {reason}")


@pytest.mark.parametrize(("is_altered", "code"), [(False, 2), (True, 1)])
def test_a_report_that_cannot_be_written_is_no_success(bundle: Any, is_altered: bool, code: int) -> None:
    if is_altered:
        (bundle.folder / "stranger").touch()
    command = [sys.executable, "run.py", "--skip-latency"]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, cwd=bundle.folder, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (
        code,
        b"the report cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("words", ["--skip-latency", "--classify photo.png"])
def test_a_report_for_which_there_is_no_stdout_cannot_be_written(bundle: Any, words: str) -> None:
    """A shell closes it with `>&-`."""
    command = f"exec {shlex.quote(sys.executable)} run.py {words} >&-"
    ended = subprocess.run(["sh", "-c", command], cwd=bundle.folder, stderr=subprocess.PIPE, check=False)
    assert ended.stderr == b"the report cannot be written: Bad file descriptor\n"
    assert ended.returncode == (2 if words == "--skip-latency" else 7)


def test_an_int8_file_that_the_manifest_names_is_missing_also_where_the_sums_do_not_list_it(bundle: Any) -> None:
    bundle.write_int8(is_what_it_is_for=True)
    (bundle.folder / "model.int8.onnx").unlink()
    bundle.write_sums((bundle.folder / "manifest.json").read_text())
    bundle.check(exit_code=5, reason="model.int8.onnx is missing, which manifest.json names; copy the bundle again")
    ended = bundle.run("--classify", "photo.png")
    assert ended.returncode == 5
    assert ended.stdout.startswith("FAIL: model.int8.onnx is missing")


def test_recorded_outputs_of_int8_that_are_missing_are_an_altered_file(bundle: Any) -> None:
    bundle.write_int8()
    bundle.write_vectors(bundle.inputs, bundle.outputs)
    bundle.write_sums((bundle.folder / "manifest.json").read_text())
    bundle.check(exit_code=1, reason="vectors.npz was altered: it has no array outputs_int8; copy the bundle again")


def test_of_how_many_images_the_class_was_compared_is_told(bundle: Any) -> None:
    """And not as if it were the number of classes."""
    bundle.write_int8()
    _, output = bundle.run_here("--skip-latency")
    assert re.search(r"^int8 +16 images, class compared on \d+ of them: scaled", output, re.MULTILINE)


@pytest.mark.parametrize("name", [b"caf\xe9", "café".encode()])
def test_a_folder_may_have_any_name_in_any_locale(bundle: Any, name: bytes) -> None:
    """To onnxruntime a name is UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(bundle.folder.parent) + b"/" + name))
    bundle.folder.rename(folder)
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, folder / "run.py", "--skip-latency"]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.endswith(b"PASS\n")


@pytest.mark.parametrize("is_altered", [False, True])
def test_a_closed_pipe_changes_no_exit_code(bundle: Any, is_altered: bool) -> None:
    """As of `python run.py | true`: nobody reads it, and it says the same to the shell."""
    if is_altered:
        (bundle.folder / "stranger").touch()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        command = [sys.executable, "run.py", "--skip-latency"]
        result = subprocess.run(command, cwd=bundle.folder, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (int(is_altered), b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--threads", "0"),
        ("--threads", "99999"),
        ("--seconds", "0"),
        ("--seconds", "61"),
        ("--protocol", "slow"),
        ("--precision", "int8"),
    ],
)
def test_wrong_usage_has_its_own_exit_code(bundle: Any, arguments: tuple[str, ...]) -> None:
    result = bundle.run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage: run.py" in result.stderr


# What lies beside run.py.


MODULES = ("__future__", "argparse", "fnmatch", "hashlib", "json", "numpy", "onnxruntime", "os", "pathlib", "struct")


def python_that_tells(name: str) -> str:
    return f"import sys; sys.stderr.write('{name} of the bundle was imported')"


@pytest.mark.parametrize("python", [(), ("-S",), ("-I",), ("-B",)])
@pytest.mark.parametrize("path", [None, "", os.pathsep])
def test_nothing_beside_the_program_is_imported(
    bundle: Any, tmp_path: Path, python: tuple[str, ...], path: str | None
) -> None:
    """Started by its name, by its place, and by a link to it; an empty entry of PYTHONPATH is the current folder."""
    for name in MODULES:
        (bundle.folder / f"{name}.py").write_text(python_that_tells(name))
    (tmp_path / "link.py").symlink_to(bundle.folder / "run.py")
    for script, folder in (("run.py", bundle.folder), (bundle.folder / "run.py", tmp_path), ("link.py", tmp_path)):
        ended = subprocess.run(
            [sys.executable, *python, str(script), "--skip-latency"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **({} if path is None else {"PYTHONPATH": path})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (1, "")
        assert ended.stdout == "FAIL: __future__.py is no file of the bundle; remove it\n"


def test_package_and_cached_code_beside_the_program_are_not_imported(bundle: Any) -> None:
    for folder in ("numpy", "onnxruntime", "__pycache__"):
        (bundle.folder / folder).mkdir()
        (bundle.folder / folder / "__init__.py").write_text(python_that_tells(folder))
    bundle.check(exit_code=1, reason="__pycache__/__init__.py is no file of the bundle; remove it")


def test_folders_are_part_of_a_bundle_with_what_is_in_them_and_no_link_leads_out(bundle: Any, tmp_path: Path) -> None:
    inner = bundle.folder / "model.parts" / "deeper"
    inner.mkdir(parents=True)
    (inner / "weights.bin").write_bytes(b"weights")
    names = bundle_files.list_files(bundle.folder).keys() - {"SHA256SUMS"}
    assert "model.parts/deeper/weights.bin" in names
    (bundle.folder / "SHA256SUMS").write_text("".join(bundle_files.sha256sums(bundle.folder, names)))
    assert bundle.run_here("--skip-latency")[0] == 0
    (inner / "weights.bin").write_bytes(b"others")
    bundle.check(exit_code=1, reason="model.parts/deeper/weights.bin was altered")
    (inner / "weights.bin").rename(tmp_path / "elsewhere")
    bundle.check(exit_code=1, reason="model.parts/deeper/ is no folder of the bundle; remove it")
    inner.rmdir()
    inner.symlink_to(tmp_path, target_is_directory=True)
    bundle.check(exit_code=1, reason="model.parts/deeper is no regular file")


def test_folders_without_end_and_files_without_number_are_refused(bundle: Any, monkeypatch: Any) -> None:
    deep = bundle.folder.joinpath(*["d"] * (bundle_files.MOST_LEVELS + 2))
    deep.mkdir(parents=True)
    (deep / "file").touch()
    bundle.check(exit_code=1, reason="d/d/d is no regular file")
    shutil.rmtree(bundle.folder / "d")
    monkeypatch.setattr(bundle_files, "MOST_FILES", 3)
    code, output = bundle.run_here("--skip-latency")
    assert code == 1
    assert "more than 3 files; copy the bundle again" in output


@pytest.mark.parametrize("name", [".DS_Store", "._model.onnx", "Thumbs.db", "desktop.ini", ".measured.json.partial-0a"])
def test_what_desktops_leave_is_no_part_of_the_bundle(bundle: Any, name: str) -> None:
    (bundle.folder / name).write_bytes(b"anything")
    assert bundle.run_here("--skip-latency")[0] == 0
    (bundle.folder / name).unlink()
    (bundle.folder / name).symlink_to(bundle.folder / "run.py")
    bundle.check(exit_code=1, reason=f"{name} is no regular file")


def test_a_file_that_is_too_large_for_any_model_is_not_read(bundle: Any) -> None:
    with (bundle.folder / "model.onnx").open("r+b") as file:
        file.truncate(2**31 + 1)
    bundle.check(exit_code=1, reason="model.onnx was altered: it has more than 2,147,483,648 bytes")


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "measured.json"])
def test_a_pipe_is_not_waited_for(bundle: Any, name: str) -> None:
    (bundle.folder / name).unlink(missing_ok=True)
    os.mkfifo(bundle.folder / name)
    bundle.check(exit_code=1, reason=f"{name} ")


def test_a_reason_is_one_line_that_no_terminal_obeys(bundle: Any) -> None:
    (bundle.folder / "\x1b]0;title\a").write_bytes(b"")
    bundle.check(exit_code=1, reason="\\x1b]0;title\\x07 is no file of the bundle; remove it")
