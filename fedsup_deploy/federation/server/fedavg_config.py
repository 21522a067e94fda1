"""Options of federated averaging, and of what else trains one subnet."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from fedsup_deploy.config.problems import misfit
from fedsup_deploy.config.reader import KeyPath
from fedsup_deploy.config.section import Text
from fedsup_deploy.config.strategy import StrategyConfig

ClientIndex = Annotated[int, Field(ge=0)]


class OneSubnetConfig(StrategyConfig):
    """What strategies without a supernet have in common: every client trains the same subnet."""

    architecture: Text = "largest"
    """The subnet: `largest`, `smallest` or an arch_id."""
    clients: Annotated[tuple[tuple[ClientIndex, ClientIndex], ...], Field(min_length=1)] | None = None
    """Who takes part, as runs of client indices: [[25, 49]] is the second quarter of 100 clients, whose devices are the
    only ones of a tier that can train a large subnet. null: all clients."""

    @model_validator(mode="after")
    def _runs_ascend(self) -> "OneSubnetConfig":
        for index, (first, last) in enumerate(self.clients or ()):
            if first > last:
                raise misfit([(("clients", index), [first, last], "[first, last]")])
        return self

    def misfits(self, num_clients: int) -> Sequence[tuple[KeyPath, object, str]]:
        """Return that runs name clients that there are not."""
        highest = max((last for _, last in self.clients or ()), default=0)
        if highest < num_clients:
            return ()
        return [(("clients",), highest, f"no client after the last one, {num_clients - 1}")]

    def able_clients(self, num_clients: int) -> tuple[int, str | None]:
        """Return how many clients are in the runs, which may overlap."""
        if self.clients is None:
            return super().able_clients(num_clients)
        able = {client for first, last in self.clients for client in range(first, last + 1)}
        return len(able), "the clients of strategy.clients"


class FedAvgConfig(OneSubnetConfig):
    """Every client trains the same subnet: federated averaging, the baseline."""

    strategy: ClassVar = "fedsup_deploy.federation.server.strategy:FedAvg"

    name: Literal["fedavg"]
    """Which strategy."""
    extrapolate: bool = False
    """Whether the server goes beyond the average of the clients, the more they disagree. Federated averaging as
    published does not."""
