"""What shipped profiles say of the devices they are about: what is loaded there, what is there, what fails there."""

import re

import pytest

from fedsup_deploy.device.acceptance import figures_of
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.ondevice.inference import RUNTIME
from fedsup_deploy.ondevice.known_bad import is_among
from fedsup_deploy.resources import shipped_names
from fedsup_deploy.space.onnx_graph import IR_VERSION, OPSET

PROFILES = [load_profile(name) for name in shipped_names("profiles")]
OF_ONNXRUNTIME = [profile for profile in PROFILES if profile.runtime.name == RUNTIME]
#: A device of Android has neither; who owns an x86 machine chooses both.
WITHOUT_PYTHON = {"pixel-class-phone", "x86-laptop", "intel-n100"}


def name_of(profile: DeviceProfile) -> str:
    return profile.name


@pytest.mark.parametrize("profile", OF_ONNXRUNTIME, ids=name_of)
def test_what_runs_onnxruntime_says_what_it_accepts_and_has(profile: DeviceProfile) -> None:
    stated = {*figures_of("accepts", profile.accepts), *figures_of("system", profile.system)}
    versions = {"accepts.onnx_opset", "accepts.onnx_ir"}
    expected = {"accepts.batch", "accepts.layout", "accepts.int8.activations", "system.arch"}
    expected |= set() if profile.name == "pixel-class-phone" else versions
    expected |= set() if profile.name in WITHOUT_PYTHON else {"system.python", "system.glibc"}
    assert expected <= stated


@pytest.mark.parametrize("profile", OF_ONNXRUNTIME, ids=name_of)
def test_its_formats_are_written_in_a_form_that_it_accepts(profile: DeviceProfile) -> None:
    assert [exporter_for(name).refusal(profile.accepts) for name in profile.formats] == [None] * len(profile.formats)
    assert (profile.accepts.onnx_opset or OPSET) >= OPSET
    assert (profile.accepts.onnx_ir or IR_VERSION) >= IR_VERSION


@pytest.mark.parametrize("profile", PROFILES, ids=name_of)
def test_a_release_that_fails_is_named_with_who_said_so_and_what_helps(profile: DeviceProfile) -> None:
    for each in profile.known_bad:
        assert re.fullmatch(r"[\w-]+/[\w-]+#\d+( and #\d+)?", each.source), "a # after a space begins a comment in YAML"
        assert re.search(r"\d", each.cure), each
        assert not is_among("1.8.0", each.versions), "the oldest that we support"


def test_the_releases_that_are_known_to_fail_are_listed() -> None:
    """As the issues say that the profiles name."""
    bad = {profile.name: profile.known_bad for profile in PROFILES if profile.known_bad}
    releases = ("1.20.1", "1.21.0", "1.22.0", "1.23.0", "1.23.2", "1.24.0", "1.27.0", "1.27.1")
    found = {
        name: [version for version in releases if any(is_among(version, each.versions) for each in of)]
        for name, of in bad.items()
    }
    assert found == {"raspberry-pi-4": ["1.21.0"], "pixel-class-phone": ["1.23.0", "1.23.2", "1.27.0"]}


def test_no_torch_is_promised_where_nobody_has_seen_it_load_our_file() -> None:
    without = {profile.name for profile in PROFILES if "torchscript" not in profile.formats}
    assert {"jetson-nano", "jetson-orin-nano", "pixel-class-phone"} <= without


def test_what_the_edge_tpu_wants_is_not_written() -> None:
    accepts = load_profile("coral-edge-tpu").accepts
    reason = "its runtime takes images as NHWC, and files of this format take them as NCHW"
    for name in ("onnx", "torchscript", "pt2"):
        assert exporter_for(name).refusal(accepts) == reason


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-orin-nano"])
def test_the_command_for_a_gpu_takes_the_file_of_the_bundle_and_says_who_ran_it(name: str) -> None:
    profile = load_profile(name)
    assert profile.build_on_device is not None
    assert profile.build_on_device.split()[:2] == ["trtexec", "--onnx=model.onnx"]
    assert profile.provenance["build_on_device"].kind == "published"
