"""Results as a person reads them."""

import io
from typing import Any

import pytest

from fedsup_deploy.cli import tables


def printed(renderable: Any) -> list[str]:
    """Return the lines, without the spaces that align them."""
    stream = io.StringIO()
    tables.console(stream).print(renderable)
    return [" ".join(line.split()) for line in stream.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (9999, "9999"),
        (12345678, "12,345,678"),
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        (12345.6, "12,346"),
        ("largest", "largest"),
        ([1, 0.5, "a"], "1, 0.5, a"),
        ([], ""),
        ([{"a": 1}], "1 entries"),
    ],
)
def test_cells(value: object, expected: str):
    assert tables.cell(value) == expected


def test_an_overview_has_fields_and_a_table_for_each_list():
    result = {
        "run": "runs/digits",
        "accuracy": {"largest": 0.97, "smallest": None},
        "empty": {},
        "profiles": [{"name": "a", "limits": {"latency_ms": 2.0}}, {"name": "b", "formats": ["onnx", "pt2"]}],
    }
    lines = printed(tables.overview(result))
    expected = [
        "run runs/digits",
        "accuracy.largest 0.97",
        "accuracy.smallest -",
        "empty -",
        "profiles",
        "name limits.latency_ms formats",
    ]
    assert lines[:6] == expected
    assert lines[-2:] == ["a 2 -", "b - onnx, pt2"]


def test_text_of_results_is_not_markup():
    assert printed(tables.overview({"name": "[red]x[/red]", "rows": [{"[b]": "[/nothing]"}]}))[0] == "name [red]x[/red]"


def test_long_lists_are_cut_and_say_so():
    lines = printed(tables.rows([{"index": index} for index in range(10_021)]))
    assert lines[-2:] == ["19", "and 10,001 more; --json gives all"]


def test_a_pipe_does_not_cut_lines():
    assert printed(tables.overview({"path": "x" * 150})) == [f"path {'x' * 150}"]


def test_what_others_wrote_is_shown_and_not_obeyed() -> None:
    """Neither as a value, nor as a name, nor in a line below a table."""
    evil = "\x1b]0;title\a\u202e"
    shown = "\\x1b]0;title\\x07\\u202e"
    result = {"name": evil, evil: 1, "rows": [{"name": evil, evil: 2}], "words": [evil]}
    text = io.StringIO()
    tables.console(text).print(tables.titled(tables.overview(result), evil))
    assert text.getvalue().count(shown) == 6
    assert all(line.isprintable() for line in text.getvalue().split("\n"))
