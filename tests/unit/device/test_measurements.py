"""Measurements kept in a profile: added at its end, without touching a line or a prediction."""

import shutil
from pathlib import Path

import pytest

from fedsup_deploy import resources
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.measurements import save_measurement
from fedsup_deploy.device.profile import Measurement, load_profile
from fedsup_deploy.errors import ConfigError

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


def test_a_profile_of_the_package_is_copied_to_the_current_folder(
    profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the copy is what its name stands for from then on."""
    package = profile.parent / "package"
    installed = package / "shipped" / "profiles"
    installed.mkdir(parents=True)
    profile = profile.rename(installed / profile.name)
    text = profile.read_text(encoding="utf-8")
    monkeypatch.setattr(resources, "_PACKAGE", package)
    monkeypatch.chdir(package.parent)
    own = save_measurement(resources.find("profiles", "raspberry-pi-4"), ONE)
    assert own == Path("profiles/raspberry-pi-4.yaml") == resources.find("profiles", "raspberry-pi-4")
    assert load_profile(own).measurements == (ONE,)
    assert profile.read_text(encoding="utf-8") == text
