"""What Flower is told of the app, in a checkout and by our own commands, is one thing."""

from pathlib import Path

import pytest

from fedsup_deploy.engines.flower.submission import SuperLink
from fedsup_deploy.version import __version__

tomllib = pytest.importorskip("tomllib", reason="tomllib (Python 3.11 or newer)")


def test_the_app_of_a_checkout_is_the_one_that_commands_run(repository: Path, tmp_path: Path) -> None:
    ours = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    SuperLink("localhost:1", tmp_path / "home", {}, {"insecure": True})
    sent = tomllib.loads((tmp_path / "home" / "app" / "pyproject.toml").read_text(encoding="utf-8"))
    assert sent["project"]["name"] == ours["project"]["name"]
    assert sent["project"]["version"] == ours["project"]["version"] == __version__
    for key in ("publisher", "components"):
        assert sent["tool"]["flwr"]["app"][key] == ours["tool"]["flwr"]["app"][key]
    assert sent["tool"]["flwr"]["app"]["config"].keys() == ours["tool"]["flwr"]["app"]["config"].keys()


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
