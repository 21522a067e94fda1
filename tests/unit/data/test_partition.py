"""Partitions: what each kind is for, and what is refused. The laws are in tests/property."""

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.data.partition import dirichlet, iid, partition, shards
from fedsup_deploy.errors import ConfigError

LABELS_N = np.repeat(np.arange(10), 100)


def classes_held(parts: list[np.ndarray]) -> list[int]:
    return [len(np.unique(LABELS_N[part])) for part in parts]


def test_iid_shares_are_equal_and_mixed() -> None:
    parts = iid(LABELS_N, 7, rng.generator(0))
    assert sorted(len(part) for part in parts) == [142] * 1 + [143] * 6
    assert classes_held(parts) == [10] * 7


def test_shards_give_each_client_as_many_classes_as_shards() -> None:
    """A thousand images in 20 shards of 50: no shard crosses a class."""
    parts = shards(LABELS_N, 10, rng.generator(0), shards_per_client=2)
    assert [len(part) for part in parts] == [100] * 10
    assert set(classes_held(parts)) <= {1, 2}


def test_shards_too_small_for_the_minimum_are_topped_up() -> None:
    """Of 29 images in 10 shards some clients hold 5 and a fifth of 29 is 5.8, so 5 each can be had, and is."""
    parts = shards(LABELS_N[:29], 5, rng.generator(0), min_samples=5)
    assert sum(len(part) for part in parts) == 29
    assert min(len(part) for part in parts) == 5


def test_dirichlet_is_skewed_for_small_beta_and_even_for_large() -> None:
    skewed = dirichlet(LABELS_N, 10, rng.generator(0), beta=0.05)
    even = dirichlet(LABELS_N, 10, rng.generator(0), beta=1e4)
    assert np.mean(classes_held(skewed)) < 6
    assert all(abs(int(np.sum(LABELS_N[part] == label)) - 10) <= 2 for part in even for label in range(10))


def test_dirichlet_ends_for_the_most_skewed_request() -> None:
    """A hundred clients and beta 0.01: nearly every client is empty in every draw, yet each gets its two images."""
    parts = partition(LABELS_N, "dirichlet", 100, seed=0, beta=0.01, min_samples=2)
    assert min(len(part) for part in parts) == 2
    assert sorted(np.concatenate(parts)) == list(range(1000))


def test_the_tightest_possible_request_is_met() -> None:
    parts = partition(LABELS_N, "dirichlet", 500, seed=0, beta=0.1, min_samples=2)
    assert {len(part) for part in parts} == {2}


def test_partition_seeds_by_its_own_address() -> None:
    expected = iid(LABELS_N, 5, rng.generator(3, "partition"))
    got = partition(LABELS_N, "iid", 5, seed=3, min_samples=1)
    assert [part.tolist() for part in got] == [part.tolist() for part in expected]


@pytest.mark.parametrize(
    ("kind", "num_clients", "options", "complaint"),
    [
        ("dirichlett", 5, {}, "did you mean 'dirichlet'"),
        ("iid", 5, {"beta": 0.1}, "iid takes no 'beta'"),
        ("dirichlet", 5, {"betta": 0.1}, "takes no 'betta'; did you mean 'beta'"),
        ("dirichlet", 5, {}, r"dirichlet needs 'beta'; set partition\.beta"),
        ("dirichlet", 5, {"beta": 0.0}, "got beta 0.0"),
        ("dirichlet", 5, {"beta": float("nan")}, "got beta nan"),
        ("dirichlet", 501, {"beta": 1.0}, "501 clients x min_samples 2 = 1,002 images, but there are 1,000"),
        ("iid", 11, {"min_samples": 100}, "1,100 images"),
        ("iid", 0, {}, "got num_clients 0"),
        ("iid", 5, {"min_samples": 0}, "min_samples 0"),
        ("shards", 5, {"shards_per_client": 0}, "shards_per_client 0"),
        ("shards", 5, {"shards_per_client": 201}, "expected 1 to 1000 shards"),
    ],
)
def test_impossible_requests_are_named(kind: str, num_clients: int, options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        partition(LABELS_N, kind, num_clients, seed=0, **options)
