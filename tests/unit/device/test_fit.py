"""A donor's profile adapted to another device, on devices whose truth is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import resources
from fedsup_deploy.config.device import Int8Scheme, System
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.device.building.fit import Device, Timed, fit_donor
from fedsup_deploy.device.building.plan import plan_timing
from fedsup_deploy.device.heldout import FloatArray, HeldOutError
from fedsup_deploy.device.latency import RooflineLatency
from fedsup_deploy.device.predictor import RooflinePredictor, predictor_for
from fedsup_deploy.device.profile import Calibration, DeviceFacts, DeviceProfile, Measured, Runtime, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import Costs, costs_of
from fedsup_deploy.space.search_space import SearchSpace

DEVICE = Device(
    name="other",
    facts=DeviceFacts(soc="Other", cpu="Other", cores=2, memory_mib=512),
    runtime=Runtime(name="onnxruntime", provider="CPUExecutionProvider", threads=1, dtype="float32"),
    provenance=Measured(kind="measured", protocol="timed", date="2026-01-31", environment="other"),
    provenance_of_higher=Measured(kind="measured", protocol="all runs", date="2026-01-31", environment="other"),
    environment={
        "cpu": "Other",
        "cores": 2,
        "governor": None,
        "threads": 1,
        "onnxruntime": "1.10.0",
        "machine": "aarch64",
        "python": "3.6.9",
        "glibc": "2.27",
    },
)


@pytest.fixture(scope="module")
def donor() -> DeviceProfile:
    return load_profile("raspberry-pi-4")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return validate(load_yaml(resources.find("configs/spaces", "fedsup-mobilenet")), SearchSpace)


def networks(space: SearchSpace, count: int = 12) -> Costs:
    return costs_of(space, plan_timing(space, count).heldout)


def calibration_of(profile: DeviceProfile) -> Calibration:
    assert profile.calibration is not None
    return profile.calibration


def error_of(profile: DeviceProfile) -> HeldOutError:
    assert isinstance(profile.error, HeldOutError)
    return profile.error


def test_a_device_on_a_line_from_the_donor_is_recovered(donor: DeviceProfile, space: SearchSpace) -> None:
    costs = networks(space)
    measured_ms_N = 0.25 * predictor_for(donor).predict(costs.layers) + 0.5
    profile = fit_donor(donor, DEVICE, costs, Timed(measured_ms_N)).profile
    calibration = calibration_of(profile)
    assert (calibration.scale, calibration.offset_us) == pytest.approx((0.25, 500.0), rel=1e-3)
    assert calibration.op_scales is None, "the line explains everything"
    np.testing.assert_allclose(predictor_for(profile).predict(costs.layers), measured_ms_N, rtol=1e-4)
    assert (error_of(profile).method, error_of(profile).acc5, error_of(profile).num_heldout) == (
        "leave-one-out",
        1.0,
        12,
    )


def with_slow_depthwise(donor: DeviceProfile, costs: Costs) -> FloatArray:
    """Latency on a device ten times as fast as the donor in everything but depthwise convolutions."""
    assert isinstance(donor.latency, RooflineLatency)
    is_depthwise_L = np.array(costs.layers.ops) == "depthwise"
    layers_us_NL = RooflinePredictor(donor.latency).layers_us(costs.layers)
    slow_ms_N: FloatArray = layers_us_NL @ np.where(is_depthwise_L, 1.0, 0.1) / 1e3
    return slow_ms_N


def test_operations_get_scales_where_that_predicts_better(donor: DeviceProfile, space: SearchSpace) -> None:
    costs = networks(space)
    measured_ms_N = with_slow_depthwise(donor, costs)
    profile = fit_donor(donor, DEVICE, costs, Timed(measured_ms_N)).profile
    scales = calibration_of(profile).op_scales
    assert scales is not None
    assert scales["depthwise"] > 3 * scales["pointwise"]
    assert error_of(profile).acc10 >= 0.9
    np.testing.assert_allclose(predictor_for(profile).predict(costs.layers), measured_ms_N, rtol=0.1)


def test_a_handful_of_networks_gets_a_line(donor: DeviceProfile, space: SearchSpace) -> None:
    costs = networks(space, 5)
    profile = fit_donor(donor, DEVICE, costs, Timed(with_slow_depthwise(donor, costs))).profile
    assert calibration_of(profile).op_scales is None


def test_a_donor_that_predicts_worse_than_the_macs_gives_way_to_their_line(
    donor: DeviceProfile, space: SearchSpace, tmp_path: Any
) -> None:
    costs = networks(space)
    macs_N = costs.num_macs.astype(np.float64)
    p10_ms_N = 0.3 + 2e-7 * macs_N
    profile, left_out = fit_donor(donor, DEVICE, costs, Timed(p10_ms_N, {"p50": 1.5 * p10_ms_N, "p90": 2 * p10_ms_N}))
    assert left_out is not None
    assert left_out.mape > error_of(profile).mape == 0
    assert (profile.latency.kind, profile.calibration, profile.is_made_here) == ("fitted", None, True)
    assert profile.percentiles is not None
    assert profile.percentiles.by_name() == pytest.approx({"p50": 1.5, "p90": 2.0})
    assert set(profile.provenance) == {"latency", "percentiles", "accepts", "accepts.int8", "system", "also_loads"}, (
        "no figure is the donor's any more, but what else it loads"
    )
    (tmp_path / "line.yaml").write_text(dump(profile))
    written = load_profile(tmp_path / "line.yaml")
    np.testing.assert_allclose(predictor_for(written).predict(costs.layers), p10_ms_N, rtol=1e-4)
    again = fit_donor(written, DEVICE, costs, Timed(2 * p10_ms_N))
    assert (calibration_of(again.profile).scale, again.left_out) == (pytest.approx(2, rel=1e-3), None)


def test_figures_of_the_donor_keep_their_provenance(donor: DeviceProfile, space: SearchSpace) -> None:
    costs = networks(space)
    profile = fit_donor(donor, DEVICE, costs, Timed(predictor_for(donor).predict(costs.layers))).profile
    assert (profile.name, profile.device.soc, profile.runtime.threads) == ("other", "Other", 1)
    assert profile.latency == donor.latency
    assert calibration_of(profile).donor_hash == donor.profile_hash
    assert profile.provenance["calibration"] == DEVICE.provenance
    costs_of_both = [
        {path: entry for path, entry in each.provenance.items() if path.startswith("latency")}
        for each in (donor, profile)
    ]
    assert costs_of_both[0] == costs_of_both[1]
    assert profile.energy is None
    assert profile.measurements == ()
    assert not profile.is_measured, "the costs are still those of published tables"


def test_what_a_device_accepts_is_what_it_said_when_it_was_timed(donor: DeviceProfile, space: SearchSpace) -> None:
    """Nothing of that is known of it from its donor: neither what fails there, nor a command for an engine."""
    costs = networks(space)
    profile = fit_donor(donor, DEVICE, costs, Timed(predictor_for(donor).predict(costs.layers))).profile
    assert donor.known_bad
    s8 = Int8Scheme(activations="s8", is_symmetric=False, per_channel=True, reduce_range=False)
    assert profile.accepts == Accepts(onnx_opset=15, onnx_ir=8, int8=s8)
    assert profile.system == System(python="3.6", glibc="2.27", arch="aarch64")
    assert (profile.known_bad, profile.build_on_device) == ((), None)
    assert {profile.provenance[name].kind for name in ("accepts", "accepts.int8", "system")} == {"measured"}


def test_the_donors_own_device_keeps_what_its_file_says_of_it(donor: DeviceProfile, space: SearchSpace) -> None:
    costs = networks(space)
    itself = dataclasses.replace(DEVICE, environment=None)
    profile = fit_donor(donor, itself, costs, Timed(predictor_for(donor).predict(costs.layers))).profile
    assert (profile.accepts, profile.system, profile.known_bad) == (donor.accepts, donor.system, donor.known_bad)
    for path in ("accepts", "accepts.int8", "system"):
        assert profile.provenance[path] == donor.provenance[path]


def test_an_adapted_profile_can_be_adapted_again(donor: DeviceProfile, space: SearchSpace, tmp_path: Any) -> None:
    costs = networks(space)
    donor_ms_N = predictor_for(donor).predict(costs.layers)
    once = fit_donor(donor, DEVICE, costs, Timed(2.0 * donor_ms_N)).profile
    path = tmp_path / "other.yaml"
    path.write_text(dump(once))
    twice = fit_donor(load_profile(path), DEVICE, costs, Timed(3.0 * donor_ms_N)).profile
    assert calibration_of(twice).scale == pytest.approx(3.0, rel=1e-3)
    assert calibration_of(twice).donor == "other"


def test_higher_percentiles_are_those_of_the_networks_timed_there(
    donor: DeviceProfile, space: SearchSpace, tmp_path: Any
) -> None:
    """Half of the networks have a median of 1.1 and half of 1.3 times their 10th percentile."""
    costs = networks(space)
    p10_ms_N = 0.25 * predictor_for(donor).predict(costs.layers)
    p50_ms_N = p10_ms_N * np.tile([1.1, 1.3], 6)
    profile = fit_donor(donor, DEVICE, costs, Timed(p10_ms_N, {"p50": p50_ms_N, "p90": 2 * p10_ms_N})).profile
    assert profile.percentiles is not None
    assert profile.percentiles.by_name() == {"p50": 1.2, "p90": 2.0}
    assert profile.percentiles.p50.ratios == (1.1,) * 6 + (1.3,) * 6
    assert profile.provenance["percentiles"] == DEVICE.provenance_of_higher
    path = tmp_path / "other.yaml"
    path.write_text(dump(profile))
    assert load_profile(path) == profile
    again = fit_donor(profile, DEVICE, costs, Timed(p10_ms_N)).profile
    assert (again.percentiles, "percentiles" in again.provenance) == (None, False), "those of another device"


@pytest.mark.parametrize("count", [2, 13])
def test_too_few_or_too_many_networks_are_refused(donor: DeviceProfile, space: SearchSpace, count: int) -> None:
    with pytest.raises(ConfigError, match=f"got {count} timed networks, expected 3 to 12"):
        fit_donor(donor, DEVICE, networks(space, count), Timed(np.ones(count)))


def test_times_that_fall_with_the_size_are_refused(donor: DeviceProfile, space: SearchSpace) -> None:
    costs = networks(space, 4)
    with pytest.raises(ConfigError, match="take the same time whatever raspberry-pi-4 predicts"):
        fit_donor(donor, DEVICE, costs, Timed(1 / predictor_for(donor).predict(costs.layers)))


def test_a_donor_of_another_element_type_is_refused(donor: DeviceProfile, space: SearchSpace) -> None:
    runtime = DEVICE.runtime.model_copy(update={"dtype": "int8"})
    device = dataclasses.replace(DEVICE, runtime=runtime)
    with pytest.raises(ConfigError, match="timed in int8, the costs of raspberry-pi-4 are for float32"):
        fit_donor(donor, device, networks(space), Timed(np.ones(12)))
