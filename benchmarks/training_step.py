"""One client's training on the corners of a space, one thread: ours beside plain PyTorch, and a sandwich.

    python benchmarks/training_step.py                                                   # the paper's space
    python benchmarks/training_step.py --space photographs --resolution 224 --images 64 --busy

Images have the side of the resolution, for both corners.

Plain is the same network of `conv2d` and `batch_norm`, trained by `torch.optim.SGD` with its fused step on the same
batches: in NCHW, with the channels innermost, and the latter compiled by `torch.compile` (a C++ compiler is needed; its
first call, which compiles, is not timed). Each form has a process of its own. Then FedSup's step of several subnets
beside the sum of their own steps.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from unittest import mock

import numpy as np
import torch
from interleaved import ratio_of_medians, time_processes_in_turn
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from fedsup_deploy import memory, resources
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

    def loss(tensors: dict[str, Tensor], x_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        with (
            mock.patch.object(Convolution, "forward", lambda _, *given: compute(*given)),
            mock.patch.object(Pointwise, "forward", lambda _, *given: compute(*given)),
            mock.patch.object(Depthwise, "forward", lambda _, *given: compute(*given)),
        ):
            return functional.cross_entropy(forward.forward(plan, tensors, x_BCHW, BY_BATCH["batch"]), labels_B)

    batches = list(zip(*(tensor.split(PARAMS.batch_size) for tensor in images), strict=True))
    if is_compiled:
        # Of the operations alone: our classes of layers would each be compiled for itself, at twice the time.
        loss = torch.compile(make_fx(loss)(tensors, *batches[0]), dynamic=False)

    def epoch() -> None:
        for x_BCHW, labels_B in batches:
            optimizer.zero_grad()
            loss(tensors, x_BCHW, labels_B).backward()
            torch.nn.utils.clip_grad_value_(tensors.values(), CLIP_VALUE)
            optimizer.step()

    return epoch


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is trained.

    Args:
        space: A shipped name or a file.
        side: Of the images and of every subnet's input, pixels.
        num_images: Of one epoch.
    """

    space: str
    side: int
    num_images: int

    def make(self, name: str) -> Callable[[], object]:
        """Return what trains an epoch: "largest, ours", "smallest, plain, NCHW" and the like, or "both, ours"."""
        which, _, form = name.partition(", ")
        space = validate(load_yaml(resources.find("configs/spaces", self.space)), SearchSpace)
        corners = [dataclasses.replace(each, resolution=self.side) for each in (space.largest, space.smallest)]
        layout = Layout(space, "batch")
        weights = initial_weights(layout, seed=0)
        generator = np.random.Generator(np.random.PCG64(0))
        pixels_NHWC = generator.integers(0, 256, (self.num_images, self.side, self.side, 3), dtype=np.uint8)
        labels_N = generator.integers(0, 10, self.num_images)
        dataset = ImageDataset("random", pixels_NHWC, labels_N, tuple("0123456789"))
        preprocessing, client = Preprocessing.fit(dataset, self.side), Client({TRAINED: dataset})
        architecture = corners[which == "smallest"]
        if form == "ours":
            memory.keep_freed()  # As the engines do.
            inner = (corners[1],) if which == "both" else ()
            blob = Blob(slices.gather(weights, layout.slices(architecture)))
            assignment = Assignment(architecture, inner=inner)
            job = Train(layout, assignment, blob, RATE, PARAMS, preprocessing, Augmentation(), seed=0)
            return lambda: client.perform(job)
        x_NCHW, labels_N = client.prepared(TRAINED, preprocessing)
        part = slices.gather(weights, layout.slices(architecture))
        compute, is_compiled = PLAIN[form]
        images = torch.from_numpy(x_NCHW), torch.from_numpy(labels_N)
        return plain(layout, architecture, part, images, compute, is_compiled=is_compiled)


PLAIN = {
    "plain, NCHW": (convolution_nchw, False),
    "plain, channels innermost": (convolution, False),
    "plain, compiled": (convolution, True),
}


def main() -> None:
    """Print images per second and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="fedsup-mobilenet", help="a shipped name or a file")
    parser.add_argument("--resolution", type=int, help="one of the space's; its largest, unless said otherwise")
    parser.add_argument("--images", type=int, default=160, help="of one epoch; whole batches of 32")
    parser.add_argument("--rounds", type=int, default=7, help="in which each form trains one epoch")
    parser.add_argument("--busy", action="store_true", help="time what the process computes: others take the processor")
    given = parser.parse_args()
    clock = time.process_time if given.busy else time.perf_counter
    space = validate(load_yaml(resources.find("configs/spaces", given.space)), SearchSpace)
    bench = Bench(given.space, given.resolution or space.resolutions[-1], given.images)
    for which in ("largest", "smallest"):
        names = [f"{which}, {form}" for form in (*PLAIN, "ours")]
        seconds = time_processes_in_turn(bench.make, names, given.rounds, clock)
        ours = names.pop()
        best = min(names, key=lambda name: statistics.median(seconds[name]))
        for name, values in seconds.items():
            print(f"{name}: {given.images / min(values):.0f} images/s")
        print(f"{which}: ratio of medians {ratio_of_medians(seconds, best, ours):.2f} to {best}")
    seconds = time_processes_in_turn(bench.make, ["largest, ours", "smallest, ours", "both, ours"], given.rounds, clock)
    largest, smallest, both = map(statistics.median, seconds.values())
    print(f"both in one step: {(largest + smallest) / both:.2f} of the sum of their own steps")


if __name__ == "__main__":
    main()
