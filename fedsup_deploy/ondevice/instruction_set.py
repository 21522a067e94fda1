"""Whether a machine may be the device that a bundle is for: one of another instruction set is not.

That is all both always say of themselves. Everything that judges a device by what a machine does asks here.
"""

import platform
from types import MappingProxyType
from typing import TYPE_CHECKING, Optional

from fedsup_deploy.ondevice.printable import printable

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import DeviceHere

#: As systems other than Linux name an instruction set, in small letters -> as `uname -m` does.
_NAMES_OF_LINUX = MappingProxyType({"amd64": "x86_64", "arm64": "aarch64"})


def instruction_set(name: str) -> str:
    """Return the one name of an instruction set that a system may have another for."""
    return _NAMES_OF_LINUX.get(name.lower(), name.lower())


def may_be_device(arch: Optional[str], arch_here: str) -> bool:
    """Return whether a machine may be a device.

    Args:
        arch: Instruction set of the device, by any of its names; None, which nobody knows, may be any.
        arch_here: That of the machine.
    """
    return arch is None or instruction_set(arch) == instruction_set(arch_here)


def device_here(arch: Optional[str]) -> "DeviceHere":
    """Return whether this machine may be a device of an instruction set; None where nobody knows that."""
    arch_here = platform.machine()
    shown = None if arch is None else printable(arch)
    return {"arch": shown, "arch_here": arch_here, "may_be_here": may_be_device(arch, arch_here)}


def why_not_device(device: "DeviceHere") -> Optional[str]:
    """Return on one line that this machine is not the device, and what that means; None where it may be."""
    if device["may_be_here"]:
        return None
    arches = f"{device['arch_here']} here, {device['arch']} there"
    return f"not the device ({arches}): times say nothing of it, and releases that fail there may run"
