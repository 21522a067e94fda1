"""The files of a bundle: which there are, and whether they are those of SHA256SUMS, unaltered, and nothing else.

Reads the bundle only, and nothing of it that is not known to be small or unaltered. Knows no model.
"""

import fnmatch
import hashlib
import re
import stat
from pathlib import Path
from typing import Dict, Iterable, List, Set

from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.ondevice.reading import read_bytes

# Exit codes of run.py.
OK = 0
ALTERED = 1
USAGE = 2
PARITY = 3
BATCH_INVARIANCE = 4
MISSING = 5
UNRUNNABLE = 6
UNCLASSIFIED = 7
KNOWN_BAD = 8
#: What `run.py` can end with where it says so in a report.
CHECKED = (OK, ALTERED, USAGE, PARITY, BATCH_INVARIANCE, MISSING, UNRUNNABLE, UNCLASSIFIED, KNOWN_BAD)

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
MEASURED = "measured.json"
#: Of the files above and all others but MEASURED: who made them (`signature`).
SIGNATURE = "model.sig"
#: What is written after a bundle is whole, so that SHA256SUMS lists none of it, nor itself.
BESIDE_SUMS = frozenset((SUMS, MEASURED, SIGNATURE))
MODEL = "model.onnx"
#: The variant that MODEL is, in the manifest.
VARIANT = "onnx-fp32"
INT8_MODEL, INT8_VARIANT = "model.int8.onnx", "onnx-int8"
VECTORS = "vectors.npz"
#: What desktops, and commands that were killed, leave in a folder: no part of a bundle, and never read.
LITTER = (
    ".DS_Store",
    "._*",
    "Thumbs.db",
    "desktop.ini",
    ".measured.json.partial-*",
    ".model.sig.partial-*",
    ".*.fedsup-lock",
    ".*.fedsup-holder",
)
#: Of a text that is read before it is known to be unaltered.
MOST_BYTES = 2**22
#: Folders within each other, and files in all: more has no bundle.
MOST_LEVELS = 8
MOST_FILES = 1000
#: Of one file: as much as an ONNX file can hold.
MOST_BYTES_OF_A_FILE = 2**31

_LINE = re.compile(r"[0-9a-f]{64}  [^\x00-\x1f\x7f]+\n\Z")
_LENGTH_OF_HASH = 64
_LENGTH_BEFORE_NAME = _LENGTH_OF_HASH + 2  # of a line of SHA256SUMS: the hash, and two spaces


class CheckError(Exception):
    """A check that did not pass, with the exit code that says which."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def check_files(folder: Path) -> Dict[str, int]:
    """Return the size of every file of a bundle by name, in bytes.

    SHA256SUMS must be byte for byte what is computed here, so it has one spelling only.

    Raises:
        CheckError: They are not those of SHA256SUMS, or one was altered.
    """
    read_text_file(folder, MANIFEST)
    sums = read_text_file(folder, SUMS)
    sizes = list_files(folder)
    check_sums(folder, sums, sizes.keys() - BESIDE_SUMS)
    if MEASURED in sizes:
        read_measured(folder)
    return sizes


def read_text_file(folder: Path, name: str) -> bytes:
    """Return the content of a small file of a bundle.

    Raises:
        CheckError: It is missing, too large, or no regular file.
    """
    try:
        return read_bytes(folder / name, MOST_BYTES, has_links=False)
    except (FileNotFoundError, NotADirectoryError):
        what = "export the bundle again" if name == SUMS else "expected the folder of a bundle"
        raise CheckError(MISSING, f"{name} is missing; {what}") from None
    except OSError as error:
        raise CheckError(ALTERED, f"{name} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckError(ALTERED, f"{name} was altered: {error}; copy the bundle again") from None


def list_files(folder: Path) -> Dict[str, int]:
    """Return the size of every file but litter by name, with `/` between folders, in bytes.

    Raises:
        CheckError: Something is neither a regular file nor a folder that has one, or cannot be read, or there are too
            many. A link, device or pipe leads out of the bundle or never ends: none is opened.
    """
    try:
        return _listed_files(folder)
    except OSError as error:
        where = Path(str(error.filename or folder)).name
        raise CheckError(
            ALTERED, f"{printable(where)} cannot be read: {error.strerror}; copy the bundle again"
        ) from None


def _listed_files(folder: Path) -> Dict[str, int]:
    sizes = {}  # type: Dict[str, int]
    folders = [""]
    while folders:
        above = folders.pop()
        before = len(sizes) + len(folders)
        for path in sorted((folder / above).iterdir()):
            name, mode = above + path.name, path.lstat().st_mode
            if stat.S_ISDIR(mode) and name.count("/") < MOST_LEVELS:
                folders.append(name + "/")
            elif not stat.S_ISREG(mode):
                raise CheckError(ALTERED, f"{printable(name)} is no regular file; remove it, or copy the bundle again")
            elif not is_litter(path.name):
                sizes[name] = path.lstat().st_size
        if above and len(sizes) + len(folders) == before:
            raise CheckError(ALTERED, f"{printable(above)} is no folder of the bundle; remove it")
        if len(sizes) > MOST_FILES:
            raise CheckError(ALTERED, f"more than {MOST_FILES} files; copy the bundle again")
    return sizes


def is_litter(name: str) -> bool:
    """Return whether a file of this name is no part of any bundle, and does no harm in one."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in LITTER)


