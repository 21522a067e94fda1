"""A simulated federation: who holds which images, which of them out of training, and who can be asked."""

import dataclasses

import numpy as np
import pytest

from fedsup_deploy import files
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, ClientInfo
from fedsup_deploy.federation.simulation import CLIENTS, TEST, VALIDATION, FederatedData, Indices, hold_out

#: Clients with 2, 3, 8 and 20 images.
PARTS = tuple(np.split(np.arange(33), [2, 5, 13]))


@pytest.fixture(scope="module")
def data() -> FederatedData:
    splits = load_dataset("digits", None)
    train, held_out = splits.train.take(np.arange(33)), splits.test.take(np.arange(5))
    return FederatedData(train, PARTS, held_out, held_out)


@pytest.fixture(scope="module")
def divided(data: FederatedData) -> FederatedData:
    """The same, of which clients hold 0, 1, 2 and 4 images out."""
    kept, held_out = hold_out(data.clients, 0.2, seed=0)
    return dataclasses.replace(data, clients=kept, held_out=held_out)


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
    kept, held_out = hold_out(PARTS, fraction, seed=0)
    assert sizes(held_out) == expected
    for all_its_own, stays, goes in zip(PARTS, kept, held_out, strict=True):
        assert sorted([*stays, *goes]) == list(all_its_own)
        assert len(stays) >= 2
        assert (np.diff(stays) > 0).all()
        assert (np.diff(goes) > 0).all()


def test_a_client_of_one_image_keeps_it() -> None:
    kept, held_out = hold_out((np.array([7]),), 0.5, seed=0)
    assert (sizes(kept), sizes(held_out)) == ([1], [0])


def test_what_is_held_out_depends_on_the_seed_and_the_client_alone() -> None:
    _, first = hold_out(PARTS, 0.5, seed=0)
    _, again = hold_out(PARTS[:3] + PARTS[:1], 0.5, seed=0)
    _, other = hold_out(PARTS, 0.5, seed=1)
    assert all(np.array_equal(*pair) for pair in zip(first[:3], again[:3], strict=True))
    assert not np.array_equal(first[3], other[3])
    assert not np.array_equal(first[3], np.arange(13, 23)), "at random"


def test_clients_train_on_what_they_do_not_hold_out(divided: FederatedData) -> None:
    population = divided.populations()[CLIENTS]
    for client in range(4):
        trained = population.client(client).images(TRAINED)
        assert np.array_equal(trained.images_NHWC, divided.train.images_NHWC[divided.clients[client]])
        assert np.array_equal(trained.labels_N, divided.train.labels_N[divided.clients[client]])
    for client in (1, 2, 3):
        held_out = population.client(client).images(HELD_OUT)
        assert np.array_equal(held_out.images_NHWC, divided.train.images_NHWC[divided.held_out[client]])
    with pytest.raises(DataError, match="no held-out images"):
        population.client(0).images(HELD_OUT)


def test_clients_announce_how_many_images_they_have_and_their_tier(data: FederatedData, divided: FederatedData) -> None:
    assert data.num_clients == 4
    assert data.populations()[CLIENTS].infos() == [
        ClientInfo(0, 2), ClientInfo(1, 3), ClientInfo(2, 8), ClientInfo(3, 20)
    ]  # fmt: skip
    tiers = dataclasses.replace(divided, tiers=(0, 0, 1, 2))
    assert tiers.populations()[CLIENTS].infos() == [
        ClientInfo(0, 2, 0, 0), ClientInfo(1, 2, 1, 0), ClientInfo(2, 6, 2, 1), ClientInfo(3, 16, 4, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "parts"), [(1, [1]), (499, [499]), (500, [500]), (501, [500, 1]), (1001, [500, 500, 1])]
)
def test_the_servers_images_are_asked_in_parts_that_have_each_image_once(
    data: FederatedData, count: int, parts: list[int]
) -> None:
    images = load_dataset("digits", None).train.take(np.arange(count))
    population = dataclasses.replace(data, test=images).populations()[TEST]
    infos = population.infos()
    assert infos == [ClientInfo(index, 0, size) for index, size in enumerate(parts)]
    found = [population.client(info.client).images(HELD_OUT) for info in infos]
    assert np.array_equal(np.concatenate([part.images_NHWC for part in found]), images.images_NHWC)
    assert np.array_equal(np.concatenate([part.labels_N for part in found]), images.labels_N)
    with pytest.raises(DataError, match="no trained images"):
        population.client(0).images(TRAINED)


def test_a_server_without_images_has_nothing_to_ask(data: FederatedData) -> None:
    assert data.populations().keys() == {CLIENTS, VALIDATION, TEST}
    assert dataclasses.replace(data, validation=None).populations().keys() == {CLIENTS, TEST}
    assert dataclasses.replace(data, validation=None, test=None).populations().keys() == {CLIENTS}


def test_fingerprint_is_the_hash_of_all_images_and_of_who_holds_them(
    data: FederatedData, divided: FederatedData
) -> None:
    document = {
        "train": data.train.fingerprint(),
        "clients": [part.tolist() for part in PARTS],
        "validation": data.validation.fingerprint(),
        "test": data.test.fingerprint(),
        "held_out": None,
    }
    assert data.fingerprint == files.sha256_of(document)
    without = dataclasses.replace(data, validation=None, test=None)
    assert without.fingerprint == files.sha256_of({**document, "validation": None, "test": None})
    parts = {
        name: [part.tolist() for part in each]
        for name, each in {"clients": divided.clients, "held_out": divided.held_out}.items()
    }
    assert divided.fingerprint == files.sha256_of({**document, **parts})


def test_fingerprint_says_what_is_held_out_by_whom(divided: FederatedData) -> None:
    """Also who, where the images trained on are the same."""
    held_out = divided.held_out
    swapped = (held_out[0], held_out[2], held_out[1], held_out[3])
    prints = {dataclasses.replace(divided, held_out=each).fingerprint for each in (held_out, swapped, ())}
    assert len(prints) == 3
