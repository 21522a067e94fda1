"""What architectures cost on devices, before anyone evaluates them.

Latency comes in as a callable, so that nothing here depends on a latency model. It decides nothing.

Shapes: N architectures, G genes, P targets.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.searchers.objective import BoolArray, FloatArray, Limits
from fedsup_deploy.space import cost
from fedsup_deploy.space.cost import LayerCosts
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.search_space import SearchSpace

# Rows priced at once: their costs per layer stay in the cache of a processor.
_CHUNK = 2048
_MIB = 2**20

Interval = tuple[FloatArray, FloatArray]


@dataclasses.dataclass(frozen=True)
class Target:
    """A device to find a subnet for.

    Args:
        profile: What is known of it.
        limits: What holds in this search.
        predict: Costs of the layers of N architectures -> predicted latency in ms, shape (N,).
        interval: Predicted latency, shape (N,) -> lower and upper bound, shape (N,) each; None where none is claimed.
    """

    profile: DeviceProfile
    limits: Limits
    predict: Callable[[LayerCosts], FloatArray]
    interval: Callable[[FloatArray], Interval | None]


@dataclasses.dataclass(frozen=True)
class Prices:
    """Costs of N architectures on one device, each of shape (N,), at batch 1 in the profile's number format.

    Args:
        latency_ms: Predicted, never measured.
        num_macs: Multiply-accumulates.
        num_params: Parameters.
        memory_mib: Parameters and peak activations.
        activation_mib: Peak activations.
        storage_mib: Parameters.
        is_supported: Whether the device's runtime can run every layer.
        energy_mj: Estimated: latency times the profile's power; None where it states none.
    """

    latency_ms: FloatArray
    num_macs: IntArray
    num_params: IntArray
    memory_mib: FloatArray
    activation_mib: FloatArray
    storage_mib: FloatArray
    is_supported: BoolArray
    energy_mj: FloatArray | None

    def by_limit(self) -> dict[str, FloatArray]:
        """Return for the name of each limit the costs that it is about."""
        prices = {
            "latency_ms": self.latency_ms,
            "macs": self.num_macs.astype(np.float64),
            "params": self.num_params.astype(np.float64),
            "memory_mib": self.memory_mib,
            "activation_mib": self.activation_mib,
            "storage_mib": self.storage_mib,
        }
        return prices if self.energy_mj is None else {**prices, "energy_mj": self.energy_mj}

    def take(self, index_F: IntArray) -> "Prices":
        """Return the costs of some of the architectures."""
        return _each(lambda values: values[index_F], self)


def price(
    space: SearchSpace,
    genes_NG: IntArray,
    targets: Sequence[Target],
    on_priced: Callable[[int, int], None] | None = None,
) -> list[Prices]:
    """Return what N architectures cost on each target. Layers are counted once for all targets.

    Args:
        space: The search space.
        genes_NG: One row of genes per architecture.
        targets: P devices.
        on_priced: Called with (rows done, rows in all) from time to time.

    Returns:
        P prices, in the order of the targets.
    """
    parts: list[list[Prices]] = [[] for _ in targets]
    # An empty request still gives arrays, of no rows.
    for start in range(0, max(len(genes_NG), 1), _CHUNK):
        rows = genes_NG[start : start + _CHUNK]
        elements = cost.costs(space, rows, bytes_per_element=1)
        for target, prices in zip(targets, parts, strict=True):
            prices.append(_on_target(elements, target))
        if on_priced is not None:
            on_priced(start + len(rows), len(genes_NG))
    return [_joined(prices) for prices in parts]


def _on_target(elements: cost.Costs, target: Target) -> Prices:
    """Return the prices of architectures whose costs are counted in elements."""
    profile, layers = target.profile, elements.layers
    mib_per_element = profile.latency.bytes_per_element / _MIB
    latency_ms = target.predict(layers)
    is_unsupported_L = np.isin(layers.ops, profile.unsupported_ops)
    return Prices(
        latency_ms=latency_ms,
        num_macs=elements.num_macs,
        num_params=elements.num_params,
        memory_mib=(elements.num_params + elements.peak_activation_bytes).astype(np.float64) * mib_per_element,
        activation_mib=elements.peak_activation_bytes.astype(np.float64) * mib_per_element,
        storage_mib=elements.num_params.astype(np.float64) * mib_per_element,
        is_supported=np.asarray(~layers.is_active_NL[:, is_unsupported_L].any(axis=1)),
        energy_mj=None if profile.energy is None else latency_ms * profile.energy.active_power_w,
    )


def _joined(parts: Sequence[Prices]) -> Prices:
    return _each(lambda *values: np.concatenate(values), *parts)


def _each(function: Callable[..., Any], *prices: Prices) -> Prices:
    """Apply a function to the values of every kind of price that there is."""
    kinds = {field.name: [getattr(one, field.name) for one in prices] for field in dataclasses.fields(Prices)}
    values: dict[str, Any] = {name: None if one[0] is None else function(*one) for name, one in kinds.items()}
    return Prices(**values)
