"""`run.py` under the Pythons of devices: what a stock Jetson Nano has, and what lies between it and this one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from runtimes import RUNTIMES, Installed, Runtime

from fedsup_deploy import rng
from fedsup_deploy.artifact.packing import pack
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device import session
from fedsup_deploy.device.building.graph import random_weights, write_graph
from fedsup_deploy.ondevice import inference
from fedsup_deploy.ondevice.bundle_outputs import check_int8_outputs
from fedsup_deploy.ondevice.preprocessing import document_of, steps_of
from fedsup_deploy.ondevice.records import Report
from fedsup_deploy.space.onnx_graph import build_model, observable, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.quantization import quantized
from fedsup_deploy.space.search_space import SearchSpace

PythonOf = Callable[[str], Path]
InstalledOf = Callable[[Runtime], Installed]


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
@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_bundle_is_checked_and_timed_by_an_old_runtime(
    bundle: Any,
    installed: InstalledOf,
    runtime: Runtime,
) -> None:
    """The real program, in a real Python with a real runtime, which are downloaded: what passes, and what does not."""
    old = installed(runtime)
    python, path = (str(old.python),), str(old.libraries)
    ran = bundle.run("--json", "--seconds", "0.2", "--threads", "2", python=python, PYTHONPATH=path)
    assert (ran.returncode, ran.stderr) == (0, "")
    report = json.loads(ran.stdout)
    environment = report["environment"]
    assert environment["python"].startswith(f"{runtime.python}.")
    assert (environment["onnxruntime"], environment["numpy"]) == (old.versions["onnxruntime"], old.versions["numpy"])
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
    assert refused.stdout.splitlines()[-1].startswith(
        f"FAIL: onnxruntime {old.versions['onnxruntime']} cannot run model.onnx: "
    )


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_every_kind_of_layer_is_computed_by_an_old_runtime(
    installed: InstalledOf,
    space_of: Callable[..., SearchSpace],
    tmp_path: Path,
    runtime: Runtime,
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
    old = installed(runtime)
    ran = old.run("-c", code, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, f"{old.versions['onnxruntime']}\n"), ran.stderr
    expected_BK = inference.bind(inference.open_session(str(tmp_path / "model.onnx"), 1), inputs_BCHW)()
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected_BK, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("activations", ["u8", "s8"])
@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_int8_is_computed_by_an_old_runtime(
    installed: InstalledOf,
    space_of: Callable[..., SearchSpace],
    tmp_path: Path,
    runtime: Runtime,
    activations: Literal["u8", "s8"],
) -> None:
    """A network as it is exported in int8; a runtime of today agrees as far as the gate of int8 asks."""
    stage = {"widths": [6], "depths": [2], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    space = space_of(stage, resolutions=[7])
    parts = parts_of(space.plan(space.largest))
    model = build_model(parts, random_weights(parts, seed=0))
    inputs_BCHW = rng.generator(0, "images").standard_normal((32, 1, 7, 7), dtype=np.float32)
    watched, names = observable(model)
    values = [inputs_BCHW, *inference.open_session(to_bytes(watched), 1).run(list(names), {"input": inputs_BCHW})]
    ranges_V2 = np.array([(each.min(), each.max()) for each in values], dtype=np.float32)
    scheme = Int8Scheme(activations=activations, is_symmetric=False, per_channel=True, reduce_range=False)
    content = to_bytes(quantized(model, ranges_V2, scheme))
    (tmp_path / "model.int8.onnx").write_bytes(content)
    np.save(tmp_path / "inputs.npy", inputs_BCHW)
    code = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession("model.int8.onnx", providers=["CPUExecutionProvider"])
numpy.save("outputs.npy", session.run(["logits"], {"input": numpy.load("inputs.npy")})[0])
"""
    ran = installed(runtime).run("-c", code, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    outputs_BK = inference.bind(inference.open_session(content, 1), inputs_BCHW)()
    computed_BK = np.load(tmp_path / "outputs.npy")
    found = check_int8_outputs(lambda x_BCHW: _of(computed_BK, inputs_BCHW, x_BCHW), inputs_BCHW, outputs_BK, 0.1)
    assert found["num_classes_compared"] > 0


def _of(computed_BK: Any, inputs_BCHW: Any, x_BCHW: Any) -> Any:
    """Return what was computed of some of the inputs."""
    return computed_BK[[int(np.flatnonzero((inputs_BCHW == each).all(axis=(1, 2, 3)))[0]) for each in x_BCHW]]


#: How images are written that every Pillow decodes to the same bytes: what a JPEG decodes to is its library's business.
LOSSLESS: dict[str, dict[str, Any]] = {
    **{f"{mode}.png": {} for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"{mode}.tif": {"compression": "tiff_lzw"} for mode in ("L", "RGB", "RGBA", "CMYK")},
    "RGBA.webp": {"lossless": True},
    "L.bmp": {},
    "P.gif": {"transparency": 7},
    "RGB.ppm": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_images_are_classified_by_an_old_runtime(
    bundle: Any,
    installed: InstalledOf,
    tmp_path: Path,
    runtime: Runtime,
) -> None:
    """Lying in every way, the model's inputs are the same to the byte, and to rounding where they are resized.

    Squares of photographs are the same to the byte.
    """
    files = []
    for name, options in LOSSLESS.items():
        for orientation in range(1, 9):
            mode, _, suffix = name.partition(".")
            pixels = rng.generator(orientation, name).integers(0, 256, (6, 6, 4), dtype=np.uint8)
            exif = Image.Exif()
            exif[0x0112] = orientation
            lying = {"exif": exif} if suffix in {"png", "tif", "webp"} else {}
            image = Image.fromarray(pixels).convert("RGB" if mode == "CMYK" else mode).convert(mode)
            files.append(str(tmp_path / f"{orientation}-{name}"))
            image.save(files[-1], **lying, **options)
    #: Photographs: landscape, portrait, odd borders, less than the square; grey and in colours.
    shapes = [(48, 65, 3), (65, 48), (301, 23, 3), (59, 8), (5, 7, 3), (480, 640, 3)]
    noise = rng.generator(0, "photographs")
    np.savez(tmp_path / "photographs.npz", *(noise.integers(0, 256, shape, dtype=np.uint8) for shape in shapes))
    code = """
import sys
from pathlib import Path
import numpy, run
photographs = numpy.load(sys.argv[1] + "/../photographs.npz")
squares = [
    run.resized(photographs[name], run.SourceResize(size, how)).ravel()
    for name in sorted(photographs.files) for size in (9, 32) for how in run.HOW
]
numpy.save(sys.argv[1] + "/squares.npy", numpy.concatenate(squares))
steps = run.classifier_of(run.read_manifest(Path("."))).steps
for size in (8, 5):
    made = [run.input_of(Path(file), file, steps._replace(size=size)) for file in sys.argv[2:]]
    numpy.save("%s/%d.npy" % (sys.argv[1], size), numpy.concatenate(made))
"""
    inputs, reports = {}, {}
    old = installed(runtime)
    environments = {"old": {"PYTHONPATH": str(old.libraries)}, "here": {}}
    for where, python in (("old", old.python), ("here", sys.executable)):
        (tmp_path / where).mkdir()
        command = [str(python), "-B", "-c", code, str(tmp_path / where), *files]
        options = {"cwd": bundle.folder, "env": environments[where], "capture_output": True, "text": True}
        ran = subprocess.run(command, **options, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")
        inputs[where] = [np.load(tmp_path / where / f"{size}.npy") for size in (8, 5)]
        ran = bundle.run("--json", "--classify", *files, python=(str(python),), **environments[where])
        assert (ran.returncode, ran.stderr) == (0, "")
        reports[where] = json.loads(ran.stdout)["images"]
    np.testing.assert_array_equal(*(np.load(tmp_path / where / "squares.npy") for where in ("old", "here")))
    np.testing.assert_array_equal(inputs["old"][0], inputs["here"][0])
    np.testing.assert_allclose(inputs["old"][1], inputs["here"][1], rtol=0, atol=2e-6)
    assert [image["class"] for image in reports["old"]] == [image["class"] for image in reports["here"]]
    probabilities = [[image["probability"] for image in reports[where]] for where in ("old", "here")]
    np.testing.assert_allclose(*probabilities, rtol=1e-5)

    (tmp_path / "a.png").write_bytes(Path(files[0]).read_bytes()[:60])
    words = ("--classify", str(tmp_path / "a.png"), str(tmp_path / "gone.png"), files[0])
    ended = bundle.run(*words, python=(str(old.python),), **environments["old"])
    assert (ended.returncode, ended.stderr) == (7, "")
    assert ended.stdout.splitlines()[-1] == "FAIL: images that were not classified: 2 of 3"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_pictures_are_timed_by_an_old_runtime(
    bundle: Any,
    installed: InstalledOf,
    tmp_path: Path,
    runtime: Runtime,
) -> None:
    """Photographs of two sizes, which its Pillow decodes and makes square."""
    steps = document_of(steps_of(bundle.manifest()["preprocessing"])._replace(how="pad"))
    bundle.write_sums(json.dumps({**bundle.manifest(), "preprocessing": steps}))
    (tmp_path / "photos").mkdir()
    for name, shape in (("a.jpg", (48, 65, 3)), ("b.png", (30, 20, 3))):
        pixels = rng.generator(0, name).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    old = installed(runtime)
    python, path = (str(old.python),), str(old.libraries)
    words = ("--seconds", "0.1", "--images", str(tmp_path / "photos"))
    ran = bundle.run("--json", *words, python=python, PYTHONPATH=path)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = TypeAdapter(Report).validate_json(ran.stdout, strict=True)["pictures"]
    assert (found["num_pictures"], found["pillow"]) == (2, old.versions["pillow"])
    assert (found["smallest"], found["largest"]) == ({"width": 20, "height": 30}, {"width": 65, "height": 48})
    text = bundle.run(*words, python=python, PYTHONPATH=path)
    assert (text.returncode, text.stderr) == (0, "")
    assert f"pictures  2, 20x30 to 65x48 pixels; before the network, by Pillow {found['pillow']}" in text.stdout


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8"])
def test_old_python_without_libraries_classifies_nothing(bundle: Any, python_of: PythonOf, version: str) -> None:
    ended = bundle.run("--classify", "a.png", python=(str(python_of(version)), "-I", "-S"))
    assert (ended.returncode, ended.stderr) == (2, "")
    assert ended.stdout == "FAIL: numpy cannot be imported; run: pip install numpy onnxruntime\n"
