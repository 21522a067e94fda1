"""The roofline predictor, on numbers that can be checked by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.device.predictor import RooflinePredictor, predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile, HeldOutError, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import OP_KINDS, LayerCosts


def toy_profile(error: Any = "none") -> DeviceProfile:
    """2,000 MACs per us in convolutions; 1,000 elements per us; 3 us per computing and 1 us per moving layer; 5 us."""
    shipped = load_profile("raspberry-pi-4").model_dump(by_alias=True)
    compute, move = {"gmacs_per_s": 2.0, "overhead_us": 3.0}, {"overhead_us": 1.0}
    ops = {op: move if op in {"pool", "global_pool", "add", "scale"} else compute for op in OP_KINDS}
    latency = {**shipped["latency"], "memory_bandwidth_gb_s": 4.0, "network_overhead_us": 5.0, "ops": ops}
    return DeviceProfile.model_validate({**shipped, "latency": latency, "error": error})


def layers(ops: tuple[str, ...], active: Any, macs: Any, moved: Any) -> LayerCosts:
    return LayerCosts(ops, np.array(active, np.bool_), np.array(macs, np.int64), np.array(moved, np.int64))


def test_a_layer_takes_the_longer_of_computing_and_moving_and_its_overhead() -> None:
    costs = layers(
        ("conv", "add"),
        active=[[True, True], [True, True], [False, True]],
        macs=[[20_000, 0], [2_000, 0], [0, 0]],
        moved=[[4_000, 2_000], [4_000, 2_000], [0, 500]],
    )
    # us: max(10, 4) + 3 + 2 + 1 + 5;  max(1, 4) + 3 + 2 + 1 + 5;  0.5 + 1 + 5
    expected = np.array([0.021, 0.015, 0.0065])
    np.testing.assert_allclose(predictor_for(toy_profile()).predict(costs), expected, rtol=1e-12)


def test_the_predictor_is_the_one_of_the_profiles_kind() -> None:
    assert isinstance(predictor_for(toy_profile()), RooflinePredictor)


def test_a_kind_of_layer_without_a_cost_is_refused() -> None:
    costs = layers(("conv", "softmax"), [[True, True]], [[1, 0]], [[1, 1]])
    with pytest.raises(ConfigError, match="no cost for 'softmax'"):
        predictor_for(toy_profile()).predict(costs)


@given(st.data())
def test_many_at_once_are_predicted_as_one_by_one(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    shape = (count, len(OP_KINDS))
    numbers = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    active = numbers.random(shape) < 0.7
    macs, moved = (numbers.integers(0, 10**7, shape) * active for _ in range(2))
    predictor = predictor_for(toy_profile())
    together = predictor.predict(layers(OP_KINDS, active, macs, moved))
    alone = [predictor.predict(layers(OP_KINDS, active[[i]], macs[[i]], moved[[i]])) for i in range(count)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-12)
    assert (together >= 0.005).all()


def error(acc5: float, acc10: float) -> HeldOutError:
    return HeldOutError(acc5=acc5, acc10=acc10, spearman=0.99, mape=0.03, num_heldout=20)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("none", None),
        (error(0.96, 1.0), (10 / 1.05, 10 / 0.95)),
        (error(0.90, 0.97), (10 / 1.10, 10 / 0.90)),
        (error(0.50, 0.90), None),
    ],
)
def test_an_interval_is_claimed_only_where_held_out_networks_support_it(known: Any, expected: Any) -> None:
    interval = predict_interval(toy_profile(known), np.array([10.0]))
    if expected is None:
        assert interval is None
    else:
        assert interval is not None
        assert (float(interval[0][0]), float(interval[1][0])) == pytest.approx(expected)
