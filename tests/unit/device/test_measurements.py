"""Measurements kept in a profile: added at its end, without touching a line or a prediction. And what they decide."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import resources
from fedsup_deploy.artifact.measured import LimitCheck
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.building.assemble import device_facts
from fedsup_deploy.device.building.measurements import check_device, is_of_this_machine, limit_check, save_measurement
from fedsup_deploy.device.profile import DeviceProfile, Measurement, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice import machine
from fedsup_deploy.ondevice.records import Percentile

ONE = Measurement(
    arch_id="a0123456789a",
    predicted_ms=2.0,
    measured_ms=2.5,
    verdict="stable",
    protocol="quick, 400 runs",
    date="2026-01-31",
    environment={"cpu": "a board: with 'quotes' # and more", "governor": None, "temperature_c": 40.5, "threads": 1},
)
OTHER = ONE.model_copy(update={"arch_id": "abcdefabcdef", "measured_ms": 3.0, "verdict": "unstable"})


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A copy of a shipped profile."""
    return Path(shutil.copy(resources.find("profiles", "raspberry-pi-4"), tmp_path / "raspberry-pi-4.yaml"))


def test_measurements_are_added_below_what_is_there(profile: Path) -> None:
    text, before = profile.read_text(encoding="utf-8"), load_profile(profile)
    assert save_measurement(profile, ONE) == profile
    assert save_measurement(profile, OTHER) == profile
    after = load_profile(profile)
    assert after.measurements == (ONE, OTHER)
    assert profile.read_text(encoding="utf-8").startswith(text)
    assert after.profile_hash == before.profile_hash, "a measurement changes no prediction"
    assert after.model_copy(update={"measurements": ()}) == before


def test_a_profile_as_this_package_writes_it_can_keep_measurements(profile: Path) -> None:
    """It ends with an empty list of them."""
    profile.write_text(dump(load_profile(profile)), encoding="utf-8")
    assert profile.read_text(encoding="utf-8").endswith("measurements: []\n")
    save_measurement(profile, ONE)
    save_measurement(profile, OTHER)
    assert load_profile(profile).measurements == (ONE, OTHER)


def test_a_profile_with_something_below_its_measurements_stays_as_it_is(profile: Path) -> None:
    save_measurement(profile, ONE)
    text = profile.read_text(encoding="utf-8") + "unsupported_ops: [scale]\n"
    profile.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="expected measurements to be its last key"):
        save_measurement(profile, OTHER)
    assert profile.read_text(encoding="utf-8") == text
    assert [path.name for path in profile.parent.iterdir()] == [profile.name]


INTEL = {"device": None, "cpu": "Intel(R) Xeon(R) CPU", "cores": 4, "machine": "x86_64"}
BOARD = {"device": "Raspberry Pi 4 Model B", "cpu": "CPU implementer 0x41", "cores": 4, "machine": "aarch64"}


def test_another_processor_than_the_profiles_is_refused_with_both_names() -> None:
    """Though it has as many cores, and whoever names the file."""
    for is_named in (False, True):
        with pytest.raises(ConfigError) as caught:
            check_device(load_profile("jetson-nano"), INTEL, is_named=is_named)
        assert str(caught.value) == (
            "profile jetson-nano: got a measurement on Intel(R) Xeon(R) CPU, 4 cores, expected one on 4x Cortex-A57, "
            "1.479 GHz, 4 cores (NVIDIA Tegra X1 (T210)); measure on that device with --on, or without "
            "--save-to-profile"
        )


def test_what_cannot_be_told_apart_is_for_the_user_to_say() -> None:
    """No system calls its processor what a data sheet does."""
    profile = load_profile("raspberry-pi-4")
    with pytest.raises(ConfigError, match=r"got a measurement on CPU implementer 0x41, 4 cores, .*; if it is that dev"):
        check_device(profile, BOARD, is_named=False)
    check_device(profile, BOARD, is_named=True)
    for change in ({"cores": 8}, {"machine": "armv7l"}):
        with pytest.raises(ConfigError, match=r"expected one on .*, 4 cores"):
            check_device(profile, {**BOARD, **change}, is_named=True)
    with pytest.raises(ConfigError, match="measure on that device with --on"):
        check_device(
            load_profile("x86-laptop"), {**BOARD, "cores": load_profile("x86-laptop").device.cores}, is_named=True
        )


