"""`run.py` under the Pythons of devices: what a stock Jetson Nano has, and what lies between it and this one."""

import functools
import json
import os
import platform
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.artifact.packing import pack
from fedsup_deploy.device import session
from fedsup_deploy.device.building.graph import write_graph
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace

#: Pythons with releases of onnxruntime and NumPy of their time; 1.10 is the newest for Python 3.6.
RUNTIMES = [
    ("3.6", "1.8.1", "1.19.5"),
    ("3.6", "1.10.0", "1.19.5"),
    ("3.7", "1.14.1", "1.21.6"),
    ("3.8", "1.19.2", "1.24.4"),
]
#: Of glibc, what wheels of that time are built for.
GLIBC = ("2_28", "2_27", "2_17", "2_12")

PythonOf = Callable[[str], Path]
LibrariesOf = Callable[[str, str, str], Path]


@pytest.fixture(scope="session")
def python_of() -> PythonOf:
    """Find a Python by its version: on the path, or among those of pyenv."""

    def find(version: str) -> Path:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # not $HOME, which is another one in tests
        root = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
        candidates = [*root.glob(f"versions/{version}.*/bin/python{version}"), shutil.which(f"python{version}")]
        for candidate in filter(None, candidates):
            command = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == version:
                return Path(candidate)
        pytest.skip(f"Python {version} (install it, for instance with pyenv)")

    return find


