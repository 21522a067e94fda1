"""A limit that nobody ships: how often each parameter is used, at most."""

from typing import Any

from fedsup_deploy.device.limits import Limit

LIMIT = Limit(
    "macs_per_param",
    unit="multiply-accumulates per parameter",
    price="added_limit:macs_per_param",
    meaning="Multiply-accumulates per parameter.",
    lowest="least",
)


def macs_per_param(prices: Any) -> Any:
    return prices.num_macs / prices.num_params
