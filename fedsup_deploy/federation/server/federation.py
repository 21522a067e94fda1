"""`Federation`: all that the server knows of its clients and of its own images, and how it asks them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.data import pixel_counts
from fedsup_deploy.data.dataset import MAX_CHANNELS
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation.client import HELD_OUT, TESTED, ClientId, ClientInfo
from fedsup_deploy.federation.jobs.moments import CountPixels, Pixels
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.cohort import OnAbsences, Terms
from fedsup_deploy.federation.simulation import TEST, VALIDATION
from fedsup_deploy.ondevice.preprocessing import USUAL_PIXELS

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

    @property
    def choosing_split(self) -> str:
        """What networks are chosen by: the server's validation images, or what clients hold out."""
        return VALIDATION if VALIDATION in self.own else HELD_OUT

    @property
    def final_split(self) -> str:
        """What final figures are taken on: the first that there is of what networks are not chosen by.

        The server's test images, or those of clients' own; where nobody has any, what clients hold out.
        """
        if TEST in self.own:
            return TEST
        return TESTED if self.testing else HELD_OUT

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
        return evaluating(list(self.infos.values()), images, self.calibration_clients, self.seed)


def evaluating(infos: Sequence[ClientInfo], images: str, count: int | None, seed: int) -> tuple[ClientInfo, ...]:
    """Return the clients that evaluate networks.

    Args:
        infos: Of all.
        images: On which of theirs: `HELD_OUT` or `TESTED`.
        count: How many; None is a stated number, or all.
        seed: Of the run.
    """
    return cohort.sample([info for info in infos if info.num_images(images)], count, seed, "evaluation")


def pixel_preprocessing(
    engine: Engine,
    terms: Terms,
    padded_size: int,
    on_absences: OnAbsences,
    asked: Sequence[ClientInfo] | None = None,
) -> Preprocessing:
    """Return the preprocessing of the images of clients, of whom each counts its pixels.

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
    counted: dict[_Form, _Counted] = {}

    def take(client: ClientId, pixels: Pixels) -> str | None:
        num_images = infos[client].num_samples
        reason = _reason_to_reject(pixels, num_images)
        if reason is None:
            form = _Form(pixels.height, pixels.width, len(pixels.histogram_CV), pixels.pixel_dtype)
            of_form = counted.setdefault(form, _Counted(pixels.histogram_CV.shape))
            of_form.counts_CV += pixels.histogram_CV
            of_form.num_images += num_images
            of_form.clients.append(client)
        return reason

    what = "pixel moments"
    absent = cohort.gather(engine, dict.fromkeys(infos, CountPixels()), take, terms).absent
    # Whoever has other images than most cannot take part; who answered first does not decide what most have.
    form = max(counted, key=lambda form: (counted[form].num_images, form), default=None)
    for other, of_other in counted.items():
        if other != form:
            absent |= dict.fromkeys(of_other.clients, f"images of {other}, most are of {form}")
    cohort.report(engine, len(infos), dict(sorted(absent.items())), what=what, terms=terms, on_absences=on_absences)
    assert form is not None, "somebody has answered"
    counts_CV = counted[form].counts_CV
    return Preprocessing.from_counts(counts_CV, form.height, form.width, padded_size, pixel_dtype=form.pixel_dtype)


class _Form(NamedTuple):
    """What the images of all have in common that take part."""

    height: int
    width: int
    channels: int
    pixel_dtype: str

    def __str__(self) -> str:
        of_type = "" if self.pixel_dtype == USUAL_PIXELS else f" of {self.pixel_dtype}"
        return f"{self.width}x{self.height} pixels and {self.channels} channels{of_type}"


class _Counted:
    """The pixels of images of one form."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        # Python's integers: no number of clients is too many.
        self.counts_CV: NDArray[np.object_] = np.zeros(shape, dtype=np.object_)
        self.num_images = 0
        self.clients: list[ClientId] = []


def _reason_to_reject(pixels: Pixels, num_images: int) -> str | None:
    histogram_CV, (height, width) = pixels.histogram_CV, (pixels.height, pixels.width)
    if pixels.pixel_dtype not in pixel_counts.WIDTH_OF:
        return f"pixels of type {pixels.pixel_dtype[:20]}"
    num_numbers = pixel_counts.WIDTH_OF[pixels.pixel_dtype]
    if histogram_CV.ndim != 2 or histogram_CV.shape[1] != num_numbers or not 1 <= len(histogram_CV) <= MAX_CHANNELS:
        return f"histogram of shape {histogram_CV.shape}"
    if not (1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE):
        return f"images of {width}x{height} pixels"
    reason = pixel_counts.why_impossible(histogram_CV, pixels.pixel_dtype, num_images * height * width)
    return None if reason is None else f"{reason} than {num_images} images have"


def images_of(split: str) -> str:
    """Return which of their images those are asked about whom `Federation.judging` names for a split."""
    # Parts of the server's images are asked as clients that hold all out.
    return TESTED if split == TESTED else HELD_OUT


def calibration_images(info: ClientInfo, calibration: CalibrationDraw) -> int:
    """Return how many images a client looks at."""
    return min(info.num_samples, calibration.num_images)
