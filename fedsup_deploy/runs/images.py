"""What a run's images are, known without reading them again as long as none of their files has changed. Torch-free.

The fingerprint of images decides which scores are still right, so it must be that of their content. Taking it means to
read and cut all images, which takes seconds; a search that finds all scores in the run's folder must not. So each
fingerprint is kept with the state of the files it was taken from: names, sizes, inodes and times of last change. That
is the time the system itself sets whenever content or attributes change (ctime). Unlike the time of modification nobody
can set it back, so the same state means the same content. A state counts only when its files had been at rest for a
while, because two changes within one tick of a clock look the same.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from fedsup_deploy import files, places
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.searchers.scoring.journal import Journal
from fedsup_deploy.version import __version__

#: The file in which fingerprints are kept.
IMAGES: Final = "images.jsonl"
_ABOUT: Final = {"kind": "fingerprints of images, by the state of their files"}
#: Seconds for which files must not have changed; the clocks of the coarsest file systems tick every two.
_REST_S: Final = 5.0
#: Libraries that bring images or read them.
_READERS: Final = ("numpy", "scikit-learn", "pillow")


def remembered_fingerprint(folder: Path, config: TrainConfig, padded_size: int, read: Callable[[], str]) -> str:
    """Return the fingerprint of a federation's images.

    Args:
        folder: Where fingerprints are kept.
        config: Which images, who holds them, what is held out.
        padded_size: Side that smaller images are padded to, pixels.
        read: Takes the fingerprint of the images as they are now.

    Raises:
        ArtifactError: What was kept is damaged.

    Side effects: Keeps a new fingerprint, unless a file of the images changed only just now or the folder is read-only.
    """
    journal = Journal(folder / IMAGES, _ABOUT)
    state = _state(config, padded_size)
    known = dict(_known(where, entry) for where, entry in journal.read())
    if state is not None and state in known:
        return known[state]
    fingerprint = read()
    if state is not None and state == _state(config, padded_size) and places.read_only(folder) is None:
        journal.append({"state": state, "fingerprint": fingerprint})
    return fingerprint


def _known(where: str, entry: dict[str, JsonValue]) -> tuple[str, str]:
    state, fingerprint = entry.get("state"), entry.get("fingerprint")
    if not (isinstance(state, str) and isinstance(fingerprint, str)):
        raise ArtifactError(f"{where}: damaged: got no state with its fingerprint; remove the line")
    return state, fingerprint


def _state(config: TrainConfig, padded_size: int) -> str | None:
    """Return the SHA-256 of all that decides the images, with the state of files in place of their content.

    None if it would say too little: a file changed just now, or a folder is a link.
    """
    listed = config.partition.client_list(config.data.root)
    own = None if config.data.server is None else config.data.server.root
    roots = [place for place in (config.data.root, listed and listed.path, own) if place is not None]
    try:
        found = [_state_of(path) for root in roots for path in _files_at(root)]
    except OSError:
        # Whoever reads the images will say what is wrong with them.
        return None
    if any(changed_ns > (time.time() - _REST_S) * 1e9 for *_, changed_ns in found):
        return None
    document = config.model_dump(mode="json", include={"data": True, "partition": True, "seed": True})
    del document["data"]["cache_mib"]
    if document["data"]["server"] is None:
        del document["data"]["server"]
    versions = [__version__, *(_version(name) for name in _READERS)]
    return files.sha256_of({**document, "padded_size": padded_size, "versions": versions, "files": found})


def _files_at(root: Path) -> Iterator[Path]:
    """Yield a file, or all files below a folder, in a fixed order.

    Raises:
        OSError: There is no such place, it cannot be looked into, or a folder below it is a link, whose end may change
            unseen.
    """
    if not root.is_dir():
        yield root
        return
    for folder, inner, names in os.walk(root, onerror=_raise):
        inner.sort()
        if any((Path(folder) / name).is_symlink() for name in inner):
            raise OSError("a folder is a link")
        yield from (Path(folder) / name for name in sorted(names))


def _raise(error: OSError) -> None:
    raise error


def _state_of(path: Path) -> tuple[str, int, int, int, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None