@pytest.fixture(scope="session")
def libraries_of(tmp_path_factory: pytest.TempPathFactory) -> LibrariesOf:
    """Download onnxruntime and NumPy for another Python into a folder that its PYTHONPATH can name.

    The two alone, as run.py needs no more; pip would hold what they require against the Python that it runs in.
    """

    @functools.cache
    def install(version: str, onnxruntime: str, numpy: str) -> Path:
        folder = tmp_path_factory.mktemp("libraries")
        number = version.replace(".", "")
        abis = [f"--abi=cp{number}{'m' if number in {'36', '37'} else ''}", "--abi=abi3", "--abi=none"]
        machine = platform.machine()
        systems = [f"--platform=manylinux_{glibc}_{machine}" for glibc in GLIBC]
        systems += [f"--platform=manylinux{year}_{machine}" for year in (2014, 2010)]
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"),
            *(
                "--only-binary=:all:",
                "--no-deps",
                "--ignore-requires-python",
                f"--python-version={version}",
                "--implementation=cp",
                *abis,
                *systems,
            ),
            *("--target", str(folder), f"onnxruntime=={onnxruntime}", f"numpy=={numpy}"),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return folder

    return install


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8"])
def test_old_python_without_libraries_checks_the_files_and_says_what_to_install(
    bundle: Any, python_of: PythonOf, version: str
) -> None:
    python = (str(python_of(version)), "-I", "-S")
    whole = bundle.run("--skip-latency", python=python)
    assert (whole.returncode, whole.stderr) == (2, "")
    assert whole.stdout == "files     5 unchanged\nFAIL: numpy cannot be imported; run: pip install numpy onnxruntime\n"
    (bundle.folder / "vectors.npz").write_bytes(b"another file")
    altered = bundle.run("--json", python=python)
    assert (altered.returncode, altered.stderr) == (1, "")
    assert json.loads(altered.stdout)["reason"].startswith("vectors.npz was altered: ")


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8"])
def test_old_python_times_as_this_one_does(bundle: Any, python_of: PythonOf, version: str) -> None:
    """By a clock that the run itself moves, by 10 ms."""
    code = """
import json, run
class Clock:
    now_ns = 0
    def __call__(self):
        return self.now_ns
    def run_once(self):
        self.now_ns += 10000000
clock = Clock()
before = run.now_ns()
latency = run.measure_latency(clock.run_once, run.QUICK, clock)
assert type(before) is int and 0 < run.now_ns() - before < 60 * 10**9
latency.pop("peak_rss_mib")
print(json.dumps(latency))
"""
    reports = []
    for python in (python_of(version), sys.executable):
        command = [str(python), "-S", "-B", "-c", code]
        # Without the variables of this process, which may keep a Python from its current folder.
        ran = subprocess.run(command, cwd=bundle.folder, env={}, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")
        reports.append(json.loads(ran.stdout))
    assert reports[0] == reports[1]
    assert reports[0]["statistics"]["p50_ms"] == 10.0


@pytest.mark.slow
@pytest.mark.parametrize(("version", "onnxruntime", "numpy"), RUNTIMES)
def test_bundle_is_checked_and_timed_by_an_old_runtime(
    bundle: Any,
    python_of: PythonOf,
    libraries_of: LibrariesOf,
    version: str,
    onnxruntime: str,
    numpy: str,
) -> None:
    """The real program, in a real Python with a real runtime, which are downloaded: what passes, and what does not."""
    python = (str(python_of(version)),)
    path = str(libraries_of(version, onnxruntime, numpy))
    ran = bundle.run("--json", "--seconds", "0.2", "--threads", "2", python=python, PYTHONPATH=path)
    assert (ran.returncode, ran.stderr) == (0, "")
    report = json.loads(ran.stdout)
    environment = report["environment"]
    assert environment["python"].startswith(f"{version}.")
    assert (environment["onnxruntime"], environment["numpy"]) == (onnxruntime, numpy)
    assert report["parity"]["max_scaled_diff"] <= 1e-5
    assert report["latency"]["statistics"]["num_runs"] >= 200
    here = json.loads(bundle.run("--json", "--seconds", "0.2").stdout)
    assert [list(report), list(report["latency"]), list(environment)] == [
        list(here),
        list(here["latency"]),
        list(here["environment"]),
    ]

    text = bundle.run("--skip-latency", python=python, PYTHONPATH=path)
    assert (text.returncode, text.stderr, text.stdout.splitlines()[-1]) == (0, "", "PASS")

    (bundle.folder / "session.py").write_text(pack(session.__name__))
    words = [*python, str(bundle.folder / "session.py"), str(bundle.folder), "--rounds", "2"]
    timed = subprocess.run(words, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (timed.returncode, timed.stderr) == (0, "")
    events = [json.loads(line)["event"] for line in timed.stdout.splitlines()]
    assert events == ["environment", "load", "visit", "round", "visit", "round"]
    (bundle.folder / "session.py").unlink()

    bundle.write_model(batch_slope=1.0)
    bundle.write_manifest()
    wrong = bundle.run("--skip-latency", python=python, PYTHONPATH=path)
    assert (wrong.returncode, wrong.stderr) == (3, "")
    assert wrong.stdout.splitlines()[-1].startswith("FAIL: outputs at batch 1: scaled difference 1, allowed 1e-05")

    (bundle.folder / "model.onnx").write_bytes(b"not a model")
    bundle.write_manifest()
    refused = bundle.run("--skip-latency", python=python, PYTHONPATH=path)
    assert (refused.returncode, refused.stderr) == (6, "")
    assert refused.stdout.splitlines()[-1].startswith(f"FAIL: onnxruntime {onnxruntime} cannot run model.onnx: ")


@pytest.mark.slow
@pytest.mark.parametrize(("version", "onnxruntime", "numpy"), RUNTIMES)
def test_every_kind_of_layer_is_computed_by_an_old_runtime(
    python_of: PythonOf,
    libraries_of: LibrariesOf,
    space_of: Callable[..., SearchSpace],
    tmp_path: Path,
    version: str,
    onnxruntime: str,
    numpy: str,
) -> None:
    """A network as it is exported, with squeeze-excitation and a pool of an odd map; a runtime of today agrees."""
    stage = {"widths": [6], "depths": [2], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    space = space_of(stage, resolutions=[7])
    parts = parts_of(space.plan(space.largest))
    write_graph(parts, tmp_path / "model.onnx", seed=0)
    inputs_BCHW = rng.generator(0, "images").standard_normal((5, 1, 7, 7), dtype=np.float32)
    np.save(tmp_path / "inputs.npy", inputs_BCHW)
    code = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
numpy.save("outputs.npy", session.run(["logits"], {"input": numpy.load("inputs.npy")})[0])
print(onnxruntime.__version__)
"""
    environment = {"PYTHONPATH": str(libraries_of(version, onnxruntime, numpy))}
    command = [str(python_of(version)), "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{onnxruntime}\n"), ran.stderr
    expected_BK = inference.bind(inference.open_session(str(tmp_path / "model.onnx"), 1), inputs_BCHW)()
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected_BK, atol=1e-5, rtol=1e-5)
