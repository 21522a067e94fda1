"""Energy of one inference, where the machine has a sensor that can be read; nothing otherwise.

Owns the counters of Intel and AMD processors (RAPL) and the power sensors of Jetson modules (INA3221), both as files
below /sys. It never estimates: without a sensor, or with one that stands still, there is no figure, and a reason.
"""

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, List, NamedTuple, Optional, Tuple

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from typing_extensions import Protocol

    from fedsup_deploy.ondevice.records import EnergyRecord

    class EnergyMeter(Protocol):
        """Reads the energy that something takes."""

        @property
        def covers(self) -> str:
            """What the sensor sees: `package` (all of the processor, no memory or board) or `module` (the board)."""

        @property
        def source(self) -> str:
            """The kind of sensor."""

        def joules_during(self, work: Callable[[], object]) -> Optional[float]:
            """Return the energy taken while `work` runs, in J; None if the sensor stops answering."""


#: Where the system shows its devices.
SENSORS = Path("/sys")

_IDLE_SECONDS = 1.0
_RUN_SECONDS = 2.0
#: Time between two readings of a power sensor, which averages over a few ms itself.
_SAMPLE_SECONDS = 0.01
#: Names of the rail that feeds a whole Jetson module.
_MODULE_RAILS = ("VDD_IN", "POM_5V_IN")


class PackageMeter(NamedTuple):
    """Counters of the processor packages, in uJ, that start again at 0 beyond their range.

    Args:
        counters: The file and the range in uJ of each package.
    """

    counters: Tuple[Tuple[Path, int], ...]
    covers: str = "package"
    source: str = "RAPL"

    def joules_during(self, work: Callable[[], object]) -> Optional[float]:
        """Return the energy of all packages while `work` runs, in J. A counter may start again once meanwhile."""
        before = [_whole_number_in(path) for path, _ in self.counters]
        work()
        after = [_whole_number_in(path) for path, _ in self.counters]
        microjoules = 0.0
        for (_, size), start, end in zip(self.counters, before, after):
            if start is None or end is None:
                return None
            microjoules += end - start if end >= start else end - start + size
        return microjoules / 1e6


class RailMeter(NamedTuple):
    """The power sensor of a rail, read again and again.

    Args:
        files: Files whose numbers, multiplied, are the power.
        watts: Watts of a product of 1.
    """

    files: Tuple[Path, ...]
    watts: float
    covers: str = "module"
    source: str = "INA3221"

    def power_w(self) -> Optional[float]:
        """Return the power now, in W; None if the sensor does not answer."""
        power = self.watts
        for path in self.files:
            number = _whole_number_in(path)
            if number is None:
                return None
            power *= number
        return power

    def joules_during(self, work: Callable[[], object]) -> Optional[float]:
        """Return the energy of the rail while `work` runs, in J: the mean of its power times the time."""
        readings = [self.power_w()]  # type: List[Optional[float]]
        is_over = threading.Event()

        def read() -> None:
            while not is_over.wait(_SAMPLE_SECONDS):
                readings.append(self.power_w())

        reader = threading.Thread(target=read)
        reader.start()
        start = time.perf_counter()
        try:
            work()
        finally:
            seconds = time.perf_counter() - start
            is_over.set()
            reader.join()
        readings.append(self.power_w())  # or a sensor that stopped since the last reading would go unnoticed
        known = [power for power in readings if power is not None]
        return sum(known) / len(known) * seconds if len(known) == len(readings) else None


def open_meter(root: Path = SENSORS) -> "Optional[EnergyMeter]":
    """Return a meter of this machine, the one that covers most; None where there is no sensor that can be read.

    Args:
        root: Where the system shows its devices.
    """
    meters = (*_rails(root), *_packages(root))
    return meters[0] if meters else None


def add_energy_options(parser: "ArgumentParser", when: str = "") -> None:
    """Let a program be asked for the energy as well: `energy`, and `sensors`, where the system shows its devices."""
    parser.add_argument("--energy", action="store_true", help=f"{when}ask a sensor for the energy as well")
    parser.add_argument("--sensors", type=Path, default=SENSORS, metavar="FOLDER", help=f"of them (default {SENSORS})")


def energy_of(
    load: Callable[[], Callable[[], object]], sensors: Path = SENSORS
) -> "Tuple[Optional[EnergyRecord], Optional[str]]":
    """Return the energy of one run of a model on this machine, or None and why there is no figure.

    Args:
        load: Loads the model, where there is a sensor, and returns what runs it once.
        sensors: Where the system shows its devices.
    """
    meter = open_meter(sensors)
    if meter is None:
        return None, _why_no_meter(sensors)
    found = energy_per_inference(load(), meter)
    reason = None if found is not None else f"its {meter.source} sensor stopped answering, or stood still"
    return found, reason


