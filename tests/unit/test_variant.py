"""A variant's name, and what every bundle has."""

import typing

from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.variant import DTYPES, MAIN, PRECISIONS, Precision, Variant


def test_name_is_format_and_precision():
    assert Variant("onnx", "int8").name == "onnx-int8"


def test_main_variant_is_the_one_that_the_runner_looks_for():
    """The runner cannot ask us: it stands alone on the device."""
    assert MAIN.name == bundle_files.VARIANT


def test_every_precision_has_its_dtype_and_back():
    assert tuple(DTYPES) == typing.get_args(Precision)
    assert {PRECISIONS[dtype] for dtype in DTYPES.values()} == set(DTYPES)
