"""Networks made ready for export: recalibrated, folded, evaluated, with inputs to check every file on. Imports torch.

Nothing here knows a device, a format or a bundle.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from fedsup_deploy import rng
from fedsup_deploy.answers import Answers
from fedsup_deploy.artifact.manifest import AccuracyRecord
from fedsup_deploy.artifact.measures import MeasuresRecord
from fedsup_deploy.artifact.store import Vectors
from fedsup_deploy.commands.recalibrate import calibrate, keep_statistics
from fedsup_deploy.commands.refining import RefinedNetwork
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation.networks import Standalone, standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.ondevice.preprocessing import PIXEL_MAX, USUAL_PIXELS
from fedsup_deploy.ondevice.records import AnyPixels
from fedsup_deploy.runs.run import STATISTICS, Run
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.deployable import FoldedNetwork
from fedsup_deploy.supernet.fold import affines, fold
from fedsup_deploy.supernet.model import Subnet, Supernet
from fedsup_deploy.supernet.normalization import FixedAffine, Normalizer
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

_NUM_VECTORS = 32
_NUM_HELD_OUT_IMAGES = 224

Images = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One network, ready for any number of bundles.

    Args:
        arch: What a manifest says of its architecture.
        resolution: Side of its input image in pixels.
        costs: What it costs in float32.
        network: Itself, folded.
        standalone: Itself before that, as clients are asked about it.
        statistics: What its activations are normalised with.
        vectors: Inputs that travel with the bundle, and what the reference computes for them: the supernet, or a
            trimmed network before it is folded. Every file is compared with these outputs.
        held_out: Images that do not travel, and the same of them.
        accuracy: On the images of `Federation.final_split`, as a manifest has it.
        statistics_hash: SHA-256 of the file of its client statistics.
    """

    arch: dict[str, JsonValue]
    resolution: int
    costs: cost.Costs
    network: FoldedNetwork
    standalone: Standalone
    statistics: PooledStatistics
    vectors: Vectors
    held_out: Vectors
    accuracy: AccuracyRecord
    statistics_hash: str


@dataclasses.dataclass(frozen=True)
class _Network:
    """A network with its statistics.

    `logits` computes them from images and a normaliser; `inherited` are the statistics it would have without
    recalibration, None where there are none.
    """

    arch: dict[str, JsonValue]
    costs: cost.Costs
    subnet: Subnet
    logits: Callable[[torch.Tensor, Normalizer], torch.Tensor]
    pooled: PooledStatistics
    inherited: PooledStatistics | None
    statistics_hash: str


def prepare(
    run: Run, architecture: Architecture, supernet: Supernet, federation: Federation, log: EventLog
) -> Prepared:
    """Return a subnet of the search space, ready for export.

    Side effects: Keeps its statistics in the run's folder, unless that is read-only.
    """
    subnet = supernet.extract(architecture)
    taken = calibrate(run, architecture, subnet, run.config.calibration.schedule, federation, log)
    network = _Network(
        arch=architecture.to_dict(),
        costs=cost.costs_of(run.space, [architecture]),
        subnet=subnet,
        logits=lambda images, normalizer: supernet(images, architecture, normalizer),
        pooled=taken.pooled,
        inherited=_inherited(run, architecture, taken.pooled, supernet, federation, log),
        statistics_hash=taken.hash,
    )
    return _ready(run, network, federation)


def prepare_trimmed(run: Run, network: RefinedNetwork, federation: Federation) -> Prepared:
    """Return a trimmed subnet, ready for export.

    Side effects: Keeps its statistics in the run's folder, unless that is read-only.
    """
    schedule = run.config.calibration.schedule
    path = run.path / STATISTICS / f"{network.arch_id}-{schedule}.safetensors"
    document = {"arch_id": network.arch_id, "schedule": schedule, "supernet": run.fingerprint}
    subnet = network.subnet
    found = _Network(
        arch=network.to_dict(),
        costs=cost.costs_of_plan(subnet.plan),
        subnet=subnet,
        logits=subnet,
        pooled=network.statistics,
        inherited=None,
        statistics_hash=keep_statistics(run, path, network.statistics, document),
    )
    return _ready(run, found, federation)


