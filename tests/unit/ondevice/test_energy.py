"""Energy from files laid out like those of a machine with a sensor, by a clock that tests move."""

import functools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsup_deploy.ondevice import energy
from fedsup_deploy.ondevice.energy import PackageMeter, RailMeter, energy_of, energy_per_inference, open_meter

RANGE_UJ = 10_000


class Clock:
    """A clock that only sleeping moves, and at once. Of powers of two, sums of seconds are exact."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    clock = Clock()
    monkeypatch.setattr(energy, "time", clock)
    return clock


def write(root: Path, **contents: object) -> Path:
    """Write files into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (root / name).write_text(f"{content}\n")
    return root


def package(root: Path, index: int = 0, energy_uj: int = 0, name: str = "package-0") -> Path:
    zone = root / "class" / "powercap" / f"intel-rapl:{index}"
    return write(zone, name=name, energy_uj=energy_uj, max_energy_range_uj=RANGE_UJ)


def opened(root: Path) -> PackageMeter | RailMeter:
    meter = open_meter(root)
    assert meter is not None
    return meter


def test_without_a_sensor_there_is_no_meter(tmp_path: Path) -> None:
    assert open_meter(tmp_path) is None


def test_a_counter_that_cannot_be_read_is_no_sensor(tmp_path: Path) -> None:
    """As for users who are not root; also if only one of two packages can be read."""
    package(tmp_path, 0)
    (package(tmp_path, 1, name="package-1") / "energy_uj").unlink()
    assert open_meter(tmp_path) is None


def test_packages_add_up_and_their_parts_do_not(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, 100), package(tmp_path, 1, 200, "package-1")
    platform = package(tmp_path, 2, 0, "psys")
    cores = write(tmp_path / "class/powercap/intel-rapl:0:0", name="core", energy_uj=0, max_energy_range_uj=RANGE_UJ)

    def work() -> None:
        write(first, energy_uj=1100)
        write(second, energy_uj=2200)
        for other in (platform, cores):
            write(other, energy_uj=5000)

    meter = opened(tmp_path)
    expected = (1000 + 2000) / 1e6
    assert meter.joules_during(work) == pytest.approx(expected)
    assert (meter.covers, meter.source) == ("package", "RAPL")


def test_a_counter_that_starts_again_is_understood(tmp_path: Path) -> None:
    zone = package(tmp_path, energy_uj=9_000)
    expected = 3_000 / 1e6  # 1,000 to the end of the range, 2,000 from the start
    assert opened(tmp_path).joules_during(lambda: write(zone, energy_uj=2_000)) == pytest.approx(expected)


def test_a_counter_that_stops_answering_gives_no_figure(tmp_path: Path) -> None:
    zone = package(tmp_path)
    meter = opened(tmp_path)
    assert meter.joules_during((zone / "energy_uj").unlink) is None
    assert energy_per_inference(lambda: None, meter, 0.01, 0.01) is None


def test_a_counter_that_stands_still_gives_no_figure_and_not_zero(tmp_path: Path, clock: Clock) -> None:
    """As that of a virtual machine."""
    package(tmp_path)
    assert energy_of(lambda: lambda: clock.sleep(1), tmp_path) == (
        None,
        "its RAPL sensor stopped answering, or stood still",
    )


def test_without_a_figure_there_is_a_reason_and_nothing_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Callable[[], object]:
        raise AssertionError("there is nothing to ask")

    assert energy_of(load, tmp_path) == (
        None,
        "no sensor that can be read: neither RAPL nor the INA3221 of a Jetson module",
    )
    counter = package(tmp_path) / "energy_uj"
    counter.unlink()
    counter.mkdir()  # which root cannot read either
    monkeypatch.setattr(energy.os, "access", lambda *_: False)
    assert energy_of(load, tmp_path) == (None, f"its RAPL counters may not be read by this user ({counter})")


RAILS = "bus/i2c/drivers/ina3221"


