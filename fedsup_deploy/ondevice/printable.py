"""Text that others chose, as it can be shown anywhere: no terminal obeys it, and it is one line of bounded length."""

import re
from typing import Optional

#: Characters of a message or table cell. What is cut stands in the middle: the end of a message says what to do.
MOST_CHARACTERS = 1900

_ELLIPSIS = " ... "
# Controls of C0 and C1, line and paragraph separators, marks and overrides of writing direction, half surrogates.
_UNSHOWN = re.compile("[\\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, most: Optional[int] = MOST_CHARACTERS) -> str:
    """Return a text with what a terminal would obey written as an escape.

    Args:
        text: The text.
        most: The most characters that are returned; None cuts nothing.
    """
    if most is not None and len(text) > most:  # first, so that a huge text costs nothing
        text = _cut(text, most)
    shown = _UNSHOWN.sub(lambda found: ascii(found.group())[1:-1], text)
    return shown if most is None else _cut(shown, most)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most // 4
    return text[: most - end - len(_ELLIPSIS)] + _ELLIPSIS + text[-end:]
