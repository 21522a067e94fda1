"""One client's training on the corners of the paper's space: our forward pass beside plain conv2d in NCHW, one thread.

Run: python benchmarks/training_step.py
"""

from unittest import mock

import numpy as np
import torch
from interleaved import ratio_of_medians, time_in_turn
from torch import Tensor
from torch.nn import functional

from fedsup_deploy import resources
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.federated.client import LocalTraining, train
from fedsup_deploy.federated.tasks import Assignment, TrainTask
from fedsup_deploy.space.plan import Layer
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import forward, slices
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import initial_weights

IMAGES = 160
PARAMS = LocalTraining(1, 32, 0.9, 1e-4, 1.0, has_logit_adjustment=True)


def plain_convolution(layer: Layer, weight: Tensor, bias: None, x_BCHW: Tensor) -> Tensor:
    """Return the convolution as torch's own function computes it, channels first."""
    groups = len(weight) if layer.op == "depthwise" else 1
    padding = layer.kernel_size // 2
    return functional.conv2d(x_BCHW.contiguous(), weight, bias, stride=layer.stride, padding=padding, groups=groups)


def main() -> None:
    """Print images per second of both, and the ratio."""
    space = validate(load_yaml(resources.find("configs/spaces", "fedsup-mobilenet")), SearchSpace)
    layout = Layout(space, "batch")
    weights = initial_weights(layout, seed=0)
    generator = np.random.Generator(np.random.PCG64(0))
    x_NCHW = torch.from_numpy(generator.standard_normal((IMAGES, 3, 32, 32), dtype=np.float32))
    images = x_NCHW, torch.from_numpy(generator.integers(0, 10, IMAGES))
    for name in ("largest", "smallest"):
        architecture = space.resolve(name)
        part = slices.gather(weights, layout.slices(architecture))
        task = TrainTask(0, 0, Assignment(architecture), part, learning_rate=0.01)

        def ours(task: TrainTask = task) -> object:
            return train(task, layout, images, Augmentation(), PARAMS, seed=0)

        def plain(ours=ours) -> object:  # type: ignore[no-untyped-def]
            with mock.patch.object(forward, "convolve", plain_convolution):
                return ours()

        seconds = time_in_turn({"plain": plain, "ours": ours}, rounds=7)
        rates = [IMAGES / min(seconds[key]) for key in ("plain", "ours")]
        ratio = ratio_of_medians(seconds, "plain", "ours")
        print(f"{name}: plain {rates[0]:.0f} images/s, ours {rates[1]:.0f} images/s, ratio of medians {ratio:.2f}")


if __name__ == "__main__":
    main()
