"""Whether a network that is exported keeps the limits of its device."""

from fedsup_deploy.artifact.manifest import LimitRecord
from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.searchers.prices import Prices, rounded_up
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.recording import percentile_record
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace


def check(space: SearchSpace, architecture: Architecture, target: Target) -> None:
    """Fail if a subnet exceeds a limit.

    Raises:
        InfeasibleError: It does; the message names each limit and what it costs.
    """
    (prices,) = price(space, space.encode(architecture)[None], [target])
    exceeded = [
        f"{name} is {rounded_up(record.cost, 6):g} (limit {record.limit:g}{_meaning(name, target)})"
        for name, record in records(prices, target).items()
        if record.is_exceeded
    ]
    if exceeded:
        device = target.profile.name
        raise InfeasibleError(
            f"{architecture.arch_id} exceeds the limits of {device}: {', '.join(exceeded)}; search for a subnet within "
            "them, or export this one --over-limit"
        )


def records(prices: Prices, target: Target) -> dict[str, LimitRecord]:
    """Return the limits of one network that can be checked, as a manifest has them."""
    costs = {name: float(values[0]) for name, values in prices.by_limit().items()}
    percentile = percentile_record(target.held)
    return {
        name: LimitRecord(
            limit=limit,
            cost=costs[name],
            is_exceeded=costs[name] > limit,
            percentile=percentile if TABLE[name].is_predicted else None,
            risk=target.held.risk if TABLE[name].is_predicted else None,
        )
        for name, limit in target.limits.checked(costs).items()
    }


def _meaning(name: str, target: Target) -> str:
    return f", {target.held}" if TABLE[name].is_predicted else ""
