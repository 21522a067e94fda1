"""A small bundle, with a model that the oldest runtimes can load."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fedsup_deploy.artifact.program import program
from fedsup_deploy.ondevice import bundle_files, run
from fedsup_deploy.ondevice.preprocessing import PreprocessingSteps, document_of

NUM_VECTORS, SIZE, CLASSES = 16, 8, 5
#: What is done to images before the model takes them: they are padded, and not resized.
STEPS = PreprocessingSteps((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), native_size=6, padded_size=SIZE, size=SIZE)

Finished = subprocess.CompletedProcess[str]


def toy_model(batch_slope: float = 0.0) -> onnx.ModelProto:
    """Conv -> ReLU -> mean -> linear: logits below 1. `batch_slope` times the batch size is added, which is wrong.

    Opset 13 and IR 7 are what onnxruntime 1.8 can load.
    """
    numbers = np.random.default_rng(0)
    constants = {
        "weights": numbers.standard_normal((6, 3, 3, 3)),
        "matrix": numbers.standard_normal((6, CLASSES)) / 10,
        "slope": np.array(batch_slope),
    }
    first = numpy_helper.from_array(np.array([0]), "first")
    nodes = [
        helper.make_node("Conv", ["input", "weights"], ["conv"], pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMean", ["relu"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["product"]),
        helper.make_node("Shape", ["input"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["size"]),
        helper.make_node("Cast", ["size"], ["batch"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["batch", "slope"], ["shift"]),
        helper.make_node("Add", ["product", "shift"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", [image], [logits], [*initializers, first])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def endless_model(*, for_one: bool) -> onnx.ModelProto:
    """The toy model within a loop that does not end for several images, and for one image neither or at once."""
    model = toy_model()
    model.graph.node[-1].output[0] = "once"
    value = helper.make_tensor_value_info
    state = [value(name, TensorProto.FLOAT, ["batch", CLASSES]) for name in ("state", "same")]
    go_on = [value(name, TensorProto.BOOL, []) for name in ("go_on", "still")]
    inner = [helper.make_node("Identity", [here], [there]) for here, there in (("go_on", "still"), ("state", "same"))]
    number = value("number", TensorProto.INT64, [])
    body = helper.make_graph(inner, "body", [number, go_on[0], state[0]], [go_on[1], state[1]])
    constants = {"few": np.array([0 if for_one else 1]), "many": np.array([2**59]), "true": np.array(True)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("Sub", ["size", "few"], ["others"]),
            helper.make_node("Mul", ["others", "many"], ["times"]),
            helper.make_node("Loop", ["times", "true", "once"], ["logits"], body=body),
        ]
    )
    return model


class Bundle:
    """A bundle folder that tests can damage.

    Args:
        folder: Where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "run.py").write_bytes(program())
        self.write_model()
        self.inputs = np.random.default_rng(1).standard_normal((NUM_VECTORS, 3, SIZE, SIZE)).astype(np.float32)
        (self.outputs,) = ReferenceEvaluator(toy_model()).run(None, {"input": self.inputs})
        self.write_vectors(self.inputs, self.outputs)
        self.write_manifest()

    def write_model(self, batch_slope: float = 0.0) -> None:
        onnx.save(toy_model(batch_slope), self.folder / "model.onnx")

    def write_endless_model(self, *, for_one: bool) -> None:
        onnx.save(endless_model(for_one=for_one), self.folder / "model.onnx")

    def write_vectors(self, inputs: Any, outputs: Any) -> None:
        np.savez(self.folder / "vectors.npz", inputs=inputs, outputs=outputs)

    def write_manifest(self, *, known_bad: Any = (), arch: Any = None, **gate: Any) -> None:
        self.write_sums(json.dumps(self.manifest(known_bad=known_bad, arch=arch, **gate)))

    def write_int8(self, *, is_what_it_is_for: bool = False, arch: Any = None) -> None:
        """Add a second model as the int8 file: the toy model with logits of the other sign, in float32.

        Args:
            is_what_it_is_for: Whether the latencies of the bundle's profile are of int8.
            arch: Instruction set of the bundle's device.
        """
        model = toy_model()
        [matrix] = (each for each in model.graph.initializer if each.name == "matrix")
        matrix.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(matrix), matrix.name))
        onnx.save(model, self.folder / bundle_files.INT8_MODEL)
        arrays = {"inputs": self.inputs, "outputs": self.outputs, "outputs_int8": -self.outputs}
        np.savez(self.folder / "vectors.npz", **arrays)
        manifest = self.manifest(arch=arch)
        predicted = {"value_ms": 1.5} if is_what_it_is_for else None
        gate = {"tolerance": 0.1}
        manifest["models"][bundle_files.INT8_VARIANT] = {"gate": gate, "latency": {"predicted": predicted}}
        self.write_sums(json.dumps(manifest))

    def manifest(self, *, known_bad: Any = (), arch: Any = None, **gate: Any) -> dict[str, Any]:
        """What the program reads of a manifest."""
        return {
            "arch_id": "toy",
            "device": {"known_bad": known_bad, "system": {"arch": arch}},
            "classes": [f"class {index}" for index in range(CLASSES)],
            "preprocessing": document_of(STEPS),
            "models": {bundle_files.VARIANT: {"gate": {"tolerance": 1e-5, "batch_tolerance": 1e-5, **gate}}},
            "inputs": [{"shape": ["batch", 3, SIZE, SIZE]}],
            "outputs": [{"shape": ["batch", CLASSES]}],
        }

    def write_sums(self, manifest: str) -> None:
        """Write a manifest, and hashes of what is there."""
        (self.folder / "manifest.json").write_text(manifest)
        names = {path.name for path in self.folder.iterdir()} - {"SHA256SUMS"}
        (self.folder / "SHA256SUMS").write_text("".join(bundle_files.sha256sums(self.folder, names)))

    def run(self, *arguments: str, python: tuple[str, ...] = (sys.executable,), **variables: str) -> Finished:
        """Run the program with the words that start a Python, and these variables alone."""
        return subprocess.run(
            [*python, "run.py", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def check(self, *, exit_code: int, reason: str) -> None:
        """Assert that the program ends with this code and reason, as text and as JSON, and without a traceback."""
        text = self.run("--skip-latency")
        assert (text.returncode, text.stderr) == (exit_code, "")
        assert text.stdout.splitlines()[-1].startswith("FAIL: ")
        assert reason in text.stdout.splitlines()[-1]
        code, output = self.run_here("--skip-latency", "--json")
        report = json.loads(output)
        assert (code, report["exit_code"]) == (exit_code, exit_code)
        assert reason in report["reason"]

    def run_here(self, *arguments: str) -> tuple[int, str]:
        """Run the same file inside this process; return exit code and standard output."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = run.main([str(self.folder), *arguments])
        return code, output.getvalue()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path / "bundle")
