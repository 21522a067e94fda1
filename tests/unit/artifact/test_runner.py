"""The arithmetic of measuring, on made samples."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from fedsup_deploy.artifact import runner


def test_quantiles_are_numpys() -> None:
    samples = [50, 10, 40, 20, 30]
    for share, expected in ((0.0, 10), (0.1, 14), (0.5, 30), (0.9, 46), (1.0, 50)):
        assert runner.quantile(samples, share) == pytest.approx(expected)
        assert runner.quantile(samples, share) == pytest.approx(float(np.quantile(samples, share)))
    assert runner.quantile([7], 0.9) == 7


def test_a_summary_is_in_ms() -> None:
    expected = {"num_runs": 5, "min_ms": 1.0, "p10_ms": 1.4, "p50_ms": 3.0, "p90_ms": 7.6, "mean_ms": 4.0}
    summary = runner.summarize([1_000_000, 2_000_000, 3_000_000, 4_000_000, 10_000_000])
    assert summary == pytest.approx(expected)


@pytest.mark.parametrize("num_runs", [64, 100, 200, 1024, 20_000, 1_000_000])
def test_the_bound_of_p90_has_the_rank_of_the_binomial(num_runs: int) -> None:
    """Times are their own ranks: the t-th largest of 1 .. n is n + 1 - t, by SciPy's distribution."""
    bound_ms = runner.p90_bound_ms(list(range(1, num_runs + 1)))
    assert bound_ms is not None
    t = num_runs + 1 - round(bound_ms * 1e6)
    assert binom.cdf(t, num_runs, 0.1) <= 0.01 < binom.cdf(t + 1, num_runs, 0.1)


def test_the_bound_of_p90_needs_64_runs() -> None:
    """P(X <= 1) of 64 trials of 0.1 is 0.9^64 + 64 * 0.1 * 0.9^63 = 0.0096; of 63 it is 0.0105."""
    assert runner.p90_bound_ms([1_000_000] * 63) is None
    assert runner.p90_bound_ms([1_000_000] * 63 + [5_000_000]) == 5.0
    assert runner.p90_bound_ms([]) is None


def test_a_session_whose_parts_agree_is_stable() -> None:
    result = runner.stability([[100, 100], [104, 104], [100, 900], [104, 104]], runner.pooled_p10, "p10")
    assert result["disagreement"] == pytest.approx(0.04)
    assert result["drift"] == pytest.approx(0.012)  # the first half has 100, the second 101.2
    assert (result["statistic"], result["verdict"]) == ("p10", "stable")


def test_a_session_whose_even_and_odd_visits_disagree_is_unstable() -> None:
    result = runner.stability([[100], [120], [100], [120]], runner.pooled_p10, "p10")
    assert result["disagreement"] == pytest.approx(0.2)
    assert result["verdict"] == "unstable"


def test_a_session_that_drifts_is_unstable() -> None:
    """Even and odd visits agree on what each half did."""
    result = runner.stability([[100], [100], [120], [120]], min_of_all, "min")
    assert (result["disagreement"], result["drift"]) == (0.0, pytest.approx(0.2))
    assert result["verdict"] == "unstable"


def min_of_all(visits: list[list[int]]) -> float:
    return min(min(visit) for visit in visits)


