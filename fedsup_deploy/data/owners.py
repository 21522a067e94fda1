"""Whose images are whose, where a data set says so: by folder, by a column of an archive, or by a list in a CSV file.

Never looks at pixels. Shape suffix: N images.
"""

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.names import client_name, decoded, escaped
from fedsup_deploy.errors import ConfigError, DataError

#: As many as a config may ask for.
_MOST_CLIENTS: Final = 1_000_000
_COLUMNS: Final = ("file", "client")


@dataclass(frozen=True, eq=False)
class Owners:
    """Whose images are whose.

    Args:
        names: Of the clients, each once, in NFC and in order.
        clients_N: For each split (`train`, and where those are of clients `validation` and `test`) the client of each
            image, as a place in `names`.
        tiers: The class of capability of each, where they say it themselves; else empty.
    """

    names: tuple[str, ...]
    clients_N: Mapping[str, npt.NDArray[np.int64]]
    tiers: tuple[int, ...] = ()

    def parts(self, split: str) -> list[npt.NDArray[np.int64]] | None:
        """Return for each client the ascending indices of its images of a split; None where they are of no client."""
        if split not in self.clients_N:
            return None
        clients_N = self.clients_N[split]
        counts = np.bincount(clients_N, minlength=len(self.names))
        return np.split(np.argsort(clients_N, kind="stable"), np.cumsum(counts)[:-1])


def owners_of(name: str, told: Mapping[str, Sequence[str] | Sequence[int]], others: Sequence[str] = ()) -> Owners:
    """Return whose images are whose.

    Args:
        name: The data set, for messages.
        told: For each split the client of each image, by name or number.
        others: Names of clients that may have no image.

    Raises:
        DataError: A name is none, or there are too many clients.
    """
    distinct = {client for clients in told.values() for client in clients} | set(others)
    fit = {client: client_name(str(client), name) for client in distinct}
    # Numbers in their own order: 10 comes after 9.
    numbers = sorted(client for client in distinct if isinstance(client, int))
    names = tuple(
        dict.fromkeys([*(fit[number] for number in numbers), *sorted(set(fit.values()) - set(map(str, numbers)))])
    )
    if len(names) > _MOST_CLIENTS:
        raise DataError(f"{name}: got {len(names):,} clients, expected at most {_MOST_CLIENTS:,}")
    places = {text: place for place, text in enumerate(names)}
    clients_N = {
        split: np.array([places[fit[client]] for client in clients], dtype=np.int64) for split, clients in told.items()
    }
    return Owners(names, clients_N)


def no_list(name: str) -> ConfigError:
    """Return the error of a data set that takes no list of clients."""
    return ConfigError(f"partition.clients: {name} takes no list of clients; remove it, or use image-folder")


def listed_owners(name: str, listed: Path, files: Mapping[str, Sequence[str]]) -> tuple[Owners, list[str]]:
    """Return whose images are whose as a CSV file says, and notes.

    Args:
        name: The data set, for messages.
        listed: A CSV file in UTF-8 whose first line names columns `file` and `client`; files are below the root.
        files: For each split its images, as paths below the root.

    Raises:
        DataError: The file is missing or malformed, lists a file twice or a training image not at all, or lists some,
            but not all, images of another split.
    """
    where = escaped(listed)
    clients, notes = _read(listed)
    told: dict[str, list[str]] = {}
    for split, names in files.items():
        keys = [_key(file) for file in names]
        missing = [key for key in keys if key not in clients]
        # Test images that are of no client may be there, but of a part of them that is more likely a slip.
        if missing and (split == "train" or len(missing) < len(keys)):
            raise DataError(f"{where}: images of {split} that it does not list: {source.counted(missing)}; add them")
        if not missing:
            told[split] = [clients[key] for key in keys]
    there = {_key(file) for names in files.values() for file in names}
    if unknown := [file for file in clients if file not in there]:
        notes.append(f"listed in {escaped(listed.name)}, but no images of the data set: {source.counted(unknown)}")
    return owners_of(name, told), notes


def _read(listed: Path) -> tuple[dict[str, str], list[str]]:
    """Return the client of each file of a CSV file, and notes."""
    where = escaped(listed)
    if not listed.is_file():
        raise DataError(f"{where}: no such file, expected the list of partition.clients; it starts at data.root")
    text = decoded(source.read_whole(listed).removeprefix(b"\xef\xbb\xbf"), where)
    clients: dict[str, str] = {}
    rows = _rows(text, where)
    _, header = next(rows, (1, []))
    if missing := [column for column in _COLUMNS if header.count(column) != 1]:
        got = ", ".join(escaped(column) for column in header[:5]) or "nothing"
        raise DataError(f"{where}:1: no column {' and '.join(missing)}, got {got}; expected a first line file,client")
    places = [header.index(column) for column in _COLUMNS]
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{where}:{line}: got {len(row)} columns, expected {len(header)}")
        file, client = (row[place] for place in places)
        if _key(file) in clients:
            raise DataError(f"{where}:{line}: {escaped(file)} stands there twice; keep one line")
        clients[_key(file)] = client
    others = [column for column in header if column not in _COLUMNS]
    return clients, [f"passed over in {escaped(listed.name)}, columns: {source.counted(others)}"] if others else []


def _rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with its last line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise DataError(f"{where}:{reader.line_num}: {error}; save it as CSV anew") from error


def _key(file: str) -> str:
    """Return the path of a file as it is compared: macOS writes names otherwise than Linux."""
    return unicodedata.normalize("NFC", PurePosixPath(file).as_posix())
