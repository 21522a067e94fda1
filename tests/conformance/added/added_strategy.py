"""A strategy that nobody ships: the server keeps slow weights, and goes back to them in every second round.

Source: M. R. Zhang et al., Lookahead, arXiv 1907.08610, here at the server.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedsup_deploy.config.strategy import StrategyConfig
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.strategy import ServerState
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


class LookaheadConfig(StrategyConfig):
    strategy: ClassVar = "added_strategy:Lookahead"

    name: Literal["lookahead"]
    slow: Annotated[float, Field(gt=0, le=1)] = 0.5
    skipped: int = 0

    @property
    def num_tiers(self) -> int:
        return 2

    def able_clients(self, num_clients: int) -> tuple[int, str | None]:
        return num_clients - self.skipped, "the clients that strategy.skipped leaves"


class Lookahead:
    warm_up_again_at = 0

    def __init__(self, space: SearchSpace, rounds: int, slow: float, skipped: int) -> None:  # noqa: ARG002
        self._subnets, self._slow, self._skipped = (space.smallest, space.largest), slow, skipped

    def initial(self, layout: Layout) -> dict[str, Tensor]:
        return {name: torch.zeros(shape) for name, shape in layout.shapes.items()}

    def eligible(self, infos: Sequence[ClientInfo]) -> list[ClientInfo]:
        return list(infos)[self._skipped :]

    def plan(self, round_index: int, cohort: Sequence[ClientInfo], seed: int) -> dict[ClientId, Assignment]:  # noqa: ARG002
        return {info.client: Assignment(self._subnets[info.tier]) for info in cohort}

    def aggregate(self, round_index: int, state: ServerState, mean: CoverageMean, seed: int) -> ServerState:  # noqa: ARG002
        fast = mean.result()
        slow = {name: tensor + self._slow * (fast[name] - tensor) for name, tensor in state.kept.items()}
        return ServerState(Supernet(state.supernet.layout, slow if round_index % 2 else fast), slow)
