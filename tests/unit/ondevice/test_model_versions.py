"""Which onnxruntime a model needs, read off real ONNX files."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from runtimes import RUNTIMES, Installed, Runtime

from fedsup_deploy.ondevice.model_versions import (
    RELEASES,
    ModelVersions,
    known_to,
    least_release,
    read_versions,
    release_of,
    why_too_old,
)


def write(path: Path, opset: int, ir: int, *, others: int = 0) -> Path:
    """Write a model with weights, and operators of other makers in a version of their own."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 300])
    weights = numpy_helper.from_array(np.zeros((1, 300), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [value], [weights])
    graph.output[0].name = "y"
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("com.others", others)] if others else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString())
    return path


def versions_of(path: Path) -> ModelVersions:
    with path.open("rb") as file:
        return read_versions(file, path.stat().st_size)


def test_versions_are_read_past_the_graph_and_of_onnx_alone(tmp_path: Path) -> None:
    assert versions_of(write(tmp_path / "a.onnx", 13, 7)) == (13, 7)
    assert versions_of(write(tmp_path / "a.onnx", 300, 200, others=999)) == (300, 200)


@pytest.mark.parametrize(
    ("version", "opset", "ir", "needed"),
    [
        ("1.12.1", 18, 8, "1.14 or later"),
        ("1.14.0", 18, 8, None),
        ("1.14.1", 18, 9, "1.15 or later"),
        ("1.7.0", 11, 6, "1.8 or later"),
        ("1.8.1", 13, 7, None),
        ("1.10.0+jetson", 17, 8, "1.12 or later"),
        ("1.8.0", 999, 7, "one later than {}.{}".format(*RELEASES[-1][0])),
        ("99.0.0", 999, 7, None),
    ],
)
def test_what_is_too_old_is_told_what_is_not(
    tmp_path: Path, version: str, opset: int, ir: int, needed: str | None
) -> None:
    path = write(tmp_path / "model.onnx", opset, ir)
    expected = needed and (
        f"onnxruntime {version} is too old for it (opset {opset}, IR version {ir}), which needs {needed}; "
        "run: pip install --upgrade onnxruntime"
    )
    assert why_too_old(version, str(path), "it") == expected


def test_the_releases_are_in_order_and_the_one_here_keeps_what_they_say(tmp_path: Path) -> None:
    assert sorted(RELEASES) == list(RELEASES)
    assert all(new.opset >= old.opset and new.ir >= old.ir for (_, old), (_, new) in itertools.pairwise(RELEASES))
    for release, known in RELEASES:
        if release <= release_of(onnxruntime.__version__):
            onnxruntime.InferenceSession(write(tmp_path / "model.onnx", known.opset, known.ir))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_a_release_loads_what_it_is_said_to_load_and_nothing_newer(
    installed: Callable[[Runtime], Installed], tmp_path: Path, runtime: Runtime
) -> None:
    old = installed(runtime)
    known = known_to(old.versions["onnxruntime"])
    assert known is not None
    for name, opset, ir in (("known", *known), ("opset", known.opset + 1, known.ir), ("ir", known.opset, known.ir + 1)):
        write(tmp_path / f"{name}.onnx", opset, ir)
    code = """
import onnxruntime
for name in ("known", "opset", "ir"):
    try:
        onnxruntime.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"])
        print(name)
    except Exception as error:
        assert "version" in str(error), error
"""
    ran = old.run("-c", code, cwd=tmp_path)
    loaded = ran.stdout.split()
    assert (ran.returncode, loaded[0]) == (0, "known"), ran.stderr
    # What a release loads that came after the list, nobody has tried.
    if release_of(old.versions["onnxruntime"])[:2] <= RELEASES[-1][0]:
        assert loaded == ["known"]


def test_the_least_release_of_a_model_and_what_a_release_knows(tmp_path: Path) -> None:
    assert least_release(str(write(tmp_path / "model.onnx", 13, 7))) == "1.8"
    assert least_release(str(write(tmp_path / "model.onnx", 18, 9))) == "1.15"
    assert least_release(str(write(tmp_path / "model.onnx", 999, 7))) is None
    assert least_release(str(tmp_path / "absent")) is None
    assert (known_to("1.7.2"), known_to("1.10.0+jetson"), known_to("99.0")) == (None, (15, 8), RELEASES[-1][1])


@pytest.mark.parametrize("cut", [0, 1, 2, 50, -1, -3])
def test_what_is_no_model_is_not_too_new(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "model.onnx", 99, 9)
    path.write_bytes(path.read_bytes()[:cut])
    assert why_too_old("1.8.0", str(path), "it") is None
    path.write_bytes(b"\xff" * 100)
    assert why_too_old("1.8.0", str(path), "it") is None
    assert why_too_old("1.8.0", str(tmp_path / "absent"), "it") is None


def test_a_model_of_this_onnx_is_read(tmp_path: Path) -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert versions_of(tmp_path / "model.onnx") == (onnx.defs.onnx_opset_version(), onnx.IR_VERSION)