def test_a_measured_profile_takes_what_its_own_device_says(of_this_machine: DeviceProfile) -> None:
    here = machine.environment(1)
    check_device(of_this_machine, here, is_named=False)
    for change in ({"cpu": "another"}, {"cores": here["cores"] + 1}, {"device": "a board"}):
        with pytest.raises(ConfigError, match="got a measurement on"):
            check_device(of_this_machine, {**here, **change}, is_named=True)


def test_measurements_saved_at_the_same_time_are_all_kept(profile: Path) -> None:
    savers = [threading.Thread(target=save_measurement, args=(profile, one)) for one in (ONE, OTHER) * 3]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    assert len(load_profile(profile).measurements) == 6


def latency(p50_ms: float, verdict: str = "stable", noise: float = 0.02) -> dict[str, Any]:
    """What `measure` finds, as far as a limit on the median is concerned."""
    return {
        "statistics": {"p10_ms": 0.5, "p50_ms": p50_ms, "p90_ms": 9.0},
        "stability": {"verdict": verdict},
        "noise": {"p10": 0.5, "p50": noise, "p90": 0.5},
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (latency(1.5), "met"),
        (latency(2.0), "met"),
        # The noise is 2 %: up to 2.04 ms nobody can tell.
        (latency(2.01), "undecided"),
        (latency(2.04), "undecided"),
        (latency(2.05), "not met"),
        (latency(2.05, noise=0.05), "undecided"),
        (latency(2.11, noise=0.05), "not met"),
        # Within the limit is within it, however unstable; above it is only above if stable.
        (latency(1.5, "unstable"), "met"),
        (latency(9.0, "unstable"), "undecided"),
    ],
)
def test_a_limit_is_met_not_met_or_undecided(found: dict[str, Any], expected: str) -> None:
    measured_ms = found["statistics"]["p50_ms"]
    expected_check = LimitCheck(limit_ms=2.0, percentile="p50", measured_ms=measured_ms, verdict=expected)
    assert limit_check(2.0, "p50", found) == expected_check


@pytest.mark.parametrize(("percentile", "expected"), [("p10", "met"), ("p50", "undecided"), ("p90", "not met")])
def test_a_verdict_is_about_the_percentile_that_the_limit_means(percentile: Percentile, expected: str) -> None:
    """Of one measurement, by the noise of each percentile."""
    found = latency(2.1, noise=0.1)
    assert limit_check(2.0, percentile, found).verdict == expected


def test_a_check_from_before_there_were_percentiles_was_of_the_tenth() -> None:
    assert LimitCheck.model_validate({"limit_ms": 2.0, "measured_ms": 1.0, "verdict": "met"}).percentile == "p10"


@pytest.fixture
def of_this_machine() -> DeviceProfile:
    """A profile as it would have been measured here: with one measured figure, the facts of this machine, fp32."""
    shipped = load_profile("raspberry-pi-4")
    path = next(path for path in shipped.provenance if not path.startswith("energy."))
    measured = {"kind": "measured", "protocol": "quick", "date": "2026-01-31", "environment": "here"}
    document = shipped.model_dump(by_alias=True)
    document |= {"device": device_facts(machine.environment(1)).model_dump()}
    document["provenance"][path] = measured
    return DeviceProfile.model_validate(document)


def test_a_profile_measured_on_a_machine_like_this_is_told(of_this_machine: DeviceProfile) -> None:
    assert is_of_this_machine(of_this_machine)
    other = of_this_machine.device.model_copy(update={"cores": of_this_machine.device.cores + 1})
    assert not is_of_this_machine(of_this_machine.model_copy(update={"device": other}))


@pytest.mark.parametrize("change", [{"name": "tensorrt"}, {"dtype": "float16"}])
def test_a_profile_of_another_runtime_is_not_of_this_machine(
    of_this_machine: DeviceProfile, change: dict[str, str]
) -> None:
    """What this package times are fp32 and int8 in ONNX Runtime."""
    runtime = of_this_machine.runtime.model_copy(update=change)
    assert not is_of_this_machine(of_this_machine.model_copy(update={"runtime": runtime}))


def test_a_profile_of_int8_in_onnx_runtime_is_of_this_machine(of_this_machine: DeviceProfile) -> None:
    """The int8 file is timed here as well."""
    runtime = of_this_machine.runtime.model_copy(update={"dtype": "int8"})
    assert is_of_this_machine(of_this_machine.model_copy(update={"runtime": runtime}))


def test_a_profile_that_nobody_measured_is_of_no_machine(of_this_machine: DeviceProfile) -> None:
    """Whatever its device is called."""
    shipped = load_profile("raspberry-pi-4")
    assert not is_of_this_machine(shipped.model_copy(update={"device": of_this_machine.device}))
