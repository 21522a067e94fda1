"""The subset of YAML we read."""

import pytest

from fedsup_deploy.config.reader import read, resolves_to_text
from fedsup_deploy.errors import ConfigError


def where(line: int) -> str:
    return f"x.yaml:{line}"


def message_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, where)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.0", -0.0),
        ("+12", 12),
        ("007", 7),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_scalars_of_the_core_schema(written: str, expected: object):
    actual, _ = read(f"key: {written}", where)
    assert actual == {"key": expected}
    assert type(actual["key"]) is type(expected)


@pytest.mark.parametrize(
    "written",
    ["on", "off", "yes", "no", "y", "1_000", "12:30", "2024-01-31", "0b11", "1e", "e5", ".", "nan", "=", "<<"],
)
def test_what_yaml_1_1_converts_stays_text(written: str):
    assert read(f"key: {written}", where)[0] == {"key": written}
    assert resolves_to_text(written)


@pytest.mark.parametrize("written", ["'1'", '"true"', "'null'", "''"])
def test_quoted_scalars_are_text(written: str):
    assert read(f"key: {written}", where)[0] == {"key": written[1:-1]}


def test_every_key_and_entry_has_its_line():
    _, lines = read("a: 1\nb:\n  - c: 2\n  - [3, 4]\n", where)
    expected = {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 0, "c"): 3, ("b", 1): 4, ("b", 1, 0): 4, ("b", 1, 1): 4}
    assert lines == expected


def test_an_empty_text_is_null():
    assert read("# nothing\n", where) == (None, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: key 'a' is already given on line 1"),
        ("a:\n  b: {c: 1, c: 2}\n", "x.yaml:2: key 'c' is already given on line 2"),
        ("a: 1\n1: 2\n", "x.yaml:2: got the key 1, expected text; put it in quotes"),
        ("? [a]\n: 2\n", "x.yaml:1: got the key a list or mapping, expected text; put it in quotes"),
        ("a: 1\nb: .inf\n", "x.yaml:2: got .inf, expected a finite number"),
        ("a: .nan\n", "x.yaml:1: got .nan, expected a finite number"),
        ("a: -1e999\n", "x.yaml:1: got -1e999, expected a finite number"),
        ("a: 9223372036854775808\n", "x.yaml:1: got 9223372036854775808..., expected an integer of at most 64 bits"),
        (f"a: {'9' * 100_000}\n", f"x.yaml:1: got {'9' * 20}..., expected an integer of at most 64 bits"),
        ('a: "\\uD800"\n', "x.yaml:1: half a surrogate pair is not text"),
        ("a: b\x00\n", "x.yaml:1: character U+0000 is not allowed in YAML"),
        ("a: {b: 0,1}\n", "x.yaml:1: b: got 0,1, expected a number with a point: 0.1"),
        ("{a: 1, b: 12,5, c: 1}\n", "x.yaml:1: b: got 12,5, expected a number with a point: 12.5"),
        ("{a: x,5}\n", "x.yaml:1: got the key 5, expected text; put it in quotes"),
        ("a: 0\n1:\n", "x.yaml:2: got the key 1, expected text; put it in quotes"),
        ("a: 1\n<<: {b: 2}\n", "x.yaml:2: merge keys (<<) are not allowed; write the keys out"),
        (
            "a: 1\nb:\u00a02\nc: 3\n",
            "x.yaml:2: not valid YAML: it holds a no-break space; replace that by a plain space",
        ),
        (
            "a: 1\n\u00a0b: 2\n",
            "x.yaml:2: the key '\\xa0b' holds a no-break space; replace that by a plain space",
        ),
        ("a\u200b: 1\n", "x.yaml:1: the key 'a\\u200b' holds a zero width space; replace that by a plain space"),
    ],
)
def test_what_is_refused(text: str, expected: str):
    assert message_of(text) == expected


def test_what_looks_like_it_is_read_where_it_is_meant():
    text = "'<<': 1\n'a\u00a0b': c\u00a0d # \u00a0\n"
    assert read(text, where)[0] == {"<<": 1, "a\u00a0b": "c\u00a0d"}


@pytest.mark.parametrize("text", ["a: &x 1\n", "a: &x [1]\nb: *x\n", "b: *x\n", "&x a: 1\n"])
def test_anchors_and_aliases_are_refused(text: str):
    """A few lines of aliases can stand for gigabytes."""
    assert "anchors and aliases" in message_of(text)


@pytest.mark.parametrize(
    "text",
    ["a: !!str 1\n", "a: ! 1\n", "a: !!python/object/apply:os.system [ls]\n", "a: !!binary aGk=\n", "a: !!set {b}\n"],
)
def test_tags_are_refused(text: str):
    assert message_of(text).startswith("x.yaml:1: tag ")


def test_deep_nesting_is_refused_before_it_exhausts_the_stack():
    assert read("a: " + "[" * 31 + "]" * 31, where)[0] is not None
    assert message_of("a: " + "[" * 100_000) == "x.yaml:1: nested deeper than 32 levels"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\n b: 2\n", 2, "mapping values are not allowed"),
        ("a:\n\t- 1\n", 2, "cannot start any token"),
        ("a: [1\nb: 2\n", 2, "expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: 'b\n", 2, "end of stream"),
    ],
)
def test_syntax_errors_name_the_line(text: str, line: int, words: str):
    message = message_of(text)
    assert message.startswith(f"x.yaml:{line}: not valid YAML")
    assert words in message
    assert "\n" not in message
