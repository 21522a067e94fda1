"""`run.py` and `install.py`: what works on devices, each as one file.

Owns which modules they consist of, and nothing of what they do.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fedsup_deploy.artifact.packing import OURS, pack

FILENAME: Final = "run.py"
INSTALLER: Final = "install.py"
#: The programs in a bundle, by file, and the module that each is made of. Bundles of before had the first alone.
PROGRAMS: Final[Mapping[str, str]] = MappingProxyType(
    {FILENAME: f"{OURS}.ondevice.run", INSTALLER: f"{OURS}.ondevice.install"}
)


def program(name: str = FILENAME) -> bytes:
    """Return the text of a program, one of `PROGRAMS`."""
    return pack(PROGRAMS[name], prologue=f"{OURS}.ondevice.isolation").encode()
