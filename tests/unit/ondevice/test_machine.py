"""What a machine says of itself, read from files laid out like its own."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fedsup_deploy.ondevice import machine

ENVIRONMENT = {
    "device",
    "cpu",
    "cores",
    "cores_allowed",
    "governor",
    "frequency_mhz",
    "frequency_max_mhz",
    "power_mode",
    "throttled",
    "temperature_c",
    "load_average_1m",
    "system",
    "machine",
    "glibc",
    "vnni",
    "python",
    "numpy",
    "onnxruntime",
    "provider",
    "threads",
}


def test_the_environment_says_what_a_latency_depends_on() -> None:
    environment = machine.environment(3)
    assert set(environment) == ENVIRONMENT
    assert environment["cpu"]
    assert environment["threads"] == 3
    assert environment["numpy"] == np.__version__
    json.dumps(environment, allow_nan=False)


def test_the_c_library_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one has no such name, or says nothing under it."""
    monkeypatch.setattr(os, "confstr", lambda name: {"CS_GNU_LIBC_VERSION": "glibc 2.27"}[name])
    assert machine.environment(1)["glibc"] == "2.27"
    for answer in (None, "", "musl 1.2"):
        monkeypatch.setattr(os, "confstr", lambda _, answer=answer: answer)
        assert machine.environment(1)["glibc"] is None
    monkeypatch.setattr(os, "confstr", lambda _: int("unrecognized configuration name"))
    assert machine.environment(1)["glibc"] is None
    monkeypatch.delattr(os, "confstr")
    assert machine.environment(1)["glibc"] is None


def test_the_environment_of_a_board_is_read_from_its_files(tmp_path: Path) -> None:
    """Laid out like a Raspberry Pi with Jetson's power mode; core 1 is the faster one."""
    contents = {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq": "1800000\n",
        "sys/class/thermal/thermal_zone0/temp": "51234\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
        "var/lib/nvpmodel/status": "pmode:0001\n",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    environment = machine.environment(1, tmp_path)
    expected = {
        "device": "Raspberry Pi 4 Model B Rev 1.4",
        "cpu": "CPU implementer 0x41 CPU part 0xd08",
        "governor": "ondemand",
        "frequency_mhz": 1500.0,
        "frequency_max_mhz": 1800.0,
        "temperature_c": 51.234,
        "throttled": "50000",
        "power_mode": "pmode:0001",
    }
    assert {name: environment[name] for name in expected} == expected


def test_the_frequency_of_a_virtual_machine_is_that_of_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Some CPU\ncpu MHz\t\t: 2699.998\n")
    environment = machine.environment(1, tmp_path)
    assert (environment["cpu"], environment["frequency_mhz"]) == ("Some CPU", 2699.998)


def test_an_x86_processor_says_whether_it_has_vnni(tmp_path: Path) -> None:
    """Of either kind; one of ARM says other things of itself, and nothing of that."""
    (tmp_path / "proc").mkdir()
    for cpuinfo, expected in (
        ("flags\t\t: fpu avx2 avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx_vnni\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd asimddp\n", None),
    ):
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
        assert machine.environment(1, tmp_path)["vnni"] is expected


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    environment = machine.environment(1, tmp_path)
    of_the_clock = ("governor", "frequency_mhz", "frequency_max_mhz", "power_mode", "throttled", "temperature_c")
    unknown = ("device", "vnni", *of_the_clock)
    assert [environment[name] for name in unknown] == [None] * len(unknown)
    assert set(environment) == ENVIRONMENT


def test_peak_memory_is_at_least_what_is_held() -> None:
    held = np.ones(2**23)  # 64 MiB
    peak = machine.peak_rss_mib()
    assert peak is None or peak > held.nbytes / 2**20
