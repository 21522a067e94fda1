"""What the server knows of its clients, and the pixels of all of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.errors import DataError, FederationError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client, ClientId, ClientInfo
from fedsup_deploy.federation.jobs.moments import CountPixels, Pixels
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw
from fedsup_deploy.federation.server.cohort import OnAbsences, Terms
from fedsup_deploy.federation.server.federation import calibration_images, pixel_preprocessing
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData, hold_out

ALL, ANY = Terms(1.0, None), Terms(0.0, None)
OF_TWO = "of 2x2 pixels and 1 channels"


def nobody_is_absent(what: str, num_asked: int, absent: Mapping[ClientId, str], *_: object) -> None:
    raise AssertionError(f"{what}: of {num_asked} {absent}")


def into(absences: list[tuple[str, ClientId, str]]) -> OnAbsences:
    """Return what keeps each absence."""

    def tell(what: str, num_asked: int, absent: Mapping[ClientId, str], *_: object) -> None:
        assert len(absent) <= num_asked
        absences.extend((what, client, reason) for client, reason in absent.items())

    return tell


# --- pixels


@pytest.mark.parametrize("options", [{"kind": "iid"}, {"kind": "shards", "shards_per_client": 2}])
@pytest.mark.parametrize("padded_size", [8, 12])
def test_pixel_preprocessing_is_that_of_all_images_in_one_place(data_of, padded_size: int, options: Any) -> None:
    """To the bit: counts are added up, not moments. What clients hold out takes no part."""
    data: FederatedData = data_of(130, 7, **options)
    engine = InProcess(data.populations()[CLIENTS])
    found = pixel_preprocessing(engine, ALL, padded_size, nobody_is_absent)
    assert found == Preprocessing.fit(data.train, padded_size)
    kept, held_out = hold_out(data.clients, 0.25, seed=0)
    divided = dataclasses.replace(data, clients=kept, held_out=held_out)
    found = pixel_preprocessing(InProcess(divided.populations()[CLIENTS]), ALL, padded_size, nobody_is_absent)
    assert found == Preprocessing.fit(data.train.take(np.concatenate(kept)), padded_size)
    assert found != Preprocessing.fit(data.train, padded_size)


def test_pixel_preprocessing_asks_nobody_else(data_of) -> None:
    """Of a federation whose others would have to decode their images for it."""
    data: FederatedData = data_of(130, 7, kind="iid")
    engine = InProcess(data.populations()[CLIENTS])
    asked = [engine.clients()[client] for client in (2, 5)]
    found = pixel_preprocessing(engine, ALL, 8, nobody_is_absent, asked)
    assert found == Preprocessing.fit(data.train.take(np.concatenate([data.clients[2], data.clients[5]])), 8)


def test_pixel_preprocessing_of_several_channels(data_of) -> None:
    """Each of which has a mean and a deviation of its own."""
    pixels_NHWC = np.random.Generator(np.random.PCG64(0)).integers(0, [[[[256, 100, 20]]]], (30, 8, 8, 3), np.uint8)
    train = ImageDataset("noise", pixels_NHWC, np.zeros(30, dtype=np.int64), ("a",))
    data = dataclasses.replace(data_of(30, 1), train=train, clients=tuple(np.split(np.arange(30), [1, 11])))
    found = pixel_preprocessing(InProcess(data.populations()[CLIENTS]), ALL, 8, nobody_is_absent)
    assert found == Preprocessing.fit(train, 8)
    assert len(set(found.mean)) == 3


def pixels_of(*counts: dict[int, int], height: int = 2, width: int = 2) -> Pixels:
    """Return the counts of each channel, by value."""
    histogram_CV = np.zeros((len(counts), 256), dtype=np.int64)
    for channel, count in enumerate(counts):
        for value, times in count.items():
            histogram_CV[channel, value] = times
    return Pixels(histogram_CV, height, width)


#: Of one image of four pixels, three of them black.
ONE = pixels_of({0: 3, 255: 1})


def test_pixel_moments_by_hand(scripted) -> None:
    """Two clients of one and two images: of 12 pixels 9 black and 3 white have mean 1/4 and variance 3/16."""
    answers = {0: ONE, 1: pixels_of({0: 6, 255: 2})}
    engine = scripted([ClientInfo(0, 1), ClientInfo(1, 2)], lambda client, _: answers[client])
    found = pixel_preprocessing(engine, ALL, 4, nobody_is_absent)
    assert found.mean == (0.25,)
    assert found.std == pytest.approx(((3 / 16) ** 0.5,), rel=1e-12)
    assert (found.native_size, found.padded_size, found.size) == (2, 4, 4)
    assert engine.asked == [{0: CountPixels(), 1: CountPixels()}]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Pixels(np.array([3, 1]), 2, 2), "histogram of shape (2,)"),
        (Pixels(np.ones((1, 255), dtype=np.int64), 2, 2), "histogram of shape (1, 255)"),
        (Pixels(np.zeros((0, 256), dtype=np.int64), 2, 2), "histogram of shape (0, 256)"),
        (pixels_of(*[{0: 4}] * 17), "histogram of shape (17, 256)"),
        (pixels_of({0: 5, 255: -1}), "other counts than 1 images have"),
        (pixels_of({0: 2**63 - 1, 1: 2**63 - 1, 2: 6}), "other counts than 1 images have"),
        (pixels_of({}, height=0), "images of 2x0 pixels"),
        (pixels_of({}, width=-2, height=-2), "images of -2x-2 pixels"),
        (pixels_of({0: 2**14 + 1}, height=1, width=2**14 + 1), "images of 16385x1 pixels"),
        (pixels_of({0: 5}), "other counts than 1 images have"),
        (pixels_of({}), "other counts than 1 images have"),
        (pixels_of({0: 4}, {0: 3}), "other counts than 1 images have"),
        (pixels_of({0: 4}, {0: 4}), "images of 2x2 pixels and 2 channels, most are of 2x2 pixels and 1 channels"),
        (
            pixels_of({0: 4}, height=1, width=4),
            "images of 4x1 pixels and 1 channels, most are of 2x2 pixels and 1 channels",
        ),
        ("battery", "battery"),
        (None, "no answer"),
    ],
)
def test_histograms_that_no_images_have_are_refused(scripted, bad: Pixels | str | None, reason: str) -> None:
    """And the preprocessing is that of the others; the third has as many images as the first two."""
    answers = {0: ONE, 1: bad, 2: pixels_of({0: 4, 255: 4})}
    absences: list[tuple[str, ClientId, str]] = []
    engine = scripted([ClientInfo(0, 1), ClientInfo(1, 1), ClientInfo(2, 2)], lambda client, _: answers[client])
    found = pixel_preprocessing(engine, ANY, 2, into(absences))
    assert found == Preprocessing.from_counts(pixels_of({0: 7, 255: 5}).histogram_CV, 2, 2, 2)
    assert absences == [("pixel moments", 1, reason)]


def client_of(images_NHWC: np.ndarray) -> Client:
    labels_N = np.zeros(len(images_NHWC), dtype=np.int64)
    return Client({TRAINED: ImageDataset("made", images_NHWC, labels_N, ("a",))})


def test_floats_of_clients_are_added_up_in_any_order(scripted) -> None:
    """Sums of these depend on the order in any float; whoever holds which image, mean and deviation are the same."""
    generator = np.random.Generator(np.random.PCG64(0))
    images_NHWC = np.ldexp(generator.standard_normal((24, 4, 4, 3)), generator.integers(-40, 40, (24, 4, 4, 3)))
    images_NHWC = images_NHWC.astype(np.float32)
    found = set()
    for ends in ([4, 10], [1, 20], [20, 21]):
        parts = np.split(generator.permutation(24), ends)
        answers = {number: client_of(images_NHWC[part]).perform(CountPixels()) for number, part in enumerate(parts)}
        infos = [ClientInfo(number, len(part)) for number, part in enumerate(parts)]
        for turned in (infos, infos[::-1]):
            engine = scripted(turned, lambda client, _, answers=answers: answers[client])
            found.add(pixel_preprocessing(engine, ALL, 4, nobody_is_absent))
    assert len(found) == 1
    assert found == {Preprocessing.fit(client_of(images_NHWC).images(TRAINED), 4)}


def test_clients_of_another_type_of_pixels_or_with_forged_sums_are_absent(scripted) -> None:
    images_NHWC = np.arange(16, dtype=np.uint16).reshape(1, 4, 4, 1)
    honest = client_of(images_NHWC).perform(CountPixels())
    forged = honest.histogram_CV.copy()
    forged[forged > 1] -= 1
    answers = {
        0: honest,
        1: honest,
        2: client_of(images_NHWC.astype(np.float32)).perform(CountPixels()),
        3: dataclasses.replace(honest, histogram_CV=forged),
        4: dataclasses.replace(honest, pixel_dtype="float64"),
        5: dataclasses.replace(honest, pixel_dtype="uint8"),
    }
    absences: list[tuple[str, ClientId, str]] = []
    engine = scripted([ClientInfo(client, 1) for client in answers], lambda client, _: answers[client])
    assert pixel_preprocessing(engine, ANY, 4, into(absences)).pixel_dtype == "uint16"
    same = "4x4 pixels and 1 channels of"
    assert [(client, reason) for _, client, reason in absences] == [
        (2, f"images of {same} float32, most are of {same} uint16"),
        (3, "other counts than 1 images have"),
        (4, "pixels of type float64"),
        (5, "histogram of shape (1, 1385)"),
    ]


def test_what_most_images_have_is_not_for_the_first_to_decide(scripted) -> None:
    """The first has one image of two channels, the others three of one."""
    answers = {0: pixels_of({0: 4}, {0: 4}), 1: ONE, 2: pixels_of({0: 6, 255: 2})}
    infos = [ClientInfo(0, 1), ClientInfo(1, 1), ClientInfo(2, 2)]
    absences: list[tuple[str, ClientId, str]] = []
    engine = scripted(infos, lambda client, _: answers[client])
    found = pixel_preprocessing(engine, ANY, 2, into(absences))
    assert found.mean == (0.25,)
    assert [client for _, client, _ in absences] == [0]


def test_pixels_of_too_few_clients_are_an_error(scripted) -> None:
    engine = scripted([ClientInfo(0, 1), ClientInfo(1, 1)], lambda client, _: ONE if client == 0 else pixels_of({0: 5}))
    message = r"^pixel moments: 1 of 2 clients answered, 2 must \(client 1: other counts than 1 images have\)"
    absences: list[tuple[str, ClientId, str]] = []
    with pytest.raises(FederationError, match=message):
        pixel_preprocessing(engine, ALL, 2, into(absences))
    assert absences == [("pixel moments", 1, "other counts than 1 images have")]
    assert engine.deadlines == [None]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (pixels_of({0: 4}), "channel 0 has one value everywhere"),
        (pixels_of({0: 3, 1: 1}, height=1, width=4), "images are 4x1 pixels, expected square ones"),
    ],
)
def test_images_that_cannot_be_normalised_are_an_error(scripted, pixels: Pixels, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pixel_preprocessing(scripted([ClientInfo(0, 1)], lambda *_: pixels), ALL, 2, nobody_is_absent)


def test_the_deadline_reaches_the_clients(scripted) -> None:
    engine = scripted([ClientInfo(0, 1)], lambda *_: ONE)
    pixel_preprocessing(engine, Terms(1.0, 12.5), 2, nobody_is_absent)
    assert engine.deadlines == [12.5]


# --- who takes part


@pytest.fixture
def federation_with(scripted, federation_over) -> Callable[..., Any]:
    """Make a federation of clients that hold out so many images each."""

    def make(*held_out: int, own: tuple[str, ...] = (), **changes: Any) -> Any:
        infos = [ClientInfo(client, 10, count) for client, count in enumerate(held_out)]
        engine = scripted(infos, lambda *_: None)
        return federation_over(engine, dict.fromkeys(own, engine), **changes)

    return make


def test_networks_are_evaluated_on_the_servers_images_or_on_what_clients_hold_out(federation_with) -> None:
    both = federation_with(0, own=("validation", "test"))
    assert (both.choosing_split, both.final_split) == ("validation", "test")
    only_test = federation_with(2, own=("test",))
    assert (only_test.choosing_split, only_test.final_split) == (HELD_OUT, "test")
    none = federation_with(2)
    assert (none.choosing_split, none.final_split) == (HELD_OUT, HELD_OUT)


def test_who_calibrates_and_who_judges(federation_with) -> None:
    """All calibrate; judges are those that hold images out."""
    federation = federation_with(0, 3, 0, 5)
    assert list(federation.infos) == [0, 1, 2, 3]
    assert [info.client for info in federation.calibrating] == [0, 1, 2, 3]
    assert [info.client for info in federation.judges] == [1, 3]
    assert federation_with(0, 0).judges == ()


def test_of_a_large_federation_some_calibrate_and_others_judge(federation_with) -> None:
    """A hundred, or as many as are asked for, drawn for either purpose from those that can."""
    held_out = [client % 2 for client in range(300)]
    for count, expected in ((None, 100), (20, 20), (140, 140)):
        federation = federation_with(*held_out, calibration_clients=count)
        calibrating, judges = ([info.client for info in each] for each in (federation.calibrating, federation.judges))
        assert len(calibrating) == len(judges) == expected
        assert all(client % 2 == 1 for client in judges)
        assert any(client % 2 == 0 for client in calibrating)
        again = federation_with(*held_out, calibration_clients=count)
        assert (again.calibrating, again.judges) == (federation.calibrating, federation.judges)
        other = federation_with(*held_out, calibration_clients=count, seed=1)
        assert other.calibrating != federation.calibrating
        assert other.judges != federation.judges


def test_a_client_calibrates_on_as_many_images_as_it_has_at_most() -> None:
    assert calibration_images(ClientInfo(0, 100), CalibrationDraw(64, 8)) == 64
    assert calibration_images(ClientInfo(0, 10, 500), CalibrationDraw(64, 8)) == 10
