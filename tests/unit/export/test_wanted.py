"""Which variants a device gets, and what is refused before any work."""

import re

import pytest

from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.export.wanted import wanted_variants
from fedsup_deploy.variant import MAIN, Variant

PI = load_profile("raspberry-pi-4")


def test_a_device_gets_the_formats_and_precisions_of_its_profile_onnx_first():
    only_torchscript = PI.model_copy(update={"formats": ("torchscript",)})
    assert list(wanted_variants(PI)) == list(PI.variants) == [MAIN, Variant("torchscript", "fp32")]
    assert list(wanted_variants(only_torchscript)) == [MAIN, Variant("torchscript", "fp32")]


def test_what_can_be_made_is_named_where_something_else_cannot():
    both = PI.model_copy(update={"precisions": ("fp32", "fp16")})
    with pytest.raises(ConfigError, match=r"got fp16, which cannot be .*; ask for what can be: --precision fp32"):
        wanted_variants(both)
    assert list(wanted_variants(both, (), ("fp32",))) == [MAIN, Variant("torchscript", "fp32")]
    with pytest.raises(ConfigError, match=r"^formats: got 'onnx', expected a list of names$"):
        wanted_variants(PI, "onnx")


def test_what_is_asked_for_replaces_what_the_profile_says():
    assert list(wanted_variants(PI, ["pt2", "pt2"], ["fp32"])) == [MAIN, Variant("pt2", "fp32")]


def test_a_format_that_was_asked_for_is_never_left_out_without_a_word():
    refused = (
        r"^format torchscript: it is written in fp32, and not in int8; ask for both: --precision int8 --precision fp32$"
    )
    for asked in ((), ("int8",)):
        with pytest.raises(ConfigError, match=refused):
            wanted_variants(load_profile("stm32h7"), ["torchscript"], asked)
    both = ("int8", "fp32")
    made = wanted_variants(load_profile("stm32h7"), ["torchscript"], both)
    assert list(made) == [MAIN, Variant("torchscript", "fp32"), Variant("onnx", "int8")]
    # A profile names what suits its device; nobody asked for a file that has none of the precisions.
    some = load_profile("stm32h7").model_copy(update={"formats": ("onnx", "torchscript")})
    assert list(wanted_variants(some)) == [MAIN, Variant("onnx", "int8")]


def test_an_int8_file_comes_with_the_fp32_file_that_it_is_compared_with():
    int8 = Variant("onnx", "int8")
    assert list(wanted_variants(PI, (), ("fp32", "int8"))) == [MAIN, Variant("torchscript", "fp32"), int8]
    assert list(wanted_variants(load_profile("stm32h7"))) == [MAIN, int8]


@pytest.mark.parametrize(
    ("profile", "precisions", "reason"),
    [
        (
            PI,
            ("int8",),
            "profile raspberry-pi-4: its latencies are of fp32, so an export of int8 would not be what was searched; "
            "ask for both: --precision fp32 --precision int8",
        ),
        (PI, ("fp32", "fp16"), "precision: got fp16, which cannot be exported yet, expected fp32"),
        (
            load_profile("coral-edge-tpu"),
            (),
            "profile coral-edge-tpu: format onnx: its runtime takes images as NHWC, and files of "
            "this format take them as NCHW",
        ),
        (
            load_profile("stm32h7"),
            ("fp32",),
            "profile stm32h7: its latencies are of int8, so an export of fp32 would not be what was searched; "
            "ask for both: --precision int8 --precision fp32",
        ),
        (
            PI.model_copy(update={"accepts": Accepts(onnx_opset=11, onnx_ir=None)}),
            (),
            "profile raspberry-pi-4: format onnx: its runtime accepts ONNX opset 11 at most",
        ),
    ],
)
def test_a_variant_that_cannot_be_made_or_was_not_searched_is_refused(profile, precisions, reason):
    with pytest.raises(ConfigError, match=f"^{re.escape(reason)}($|,|;)"):
        wanted_variants(profile, (), precisions)