class Clock:
    """A clock that only running the model moves, by 10 ms."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.was_collecting: list[bool] = []

    def run_once(self) -> None:
        self.now_ns += 10_000_000
        self.was_collecting.append(gc.isenabled())

    def __call__(self) -> int:
        return self.now_ns


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "max_seconds", "expected_runs"),
    [(5, 0.0, 60.0, 5), (1, 0.1, 60.0, 10), (5, 0.1, 60.0, 10), (100, 0.1, 0.2, 20), (1, 0.0, 0.0, 1)],
)
def test_a_visit_ends_when_both_minima_are_reached_or_time_is_up(
    min_runs: int, min_seconds: float, max_seconds: float, expected_runs: int
) -> None:
    clock = Clock()
    samples = runner.time_visit(clock.run_once, min_runs, min_seconds, max_seconds, clock)
    assert samples == [10_000_000] * expected_runs


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "max_seconds", "expected_visits", "expected_runs"),
    [
        (1, 1.0, 60.0, 10, 10),  # visits of 0.1 s, 10 runs each
        (1, 0.1, 60.0, 10, 1),  # visits of 0.01 s
        (150, 1.0, 60.0, 20, 10),  # more runs are wanted: on to the next look
        (1000, 1.0, 0.5, 5, 10),  # time is up
        (1000, 1.0, 0.0, 2, 10),  # but two visits there are
    ],
)
def test_a_session_has_visits_that_together_reach_the_minima(
    min_runs: int, min_seconds: float, max_seconds: float, expected_visits: int, expected_runs: int
) -> None:
    clock = Clock()
    protocol = runner.Protocol("test", min_runs, min_seconds, settle_seconds=9.0, max_seconds=max_seconds)
    visits = runner.time_session(clock.run_once, protocol, clock)
    assert [len(visit) for visit in visits] == [expected_runs] * expected_visits


class DriftingClock(Clock):
    """A clock by which the model gets slower with every run, at first."""

    def __init__(self, until_run: int) -> None:
        super().__init__()
        self.until_run, self.runs = until_run, 0

    def run_once(self) -> None:
        self.runs += 1
        self.now_ns += 10_000_000 + 1_000_000 * min(self.runs, self.until_run)


def test_a_session_goes_on_until_its_parts_agree() -> None:
    """p10 of the halves of 10 visits differs; when most visits are of the last speed it does not."""
    clock = DriftingClock(until_run=20)
    visits = runner.time_session(clock.run_once, runner.Protocol("test", 1, 1.0, 60.0, 60.0), clock)
    found = runner.stability(visits, runner.pooled_p10, "p10")
    assert found["verdict"] == "stable"
    assert len(visits) > 10
    assert len(visits) % 10 == 0
    before = runner.stability(visits[:-10], runner.pooled_p10, "p10")
    assert before["verdict"] == "unstable"


def test_a_session_that_never_settles_ends() -> None:
    clock = DriftingClock(until_run=10**9)
    visits = runner.time_session(clock.run_once, runner.Protocol("test", 1, 1.0, 3.0, 60.0), clock)
    assert runner.stability(visits, runner.pooled_p10, "p10")["verdict"] == "unstable"
    seconds = sum(sum(visit) for visit in visits) / 1e9
    assert 3.0 <= seconds < 3.0 + 2 * 10 * runner.VISIT_SECONDS


def test_a_measurement_says_whether_the_minima_were_met() -> None:
    """A model that takes 10 ms gets ten runs in 0.1 s."""
    clock = Clock()
    protocol = runner.Protocol("test", min_runs=200, min_seconds=0.05, settle_seconds=0.05, max_seconds=0.1)
    latency = runner.measure_latency(clock.run_once, protocol, clock)
    assert latency["statistics"]["num_runs"] == 10
    assert (latency["is_min_runs_met"], latency["is_min_duration_met"]) == (False, True)
    assert latency["statistics"]["p90_bound_ms"] is None
    assert latency["protocol"] == {
        "batch": 1,
        "warm_up_runs": 50,
        "warm_up_seconds": 0.5,
        "name": "test",
        "min_runs": 200,
        "min_seconds": 0.05,
        "settle_seconds": 0.05,
        "max_seconds": 0.1,
    }


def test_visits_that_lie_apart_make_a_session_unstable_though_its_parts_agree() -> None:
    """Two speeds in turns, in pairs: parts agree to the last digit; of 20 visits the middle 80 % lie 20 % apart."""
    visits = [[100], [100], [120], [120]] * 5
    apart = runner.stability(visits, runner.pooled_p10, "p10", 0.10)
    assert (apart["disagreement"], apart["drift"], apart["spread"]) == (0.0, 0.0, pytest.approx(20 / 110))
    assert (apart["spread_within"], apart["verdict"]) == (0.10, "unstable")
    assert runner.stability(visits, runner.pooled_p10, "p10", 0.20)["verdict"] == "stable"
    assert runner.stability(visits, runner.pooled_p10, "p10")["verdict"] == "stable"


def test_the_warm_up_does_not_count() -> None:
    """50 runs of 10 ms warm up, and take 0.5 s; then come ten visits of 0.1 s."""
    clock = Clock()
    protocol = runner.Protocol("test", min_runs=1, min_seconds=1.0, settle_seconds=1.0, max_seconds=60.0)
    latency = runner.measure_latency(clock.run_once, protocol, clock)
    assert (latency["statistics"]["num_runs"], clock.now_ns) == (100, (50 + 100) * 10_000_000)


def test_garbage_is_not_collected_while_timing_and_is_afterwards() -> None:
    clock = Clock()
    assert gc.isenabled()
    runner.time_visit(clock.run_once, 3, 0.0, 1.0, clock)
    assert clock.was_collecting == [False] * 3
    assert gc.isenabled()


def test_garbage_collection_is_back_after_a_failing_run() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        runner.time_visit(fail, 1, 0.0, 1.0)
    assert gc.isenabled()


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.enable()


def test_garbage_collection_stays_off_if_it_was(collecting: None) -> None:
    gc.disable()
    runner.time_visit(Clock().run_once, 1, 0.0, 0.0)
    assert not gc.isenabled()


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
    "python",
    "numpy",
    "onnxruntime",
    "provider",
    "threads",
}


def test_the_environment_says_what_a_latency_depends_on() -> None:
    environment = runner.environment(3)
    assert set(environment) == ENVIRONMENT
    assert environment["cpu"]
    assert environment["threads"] == 3
    assert environment["numpy"] == np.__version__
    json.dumps(environment, allow_nan=False)


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
    environment = runner.environment(1, tmp_path)
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
    environment = runner.environment(1, tmp_path)
    assert (environment["cpu"], environment["frequency_mhz"]) == ("Some CPU", 2699.998)


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    environment = runner.environment(1, tmp_path)
    unknown = ("device", "governor", "frequency_mhz", "frequency_max_mhz", "power_mode", "throttled", "temperature_c")
    assert [environment[name] for name in unknown] == [None] * len(unknown)
    assert set(environment) == ENVIRONMENT


def test_peak_memory_is_at_least_what_is_held() -> None:
    held = np.ones(2**23)  # 64 MiB
    peak = runner.peak_rss_mib()
    assert peak is None or peak > held.nbytes / 2**20