@pytest.mark.parametrize(
    ("folder", "contents", "expected_w"),
    [
        ("ina3221/1-0040/hwmon/hwmon3", {"in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 800}, 4.0),
        ("ina3221/1-0040/hwmon/hwmon3", {"in2_label": "VDD_IN", "power2_input": 4_500_000}, 4.5),
        ("ina3221x/6-0040/iio:device0", {"rail_name_0": "POM_5V_IN", "in_power0_input": 2500}, 2.5),
    ],
)
def test_the_rail_of_a_module_is_a_sensor(
    tmp_path: Path, clock: Clock, folder: str, contents: dict[str, object], expected_w: float
) -> None:
    write(tmp_path / "bus/i2c/drivers" / folder, **contents)
    meter = opened(tmp_path)
    assert meter.joules_during(lambda: clock.sleep(0.5)) == pytest.approx(0.5 * expected_w)
    assert (meter.covers, meter.source) == ("module", "INA3221")


def test_the_rail_of_a_part_is_none(tmp_path: Path) -> None:
    write(tmp_path / RAILS / "1-0040/hwmon/hwmon3", in1_label="VDD_CPU_GPU_CV", in1_input=5000, curr1_input=800)
    assert open_meter(tmp_path) is None


def test_a_rail_that_stops_answering_gives_no_figure(tmp_path: Path) -> None:
    """However short the work."""
    rail = write(tmp_path / RAILS / "1-0040/hwmon/hwmon3", in1_label="VDD_IN", in1_input=5000, curr1_input=800)
    assert opened(tmp_path).joules_during((rail / "curr1_input").unlink) is None


def test_the_sensor_is_left_alone_after_work_that_fails(tmp_path: Path) -> None:
    write(tmp_path / RAILS / "1-0040/hwmon/hwmon3", in1_label="VDD_IN", in1_input=5000, curr1_input=800)
    before = threading.active_count()

    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        opened(tmp_path).joules_during(fail)
    assert threading.active_count() == before


class Hardware:
    """A counter that only sleeping and inferring move."""

    def __init__(self, zone: Path) -> None:
        self.zone, self.microjoules = zone, 0

    def take(self, microjoules: int) -> None:
        self.microjoules += microjoules
        write(self.zone, energy_uj=self.microjoules % RANGE_UJ)


def test_gross_is_all_that_was_taken_per_run(tmp_path: Path, clock: Clock) -> None:
    """Each run takes 5 uJ and 1/1024 s. Idle takes nothing, so net is the same."""
    hardware = Hardware(package(tmp_path))

    def run_once() -> None:
        hardware.take(5)
        clock.sleep(1 / 1024)

    found = energy_per_inference(run_once, opened(tmp_path), idle_seconds=1 / 64, run_seconds=1 / 8)
    assert found is not None
    assert (found["num_runs"], found["seconds"]) == (128, 1 / 8)
    assert found["energy_mj"] == pytest.approx(0.005)
    assert found["net_energy_mj"] == pytest.approx(0.005)
    assert (found["idle_power_w"], found["covers"], found["source"]) == (0.0, "package", "RAPL")


class Script:
    """A meter that reads given energies, one after the other."""

    covers = "module"
    source = "script"

    def __init__(self, *joules: float) -> None:
        self.joules = iter(joules)

    def joules_during(self, work: Callable[[], object]) -> float:
        work()
        return next(self.joules)


@pytest.mark.parametrize(("joules", "expected_mj", "expected_net_mj"), [(3.0, 375.0, 250.0), (0.5, 62.5, -62.5)])
def test_net_leaves_out_what_the_machine_takes_anyway(
    clock: Clock, joules: float, expected_mj: float, expected_net_mj: float
) -> None:
    """0.5 J in 1/16 s are 8 W. 8 runs take 1/8 s, in which that is 1 J: 125 mJ each. Net can be negative."""
    run_once, meter = functools.partial(clock.sleep, 1 / 64), Script(0.5, joules)
    found = energy_per_inference(run_once, meter, idle_seconds=1 / 16, run_seconds=1 / 8)
    assert found is not None
    assert (found["num_runs"], found["idle_power_w"]) == (8, 8.0)
    assert (found["energy_mj"], found["net_energy_mj"]) == (expected_mj, expected_net_mj)
