"""`run.py`: what works on devices, as one file. Owns which modules it consists of, and nothing of what they do."""

from typing import Final

from fedsup_deploy.artifact.packing import OURS, pack

FILENAME: Final = "run.py"


def program() -> bytes:
    """Return the text of `run.py`."""
    return pack(f"{OURS}.ondevice.run", prologue=f"{OURS}.ondevice.isolation").encode()
