"""Addresses of seeds: stable, distinct, independent of what was drawn before."""

import numpy as np
import pytest
import torch

from fedsup_deploy import rng


def test_derive_is_the_same_on_every_machine() -> None:
    """Golden: half of the first 8 bytes of sha256("(0, 'client', 3, 7)"), computed by hand with `sha256sum`."""
    assert rng.derive(0, "client", 3, 7) == 3882505189816762148


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, "a"), (1, "a")),
        ((0, "a", 1), (0, "a", "1")),
        ((0, "ab"), (0, "a", "b")),
        ((0, "a"), (0, "a", "")),
        ((0, "a', 'b"), (0, "a", "b")),
        ((0, 1, 2), (0, 12)),
        ((-1,), (1,)),
    ],
)
def test_different_addresses_have_different_seeds(first: tuple, second: tuple) -> None:
    assert rng.derive(*first) != rng.derive(*second)


def test_numpy_integers_are_integers() -> None:
    assert rng.derive(np.int64(5), "client", np.int32(2)) == rng.derive(5, "client", 2)


def test_seeds_are_within_63_bits_and_fill_them() -> None:
    seeds = [rng.derive(seed) for seed in range(1000)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert max(seeds) > 2**62
    assert len(set(seeds)) == 1000


def test_numpy_generator_has_a_golden_stream() -> None:
    expected = [790, 404, 282]
    assert rng.generator(0, "golden").integers(0, 1000, 3).tolist() == expected


def test_generators_of_one_address_agree_whatever_was_drawn_elsewhere() -> None:
    first = rng.generator(1, "a")
    rng.generator(1, "b").random(100)
    np.random.default_rng().random(100)
    assert first.random() == rng.generator(1, "a").random()


def test_torch_generator_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first = torch.rand(3, generator=rng.torch_generator(1, "a"))
    assert torch.equal(first, torch.rand(3, generator=rng.torch_generator(1, "a")))
    assert not torch.equal(first, torch.rand(3, generator=rng.torch_generator(1, "b")))
    assert torch.equal(before, torch.random.get_rng_state())
