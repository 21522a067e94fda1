"""What every command prints: it fits the terminal, and what has to be copied is whole."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from rich.cells import cell_len

from fedsup_deploy.cli.main import cli
from fedsup_deploy.cli.tables import Page

REPOSITORY = Path(__file__).parents[2]
WIDTHS = (40, 80, 120)
#: It prints a file as it is.
IS_A_FILE = "profile show"
#: Becomes a process of Flower's.
IS_A_NODE = "client"
#: Nor this, but what Flower says of it.
IS_A_SUPERLINK = "fleet serve"
#: Braille signs, or stars.
DRAWN = re.compile("[\u2800-\u28ff]+|[*]+")


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / "tools" / "terminal_page.py"))


@pytest.fixture(scope="module")
def pages(tool: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    """What each command prints of one small run."""
    found: dict[str, Page] = tool["pages"](tmp_path_factory.mktemp("terminal"))
    return found


def words_of(lines: list[str]) -> set[str]:
    """Return all words but the rules below heads of tables, and what curves are drawn with."""
    return {word for line in lines for word in line.split() if word.strip("-") and not DRAWN.fullmatch(word)}


def is_to_be_copied(line: str) -> bool:
    """Return whether a line is one name or path, or a command."""
    return len(line.split()) == 1 or line.strip().startswith(("fedsup-deploy ", "python ", "trtexec "))


def leaves(group: click.Group, names: tuple[str, ...] = ()) -> set[str]:
    """Return the words of all commands of a group."""
    found = set()
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        inner = (*names, name)
        found |= leaves(command, inner) if isinstance(command, click.Group) else {" ".join(inner)}
    return found


def test_every_command_is_shown(pages: dict[str, Page]) -> None:
    for command in leaves(cli) - {IS_A_FILE, IS_A_NODE, IS_A_SUPERLINK}:
        assert any(line == command or line.startswith(f"{command} ") for line in pages), command


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_but_for_what_is_to_be_copied(pages: dict[str, Page], width: int) -> None:
    wide = [line for page in pages.values() for line in page(width) if cell_len(line) > width]
    assert [line for line in wide if not is_to_be_copied(line)] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_no_word_is_broken_and_none_is_lost(pages: dict[str, Page], width: int) -> None:
    """Nor an arch_id, path, hash or number: words are those of a terminal without end."""
    for line, page in pages.items():
        assert words_of(list(page(width))) == words_of(list(page(sys.maxsize))), line


@pytest.mark.parametrize("width", WIDTHS)
def test_a_command_to_copy_is_on_one_line(pages: dict[str, Page], width: int) -> None:
    shown = 0
    for page in pages.values():
        commands = [line for line in page(sys.maxsize) if re.search(r"(: |^  )(fedsup-deploy|python) ", line)]
        narrow = "\n".join(page(width))
        for line in commands:
            command = re.split(r"(?:: |^  )(?=fedsup-deploy|python)", line)[-1]
            assert command in narrow
            shown += 1
    assert shown > 8


def test_a_bundle_is_told_in_a_few_lines(pages: dict[str, Page]) -> None:
    for line in ("inspect BUNDLE", "verify BUNDLE"):
        assert len(list(pages[line](80))) <= 25


def test_the_page_has_the_same_commands_and_keeps_the_width(tool: dict[str, Any], pages: dict[str, Page]) -> None:
    """Accuracies differ in their last digits from one kind of processor to the next, so not all of it is compared."""
    text = (REPOSITORY / "docs" / "terminal.md").read_text(encoding="utf-8")
    page = tool["page"](pages)
    assert re.findall(r"^#.*$", text, re.MULTILINE) == re.findall(r"^#.*$", page, re.MULTILINE)
    assert text.partition("\n## ")[0] == page.partition("\n## ")[0], "run: python tools/terminal_page.py"
    for widths, block in re.findall(r"^([\d and]+) columns:\n\n```text\n(.*?)\n```", text, re.MULTILINE | re.DOTALL):
        least = min(map(int, widths.split(" and ")))
        assert all(cell_len(line) <= least or is_to_be_copied(line) for line in block.splitlines())
    for varying in (str(REPOSITORY), "/tmp", "AMD", "Intel(R)"):
        assert varying not in text
