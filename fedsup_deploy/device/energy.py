"""Energy of one inference, where the machine has a sensor that can be read; nothing otherwise.

Owns the counters of Intel and AMD processors (RAPL) and the power sensors of Jetson modules (INA3221), both as files
below /sys. It never estimates: without a sensor there is no figure.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from fedsup_deploy.artifact.measured import MeasuredEnergy

_IDLE_SECONDS = 1.0
_RUN_SECONDS = 2.0
#: Time between two readings of a power sensor, which averages over a few ms itself.
_SAMPLE_SECONDS = 0.01
#: Names of the rail that feeds a whole Jetson module.
_MODULE_RAILS = ("VDD_IN", "POM_5V_IN")


class EnergyMeter(Protocol):
    """Reads the energy that something takes."""

    @property
    def covers(self) -> str:
        """What the sensor sees: `package` (all of the processor, no memory or board) or `module` (the whole board)."""

    @property
    def source(self) -> str:
        """The kind of sensor."""

    def joules_during(self, work: Callable[[], object]) -> float | None:
        """Return the energy taken while `work` runs, in J; None if the sensor stops answering."""


@dataclasses.dataclass(frozen=True)
class PackageMeter:
    """Counters of the processor packages, in uJ, that start again at 0 beyond their range.

    Args:
        counters: The file and the range in uJ of each package.
    """

    counters: tuple[tuple[Path, int], ...]
    covers: str = "package"
    source: str = "RAPL"

    def joules_during(self, work: Callable[[], object]) -> float | None:
        """Return the energy of all packages while `work` runs, in J. A counter may start again once meanwhile."""
        before = [_number(path) for path, _ in self.counters]
        work()
        after = [_number(path) for path, _ in self.counters]
        microjoules = 0.0
        for (_, size), start, end in zip(self.counters, before, after, strict=True):
            if start is None or end is None:
                return None
            microjoules += end - start if end >= start else end - start + size
        return microjoules / 1e6


@dataclasses.dataclass(frozen=True)
class RailMeter:
    """The power sensor of a rail, read again and again.

    Args:
        files: Files whose numbers, multiplied, are the power.
        watts: Watts of a product of 1.
    """

    files: tuple[Path, ...]
    watts: float
    covers: str = "module"
    source: str = "INA3221"

    def power_w(self) -> float | None:
        """Return the power now, in W; None if the sensor does not answer."""
        power = self.watts
        for path in self.files:
            number = _number(path)
            if number is None:
                return None
            power *= number
        return power

    def joules_during(self, work: Callable[[], object]) -> float | None:
        """Return the energy of the rail while `work` runs, in J: the mean of its power times the time."""
        readings: list[float | None] = [self.power_w()]
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


def open_meter(root: Path = Path("/sys")) -> EnergyMeter | None:
    """Return a meter of this machine, the one that covers most; None where there is no sensor that can be read.

    Args:
        root: Where the system shows its devices.
    """
    meters = (*_rails(root), *_packages(root))
    return meters[0] if meters else None


def energy_per_inference(
    run_once: Callable[[], object],
    meter: EnergyMeter,
    idle_seconds: float = _IDLE_SECONDS,
    run_seconds: float = _RUN_SECONDS,
) -> MeasuredEnergy | None:
    """Return the energy of one run; None if the sensor stops answering.

    Args:
        run_once: Runs the model once; it is warm.
        meter: The sensor.
        idle_seconds: How long the machine is left alone first, to know what it takes anyway.
        run_seconds: How long the model runs, at least.
    """
    idle, load = _Load(lambda: time.sleep(idle_seconds)), _Load(run_once, run_seconds)
    idle_j, joules = meter.joules_during(idle), meter.joules_during(load)
    if idle_j is None or joules is None:
        return None
    idle_power_w = idle_j / idle.seconds
    return MeasuredEnergy(
        energy_mj=1e3 * joules / load.num_runs,
        net_energy_mj=1e3 * (joules - idle_power_w * load.seconds) / load.num_runs,
        idle_power_w=idle_power_w,
        num_runs=load.num_runs,
        seconds=load.seconds,
        covers=meter.covers,
        source=meter.source,
    )


@dataclasses.dataclass
class _Load:
    """Work that repeats a step for a time, at least once, and knows how often and how long."""

    step: Callable[[], object]
    min_seconds: float = 0.0
    num_runs: int = 0
    seconds: float = 0.0

    def __call__(self) -> None:
        start = time.perf_counter()
        while self.num_runs == 0 or self.seconds < self.min_seconds:
            self.step()
            self.num_runs += 1
            self.seconds = time.perf_counter() - start


def _packages(root: Path) -> Iterator[EnergyMeter]:
    """Yield a meter of all processor packages, if every one can be read; their parts and other zones count twice."""
    zones = [
        zone
        for zone in sorted(root.glob("class/powercap/intel-rapl:*"))
        if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")
    ]
    counters = [(zone / "energy_uj", _number(zone / "max_energy_range_uj")) for zone in zones]
    known = tuple((path, size) for path, size in counters if size is not None and _number(path) is not None)
    if counters and len(known) == len(counters):
        yield PackageMeter(known)


def _rails(root: Path) -> Iterator[EnergyMeter]:
    """Yield meters of the rail that feeds the whole module, as newer and as older kernels of Jetson show it."""
    for label in sorted(root.glob("bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in*_label")):
        number = label.name[len("in") : -len("_label")]
        volts_amperes = tuple(label.with_name(f"{kind}{number}_input") for kind in ("in", "curr"))
        yield from _rail(label, (label.with_name(f"power{number}_input"),), 1e-6)
        yield from _rail(label, volts_amperes, 1e-6)
    for label in sorted(root.glob("bus/i2c/drivers/ina3221*/*/iio:device*/rail_name_*")):
        number = label.name.rpartition("_")[2]
        yield from _rail(label, (label.with_name(f"in_power{number}_input"),), 1e-3)


def _rail(label: Path, files: tuple[Path, ...], watts: float) -> Iterator[EnergyMeter]:
    meter = RailMeter(files, watts)
    if _text(label) in _MODULE_RAILS and meter.power_w() is not None:
        yield meter


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
