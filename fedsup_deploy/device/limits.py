"""The limits there are: the most that a subnet may cost on a device. One row each, and no other list of them anywhere.

Options of the command line, the `limits` of a profile, what a search holds candidates to, its messages and search.json
are made from these rows. Data only, and imported with every command: it needs no library.
"""

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a profile has to say before anybody can check a limit.

    Args:
        section: The profile's section.
        missing: Words for a profile without it, and what to do.
    """

    section: str
    missing: str


@dataclasses.dataclass(frozen=True)
class Limit:
    """What is known of one limit.

    Args:
        name: In Python, search.json, profiles and manifests; it ends with the unit, unless that is a number of things.
        unit: Of the limit and of its price.
        price: The function that says what architectures cost, `module:function`: `searchers.prices.Prices` -> shape
            (N,), or None where nobody knows.
        meaning: The help of its option in a search.
        lowest: Words before the lowest price there is.
        is_count: Whether the price is a whole number.
        is_predicted: Whether it is the prediction itself, which an interval and a risk are about.
        grows_with: What the price depends on alone, and grows with: `latency`, `macs`, `params`, `activations`,
            `memory` (the latter two together), `storage` (bytes of parameters and graph) or `resolution`; None for
            anything else, which exact search over stages cannot hold partial networks to.
        recorded_as: What a candidate in search.json calls the price; None puts it under `more`.
        in_profile: Whether a profile may have a default.
        default: The help of the default's option in `profile build`; None where there is none.
        ground: What a profile has to say before a request can be checked.
    """

    name: str
    unit: str
    price: str
    meaning: str
    lowest: str
    is_count: bool = False
    is_predicted: bool = False
    grows_with: str | None = None
    recorded_as: str | None = None
    in_profile: bool = False
    default: str | None = None
    ground: Ground | None = None

    @property
    def option(self) -> str:
        """The option of a search."""
        return f"--max-{self.name.replace('_', '-')}"

    @property
    def default_option(self) -> str:
        """The option of `profile build`."""
        return f"--{self.name.replace('_', '-')}"


_ROWS: Final = (
    Limit(
        "latency_ms",
        unit="ms",
        price="fedsup_deploy.searchers.prices:latency_ms",
        meaning="Predicted latency of one image.",
        lowest="fastest predicted",
        is_predicted=True,
        grows_with="latency",
        recorded_as="latency_ms_held",
        in_profile=True,
        default="Default limit of a search: latency.",
    ),
    Limit(
        "macs",
        unit="multiply-accumulates",
        price="fedsup_deploy.searchers.prices:macs",
        meaning="Multiply-accumulates of one image.",
        lowest="fewest",
        is_count=True,
        grows_with="macs",
        recorded_as="num_macs",
    ),
    Limit(
        "params",
        unit="parameters",
        price="fedsup_deploy.searchers.prices:params",
        meaning="Parameters.",
        lowest="fewest",
        is_count=True,
        grows_with="params",
        recorded_as="num_params",
    ),
    Limit(
        "memory_mib",
        unit="MiB",
        price="fedsup_deploy.searchers.prices:memory_mib",
        meaning="Weights and peak activations.",
        lowest="least",
        grows_with="memory",
        recorded_as="memory_mib",
        in_profile=True,
        default="Default limit of a search: weights and activations.",
    ),
    Limit(
        "activation_mib",
        unit="MiB",
        price="fedsup_deploy.searchers.prices:activation_mib",
        meaning="Peak activations alone.",
        lowest="least",
        grows_with="activations",
        recorded_as="activation_mib",
        in_profile=True,
    ),
    Limit(
        "storage_mib",
        unit="MiB",
        price="fedsup_deploy.searchers.prices:storage_mib",
        meaning="Size of the ONNX file.",
        lowest="least",
        grows_with="storage",
        recorded_as="storage_mib",
        in_profile=True,
        default="Default limit of a search: size of the file.",
    ),
    Limit(
        "energy_mj",
        unit="mJ",
        price="fedsup_deploy.searchers.prices:energy_mj",
        meaning="Estimated energy of one image.",
        lowest="least estimated",
        grows_with="latency",
        recorded_as="energy_mj_estimated",
        in_profile=True,
        ground=Ground(
            "energy",
            "states no power to estimate energy from; search without this limit and measure the energy on the device",
        ),
    ),
    Limit(
        "resolution",
        unit="pixels",
        price="fedsup_deploy.searchers.prices:resolution",
        meaning="Side of the input image in pixels.",
        lowest="lowest",
        is_count=True,
        grows_with="resolution",
        recorded_as="resolution",
    ),
)
#: By name, in the order in which they are shown.
TABLE: Final = {row.name: row for row in _ROWS}
