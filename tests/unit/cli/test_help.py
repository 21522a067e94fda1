"""The help pages."""

import re

import click
import pytest

from fedsup_deploy.cli.main import cli, main


def commands() -> dict[str, click.Command]:
    """Return every command by its words, such as `profile list`."""
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {sub}": part for sub, part in command.commands.items()}
    return found


@pytest.mark.parametrize("words", list(commands()))
def test_every_command_has_a_help_page(words: str, capsys: pytest.CaptureFixture[str]):
    assert main([*words.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: fedsup-deploy {words} ")
    assert err == ""
    for option in ("--json", "--quiet", "--debug", "--version"):
        assert option in out


@pytest.mark.parametrize("words", list(commands()))
def test_every_option_says_what_it_does(words: str):
    for parameter in commands()[words].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{words} {parameter.opts[0]}"


def test_the_list_of_commands_says_what_their_own_help_says():
    for name, command in commands().items():
        if " " not in name:
            assert command.name == name
            assert (command.help or "").splitlines()[0] == cli.summaries[name]


def test_the_first_help_page_lists_every_command(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  ([a-z][a-z-]*) ", out, re.MULTILINE) == list(cli.summaries)


@pytest.mark.parametrize("words", [[], ["profile"]])
def test_a_group_alone_prints_its_help(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(words) == 0
    assert "Commands:" in capsys.readouterr().out


def test_help_uses_only_the_words_of_the_project():
    pages = " ".join(command.get_help(click.Context(command)) for command in commands().values())
    for word in ("max_net", "ofa_net", "chromosome", "user", "FLOPs", "sub-network"):
        assert not re.search(rf"\b{word}s?\b", pages), word
