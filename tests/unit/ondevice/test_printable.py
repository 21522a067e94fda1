"""Text of others as it is shown."""

import pytest

from fedsup_deploy.ondevice.printable import MOST_CHARACTERS, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("T-shirt/top", "T-shirt/top"),
        ("Füße, 猫, 🙂", "Füße, 猫, 🙂"),
        ("\x1b]0;title\a", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("one\r\ntwo\ttabs\x00\x7f", "one\\r\\ntwo\\ttabs\\x00\\x7f"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = printable("begin" + "x" * 10**6 + "end")
    assert len(shown) == MOST_CHARACTERS
    assert shown.startswith("beginx")
    assert shown.endswith("xend")
    assert " ... " in shown


def test_escapes_count() -> None:
    text = "\x1b" * MOST_CHARACTERS
    assert len(printable(text)) == MOST_CHARACTERS
    assert len(printable(text, most=None)) == 4 * MOST_CHARACTERS
