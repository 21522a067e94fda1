"""A profile adapted from files that `measure --json` printed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.commands.profile_fit import FitRequest, fit
from fedsup_deploy.device.building.measurements import save_measurement
from fedsup_deploy.device.building.plan import plan_timing
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import Measurement, load_profile
from fedsup_deploy.errors import ArtifactError, ConfigError, FedsupError, OutputError
from fedsup_deploy.ondevice import machine
from fedsup_deploy.resources import find
from fedsup_deploy.space.cost import costs_of

DONOR, SPACE = "raspberry-pi-4", "digits"


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four networks that take a third of what the donor predicts, as a device would report them."""
    monkeypatch.chdir(tmp_path)
    space = load_space(SPACE)
    networks = plan_timing(space, 4).heldout
    latency_ms = predictor_for(load_profile(DONOR)).predict(costs_of(space, networks).layers) / 3
    environment = {**machine.environment(2), "cpu": "Far away", "device": "A board"}
    for network, ms in zip(networks, latency_ms, strict=True):
        document = {
            "arch_id": network.arch_id,
            "statistics": {"p10_ms": float(ms), "p50_ms": 2 * float(ms)},
            "stability": {"verdict": "stable"},
            "environment": environment,
        }
        (tmp_path / f"{network.arch_id}.json").write_text(json.dumps(document))
    return [Path(f"{network.arch_id}.json") for network in networks]


def request(measurements: list[Path]) -> FitRequest:
    return FitRequest(DONOR, "far", SPACE, measurements, memory_mib=512)


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_the_profile_is_about_the_device_that_was_timed(measurements: list[Path]) -> None:
    result = fit(request(measurements))
    profile = load_profile("far")
    assert result.out == Path("profiles/far.yaml")
    assert result.calibration.scale == pytest.approx(1 / 3, rel=1e-3)
    assert (profile.device.soc, profile.device.cpu, profile.device.memory_mib) == ("A board", "Far away", 512)
    assert profile.runtime.threads == 2
    assert profile.provenance["calibration"].kind == "measured"
    assert result.profile.error.acc5 == 1.0


@pytest.mark.parametrize(
    ("edit", "kind", "words"),
    [
        (lambda one: one["stability"].update(verdict="unstable"), ConfigError, "the measurement is unstable"),
        (lambda one: one["environment"].update(threads=4), ConfigError, "got threads 4, expected 2 as in"),
        (lambda one: one.update(arch_id="a0"), ConfigError, "no architecture 'a0' in space digits"),
        (lambda one: one.pop("arch_id"), ArtifactError, "got no measurement of a bundle"),
        (lambda one: one.pop("statistics"), ArtifactError, "got no measurement of a bundle"),
    ],
)
def test_what_is_no_measurement_of_the_device_is_refused(
    measurements: list[Path], edit: Callable[[dict[str, Any]], Any], kind: type[FedsupError], words: str
) -> None:
    change(measurements[1], edit)
    with pytest.raises(kind, match=words):
        fit(request(measurements))
    assert not Path("profiles").exists()


def test_a_network_counts_once(measurements: list[Path]) -> None:
    with pytest.raises(ConfigError, match="several measurements of one network"):
        fit(request([*measurements, measurements[0]]))


def test_a_bundle_that_nobody_measured_is_refused(measurements: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        fit(request([*measurements, tmp_path]))


@pytest.mark.filterwarnings("ignore::fedsup_deploy.resources.InPlaceOfShipped")  # that is what is asked for
def test_a_profile_learns_from_the_measurements_it_keeps(measurements: list[Path]) -> None:
    """Of the same device, so its facts stay; an unstable one and all but the last of a network are left out."""
    own = Path("profiles") / f"{DONOR}.yaml"
    own.parent.mkdir()
    own.write_text(find("profiles", DONOR).read_text(encoding="utf-8"), encoding="utf-8")
    for path in (measurements[0], *measurements):
        document = json.loads(path.read_text())
        is_first = not load_profile(own).measurements
        one = Measurement(
            arch_id=document["arch_id"],
            predicted_ms=1.0,
            measured_ms=document["statistics"]["p10_ms"] * (10 if is_first else 1),
            verdict="stable",
            protocol="quick, 400 runs",
            date="2026-01-31",
            environment=document["environment"],
        )
        save_measurement(own, one)
    save_measurement(own, one.model_copy(update={"measured_ms": 99.0, "verdict": "unstable"}))
    result = fit(FitRequest(DONOR, "near", SPACE, is_saved=True))
    profile = load_profile("near")
    assert result.num_networks == 4
    assert result.calibration.scale == pytest.approx(1 / 3, rel=1e-3)
    assert profile.device == load_profile(DONOR).device
    assert profile.measurements == ()


def test_only_a_profile_is_replaced_by_a_profile(measurements: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "near.yaml"
    out.write_text("precious\n", encoding="utf-8")
    with pytest.raises(OutputError, match=r"near\.yaml: it is there and holds no profile; give --out another name"):
        fit(FitRequest(DONOR, "near", SPACE, measurements, out=out))
    assert out.read_text(encoding="utf-8") == "precious\n"
    out.unlink()
    for _ in range(2):
        assert load_profile(fit(FitRequest(DONOR, "near", SPACE, measurements, out=out)).out).name == "near"


def test_a_profile_without_measurements_cannot_learn_from_them(measurements: list[Path]) -> None:
    with pytest.raises(ConfigError, match="got 0 measurements, none of them stable; add some: fedsup-deploy measure"):
        fit(FitRequest(DONOR, "near", SPACE, is_saved=True))
    with pytest.raises(ConfigError, match="expected measurements of one kind"):
        fit(FitRequest(DONOR, "near", SPACE, measurements, is_saved=True))


def test_a_donor_of_another_element_type_is_refused_before_anything_is_timed(measurements: list[Path]) -> None:
    with pytest.raises(ConfigError, match="donor stm32h7: its costs are for int8"):
        fit(FitRequest("stm32h7", "near", SPACE, is_here=True))
    assert not Path("profiles").exists()
