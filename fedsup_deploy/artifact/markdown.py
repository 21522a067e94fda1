"""Text that others chose, in Markdown of ours."""

from typing import Final

from fedsup_deploy.ondevice.printable import printable

_MARKDOWN: Final = str.maketrans({letter: f"&#{ord(letter)};" for letter in "<[]|`"})


def text_of(value: str) -> str:
    """Return a text that others chose as Markdown that shows it, with no HTML, link, code or table cell of its own."""
    return printable(value, most=None).translate(_MARKDOWN)
