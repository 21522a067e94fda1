"""`run.py`: what works on devices, as one file. Owns how it is put together, and nothing of what it does."""

import re
from pathlib import Path
from typing import Final

from fedsup_deploy.artifact import checks, runner

FILENAME: Final = "run.py"

_IMPORT = re.compile(r"^from fedsup_deploy\.artifact\.runner import \([^)]*\)\n", re.MULTILINE)


def program() -> bytes:
    """Return the text of `run.py`: the checks, with the runner in the place where they import it."""
    code, part = (Path(str(module.__file__)).read_text(encoding="utf-8") for module in (checks, runner))
    text, num_places = _IMPORT.subn(lambda _: part, code)
    assert num_places == 1, "the checks import the runner once"
    return text.encode()
