"""Whether a network that is exported keeps the limits of its device."""

from typing import Any

from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.searchers.prices import Prices, rounded_up
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace


def check(space: SearchSpace, architecture: Architecture, target: Target) -> None:
    """Fail if a subnet exceeds a limit.

    Raises:
        InfeasibleError: It does; the message names each limit and what it costs.
    """
    (prices,) = price(space, space.encode(architecture)[None], [target])
    exceeded = [
        f"{name} is {rounded_up(record['cost'], 6):g} (limit {record['limit']:g})"
        for name, record in records(prices, target).items()
        if record["is_exceeded"]
    ]
    if exceeded:
        device = target.profile.name
        raise InfeasibleError(
            f"{architecture.arch_id} exceeds the limits of {device}: {', '.join(exceeded)}; search for a subnet within "
            "them, or export this one --over-limit"
        )


def records(prices: Prices, target: Target) -> dict[str, dict[str, Any]]:
    """Return the limits of one network that can be checked, as a manifest has them."""
    costs = {name: float(values[0]) for name, values in prices.by_limit().items()}
    return {
        name: {"limit": limit, "cost": costs[name], "is_exceeded": costs[name] > limit}
        for name, limit in target.limits.checked(costs).items()
    }
