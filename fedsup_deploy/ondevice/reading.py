"""Files and JSON that others wrote: reading one never blocks, and takes no more memory than a stated limit.

Owns what every reader refuses: what is no regular file, what is too large, JSON that is nested too deep, holds a number
no float can hold, a key twice or half a surrogate pair. Knows no format of ours.
"""

import errno
import json
import stat
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

#: Mappings and lists within each other: twice what any document of ours has, and far from the end of any stack.
MOST_LEVELS_OF_JSON = 32
#: Digits of an integer: any of so many is smaller than the largest float, and is read in no time.
MOST_DIGITS = 300
#: Of a JSON file: a search that recorded a hundred thousand candidates writes less.
MOST_BYTES_OF_JSON = 2**26
#: Of a file of JSON lines: the longest build of a profile, or a million rounds, writes less.
MOST_BYTES_OF_JOURNAL = 2**29
#: What to say of a dead link.
DEAD_LINK = "it is a link that leads nowhere; remove it"


def read_bytes(path: Path, most_bytes: int, *, has_links: bool = True) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        most_bytes: The most it may hold; a larger one is not opened.
        has_links: Whether `path` may be a symbolic link to a file.

    Raises:
        FileNotFoundError: It is missing.
        OSError: It cannot be read.
        ValueError: It is no regular file, or too large.
    """
    status = path.stat() if has_links else path.lstat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever, and a device never ends
        raise ValueError("it is no regular file")
    if status.st_size <= most_bytes:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) <= most_bytes:
            return content
    raise ValueError(f"it has more than {most_bytes:,} bytes")


def is_dead_link(path: Path) -> bool:
    """Return whether a path is a symbolic link that leads to nothing, or in a circle."""
    try:
        path.stat()
    except OSError as error:
        return path.is_symlink() and error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    return False


def parse_json(text: Union[str, bytes]) -> object:
    """Return the value of a JSON text.

    Returns:
        Mappings, lists, texts, finite numbers, true, false and null; callers look at what they find.

    Raises:
        ValueError: It is no JSON, or more than we read; a few words on one line say what.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_LEVELS_OF_JSON} levels") from None
    _check_levels(value)
    if "\\u" in text:  # nothing else than an escape can be half a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _check_levels(value: Any) -> None:
    level = [value]
    for _ in range(MOST_LEVELS_OF_JSON + 1):
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            return
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(f"nested deeper than {MOST_LEVELS_OF_JSON} levels")


def _without_duplicates(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = set()
        for name, _ in pairs:
            if name in names:
                raise ValueError(f"the key {name[:60]!r} stands twice")
            names.add(name)
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"got {name}, expected a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"got {text[:20]}, expected a finite number")
    return value


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"got {text[:20]}..., expected an integer of at most {MOST_DIGITS} digits")
    return int(text)
