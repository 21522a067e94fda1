"""Several modules as one file: what stands in it, in which order, and what is refused."""

import textwrap

import pytest

from fedsup_deploy.artifact.packing import PackingError, pack

TOP = '''
"""Say how far away something is: the program."""

import json
import sys
from typing import List

from fedsup_deploy.lengths import in_metres
from fedsup_deploy.units import INCH  # of all units


def main(words: List[str]) -> str:
    """Return a length in JSON."""
    import numpy

    return json.dumps(float(numpy.float64(in_metres(float(words[0])) / INCH)))


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
'''
LENGTHS = '''
"""Lengths."""

from fedsup_deploy.units import (
    INCH,
    METRE,
)
from typing import Dict, List

# A comment of the first function.
def in_metres(inches: float) -> float:
    return inches * INCH / METRE  # and one in it
'''
UNITS = '''
"""Units."""

import sys

INCH, METRE = 0.5, 1.0
'''
PROLOGUE = '''
"""What comes first."""

import sys

sys.path[:] = sys.path[1:]
'''
PACKED = '''
"""Say how far away something is: the program."""


# fedsup_deploy.first: What comes first.

import sys

sys.path[:] = sys.path[1:]


import json
from typing import Dict, List


# fedsup_deploy.units: Units.

INCH, METRE = 0.5, 1.0


# fedsup_deploy.lengths: Lengths.

# A comment of the first function.
def in_metres(inches: float) -> float:
    return inches * INCH / METRE  # and one in it


# fedsup_deploy.top: Say how far away something is: the program.

def main(words: List[str]) -> str:
    """Return a length in JSON."""
    import numpy

    return json.dumps(float(numpy.float64(in_metres(float(words[0])) / INCH)))


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
'''


def pack_of(prologue: str | None = None, **changed: str) -> str:
    """Pack the modules above, some of them changed."""
    texts = {"top": TOP, "lengths": LENGTHS, "units": UNITS, "first": PROLOGUE, **changed}
    sources = {f"fedsup_deploy.{name}": textwrap.dedent(text).lstrip("\n") for name, text in texts.items()}
    return pack("fedsup_deploy.top", prologue and f"fedsup_deploy.{prologue}", sources.__getitem__)


def test_each_module_stands_after_those_it_imports_and_what_they_import_at_the_top() -> None:
    assert pack_of(prologue="first") == PACKED.lstrip("\n")


def test_what_is_for_type_checkers_only_is_left_out() -> None:
    block = "\nif TYPE_CHECKING:\n    from typing_extensions import TypedDict\n    import torch\n"
    packed = pack_of(units=f"from typing import TYPE_CHECKING\n{block}\nINCH, METRE = 0.5, 1.0")
    assert "TypedDict" not in packed
    assert "import torch" not in packed
    names: dict[str, object] = {}
    exec(compile(packed, "packed.py", "exec"), names)
    assert names["INCH"] == 0.5


def test_packed_file_runs() -> None:
    names: dict[str, object] = {"__name__": "packed"}
    exec(compile(pack_of(), "packed.py", "exec"), names)
    main = names["main"]
    assert callable(main)
    assert main(["3"]) == "3.0"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"units": "INCH = METRE = 1.0\n\n\ndef in_metres() -> None:\n    pass"},
            "fedsup_deploy.lengths: in_metres is defined in fedsup_deploy.lengths, "
            "but it is defined in fedsup_deploy.units, too",
        ),
        (
            {"units": "INCH = METRE = 1.0\njson = 2.0"},
            "fedsup_deploy.top: json is `import json`, but it is defined in fedsup_deploy.units, too",
        ),
        (
            {"units": "from array import typecodes as List\nINCH = METRE = 1.0"},
            "fedsup_deploy.units:1: from array import typecodes as List: "
            "expected an absolute import of names, as they are",
        ),
        (
            {
                "units": "from queue import Queue\nINCH = METRE = 1.0",
                "lengths": f"from multiprocessing import Queue\n{LENGTHS}",
            },
            "fedsup_deploy.lengths: Queue is `from multiprocessing import Queue`, "
            "but it is `from queue import Queue`, too",
        ),
        (
            {"units": "INCH = METRE = 1.0\nfor in_metres in range(3):\n    pass"},
            "fedsup_deploy.lengths: in_metres is defined in fedsup_deploy.lengths, "
            "but it is defined in fedsup_deploy.units, too",
        ),
    ],
    ids=["two functions", "value and import", "another name", "two imports", "loop"],
)
def test_name_of_two_things_is_refused(changed: dict[str, str], reason: str) -> None:
    with pytest.raises(PackingError) as caught:
        pack_of(**changed)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "statement",
    [
        "import torch",
        "from torch import nn",
        "import scipy.special",
        "from __future__ import annotations",
        "def load():\n    import torch",
        "try:\n    import yaml\nexcept ImportError:\n    pass",
    ],
)
def test_import_of_what_no_device_has_is_refused(statement: str) -> None:
    with pytest.raises(
        PackingError, match=r"^fedsup_deploy\.units:\d: .*: expected the standard library of Python 3\.6, "
    ):
        pack_of(units=f"{statement}\nINCH = METRE = 1.0")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("import fedsup_deploy.units", "expected `from MODULE import NAME` at the top of the module"),
        ("def load():\n    from fedsup_deploy.units import INCH", "expected `from MODULE import NAME` at the top"),
        ("from fedsup_deploy.units import *", "expected an absolute import of names, as they are"),
        ("from fedsup_deploy.units import INCH as ZOLL", "expected an absolute import of names, as they are"),
        ("from .units import INCH", "expected an absolute import of names, as they are"),
        ("if TYPE_CHECKING:\n    import json\nelse:\n    import yaml", "expected the standard library of Python 3.6"),
        ("import json as text", "expected an absolute import of names, as they are"),
        ("from fedsup_deploy.units import FOOT", "imports FOOT, which is no name that fedsup_deploy.units defines"),
        ("from fedsup_deploy.top import main", "imports itself by way of fedsup_deploy.top and fedsup_deploy.lengths"),
        ("import json; json.dumps(1)", "an import shares its line with something else"),
        ("if (size := 3) > 2:\n    pass", "in Python 3.6"),
        ("def add(one, /, other):\n    pass", "in Python 3.6"),
    ],
)
def test_what_cannot_be_put_together_is_refused(statement: str, reason: str) -> None:
    with pytest.raises(PackingError) as caught:
        pack_of(lengths=f"{LENGTHS}\n{statement}")
    assert str(caught.value).startswith("fedsup_deploy.")
    assert reason in str(caught.value)


def test_module_that_does_not_exist_is_refused() -> None:
    with pytest.raises(PackingError, match=r"^fedsup_deploy\.ondevice\.nothing: no such module$"):
        pack("fedsup_deploy.ondevice.nothing")
