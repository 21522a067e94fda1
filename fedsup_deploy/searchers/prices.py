"""`Prices`: what architectures cost on a device. And what each limit, by its row in `device.limits`, takes of that.

Shapes: N architectures.
"""

import dataclasses
from collections.abc import Callable
from decimal import ROUND_CEILING, Context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import registry
from fedsup_deploy.device import limits
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.space.graph_size import FRAME_BYTES
from fedsup_deploy.space.plan import BoolArray, IntArray

FloatArray = NDArray[np.float64]

_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Prices:
    """Costs of N architectures on one device, each of shape (N,), at batch 1.

    Args:
        profile: Of the device.
        latency_ms: Predicted, never measured.
        latency_held_ms: What a limit on latency is held against: the percentile it means, with a risk its bound.
        num_macs: Multiply-accumulates.
        num_params: Parameters.
        peak_elements: Numbers among the activations that are alive at once, at most.
        graph_bytes: What an ONNX file in the precision of the profile has besides its parameters and a frame that all
            have, at most.
        resolution: Side of the input image in pixels.
        is_supported: Whether the device's runtime can run every layer.
    """

    profile: DeviceProfile
    latency_ms: FloatArray
    latency_held_ms: FloatArray
    num_macs: IntArray
    num_params: IntArray
    peak_elements: IntArray
    graph_bytes: IntArray
    resolution: IntArray
    is_supported: BoolArray

    def by_limit(self) -> dict[str, FloatArray]:
        """Return for the name of each limit the costs that it is about; none of a limit that nobody can check."""
        prices = {name: price_of(row, self) for name, row in limits.TABLE.items()}
        return {name: values for name, values in prices.items() if values is not None}

    def take(self, index_F: IntArray) -> "Prices":
        """Return the costs of some of the architectures."""
        return each(lambda values: values[index_F], self)

    def with_file(self, num_bytes: int) -> "Prices":
        """Return the prices of one network whose ONNX file was written: with its size as it is."""
        numbers = self.num_params * self.profile.latency.bytes_per_element
        return dataclasses.replace(self, graph_bytes=num_bytes - numbers - FRAME_BYTES)

    def mib(self, elements_N: IntArray) -> FloatArray:
        """Return the size of so many numbers in the profile's number format, in MiB."""
        return elements_N.astype(np.float64) * (self.profile.latency.bytes_per_element / _MIB)


def each(function: Callable[..., Any], *prices: Prices) -> Prices:
    """Return prices with a function of the values of every kind, on one device."""
    names = [field.name for field in dataclasses.fields(Prices) if field.name != "profile"]
    values: dict[str, Any] = {name: function(*(getattr(one, name) for one in prices)) for name in names}
    return Prices(prices[0].profile, **values)


def price_of(row: limits.Limit, prices: Prices) -> FloatArray | None:
    """Return what a limit is about, in its unit, shape (N,); None where nobody knows."""
    values_N: FloatArray | None = registry.load(row.price)(prices)
    return values_N


def latency_ms(prices: Prices) -> FloatArray:
    """Return what the limit on latency is held against."""
    return prices.latency_held_ms


def macs(prices: Prices) -> FloatArray:
    """Return multiply-accumulates."""
    return prices.num_macs.astype(np.float64)


def params(prices: Prices) -> FloatArray:
    """Return numbers of parameters."""
    return prices.num_params.astype(np.float64)


def memory_mib(prices: Prices) -> FloatArray:
    """Return the size of parameters and peak activations."""
    return prices.mib(prices.num_params + prices.peak_elements)


def activation_mib(prices: Prices) -> FloatArray:
    """Return the size of peak activations."""
    return prices.mib(prices.peak_elements)


def storage_mib(prices: Prices) -> FloatArray:
    """Return the size of an ONNX file: parameters, and the graph around them, at most."""
    return prices.mib(prices.num_params) + (prices.graph_bytes + FRAME_BYTES) / _MIB


def energy_mj(prices: Prices) -> FloatArray | None:
    """Return an estimate: latency times the profile's power; None where it states none."""
    energy = prices.profile.energy
    return None if energy is None else prices.latency_ms * energy.active_power_w


def resolution(prices: Prices) -> FloatArray:
    """Return the side of the input image in pixels."""
    return prices.resolution.astype(np.float64)


def rounded_up(price: float, digits: int = 4) -> float:
    """Return a price in so many digits, for people, never below what it is: what they read is met if made a limit."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(price))))
