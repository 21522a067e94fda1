"""Options of the strategies that train a supernet."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from fedsup_deploy.config.strategy import StrategyConfig
from fedsup_deploy.federation.server.assignment import Tier

_PAPER_TIERS: Final = (
    Tier(architecture="smallest"),
    Tier(architecture="largest"),
    Tier(params=(750_000, 1_000_000)),
    Tier(random=True),
)


#: Share of the rounds in which all clients train the smallest subnet, where a config does not say.
_SMALLEST_FIRST: Final = 0.3


def rounds_of_the_smallest(rounds: int, smallest_first: float | None, *, paper: bool) -> int:
    """Return in how many of so many rounds, the first ones, all clients train the smallest subnet only.

    Args:
        rounds: All of them.
        smallest_first: As of `SmallestFirstConfig`.
        paper: As of the strategy's config.
    """
    if smallest_first is None:
        smallest_first = 0.0 if paper else _SMALLEST_FIRST
    return round(rounds * smallest_first)


class SmallestFirstConfig(StrategyConfig):
    """What both have in common."""

    smallest_first: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the rounds, the first ones, in which all clients train the smallest subnet only; what is larger is grown
    from it. 0: none. null: 0.3, and with `paper: true` none."""
    extrapolate: bool | None = None
    """Whether the server goes beyond the average of the clients, the more they disagree. null: yes, and with
    `paper: true` no."""


class FedSupConfig(SmallestFirstConfig):
    """Every client trains the whole supernet with the sandwich rule."""

    strategy: ClassVar = "fedsup_deploy.federation.server.strategy:FedSup"

    name: Literal["fedsup"]
    """Which strategy."""
    num_subnets: Annotated[int, Field(ge=2, le=1000)] = 4
    """Subnets per batch: the largest, the smallest and random ones. 2: no random ones; each costs time."""
    paper: bool = False
    """true: as in the FedSup paper, the smallest and random subnets learn from the answers of the largest. false: all
    learn from the labels."""


class EFedSupConfig(SmallestFirstConfig):
    """Every client trains one subnet that fits its class of device, and only that travels."""

    strategy: ClassVar = "fedsup_deploy.federation.server.strategy:EFedSup"

    name: Literal["e-fedsup"]
    """Which strategy."""
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)] = _PAPER_TIERS
    """Classes of clients, as equal runs of consecutive client indices."""
    paper: bool = False
    """true: as in the FedSup paper, a client trains its subnet only. false: also the smallest subnet within it."""

    @property
    def num_tiers(self) -> int:
        """Classes of clients."""
        return len(self.tiers)
