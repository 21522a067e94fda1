"""What Flower is told of the app, in a checkout and by our own commands, is one thing."""

from pathlib import Path

import pytest

from fedsup_deploy.engines.flower.submission import SuperLink
from fedsup_deploy.version import __version__

tomllib = pytest.importorskip("tomllib", reason="tomllib (Python 3.11 or newer)")


def test_the_app_of_a_checkout_answers_as_the_one_that_commands_run(repository: Path, tmp_path: Path) -> None:
    """Only what it is for differs: it starts a command, where the other carries for one."""
    ours = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    SuperLink("localhost:1", tmp_path / "home", {}, {"insecure": True})
    sent = tomllib.loads((tmp_path / "home" / "app" / "pyproject.toml").read_text(encoding="utf-8"))
    assert ours["project"]["version"] == __version__
    components = [document["tool"]["flwr"]["app"]["components"] for document in (ours, sent)]
    assert components[0]["clientapp"] == components[1]["clientapp"]
    assert [each["serverapp"].rpartition(":")[2] for each in components] == ["server_app", "carrier"]


def test_what_a_stranger_may_set_of_our_app_is_a_socket(tmp_path: Path) -> None:
    """Flower refuses any other setting: no config to train, no folder to write."""
    SuperLink("localhost:1", tmp_path / "home", {}, {"insecure": True})
    sent = tomllib.loads((tmp_path / "home" / "app" / "pyproject.toml").read_text(encoding="utf-8"))
    assert sent["tool"]["flwr"]["app"]["config"].keys() == {"relay"}


def test_no_code_is_in_the_parcel(repository: Path, tmp_path: Path) -> None:
    """So that a node runs what is installed there, and nothing that it was sent."""
    ours = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert ours["tool"]["flwr"]["app"]["fab-include"] == ["/README.md"]
    SuperLink("localhost:1", tmp_path / "home", {}, {"insecure": True})
    assert [path.name for path in (tmp_path / "home" / "app").iterdir()] == ["pyproject.toml"]


def test_the_connection_is_what_was_asked_for(tmp_path: Path) -> None:
    SuperLink("server:9092", tmp_path / "home", {}, {"root-certificates": '/a "b".crt'})
    settings = tomllib.loads((tmp_path / "home" / "config.toml").read_text(encoding="utf-8"))
    assert settings == {"superlink": {"fedsup": {"address": "server:9092", "root-certificates": '/a "b".crt'}}}
