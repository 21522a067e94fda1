"""One client's training on the corners of a space, one thread: ours beside plain PyTorch, and a sandwich.

    python benchmarks/training_step.py                                                   # the paper's space
    python benchmarks/training_step.py --space photographs --resolution 224 --images 64 --busy

Images have the side of the resolution, for both corners.

Plain is the same network of `conv2d` and `batch_norm`, trained by `torch.optim.SGD` with its fused step on the same
batches: in NCHW, with the channels innermost, and the latter compiled by `torch.compile` (a C++ compiler is needed; its
first call, which compiles, is not timed). Then FedSup's step of several subnets beside the sum of their own steps.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from unittest import mock

import numpy as np
import torch
from interleaved import ratio_of_medians, time_in_turn
from torch import Tensor
from torch.nn import functional

from fedsup_deploy import resources
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.jobs.train import Assignment, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.layers.kind import kind_of
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import forward, slices
from fedsup_deploy.supernet.layers.convolution import Convolution, Depthwise, Pointwise
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import initial_weights
from fedsup_deploy.supernet.normalization import BY_BATCH

CLIP_VALUE = 1.0
PARAMS = LocalTraining(1, 32, 0.9, 1e-4, CLIP_VALUE, has_logit_adjustment=True)
RATE = 0.01
Images = tuple[Tensor, Tensor]


Compute = Callable[[Layer, Mapping[str, Tensor], Tensor], Tensor]


def convolution(layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
    """Return the convolution as torch's own function computes it, in the layout of its input."""
    weight, groups = weights[f"{layer.name}.weight"], kind_of(layer).groups(layer)
    return functional.conv2d(x_BCHW, weight, None, layer.stride, layer.kernel_size // 2, groups=groups)


def convolution_nchw(layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
    """Return the convolution as torch's own function computes it, channels first."""
    return convolution(layer, weights, x_BCHW.contiguous())


def plain(
    layout: Layout,
    architecture: Architecture,
    weights: dict[str, Tensor],
    images: Images,
    compute: Compute,
    *,
    is_compiled: bool = False,
) -> Callable[[], None]:
    """Return what trains one subnet for an epoch with nothing of ours but the order of its layers."""
    plan, tensors = layout.plan(architecture), {name: t.clone().requires_grad_() for name, t in weights.items()}
    optimizer = torch.optim.SGD(tensors.values(), RATE, PARAMS.momentum, weight_decay=PARAMS.weight_decay, fused=True)

    def loss(x_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        return functional.cross_entropy(forward.forward(plan, tensors, x_BCHW, BY_BATCH["batch"]), labels_B)

    loss = torch.compile(loss, dynamic=False) if is_compiled else loss

    def epoch() -> None:
        with (
            mock.patch.object(Convolution, "forward", lambda _, *given: compute(*given)),
            mock.patch.object(Pointwise, "forward", lambda _, *given: compute(*given)),
            mock.patch.object(Depthwise, "forward", lambda _, *given: compute(*given)),
        ):
            for x_BCHW, labels_B in zip(*(tensor.split(PARAMS.batch_size) for tensor in images), strict=True):
                optimizer.zero_grad()
                loss(x_BCHW, labels_B).backward()
                torch.nn.utils.clip_grad_value_(tensors.values(), CLIP_VALUE)
                optimizer.step()

    return epoch


def main() -> None:
    """Print images per second and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="fedsup-mobilenet", help="a shipped name or a file")
    parser.add_argument("--resolution", type=int, help="one of the space's; its largest, unless said otherwise")
    parser.add_argument("--images", type=int, default=160, help="of one epoch")
    parser.add_argument("--rounds", type=int, default=7, help="in which each form trains one epoch")
    parser.add_argument("--busy", action="store_true", help="time what the process computes: others take the processor")
    given = parser.parse_args()
    clock = time.process_time if given.busy else time.perf_counter
    space = validate(load_yaml(resources.find("configs/spaces", given.space)), SearchSpace)
    side, num_images = given.resolution or space.resolutions[-1], given.images
    largest, smallest = (dataclasses.replace(each, resolution=side) for each in (space.largest, space.smallest))
    layout = Layout(space, "batch")
    weights = initial_weights(layout, seed=0)
    generator = np.random.Generator(np.random.PCG64(0))
    pixels_NHWC = generator.integers(0, 256, (num_images, side, side, 3), dtype=np.uint8)
    dataset = ImageDataset("random", pixels_NHWC, generator.integers(0, 10, num_images), tuple("0123456789"))
    preprocessing, client = Preprocessing.fit(dataset, side), Client({TRAINED: dataset})
    x_NCHW, labels_N = client.prepared(TRAINED, preprocessing)
    images = torch.from_numpy(x_NCHW), torch.from_numpy(labels_N)

    def ours(assignment: Assignment) -> Callable[[], object]:
        sent = layout.slices(assignment.architecture) if assignment.architecture else layout.whole
        blob = Blob(slices.gather(weights, sent))
        job = Train(layout, assignment, blob, RATE, PARAMS, preprocessing, Augmentation(), seed=0)
        return lambda: client.perform(job)

    for name, architecture in (("largest", largest), ("smallest", smallest)):
        part = slices.gather(weights, layout.slices(architecture))
        forms = {
            "plain, NCHW": plain(layout, architecture, part, images, convolution_nchw),
            "plain, channels innermost": plain(layout, architecture, part, images, convolution),
            "plain, compiled": plain(layout, architecture, part, images, convolution, is_compiled=True),
            "ours": ours(Assignment(architecture)),
        }
        seconds = time_in_turn(forms, given.rounds, clock)
        best = min(seconds, key=lambda form: (form == "ours", statistics.median(seconds[form])))
        for form, values in seconds.items():
            print(f"{name}, {form}: {num_images / min(values):.0f} images/s")
        print(f"{name}: ratio of medians {ratio_of_medians(seconds, best, 'ours'):.2f} to {best}")
    corners = Assignment(largest), Assignment(smallest), Assignment(largest, inner=(smallest,))
    seconds = time_in_turn(
        dict(zip(("largest", "smallest", "both"), map(ours, corners), strict=True)), given.rounds, clock
    )
    parts, both = (
        sum(statistics.median(seconds[key]) for key in keys) for keys in (("largest", "smallest"), ("both",))
    )
    print(f"both in one step: {parts / both:.2f} of the sum of their own steps")


if __name__ == "__main__":
    main()
