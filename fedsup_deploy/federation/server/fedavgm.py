"""FedAvgM: federated averaging with momentum at the server."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.strategy import FedAvg, ServerState
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


class FedAvgM(FedAvg):
    """Every client trains the same fixed subnet; the server moves on with a part of its last move.

    v <- momentum v + (average of the clients - weights), weights <- weights + v. Without momentum this is FedAvg, up to
    rounding.

    Args:
        space: The search space.
        rounds: Rounds in all.
        architecture: `largest`, `smallest` or an arch_id.
        clients: As of `FedAvg`.
        momentum: Share of the last move that is added to the next, in [0, 1).

    Source: T.-M. H. Hsu et al., arXiv 1909.06335, with a server learning rate of 1.
    """

    def __init__(
        self,
        space: SearchSpace,
        rounds: int,
        architecture: str,
        clients: Sequence[tuple[int, int]] | None = None,
        *,
        momentum: float,
    ) -> None:
        super().__init__(space, rounds, architecture, clients)
        self._momentum = momentum

    def initial(self, layout: Layout) -> dict[str, Tensor]:
        """Keep the velocity of every shared tensor, which starts at rest."""
        return {name: torch.zeros(shape) for name, shape in layout.shapes.items()}

    def aggregate(self, round_index: int, state: ServerState, mean: CoverageMean, seed: int) -> ServerState:  # noqa: ARG002
        """Return the weights moved by the new velocity."""
        before, average = state.supernet.weights, mean.result()
        velocity = {
            name: self._momentum * state.kept[name] + (average[name] - tensor) for name, tensor in before.items()
        }
        weights = {name: tensor + velocity[name] for name, tensor in before.items()}
        return ServerState(Supernet(state.supernet.layout, weights), velocity)
