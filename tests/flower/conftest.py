"""What is tested here needs Flower, whose own requirements are others than ours: an environment of its own has both."""

import importlib.util
from pathlib import Path

import pytest

NEEDED = "flwr and ray (make test-flower)"
IS_THERE = all(importlib.util.find_spec(name) is not None for name in ("flwr", "ray"))


class Absent(pytest.Module):
    """A module that would need what is not there: it counts as one test."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(NEEDED, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave out every module where Flower is not installed."""
    return None if IS_THERE else Absent.from_parent(parent, path=module_path)
