"""What is tested in `test_EXTRA.py` needs the libraries of formats with that extra: `.venv-EXTRA` has them."""

from pathlib import Path

import pytest
from random_networks import missing_for


class Absent(pytest.Module):
    """A module that would need what is not there: it counts as one test."""

    def collect(self) -> list[pytest.Item]:
        missing = missing_for(self.path.stem.removeprefix("test_"))
        pytest.skip(f"{' and '.join(missing)} (make test-formats)", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave out every module whose libraries are not installed."""
    is_there = not missing_for(module_path.stem.removeprefix("test_"))
    return None if is_there else Absent.from_parent(parent, path=module_path)