def hashes_of_sums(sums: bytes) -> Dict[str, str]:
    """Return the hash of each file that the content of SHA256SUMS lists, by name.

    Raises:
        CheckError: A line is none that `sha256sum` writes.
    """
    return {line[_LENGTH_BEFORE_NAME:]: line[:_LENGTH_OF_HASH] for line in _lines_of_sums(sums)}


def _lines_of_sums(sums: bytes) -> List[str]:
    found = []  # type: List[str]
    for number, line in enumerate(sums.splitlines(keepends=True), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        # Without an end, a name may have lost its own.
        if not _LINE.match(text):
            what = f"line {number} is no hash, two spaces and a name"
            raise CheckError(ALTERED, f"{SUMS} was altered: {what}; copy the bundle again")
        found.append(text[:-1])
    return found


def check_sums(folder: Path, sums: bytes, present: Set[str]) -> None:
    """Compare the content of SHA256SUMS with the files that are there. Names come first: no stranger is opened.

    Raises:
        CheckError: They differ, or a line is none that `sha256sum` writes.
    """
    recorded, names = _lines_of_sums(sums), set(hashes_of_sums(sums))
    missing = sorted({MANIFEST, MODEL, VECTORS, *names} - present)
    if missing:
        raise CheckError(MISSING, f"{printable(missing[0])} is missing; copy the bundle again")
    unlisted = sorted({MANIFEST, MODEL, VECTORS} - names)
    if unlisted:
        raise CheckError(ALTERED, f"{SUMS} was altered: it does not list {unlisted[0]}; copy the bundle again")
    strangers = sorted(present - names)
    if strangers:
        raise CheckError(ALTERED, f"{printable(strangers[0])} is no file of the bundle; remove it")
    computed = sha256sums(folder, present)
    for line in computed:
        if line[:-1] not in recorded:
            name = line[_LENGTH_BEFORE_NAME:-1]
            raise CheckError(ALTERED, f"{name} was altered: its sha256 is not that of {SUMS}")
    if "".join(computed).encode() != sums:
        raise CheckError(ALTERED, f"{SUMS} was altered: its lines are not those of sha256sum, sorted by name")


def sha256sums(folder: Path, names: Iterable[str]) -> List[str]:
    """Return the lines that `sha256sum` writes about files, sorted by name."""
    return [f"{sha256(folder / name)}  {name}\n" for name in sorted(names)]


def sha256(path: Path) -> str:
    """Return the hash of a file.

    Raises:
        CheckError: It cannot be read, or is larger than any model.
    """
    digest = hashlib.sha256()
    try:
        if path.stat().st_size > MOST_BYTES_OF_A_FILE:
            raise CheckError(ALTERED, f"{path.name} was altered: it has more than {MOST_BYTES_OF_A_FILE:,} bytes")
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(2**20), b""):
                digest.update(chunk)
    except OSError as error:
        raise CheckError(ALTERED, f"{path.name} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def read_measured(folder: Path) -> bytes:
    """Return the content of measured.json.

    Raises:
        CheckError: It was altered, or is of another bundle.
    """
    content = read_text_file(folder, MEASURED)
    if content != sealed(without_seal(content), read_text_file(folder, SUMS)):
        raise CheckError(ALTERED, f"{MEASURED} was altered, or is of another bundle; remove it, or measure again")
    return content


def sealed(body: bytes, sums: bytes) -> bytes:
    """Return the text of measured.json, which SHA256SUMS cannot list as it is written later.

    Args:
        body: A JSON object but for its end.
        sums: The content of SHA256SUMS.

    Returns:
        The body, and a last key `sha256`: the hash of the body and of SHA256SUMS after it, which ties what was measured
        to the bundle.
    """
    digest = hashlib.sha256(body + sums).hexdigest()
    return body + b'  "sha256": "' + digest.encode() + b'"\n}\n'


def without_seal(content: bytes) -> bytes:
    """Return what `sealed` was made from."""
    return content[: -len(sealed(b"", b""))]
