"""The networks that clients compute with: a subnet named within a supernet, or a network on its own."""

import dataclasses

from fedsup_deploy.federation.encoding import WireArchitecture, WireBlob, WireLayout, WirePlan
from fedsup_deploy.federation.messages import Blob, Weights
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.fold import affines, fold_weights
from fedsup_deploy.supernet.model import Subnet
from fedsup_deploy.supernet.statistics import PooledStatistics


@dataclasses.dataclass(frozen=True)
class Standalone:
    """A network with tensors of its own; it need not be in any search space.

    Args:
        plan: Its layers, in plain integers.
        normalization: `batch` or `parametric`.
        weights: Its tensors.
    """

    plan: WirePlan
    normalization: str
    weights: WireBlob

    def tensors(self) -> Weights:
        """Return its tensors."""
        return self.weights.tensors


@dataclasses.dataclass(frozen=True)
class SharedSubnet:
    """A subnet of a supernet: many can be asked about once the supernet is there.

    Args:
        layout: Of the supernet.
        architecture: Which subnet.
        supernet: All shared tensors.
    """

    layout: WireLayout
    architecture: WireArchitecture
    supernet: WireBlob

    @property
    def plan(self) -> NetworkPlan:
        """Its layers, in plain integers."""
        return self.layout.plan(self.architecture)

    @property
    def normalization(self) -> str:
        """`batch` or `parametric`."""
        return self.layout.normalization

    def tensors(self) -> Weights:
        """Return its tensors, copied."""
        part = rule.gather(self.supernet.tensors, self.layout.slices(self.architecture))
        return {name: tensor.clone() for name, tensor in part.items()}


Network = Standalone | SharedSubnet


def standalone(subnet: Subnet) -> Standalone:
    """Return an extracted subnet as clients get it."""
    return Standalone(subnet.plan, subnet.normalization, Blob(subnet.weights))


def resolution_of(network: Network) -> int:
    """Return the side of the images that a network takes, in pixels."""
    side: int = network.plan.stem.in_size
    return side


def folded(plan: NetworkPlan, normalization: str, weights: Weights, known: PooledStatistics) -> Weights:
    """Return a network's tensors with the normalisations of which statistics are known made part of convolutions."""
    return fold_weights(plan, weights, affines(weights, normalization, known))
