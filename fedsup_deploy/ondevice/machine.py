"""What a machine says of itself, as far as a latency depends on it. It reports no host name, user name or path."""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Optional

from fedsup_deploy.ondevice.inference import PROVIDER, library_versions

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import Environment

_VNNI = frozenset(("avx512_vnni", "avx_vnni"))
_CPU_FREQUENCIES = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/"


def environment(threads: int, root: Path = Path("/")) -> "Environment":
    """Return what a latency depends on besides the model, as JSON values.

    Args:
        threads: Threads of the runtime.
        root: Where the files of the system are.

    Returns:
        Processor, cores, frequencies (in MHz), power mode, temperature (in °C), load, versions; None for what the
        system does not tell.

    Raises:
        ImportError: NumPy or onnxruntime is not installed.
    """
    cpuinfo = _cpuinfo(root)
    return {
        "device": _read(root / "proc/device-tree/model") or None,
        "cpu": _cpu_name(cpuinfo),
        "vnni": _has_vnni(cpuinfo),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "frequency_mhz": _highest(root, _CPU_FREQUENCIES + "scaling_cur_freq") or _frequency_mhz(cpuinfo),
        "frequency_max_mhz": _highest(root, _CPU_FREQUENCIES + "scaling_max_freq"),
        "power_mode": _read(root / "var/lib/nvpmodel/status") or None,
        "throttled": _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or None,
        "temperature_c": _highest(root, "sys/class/thermal/thermal_zone*/temp"),
        "load_average_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "machine": platform.machine(),
        "glibc": _glibc(),
        "python": platform.python_version(),
        **library_versions(),
        "provider": PROVIDER,
        "threads": threads,
    }


def memory_mib() -> int:
    """Return the memory of this machine, in MiB."""
    return max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20, 1)


def peak_rss_mib() -> Optional[float]:
    """Return the most memory this process ever held, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    units_per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units_per_mib, 1)


def _glibc() -> Optional[str]:
    """Return the version of the C library if it is glibc, as that says itself: old Pythons guess it wrong."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, OSError, ValueError):  # another system, or another C library
        return None
    return version if name == "glibc" and version else None


def _cpuinfo(root: Path) -> Dict[str, str]:
    """Return what the kernel says of the last processor."""
    fields = [line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines()]
    return {name.strip(): value.strip() for name, _, value in fields}


def _cpu_name(cpuinfo: Dict[str, str]) -> str:
    if cpuinfo.get("model name"):
        return cpuinfo["model name"]
    numbers = " ".join(f"{name} {cpuinfo[name]}" for name in ("CPU implementer", "CPU part") if name in cpuinfo)
    return numbers or platform.processor() or platform.machine()  # processors of ARM have numbers instead of names


def _has_vnni(cpuinfo: Dict[str, str]) -> Optional[bool]:
    """Return whether an x86 processor adds products of 8 bits in 32; None where it does not say what it can."""
    flags = cpuinfo.get("flags", "").split()
    return not _VNNI.isdisjoint(flags) if flags else None


def _frequency_mhz(cpuinfo: Dict[str, str]) -> Optional[float]:
    return float(cpuinfo.get("cpu MHz") or 0) or None


def _highest(root: Path, pattern: str) -> Optional[float]:
    """Return the highest of some readings, which are in thousandths of the unit; None where there are none."""
    readings = [_read(path) for path in root.glob(pattern)]
    return max((int(text) / 1000 for text in readings if text.lstrip("-").isdigit()), default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
