"""The kind of processor, told without torch, is the one that torch goes by."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from fedsup_deploy.processor import processor
found = processor()
assert "torch" not in sys.modules
import torch
print(found, torch.backends.cpu.get_cpu_capability(), sep="|")
"""


@pytest.mark.parametrize("capability", [None, "avx2", "default"])
def test_it_is_what_torch_says(capability: str | None) -> None:
    """Also where torch is told to use less than there is."""
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    environment |= {} if capability is None else {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    found, torch_says = done.stdout.strip().split("|")
    known = torch_says in ("AVX2", "AVX512")
    assert found == (f"{platform.machine()} {torch_says}" if known else platform.machine())
