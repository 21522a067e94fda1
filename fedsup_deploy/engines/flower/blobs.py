"""Blobs on a node's disk: Flower starts a process for each message there, so nothing in memory would last."""

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedsup_deploy.federation.messages import KEPT_BYTES, Blob

#: What a blob is called; no other name, such as one with a slash, becomes a path.
_NAME: Final = re.compile(r"[0-9a-f]{64}")


class DiskBlobs:
    """Blobs in files named by their hash. Those that were not used for longest are given up first.

    Several processes may use one folder. What is there is not trusted: a blob counts only if its tensors have the hash
    that it is called by. A disk that is full or read-only is as if nothing were kept.

    Args:
        folder: Made when there is something to keep.
        kept_bytes: How much is kept; the last blob is in any case.
    """

    def __init__(self, folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self._folder, self._kept_bytes = folder, kept_bytes

    def add(self, blob: Blob) -> None:
        """Keep a blob. Whoever is killed meanwhile leaves a file that is given up as an old blob is."""
        arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in blob.tensors.items()}
        partial = self._folder / f"{blob.name}.{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(save(arrays))
            partial.replace(self._folder / blob.name)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        self._give_up(self._folder / blob.name)

    def get(self, name: str) -> Blob | None:
        """Return the blob of a name, or None where it is not held, or damaged."""
        if _NAME.fullmatch(name) is None:
            return None
        path = self._folder / name
        with contextlib.suppress(OSError, SafetensorError, TypeError, ValueError):
            # safetensors gives them in no order.
            arrays = dict(sorted(load(path.read_bytes()).items()))
            blob = Blob({key: torch.from_numpy(array) for key, array in arrays.items()})
            if blob.name == name:
                os.utime(path)
                return blob
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None

    def _give_up(self, last: Path) -> None:
        """Remove what is too much, but for the file that was written last."""
        found = []
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError):  # another process has given it up
                    status = path.stat()
                    found.append((path != last, status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, _, size, _ in found)
        for can_go, _, size, path in sorted(found):
            if can_go and total > self._kept_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                total -= size
