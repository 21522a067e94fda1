"""Decoded images on disk, so that each is decoded once for all passes and all worker processes.

They lie in a temporary file that is read and written, not mapped: they are nobody's memory but the system's, which
keeps of them what there is room for. A cache changes time, never a result.

Shape suffixes: H W pixels, C channels.
"""

import os
import shutil
import tempfile
from typing import Final

import numpy as np
import numpy.typing as npt

from fedsup_deploy import memory
from fedsup_deploy.shared_files import SharedFile

#: Shares of the memory and of the free room for temporary files that a cache takes at most, if not told.
_OF_MEMORY, _OF_ROOM = 4, 2
_HERE: Final = b"\x01"


class PixelCache:
    """Some of a number of images of one size. Any process that has it may read and write any of them.

    Args:
        num_images: How many there are.
        image_bytes: Of each.
        budget_bytes: Of all that are kept; None is a quarter of the machine's memory, or half of the free room for
            temporary files where that is less. If it is less than all, every so-manieth image is kept: those that are
            asked for in turns are then hit as often as there is room, where the last ones would be hit never.
    """

    def __init__(self, num_images: int, image_bytes: int, budget_bytes: int | None) -> None:
        budget_bytes = _default_bytes() if budget_bytes is None else budget_bytes
        self._num_images, self._image_bytes = num_images, image_bytes
        self._num_places = min(num_images, budget_bytes // (image_bytes + len(_HERE)))
        self._file = SharedFile()

    def get(self, index: int, place_HWC: npt.NDArray[np.uint8]) -> bool:
        """Copy an image to `place_HWC`, contiguous, if it is kept; returns whether it is."""
        place, descriptor = self._place(index), self._file.descriptor
        if place is None or descriptor is None or os.pread(descriptor, len(_HERE), place) != _HERE:
            return False
        return os.preadv(descriptor, [place_HWC.data], self._begin(place)) == self._image_bytes

    def put(self, index: int, image_HWC: npt.NDArray[np.uint8]) -> None:
        """Keep an image, contiguous, if there is room."""
        place, descriptor = self._place(index), self._file.descriptor
        if place is None or descriptor is None:
            return
        try:
            # First all of the image, then the mark that it is there: a reader may come between.
            if os.pwrite(descriptor, image_HWC.data, self._begin(place)) == self._image_bytes:
                os.pwrite(descriptor, _HERE, place)
        except OSError:
            self._num_places = 0  # The disk is full: what comes is decoded each time, in this process.

    def _place(self, index: int) -> int | None:
        """Return which of the places an image has; None if none."""
        place = index * self._num_places // self._num_images
        return place if (index + 1) * self._num_places // self._num_images > place else None

    def _begin(self, place: int) -> int:
        """Return where a place begins: the marks of all places are at the start."""
        return self._num_images * len(_HERE) + place * self._image_bytes


def _default_bytes() -> int:
    try:
        room_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:
        room_bytes = 0
    return min(memory.machine_bytes() // _OF_MEMORY, room_bytes // _OF_ROOM)
