"""`TakeRanges`: how large the activations of a network are on a client's images, for int8."""

import dataclasses
from typing import ClassVar

import numpy as np
import torch

from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import Client
from fedsup_deploy.federation.encoding import WireHistogram, WireStatistics, WireTensor
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, drawn
from fedsup_deploy.federation.networks import Standalone, folded, resolution_of
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.onnx_graph import INPUT_NAME, build_model, observable, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.supernet import ranges


@dataclasses.dataclass(frozen=True, eq=False)
class Ranges:
    """The answer: `ranges.ActivationCounts` as it travels.

    Args:
        counts_VB: Of each value of the network's graph, the input first, how many numbers are in each bin.
        extremes_V2: The smallest and the largest number of each.
    """

    counts_VB: WireHistogram
    extremes_V2: WireTensor


@dataclasses.dataclass(frozen=True)
class TakeRanges:
    """Count the activations of a network on some of the client's images: those that statistics are taken on.

    What is observed is the very graph that will be quantised, run by the runtime that it is made for.

    Args:
        network: The network.
        known: Statistics that all its layers are normalised with.
        preprocessing: Of the images, for any resolution.
        calibration: Which images.
        seed: Decides the draw.
    """

    kind: ClassVar[str] = "ranges"
    reply: ClassVar[type] = Ranges

    network: Standalone
    known: WireStatistics
    preprocessing: Preprocessing
    calibration: CalibrationDraw
    seed: int

    def perform(self, client: Client) -> Ranges:
        """Return the counts.

        Raises:
            DataError: An activation is not finite.
        """
        plan = self.network.plan
        weights = folded(plan, self.network.normalization, self.network.tensors(), self.known)
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        model, names = observable(build_model(parts_of(plan), arrays))
        session = inference.open_session(to_bytes(model), threads=1)
        seen: ranges.ActivationCounts | None = None
        preprocessing = self.preprocessing.for_size(resolution_of(self.network))
        for x_BCHW in drawn(client, preprocessing, self.calibration, self.seed):
            values = [x_BCHW.numpy(), *session.run(list(names), {INPUT_NAME: x_BCHW.numpy()})]
            if not all(np.isfinite(each).all() for each in values):
                raise DataError("activations are not finite")
            counted = ranges.ActivationCounts(
                np.stack([ranges.count(each) for each in values]),
                np.array([(each.min(), each.max()) for each in values], dtype=np.float32),
            )
            seen = counted if seen is None else seen + counted
        assert seen is not None, "a client has an image to train on"
        return Ranges(seen.counts_VB, torch.from_numpy(seen.extremes_V2))
