"""Files and JSON that others wrote: what is read, and what is refused before it costs anything."""

import os
from pathlib import Path

import pytest

from fedsup_deploy.ondevice.reading import MOST_DIGITS, MOST_LEVELS_OF_JSON, parse_json, read_bytes


def test_a_file_of_exactly_so_many_bytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(ValueError, match=r"^it has more than 4 bytes$"):
        read_bytes(path, 4)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link", "."):
        with pytest.raises(ValueError, match=r"^it is no regular file$"):
            read_bytes(tmp_path / name, 10)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"^it is no regular file$"):
        read_bytes(tmp_path / "link", 10)


def test_a_file_that_says_it_is_empty_is_read_no_further_than_allowed() -> None:
    """Those of /proc have no size."""
    with pytest.raises(ValueError, match=r"^it has more than 10 bytes$"):
        read_bytes(Path("/proc/self/status"), 10)


def test_links_are_followed_unless_told_not_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 1) == b"1"
    with pytest.raises(ValueError, match=r"^it is no regular file$"):
        read_bytes(tmp_path / "link", 1, has_links=False)


def test_what_is_missing_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none", 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5e3, true, null, "\\u00e9"]}', {"a": [1, -2500.0, True, None, "é"]}),
        ("9" * MOST_DIGITS, int("9" * MOST_DIGITS)),
        ("[" * MOST_LEVELS_OF_JSON + "]" * MOST_LEVELS_OF_JSON, None),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\xc3\xa9"', "é"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_what_is_json_is_read(text: str | bytes, value: object) -> None:
    found = parse_json(text)
    assert value is None or found == value
    if isinstance(found, int):
        assert 0 < float(found) < float("inf")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[NaN]", "^got NaN, expected a finite number$"),
        ("-Infinity", "^got -Infinity, expected a finite number$"),
        ("1e999", "^got 1e999, expected a finite number$"),
        ("1" * (MOST_DIGITS + 1), r"^got 1{20}\.\.\., expected an integer of at most 300 digits$"),
        ('{"a": 1, "b": {}, "a": 1}', "^the key 'a' stands twice$"),
        ("[" * (MOST_LEVELS_OF_JSON + 1) + "]" * (MOST_LEVELS_OF_JSON + 1), "^nested deeper than 32 levels$"),
        ("[" * 200_000, "^nested deeper than 32 levels$"),
        ('{"a":' * 200_000, "^nested deeper than 32 levels$"),
        ('["\\ud800"]', "surrogates not allowed"),
        ('{"\\ud800": 1}', "surrogates not allowed"),
        (b'"\xff"', "can't decode byte 0xff"),
        ("", "Expecting value"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_what_is_more_than_json_is_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)
