"""`FederatedData`: who holds which images, and which of them out of training."""

import dataclasses

import numpy as np
import pytest

from fedsup_deploy import files
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.federated import FederatedData, Indices, hold_out
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError

#: Clients with 2, 3, 8 and 20 images.
CLIENTS = tuple(np.split(np.arange(33), [2, 5, 13]))


@pytest.fixture(scope="module")
def data() -> FederatedData:
    splits = load_dataset("digits", None)
    train, held_out = splits.train.take(np.arange(33)), splits.test.take(np.arange(5))
    return FederatedData(train, CLIENTS, held_out, held_out, Preprocessing.fit(train, 8), Augmentation())


def sizes(parts: tuple[Indices, ...]) -> list[int]:
    return [len(part) for part in parts]


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, [0, 0, 0, 0]),
        (0.05, [0, 0, 0, 1]),
        (0.2, [0, 1, 2, 4]),
        # Of three images two stay, though half of three is rounded to two.
        (0.5, [0, 1, 4, 10]),
    ],
)
def test_each_client_holds_its_share_out_but_keeps_two(fraction: float, expected: list[int]) -> None:
    kept, held_out = hold_out(CLIENTS, fraction, seed=0)
    assert sizes(held_out) == expected
    for all_its_own, stays, goes in zip(CLIENTS, kept, held_out, strict=True):
        assert sorted([*stays, *goes]) == list(all_its_own)
        assert len(stays) >= 2
        assert (np.diff(stays) > 0).all()
        assert (np.diff(goes) > 0).all()


def test_calibration_images_are_drawn_from_all_that_a_client_trains_on() -> None:
    """However they stand: here class by class, of which the first ten images would be one class."""
    digits = load_dataset("digits", None).train
    by_class = digits.take(np.argsort(digits.labels_N, kind="stable")[:600])
    clients, held_out = hold_out((np.arange(300), np.arange(300, 600)), 0.1, seed=0)
    preprocessing = Preprocessing.fit(by_class, 8)
    data = FederatedData(by_class, clients, by_class, by_class, preprocessing, Augmentation(), held_out)
    drawn = data.calibration_images(0, 40, seed=0)
    share_C = np.bincount(data.client(0).labels_N, minlength=10) / len(clients[0])
    assert len(drawn) == 40
    assert np.abs(np.bincount(drawn.labels_N, minlength=10) / 40 - share_C).max() < 0.12
    everything = data.calibration_images(0, 1000, seed=0)
    assert sorted(map(bytes, everything.images_NHWC)) == sorted(map(bytes, data.client(0).images_NHWC))
    assert everything.labels_N.tolist() != data.client(0).labels_N.tolist()


def test_calibration_images_depend_on_the_seed_and_the_client_alone(data: FederatedData) -> None:
    first, again, of_another_seed = (data.calibration_images(3, 10, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.images_NHWC, again.images_NHWC)
    assert not np.array_equal(first.images_NHWC, of_another_seed.images_NHWC)
    same_images = dataclasses.replace(data, clients=(CLIENTS[3],) * 4)
    assert not np.array_equal(
        same_images.calibration_images(0, 10, 0).labels_N, same_images.calibration_images(1, 10, 0).labels_N
    )


def test_a_client_of_one_image_keeps_it() -> None:
    kept, held_out = hold_out((np.array([7]),), 0.5, seed=0)
    assert (sizes(kept), sizes(held_out)) == ([1], [0])


def test_what_is_held_out_depends_on_the_seed_and_the_client_alone() -> None:
    _, first = hold_out(CLIENTS, 0.5, seed=0)
    _, again = hold_out(CLIENTS[:3] + CLIENTS[:1], 0.5, seed=0)
    _, other = hold_out(CLIENTS, 0.5, seed=1)
    assert all(np.array_equal(*pair) for pair in zip(first[:3], again[:3], strict=True))
    assert not np.array_equal(first[3], other[3])
    assert not np.array_equal(first[3], np.arange(13, 23)), "at random"


def test_clients_train_on_what_they_do_not_hold_out(data: FederatedData) -> None:
    kept, held_out = hold_out(data.clients, 0.2, seed=0)
    divided = dataclasses.replace(data, clients=kept, held_out=held_out)
    assert divided.clients_with_held_out == (1, 2, 3)
    for client in (1, 2, 3):
        assert np.array_equal(divided.client(client).images_NHWC, data.train.images_NHWC[kept[client]])
        assert np.array_equal(divided.held_out_by(client).labels_N, data.train.labels_N[held_out[client]])
    with pytest.raises(DataError):
        divided.held_out_by(0)


def test_fingerprint_is_what_it_always_was_where_nothing_is_held_out(data: FederatedData) -> None:
    expected = files.sha256_of(
        {
            "train": data.train.fingerprint(),
            "clients": [part.tolist() for part in CLIENTS],
            "validation": data.validation.fingerprint(),
            "test": data.test.fingerprint(),
            "preprocessing": data.preprocessing.to_dict(),
        }
    )
    kept, held_out = hold_out(data.clients, 0.0, seed=0)
    assert data.clients_with_held_out == ()
    assert data.fingerprint == expected
    assert dataclasses.replace(data, clients=kept, held_out=held_out).fingerprint == expected


def test_fingerprint_says_what_is_held_out_by_whom(data: FederatedData) -> None:
    """Also who, where the images trained on are the same."""
    kept, held_out = hold_out(data.clients, 0.2, seed=0)
    swapped = (held_out[0], held_out[2], held_out[1], held_out[3])
    prints = {dataclasses.replace(data, clients=kept, held_out=each).fingerprint for each in (held_out, swapped, ())}
    assert len(prints) == 3
