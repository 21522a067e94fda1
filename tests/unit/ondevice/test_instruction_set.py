"""Whether a machine may be a device, by the instruction sets of both."""

import platform
from typing import Any

import pytest

from fedsup_deploy.ondevice.instruction_set import device_here, may_be_device, why_not_device


@pytest.mark.parametrize(
    ("arch", "arch_here", "expected"),
    [
        ("aarch64", "aarch64", True),
        ("aarch64", "x86_64", False),
        ("x86_64", "aarch64", False),
        (None, "x86_64", True),
        # The same by the names of other systems.
        ("x86_64", "AMD64", True),
        ("aarch64", "arm64", True),
        ("arm64", "aarch64", True),
        # A system of 32 bits runs other programs.
        ("aarch64", "armv7l", False),
        ("x86_64", "i686", False),
    ],
)
def test_a_machine_of_another_instruction_set_is_not_the_device(arch: Any, arch_here: str, expected: bool) -> None:
    assert may_be_device(arch, arch_here) is expected


def test_why_it_is_not_the_device_names_both() -> None:
    found = device_here("riscv64")
    assert found == {"arch": "riscv64", "arch_here": platform.machine(), "may_be_here": False}
    told = why_not_device(found)
    assert told is not None
    assert told.startswith(f"not the device ({platform.machine()} here, riscv64 there): ")
    assert why_not_device(device_here(platform.machine())) is None
    assert why_not_device(device_here(None)) is None


def test_no_terminal_obeys_what_a_forged_manifest_names() -> None:
    assert device_here("\x1b[2Jevil")["arch"] == "\\x1b[2Jevil"