def _ready(run: Run, network: _Network, federation: Federation) -> Prepared:
    subnet = network.subnet
    split = federation.final_split
    alone = standalone(subnet)

    def answers_with(sums: PooledStatistics) -> Answers:
        return recalibration.evaluate(federation, alone, sums, split)

    answers = answers_with(network.pooled)
    recalibrated = answers.accuracy
    before = None
    if network.inherited is not None:
        is_same = network.inherited is network.pooled
        before = recalibrated if is_same else answers_with(network.inherited).accuracy
    accuracy = AccuracyRecord(
        dataset=run.config.data.dataset,
        split=split,
        num_samples=recalibrated.num_images,
        recalibrated=recalibrated.share,
        recalibrated_interval=recalibrated.interval,
        not_recalibrated=None if before is None else before.share,
        not_recalibrated_interval=None if before is None else before.interval,
        measures=MeasuresRecord.of(answers, run.image_facts.classes),
    )
    normalizer = FixedAffine(affines(subnet.weights, subnet.normalization, network.pooled))

    def with_outputs(images_NHWC: AnyPixels) -> Vectors:
        x_NCHW = preprocessing.apply(images_NHWC)
        with torch.inference_mode():
            parts = [network.logits(x_BCHW, normalizer) for x_BCHW in torch.from_numpy(x_NCHW).split(_NUM_VECTORS)]
        return Vectors(x_NCHW, torch.cat(parts).numpy())

    preprocessing = run.preprocessing.for_size(subnet.plan.stem.in_size)
    return Prepared(
        arch=network.arch,
        resolution=subnet.plan.stem.in_size,
        costs=network.costs,
        network=fold(subnet, network.pooled),
        standalone=alone,
        statistics=network.pooled,
        vectors=with_outputs(_synthetic_images(run)),
        held_out=with_outputs(_held_out_images(run)),
        accuracy=accuracy,
        statistics_hash=network.statistics_hash,
    )


def _inherited(
    run: Run,
    architecture: Architecture,
    own: PooledStatistics,
    supernet: Supernet,
    federation: Federation,
    log: EventLog,
) -> PooledStatistics | None:
    """Return the statistics a subnet would have without recalibration: those of the largest subnet, sliced.

    For the largest subnet they are its `own`. None where the largest has no such layer.
    """
    largest = run.space.largest
    if architecture == largest:
        return own
    schedule = run.config.calibration.schedule
    whole = calibrate(run, largest, supernet.extract(largest), schedule, federation, log).pooled
    norm_layers = supernet.layout.plan(architecture).norm_layers()
    if any(layer.name not in whole.layers for layer in norm_layers):
        return None
    return PooledStatistics(
        {layer.name: _leading(whole.layers[layer.name], layer.out_channels) for layer in norm_layers}
    )


def _leading(sums: ChannelSums, channels: int) -> ChannelSums:
    return ChannelSums(sums.count, sums.total_C[:channels], sums.squares_C[:channels])


def _held_out_images(run: Run) -> AnyPixels:
    """Return some of the validation images, drawn from all of them: they may stand class by class.

    Where the server has none, random ones with the mean and the deviation of the clients' pixels.
    """
    generator = rng.generator(run.config.seed, "parity")
    if run.data.validation is not None:
        drawn = generator.permutation(len(run.data.validation))
        return run.data.validation.take(drawn[:_NUM_HELD_OUT_IMAGES]).images_NHWC
    return _as_clients_have(run, _noise(run, generator, _NUM_HELD_OUT_IMAGES))


def _synthetic_images(run: Run) -> AnyPixels:
    """Return random images for a bundle's vectors: a bundle travels to every device, so it holds nobody's image."""
    noise_NHWC = _noise(run, rng.generator(run.config.seed, "vectors"), _NUM_VECTORS)
    # Of the numbers of other types few or none may be like those of images.
    return noise_NHWC if run.preprocessing.pixel_dtype == USUAL_PIXELS else _as_clients_have(run, noise_NHWC)


def _as_clients_have(run: Run, noise_NHWC: NDArray[np.uint8]) -> AnyPixels:
    """Return noise of the type of the clients' pixels, with their mean and deviation."""
    preprocessing = run.preprocessing
    mean_C, std_C, dtype = np.array(preprocessing.mean), np.array(preprocessing.std), preprocessing.pixel_dtype
    scaled_NHWC: NDArray[np.float64] = (noise_NHWC / 255 - 0.5) * np.sqrt(12) * std_C + mean_C
    if dtype == "float32":
        return scaled_NHWC.astype(np.float32)
    images: AnyPixels = (scaled_NHWC.clip(0, 1) * PIXEL_MAX[dtype]).round().astype(dtype)
    return images


def _noise(run: Run, generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Return half of the images as noise of single pixels and half of large squares: fast changes and slow ones."""
    shape = run.image_facts.shape
    fine = generator.integers(0, 256, (number // 2, *shape), dtype=np.uint8)
    coarse = generator.integers(0, 256, (number // 2, 4, 4, shape[2]), dtype=np.uint8)
    rows, columns = (np.arange(side) * 4 // side for side in shape[:2])
    return np.concatenate([fine, coarse[:, rows][:, :, columns]])
