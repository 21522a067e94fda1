"""Seeds. The only module that creates a random generator; nobody uses a global one.

Every random decision has an address below the run's seed, such as `derive(seed, "client", round_index, client_id)`,
so it does not depend on what was drawn before it, in which process, or in which order.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: str | int) -> int:
    """Return the seed at an address below another seed.

    Args:
        seed: The seed of the run; any integer.
        path: The address: names and indices. `("a", 1)` and `("a", "1")` are different addresses.

    Returns:
        An integer in [0, 2**63), the same on every machine and Python version.
    """
    address = repr((int(seed), *(part if isinstance(part, str) else int(part) for part in path)))
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator for the address `path` below `seed`."""
    return generator_at(derive(seed, *path))


def generator_at(derived: int) -> np.random.Generator:
    """Return the NumPy generator of a seed that was derived already, for whoever must not know what from."""
    return np.random.Generator(np.random.PCG64(derived))


def torch_generator(seed: int, *path: str | int) -> "torch.Generator":
    """Return a CPU torch generator for the address `path` below `seed`. Imports torch."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *path))
