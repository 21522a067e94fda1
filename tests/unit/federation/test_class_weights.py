"""What clients tell of their classes, what follows from it, and what an image then counts in a client's training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.data.dataset import DatasetSplits
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client, ClientInfo
from fedsup_deploy.federation.jobs.classes import ClassCounts, CountClasses
from fedsup_deploy.federation.server.balance import class_weights, count_classes
from fedsup_deploy.federation.server.cohort import Terms


def test_a_client_tells_how_many_images_of_each_class_it_trains_on(digits: DatasetSplits) -> None:
    images = digits.train.take(np.flatnonzero(digits.train.labels_N < 7)[:40])
    client = Client({TRAINED: images, HELD_OUT: digits.test})
    found = client.perform(CountClasses(10)).images_K
    assert found.tolist() == np.bincount(images.labels_N, minlength=10).tolist()
    assert (found.dtype, found.sum()) == (np.dtype(np.int64), 40)


def test_the_counts_of_all_clients_add_up_but_for_those_that_cannot_be(scripted) -> None:
    answers = [[5, 0, 5], [0, 10, 0], [11, 0, 0], [5, 6, -1], [5, 5]]
    engine = scripted(
        [ClientInfo(client, 10) for client in range(6)],
        lambda client, _: ClassCounts(np.array(answers[client])) if client < 5 else "battery",
    )
    absent: dict[int, str] = {}
    found = count_classes(engine, Terms(0.0, None), 3, lambda *told: absent.update(told[2]))
    assert found == (5, 10, 5)
    assert absent == {
        2: "other class counts than 10 images have",
        3: "other class counts than 10 images have",
        4: "class counts of shape (2,), expected 3 classes",
        5: "battery",
    }


def test_weights_are_those_that_balance_the_classes() -> None:
    assert class_weights([195, 5]) == (200 / 390, 20.0)
    assert class_weights([10, 0, 30]) == (2.0, 1.0, 40 / 60)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20).filter(any))
def test_with_weights_all_classes_count_the_same_and_an_image_one_on_average(images: list[int]) -> None:
    weights, seen = class_weights(images), [count for count in images if count]
    totals = [weight * count for weight, count in zip(weights, images, strict=True) if count]
    assert totals == pytest.approx([sum(images) / len(seen)] * len(seen))
