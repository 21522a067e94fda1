"""Results as a person reads them."""

import io
import sys

import pytest
from rich.cells import cell_len

from fedsup_deploy.cli import tables

DEVICES = [
    {"profile": "pixel-class-phone", "pick": "a12d0108d544", "accuracy": "97.6 % (95.7-98.6)", "ms predicted": 0.6425},
    {"profile": "jetson-nano", "pick": "ab2cad153d5b", "accuracy": "96.0 % (93.2-97.5)", "ms predicted": 12.5},
]


def printed(page: tables.Page, width: int = sys.maxsize) -> list[str]:
    """Return the lines, without the spaces that align them."""
    return [" ".join(line.split()) for line in page(width) if line.strip()]


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


def test_a_table_shows_as_many_rows_as_it_may_and_counts_the_rest():
    entries = [{"client": number} for number in range(60)]
    lines = printed(tables.rows(entries, most=50))
    assert (lines[-2], lines[-1]) == ("49", "and 10 more; --json gives all")
    assert printed(tables.rows(entries))[-2:] == ["19", "and 40 more; --json gives all"]


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


def test_long_lists_are_cut_and_say_so():
    lines = printed(tables.rows([{"index": index} for index in range(10_021)]))
    assert lines[-2:] == ["19", "and 10,001 more; --json gives all"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_width_and_a_pipe_has_that_of_columns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "57")
    assert tables.width_of(Terminal()) == tables.width_of(io.StringIO()) == 57
    for nothing in ("", "0", "-3", "wide"):
        monkeypatch.setenv("COLUMNS", nothing)
        assert tables.width_of(io.StringIO()) == sys.maxsize
        assert 0 < tables.width_of(Terminal()) < sys.maxsize


def test_a_row_of_a_table_is_one_line_and_heads_take_several_where_one_is_too_long():
    page = tables.rows(DEVICES)
    assert list(page(65)) == [
        "profile            pick          accuracy            ms predicted",
        "-----------------  ------------  ------------------  ------------",
        "pixel-class-phone  a12d0108d544  97.6 % (95.7-98.6)        0.6425",
        "jetson-nano        ab2cad153d5b  96.0 % (93.2-97.5)          12.5",
    ]
    assert list(page(64)) == [
        "                                                            ms",
        "profile            pick          accuracy            predicted",
        "-----------------  ------------  ------------------  ---------",
        "pixel-class-phone  a12d0108d544  97.6 % (95.7-98.6)     0.6425",
        "jetson-nano        ab2cad153d5b  96.0 % (93.2-97.5)       12.5",
    ]


def test_a_table_that_does_not_fit_is_written_as_blocks():
    wide = tables.rows(DEVICES)
    assert list(wide(62))[1].startswith("profile            pick")
    assert list(wide(61)) == [
        "profile       pixel-class-phone",
        "pick          a12d0108d544",
        "accuracy      97.6 % (95.7-98.6)",
        "ms predicted  0.6425",
        "",
        "profile       jetson-nano",
        "pick          ab2cad153d5b",
        "accuracy      96.0 % (93.2-97.5)",
        "ms predicted  12.5",
    ]


def test_blocks_of_a_long_list_are_cut_as_well():
    entries = [{"index": index, "text": "x" * 30} for index in range(25)]
    lines = printed(tables.rows(entries), 20)
    assert lines[-3:] == ["text", "x" * 30, "and 5 more; --json gives all"]
    assert lines.count("text") == 20


def test_a_value_without_room_beside_its_name_stands_below_it():
    page = tables.fields([("supernet_sha256", "f" * 30), ("said", "some words that are wrapped")])
    assert list(page(32)) == [
        "supernet_sha256",
        "  ffffffffffffffffffffffffffffff",
        "said             some words that",
        "                 are wrapped",
    ]


def test_what_is_to_be_copied_is_on_one_line_spaces_and_all():
    command = ["fedsup-deploy", "train", "--out", "a run of mine"]
    page = tables.overview({"run": "a run of mine", "about": "a run of mine", "command": command})
    assert list(page(16)) == [
        "run",
        "  a run of mine",
        "about    a run",
        "         of mine",
        "command",
        "  fedsup-deploy train --out 'a run of mine'",
    ]
    assert list(tables.whole("a run of mine", "wrote")(16)) == ["wrote", "  a run of mine"]
    assert list(tables.whole("a run of mine", "wrote")(19)) == ["wrote a run of mine"]


def test_a_command_at_the_end_of_a_line_is_not_wrapped():
    line = "warning: too few; measure more: fedsup-deploy fit-accuracy --evaluations N"
    assert list(tables.text(line)(80)) == [line]
    assert list(tables.text(line)(30)) == [
        "warning: too few; measure",
        "more:",
        "  fedsup-deploy fit-accuracy --evaluations N",
    ]


def test_text_is_wrapped_between_words_and_stands_where_it_began():
    assert list(tables.text("  one two three four")(11)) == ["  one two", "  three", "  four"]
    assert list(tables.text("")(11)) == [""]


def test_signs_of_two_columns_count_as_two():
    """Names of folders may be Japanese."""
    lines = list(tables.rows([{"folder": "写真の練習", "n": 1}, {"folder": "photo", "n": 10}])(80))
    assert [cell_len(line) for line in lines] == [14, 14, 14, 14]
    assert len(lines[2]) == 9
    assert list(tables.rows([{"about": "写真 の 練習", "n": 1}])(12)) == [
        "about  写真",
        "       の",
        "       練習",
        "n      1",
    ]


def test_what_others_wrote_is_shown_and_not_obeyed() -> None:
    """Neither as a value, nor as a name, nor in a line below a table."""
    evil = "\x1b]0;title\a\n\u202e"
    shown = "\\x1b]0;title\\x07\\n\\u202e"
    result = {"name": evil, evil: 1, "rows": [{"name": evil, evil: 2}], "words": [evil]}
    lines = list(tables.titled(tables.overview(result), evil)(sys.maxsize))
    assert "".join(lines).count(shown) == 6
    assert all(line.isprintable() for line in lines)
