"""For whom our app carries on the server, whoever has submitted it."""

import os
import threading
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from local_grid import LocalGrid

from fedsup_deploy.engines.flower.carrier import carry
from fedsup_deploy.errors import FederationError


def run_with(settings: dict[str, Any]) -> None:
    carry(LocalGrid({}), Context(1, 1, {}, RecordDict(), settings))


def test_a_command_of_another_user_is_not_carried_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach the control interface of the server's machine, and can name a socket of theirs."""
    theirs = os.getuid()
    with Listener(str(tmp_path / "relay"), "AF_UNIX") as listener:
        accepting = threading.Thread(target=listener.accept)
        accepting.start()
        monkeypatch.setattr(os, "getuid", lambda: theirs + 1)
        with pytest.raises(FederationError, match=r"^the command is another user's$"):
            run_with({"relay": str(tmp_path / "relay")})
        accepting.join()


@pytest.mark.parametrize("settings", [{}, {"relay": ""}, {"relay": "/nowhere"}, {"config": "digits", "out": "/tmp"}])
def test_without_a_command_it_does_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(FederationError, match=r"^the command is gone$"):
        run_with(settings)