def energy_words(energy: "Optional[EnergyRecord]", reason: Optional[str]) -> str:
    """Return what a sensor said, or why there is no figure."""
    if energy is None:
        return f"not measured: {reason}"
    net = f"{energy['net_energy_mj']:.4g} mJ above idle"
    return f"{energy['energy_mj']:.4g} mJ, {net}; {energy['source']} of the {energy['covers']}"


def energy_per_inference(
    run_once: Callable[[], object],
    meter: "EnergyMeter",
    idle_seconds: float = _IDLE_SECONDS,
    run_seconds: float = _RUN_SECONDS,
) -> "Optional[EnergyRecord]":
    """Return the energy of one run; None if the sensor stops answering, or stands still.

    Args:
        run_once: Runs the model once; it is warm.
        meter: The sensor.
        idle_seconds: How long the machine is left alone first, to know what it takes anyway.
        run_seconds: How long the model runs, at least.
    """
    idle, load = _Load(lambda: time.sleep(idle_seconds)), _Load(run_once, run_seconds)
    idle_j, joules = meter.joules_during(idle), meter.joules_during(load)
    if idle_j is None or joules is None or joules <= 0:
        return None
    idle_power_w = idle_j / idle.seconds
    return {
        "energy_mj": 1e3 * joules / load.num_runs,
        "net_energy_mj": 1e3 * (joules - idle_power_w * load.seconds) / load.num_runs,
        "idle_power_w": idle_power_w,
        "num_runs": load.num_runs,
        "seconds": load.seconds,
        "covers": meter.covers,
        "source": meter.source,
    }


class _Load:
    """Work that repeats a step for a time, at least once, and knows how often and how long."""

    def __init__(self, step: Callable[[], object], min_seconds: float = 0.0) -> None:
        self.step, self.min_seconds = step, min_seconds
        self.num_runs, self.seconds = 0, 0.0

    def __call__(self) -> None:
        start = time.perf_counter()
        while self.num_runs == 0 or self.seconds < self.min_seconds:
            self.step()
            self.num_runs += 1
            self.seconds = time.perf_counter() - start


def _why_no_meter(root: Path) -> str:
    """Return why there is no meter."""
    unreadable = [zone for zone in _zones(root) if _whole_number_in(zone / "energy_uj") is None]
    if unreadable and not os.access(str(unreadable[0] / "energy_uj"), os.R_OK):
        return f"its RAPL counters may not be read by this user ({unreadable[0] / 'energy_uj'})"
    return "no sensor that can be read: neither RAPL nor the INA3221 of a Jetson module"


def _zones(root: Path) -> List[Path]:
    """Return the folders of the processor packages."""
    return [
        zone
        for zone in sorted(root.glob("class/powercap/intel-rapl:*"))
        if zone.name.count(":") == 1 and _text_in(zone / "name").startswith("package")
    ]


def _packages(root: Path) -> "Iterator[EnergyMeter]":
    """Yield a meter of all processor packages, if every one can be read; their parts and other zones count twice."""
    zones = _zones(root)
    counters = [(zone / "energy_uj", _whole_number_in(zone / "max_energy_range_uj")) for zone in zones]
    known = tuple((path, size) for path, size in counters if size is not None and _whole_number_in(path) is not None)
    if counters and len(known) == len(counters):
        yield PackageMeter(known)


def _rails(root: Path) -> "Iterator[EnergyMeter]":
    """Yield meters of the rail that feeds the whole module, as newer and as older kernels of Jetson show it."""
    for label in sorted(root.glob("bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in*_label")):
        number = label.name[len("in") : -len("_label")]
        volts_amperes = tuple(label.with_name(f"{kind}{number}_input") for kind in ("in", "curr"))
        yield from _rail(label, (label.with_name(f"power{number}_input"),), 1e-6)
        yield from _rail(label, volts_amperes, 1e-6)
    for label in sorted(root.glob("bus/i2c/drivers/ina3221*/*/iio:device*/rail_name_*")):
        number = label.name.rpartition("_")[2]
        yield from _rail(label, (label.with_name(f"in_power{number}_input"),), 1e-3)


def _rail(label: Path, files: tuple[Path, ...], watts: float) -> "Iterator[EnergyMeter]":
    meter = RailMeter(files, watts)
    if _text_in(label) in _MODULE_RAILS and meter.power_w() is not None:
        yield meter


def _whole_number_in(path: Path) -> Optional[int]:
    text = _text_in(path)
    return int(text) if text.isdigit() else None


def _text_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
