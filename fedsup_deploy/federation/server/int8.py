"""What int8 needs of clients: how large activations are, and how many answers stay right. No image leaves them."""

import dataclasses

from fedsup_deploy import rng
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.agreement import Agreement, CompareAnswers
from fedsup_deploy.federation.jobs.ranges import Ranges, TakeRanges
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.federation.networks import Standalone
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.federation import Federation, calibration_images, images_of
from fedsup_deploy.supernet.ranges import ActivationCounts
from fedsup_deploy.supernet.statistics import PooledStatistics


def collect_ranges(
    federation: Federation, network: Standalone, statistics: PooledStatistics, sizes: dict[str, int]
) -> ActivationCounts:
    """Return the pooled counts of a network's activations.

    Args:
        federation: Whom to ask: those that calibrate, about the images that they calibrate on.
        network: The network.
        statistics: What all its layers are normalised with.
        sizes: The values of its graph with their numbers per image, in order: `onnx_graph.value_sizes`.

    Raises:
        FederationError: Too few clients have answered.
    """
    infos = {info.client: info for info in federation.calibrating}
    job = TakeRanges(network, statistics, federation.preprocessing, federation.calibration, 0)
    jobs = {
        client: dataclasses.replace(job, seed=rng.derive(federation.seed, "calibration", client)) for client in infos
    }
    pooled: list[ActivationCounts] = []

    def take(client: ClientId, found: Ranges) -> str | None:
        seen = ActivationCounts(found.counts_VB, found.extremes_V2.numpy())
        reason = seen.reason_to_reject(sizes, calibration_images(infos[client], federation.calibration))
        if reason is None:
            pooled[:] = [pooled[0] + seen] if pooled else [seen]
        return reason

    terms, on_absences = federation.terms, federation.on_absences
    cohort.ask(federation.clients, jobs, take, what="activation ranges", terms=terms, on_absences=on_absences)
    return pooled[0]


def compare_answers(federation: Federation, models: Blob, preprocessing: Preprocessing, split: str) -> Agreement:
    """Return on how many images two ONNX files are right.

    Args:
        federation: Whom to ask.
        models: Both files: `agreement.both_of`.
        preprocessing: Of the images, for the models' resolution.
        split: As of `Federation.judging`.

    Raises:
        DataError: No client has such images.
        FederationError: Too few clients have answered.
    """
    engine, asked, terms = federation.judging(split)
    if not asked:
        raise DataError(f"evaluation of int8: no client has {split} images")
    images = images_of(split)
    expected = {info.client: info.num_images(images) for info in asked}
    pooled = [Agreement(0, 0, 0, 0)]

    def take(client: ClientId, found: Agreement) -> str | None:
        if min(found.counts) < 0:
            return "counts that no images have"
        if sum(found.counts) != expected[client]:
            return f"{sum(found.counts)} images, expected {expected[client]}"
        pooled[0] += found
        return None

    jobs = dict.fromkeys(expected, CompareAnswers(models, images, preprocessing))
    what = f"evaluation of int8 on {split} images"
    cohort.ask(engine, jobs, take, what=what, terms=terms, on_absences=federation.on_absences)
    return pooled[0]
