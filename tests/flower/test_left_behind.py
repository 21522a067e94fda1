"""A simulation that ends before its SuperLink runs leaves nothing: in what it writes are the images of all clients."""

import contextlib
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from test_attacks import suite

from fedsup_deploy.engines.flower.simulation import open_simulation
from fedsup_deploy.errors import FederationError, OutputError
from fedsup_deploy.federation.simulation import Population


class Clients:
    """Makes populations. What it is to be sent elsewhere is large, or Ctrl-C."""

    def __init__(self, *, is_stopped: bool = False) -> None:
        self._is_stopped = is_stopped

    def __call__(self) -> Mapping[str, Population]:
        found: Mapping[str, Population] = suite.federated_data().populations()
        return found

    def __getstate__(self) -> dict[str, object]:
        if self._is_stopped:
            raise KeyboardInterrupt
        return {"_is_stopped": False, "images": os.urandom(2**16)}


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files; its name is short, for there are sockets in it."""
    with tempfile.TemporaryDirectory(prefix="test-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Let no file be written that is larger, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("num_bytes", [0, 2**15])
def test_nothing_is_left_where_there_is_no_room_for_the_settings_or_the_images(num_bytes: int, temporary: Path) -> None:
    with (
        files_of_at_most(num_bytes),
        pytest.raises(OutputError, match=r"^cannot write temporary files: file too large; "),
        open_simulation(Clients(), 1),
    ):
        raise AssertionError("it has begun")
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_where_it_is_stopped_while_it_writes_the_images(temporary: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_simulation(Clients(is_stopped=True), 1):
        raise AssertionError("it has begun")
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_where_no_process_can_be_started(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(temporary / "gone"))
    with pytest.raises(FederationError, match=r"^Flower's SuperLink does not start: "), open_simulation(Clients(), 1):
        raise AssertionError("it has begun")
    assert list(temporary.iterdir()) == []
