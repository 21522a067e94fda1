"""What all exporters share."""

import pytest

from fedsup_deploy.errors import ConfigError, GateError
from fedsup_deploy.export.exporter import exporter_for, refuse_machine_paths
from fedsup_deploy.export.onnx import OnnxExporter


def test_exporter_is_found_by_name():
    assert isinstance(exporter_for("onnx"), OnnxExporter)


def test_unknown_exporter_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown exporter 'onx'; did you mean 'onnx'"):
        exporter_for("onx")


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
