"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real image files: the environment variable FEDSUP_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("FEDSUP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "fashion-mnist").is_dir():
        pytest.fail(f"no real images at {folder}: set FEDSUP_DATA to a folder with fashion-mnist/, cifar10/, cifar100/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side: more threads than cores make small networks many times slower.

    It also fixes the order of sums, and so their last bit.
    """
    import torch

    torch.set_num_threads(1)
