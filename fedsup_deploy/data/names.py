"""Names of classes, clients and files as text that every file and terminal can hold, decided once: when data is loaded.

A name is NFC-normalised: macOS writes `é` as two characters and Linux as one, and both mean the same class.
"""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.printable import printable

# Control characters, halves of characters, and separators of lines and paragraphs.
_UNFIT_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
# As of files: no longer name comes from a folder.
_LONGEST_CLIENT = 255


def name_of(path: Path) -> str:
    """Return the name of a file or folder in NFC, whatever the locale.

    Raises:
        DataError: It is not UTF-8, as of an archive made on another system, or holds control characters.
    """
    try:
        return _fit(os.fsencode(path.name).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{escaped(path)}: the name is not UTF-8; rename it") from error
    except ValueError as error:
        raise DataError(f"{escaped(path)}: the name {error}; rename it") from error


def class_names(classes: Sequence[str], name: str) -> tuple[str, ...]:
    """Return names of classes in NFC.

    Args:
        classes: The names.
        name: The data set, for the message.

    Raises:
        DataError: A name is empty, cannot be encoded or holds control characters, or two classes have one name.
    """
    made: list[str] = []
    for label, text in enumerate(classes):
        try:
            made.append(_fit(text))
        except ValueError as error:
            raise DataError(f"{name}: the name of class {label}, {text[:40]!a}, {error}; rename it") from error
    if len(set(made)) < len(made):
        doubled = next(text for place, text in enumerate(made) if text in made[:place])
        raise DataError(f"{name}: two classes are called {doubled!r}; rename one, or make them one class")
    return tuple(made)


def alike(names: Sequence[str]) -> list[str]:
    """Return names, quoted, that differ from another one only in case or spaces, and so may mean the same."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(" ".join(name.split()).casefold(), []).append(repr(name))
    return [name for group in groups.values() if len(group) > 1 for name in group]


def client_name(text: str, name: str) -> str:
    """Return the name of a client in NFC.

    Args:
        text: The name.
        name: The data set, for the message.

    Raises:
        DataError: It is empty, too long, cannot be encoded or holds control characters.
    """
    if len(text) > _LONGEST_CLIENT:
        got = f"{text[:40]!a}... has {len(text)} characters"
        raise DataError(f"{name}: the name of a client, {got}, expected at most {_LONGEST_CLIENT}; rename it")
    try:
        return _fit(text)
    except ValueError as error:
        raise DataError(f"{name}: the name of a client, {text[:40]!a}, {error}; rename it") from error


def decoded(content: bytes, where: object) -> str:
    """Return text that a file holds as UTF-8.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: {content[:40]!r} is not UTF-8; write it anew") from error


def escaped(path: Path | str) -> str:
    """Return a path or name for a message: what is not UTF-8 or no letter to be seen is escaped."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"), most=None)


def _fit(text: str) -> str:
    """Return text in NFC; ValueError says what is wrong with it."""
    if text.isascii() and text.isprintable() and text.strip():
        return text
    if not text.strip():
        raise ValueError("is empty")
    if unfit := next((letter for letter in text if unicodedata.category(letter) in _UNFIT_CATEGORIES), None):
        raise ValueError(f"holds {unfit!a}")
    return unicodedata.normalize("NFC", text)
