"""What all exporters share."""

from typing import ClassVar

import pytest

from fedsup_deploy import registry
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ConfigError, DependencyError, GateError
from fedsup_deploy.export.exporter import exporter_for, how_to_run, refuse_machine_paths
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.space.onnx_graph import IR_VERSION, OPSET


def test_exporter_is_found_by_name():
    assert isinstance(exporter_for("onnx"), OnnxExporter)


def test_unknown_exporter_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown exporter 'onx'; did you mean 'onnx'"):
        exporter_for("onx")


class _Needy(OnnxExporter):
    name = "needy"
    needs: ClassVar = {"no_such_runtime": "b", "nor_this_one": "a", "json": "c"}


def test_exporter_without_its_libraries_says_how_to_install_them(monkeypatch):
    monkeypatch.setitem(registry.TABLES["exporter"], "needy", f"{__name__}:_Needy")
    with pytest.raises(DependencyError) as caught:
        exporter_for("needy")
    assert caught.value.exit_code == 9
    expected = "format needy: no_such_runtime, nor_this_one is not installed; run: pip install 'fedsup-deploy[a,b]'"
    assert str(caught.value) == expected


def test_a_runtime_that_is_missing_is_named_also_where_it_is_of_the_core():
    class OfTheCore(OnnxExporter):
        runtime = "no_such_runtime"

    class WithAnExtra(_Needy):
        runtime = "nor_this_one"

    assert how_to_run(OnnxExporter()) is None
    assert how_to_run(OfTheCore()) == "pip install no_such_runtime"
    assert how_to_run(WithAnExtra()) == "pip install 'fedsup-deploy[a]'"


@pytest.mark.parametrize(
    ("accepts", "reason"),
    [
        ({}, None),
        ({"onnx_opset": OPSET, "onnx_ir": IR_VERSION}, None),
        ({"onnx_opset": OPSET - 1}, "its runtime accepts ONNX opset 12 at most, and files are written with opset 13"),
        ({"onnx_ir": IR_VERSION - 1}, "its runtime accepts ONNX IR 6 at most, and files are written with IR 7"),
        ({"layout": "nchw", "batch": "dynamic"}, None),
        ({"layout": "nchw", "batch": "static"}, None),
        (
            {"layout": "nhwc"},
            "its runtime takes images as NHWC, and files of this format take them as NCHW",
        ),
    ],
)
def test_onnx_is_refused_by_a_runtime_that_is_too_old_or_takes_another_form(accepts, reason):
    assert OnnxExporter().refusal(Accepts(**accepts)) == reason


@pytest.mark.parametrize("name", ["onnx", "torchscript", "pt2"])
def test_no_format_is_written_in_a_layout_that_is_not_taken(name):
    assert exporter_for(name).refusal(Accepts(layout="nhwc")) is not None
    for accepts in (Accepts(), Accepts(batch="static"), Accepts(batch="dynamic", layout="nchw")):
        assert exporter_for(name).refusal(accepts) is None


@pytest.mark.parametrize(
    "text", [b'File "/home/ann/net.py", line 3', b"/usr/lib", b"\x12/opt/venv/lib/x", b"C:\\Users\\ann", b" d:\\x.y"]
)
def test_machine_paths_are_found(text):
    with pytest.raises(GateError, match=r"^model.onnx: got the machine path '"):
        refuse_machine_paths("model.onnx", text)


@pytest.mark.parametrize(
    "text", [b"blocks/0/conv", b"https://onnx.ai/a/b", b"a / b / c", b"x//y", b"node_conv2d", b"aten::conv2d"]
)
def test_other_text_is_let_through(text):
    refuse_machine_paths("model.onnx", text)
