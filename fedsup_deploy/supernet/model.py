"""`Supernet` holds the shared weights; `Subnet` holds the weights of one architecture, on its own.

Neither has a mode or a current architecture: what is computed follows from the arguments alone.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.layers.kind import kind_of, owned_weights
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.forward import forward
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.normalization import BY_BATCH, Normalizer

#: Gamma of the normalisation that ends a residual block's main path, before training. FedSup (arXiv 2206.01366) starts
#: at 0; then both the classifier and the blocks have next to nothing to learn from in the few steps a client takes.
RESIDUAL_GAMMA = 0.5


class Supernet:
    """A weight-sharing network over a search space.

    Args:
        layout: Its search space and tensors.
        weights: Every shared tensor by name, float32; see `initial_weights`.

    Raises:
        ArtifactError: A tensor is missing, unknown or of another shape than the space asks for.
    """

    def __init__(self, layout: Layout, weights: Mapping[str, Tensor]) -> None:
        check_shapes(weights, layout.shapes, f"supernet of space {layout.space.name}")
        self.layout = layout
        self.weights = dict(weights)

    def __call__(self, x_BCHW: Tensor, architecture: Architecture, normalizer: Normalizer | None = None) -> Tensor:
        """Return the logits of one architecture, shape (B, K).

        Args:
            x_BCHW: Preprocessed images at the architecture's resolution.
            architecture: Which subnet computes.
            normalizer: What the activations are normalised with; by default the batch's own statistics, as in training.
        """
        part = rule.gather(self.weights, self.layout.slices(architecture))
        return forward(self.layout.plan(architecture), part, x_BCHW, normalizer or BY_BATCH[self.layout.normalization])

    def extract(self, architecture: Architecture) -> "Subnet":
        """Return one architecture as a network with weights of its own (copies, not views)."""
        part = rule.gather(self.weights, self.layout.slices(architecture))
        weights = {name: tensor.detach().clone() for name, tensor in part.items()}
        return Subnet(self.layout.plan(architecture), self.layout.normalization, weights)


class Subnet:
    """One architecture with its own weights.

    Args:
        plan: Its layers, in plain integers.
        normalization: `batch` or `parametric`.
        weights: Its tensors by name, with the names they have in the supernet.

    Raises:
        ArtifactError: A tensor is missing, unknown or of another shape than the plan asks for.
    """

    def __init__(self, plan: NetworkPlan, normalization: str, weights: Mapping[str, Tensor]) -> None:
        self.plan = plan
        self.normalization = normalization
        check_shapes(weights, rule.shapes(plan, normalization), "subnet")
        self.weights = dict(weights)

    def __call__(self, x_BCHW: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """Return the logits, shape (B, K); normalised by default with the batch's own statistics, as in training."""
        return forward(self.plan, self.weights, x_BCHW, normalizer or BY_BATCH[self.normalization])


def initial_weights(layout: Layout, seed: int) -> dict[str, Tensor]:
    """Return the weights a training run starts from.

    Convolutions are drawn from a normal distribution of variance 2 / fan-out and the classifier from one of standard
    deviation 0.01; biases and normalisations start neutral, the last gamma of each residual block at RESIDUAL_GAMMA.

    Source: K. He et al., arXiv 1502.01852 (variance).
    """
    plan = layout.space.full_plan
    damped = {f"{layer.name}.norm.gamma" for layer in plan.layers() if layer.ends_residual}
    groups = {
        f"{owner}.weight": kind_of(layer).groups(layer) for layer in plan.layers() for owner in owned_weights(layer)
    }
    weights: dict[str, Tensor] = {}
    for name, shape in layout.shapes.items():
        if len(shape) == 1:
            gamma = RESIDUAL_GAMMA if name in damped else 1.0
            weights[name] = torch.full(shape, gamma if name.endswith(".gamma") else 0.0)
            continue
        fan_out = math.prod(shape[2:]) * shape[0] // groups[name]
        deviation = 0.01 if len(shape) == 2 else math.sqrt(2 / fan_out)
        weights[name] = torch.randn(shape, generator=rng.torch_generator(seed, "weights", name)) * deviation
    return weights


def check_shapes(tensors: Mapping[str, Tensor], expected: rule.Shapes, what: str) -> None:
    """Refuse tensors that are not exactly those expected.

    Raises:
        ArtifactError: The first tensor that is missing, unknown, of another shape or not float32.
    """
    for name in sorted(expected.keys() ^ tensors.keys()):
        raise ArtifactError(f"{what}: tensor {name} is {'missing' if name in expected else 'not part of it'}")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            got = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ArtifactError(f"{what}: tensor {name} is {got}, expected {shape} torch.float32")
