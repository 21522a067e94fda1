"""`Federation`: all that the server knows of its clients and of its own images, and how it asks them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation.client import HELD_OUT, TESTED, ClientId, ClientInfo
from fedsup_deploy.federation.jobs.moments import CountPixels, Pixels
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.cohort import OnAbsences, Terms

#: Longest side of an image, in pixels.
_MAX_SIDE: Final = 2**14


@dataclasses.dataclass(frozen=True)
class Federation:
    """The server's side of a federation.

    Args:
        clients: Carries jobs to the clients.
        own: By its name, what carries jobs to the server's own images: `validation` and `test`, or nothing.
        preprocessing: From pixels to the tensors networks take, at the largest resolution of the space.
        calibration: Which of its images a client takes statistics on.
        calibration_clients: How many clients take part in calibrations and evaluations; None is a stated number.
        terms: What is expected of clients that are asked.
        seed: Seed of the run.
        on_absences: Told of the clients that were asked and have not answered.
        unseen: Carries jobs to the clients that take no part, only for final figures; None: all take part.
    """

    clients: Engine
    own: Mapping[str, Engine]
    preprocessing: Preprocessing
    calibration: CalibrationDraw
    calibration_clients: int | None
    terms: Terms
    seed: int
    on_absences: OnAbsences
    unseen: Engine | None = None

    def split(self, preferred: str) -> str:
        """Return what networks are evaluated on: the server's images of that name, or what clients hold out."""
        return preferred if preferred in self.own else HELD_OUT

    def judging(self, split: str) -> tuple[Engine, Sequence[ClientInfo], Terms]:
        """Return who evaluates networks, by which engine, and what is expected of them.

        Args:
            split: `validation` or `test` of a server that has images; `HELD_OUT` for what clients hold out, `TESTED`
                for their own test images.
        """
        if split in (HELD_OUT, TESTED):
            return self.clients, self.judges if split == HELD_OUT else self.testing, self.terms
        # Of the server's own images none may be missing.
        return self.own[split], self.own[split].clients(), Terms(1.0, None)

    @functools.cached_property
    def infos(self) -> dict[ClientId, ClientInfo]:
        """What each client has announced."""
        return {info.client: info for info in self.clients.clients()}

    @functools.cached_property
    def calibrating(self) -> tuple[ClientInfo, ...]:
        """The clients whose images statistics are taken on."""
        return cohort.sample(list(self.infos.values()), self.calibration_clients, self.seed, "calibration")

    @functools.cached_property
    def judges(self) -> tuple[ClientInfo, ...]:
        """The clients that evaluate subnets on what they hold out; none in a federation where nobody does."""
        return self._evaluating(HELD_OUT)

    @functools.cached_property
    def testing(self) -> tuple[ClientInfo, ...]:
        """The clients that take final figures on test images of their own."""
        return self._evaluating(TESTED)

    def _evaluating(self, images: str) -> tuple[ClientInfo, ...]:
        able = [info for info in self.infos.values() if info.num_images(images)]
        return cohort.sample(able, self.calibration_clients, self.seed, "evaluation")


def pixel_preprocessing(
    engine: Engine,
    terms: Terms,
    padded_size: int,
    on_absences: OnAbsences,
    asked: Sequence[ClientInfo] | None = None,
) -> Preprocessing:
    """Return the preprocessing of the images of clients, of whom each says how often it has which value.

    Args:
        engine: Carries jobs to the clients.
        terms: What is expected of them.
        padded_size: Side to pad smaller images to, pixels: the largest resolution of the space.
        on_absences: Told of the clients that have not answered.
        asked: The clients; None asks all.

    Raises:
        DataError: The images are not square, or a channel has the same value everywhere.
        FederationError: Too few clients have answered.
    """
    infos = {info.client: info for info in (engine.clients() if asked is None else asked)}
    counted: dict[tuple[int, ...], _Counted] = {}

    def take(client: ClientId, pixels: Pixels) -> str | None:
        num_images = infos[client].num_samples
        reason = _reason_to_reject(pixels, num_images)
        if reason is None:
            channels = len(pixels.histogram_CV)
            of_shape = counted.setdefault((pixels.height, pixels.width, channels), _Counted(channels))
            of_shape.histogram_CV += pixels.histogram_CV
            of_shape.num_images += num_images
            of_shape.clients.append(client)
        return reason

    what = "pixel moments"
    absent = cohort.gather(engine, dict.fromkeys(infos, CountPixels()), take, terms)
    # Whoever has other images than most cannot take part; who answered first does not decide what most have.
    shape = max(counted, key=lambda shape: (counted[shape].num_images, shape), default=())
    for other, of_other in counted.items():
        if other != shape:
            absent |= dict.fromkeys(of_other.clients, f"images of {_words(other)}, most are of {_words(shape)}")
    cohort.report(engine, len(infos), dict(sorted(absent.items())), what=what, terms=terms, on_absences=on_absences)
    return Preprocessing.from_histograms(counted[shape].histogram_CV, shape[0], shape[1], padded_size)


def _words(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} pixels and {channels} channels"


class _Counted:
    """The pixels of images of one shape."""

    def __init__(self, channels: int) -> None:
        self.histogram_CV = np.zeros((channels, 256), dtype=np.int64)
        self.num_images = 0
        self.clients: list[ClientId] = []


def _reason_to_reject(pixels: Pixels, num_images: int) -> str | None:
    histogram_CV, (height, width) = pixels.histogram_CV, (pixels.height, pixels.width)
    if histogram_CV.ndim != 2 or histogram_CV.shape[1] != 256 or not 1 <= len(histogram_CV) <= 4:
        return f"histogram of shape {histogram_CV.shape}"
    if not (1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE):
        return f"images of {width}x{height} pixels"
    num_pixels = num_images * height * width
    # Each before their sum, which could overflow.
    if np.any((histogram_CV < 0) | (histogram_CV > num_pixels)) or np.any(histogram_CV.sum(axis=1) != num_pixels):
        return f"other counts than {num_images} images have"
    return None


def calibration_images(info: ClientInfo, calibration: CalibrationDraw) -> int:
    """Return how many images a client looks at."""
    return min(info.num_samples, calibration.num_images)
