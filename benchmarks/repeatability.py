"""Which statistic of a latency repeats itself in another process, minutes later? `python benchmarks/repeatability.py`.

The same networks are timed in several processes, minutes apart: in turns, with a ruler (a fixed network, timed between
every four others), and each alone by the protocol `quick` of `fedsup-deploy measure`. For each statistic it prints the
share of networks on which two sessions agree within 5 % and 10 %, and their rank correlation: over all pairs of
sessions the median, and the worst. Of `quick` it also prints how often the verdict was `unstable`.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.building.graph import write_graph
from fedsup_deploy.device.building.plan import plan_build
from fedsup_deploy.device.heldout import spearman
from fedsup_deploy.resources import find
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace

Visits = Sequence[Mapping[str, Any]]
STATISTICS: dict[str, Callable[[Visits], float]] = {
    "minimum of all runs": lambda visits: min(visit["min_ms"] for visit in visits),
    "minimum of p10": lambda visits: min(visit["p10_ms"] for visit in visits),
    "median of p10": lambda visits: statistics.median(visit["p10_ms"] for visit in visits),
    "median of p50": lambda visits: statistics.median(visit["p50_ms"] for visit in visits),
    "median of p10 / ruler": lambda visits: statistics.median(_ratio(visit) for visit in visits),
    "the same, steady ruler": lambda visits: statistics.median(_ratio(visit) for visit in _steady(visits)),
}


def main() -> None:
    """Run the sessions and print how far they agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--minutes-apart", type=float, default=2.0, help="pause between two sessions")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_networks(folder, options.networks)
        sessions, quick = [], []
        for index in range(options.sessions):
            if index:
                time.sleep(60 * options.minutes_apart)
            started = time.perf_counter()
            sessions.append(in_turns(folder, options.rounds))
            seconds = time.perf_counter() - started
            quick.append(events(folder, "--protocol", "quick"))
            whole = time.perf_counter() - started
            print(f"session {index + 1}: in turns {seconds:.0f} s, quick {whole - seconds:.0f} s", file=sys.stderr)
    print(f"{'statistic':24} {'within 5 %':>18} {'within 10 %':>18} {'rank correlation':>20}   (median, worst pair)")
    for what, statistic in STATISTICS.items():
        report(what, [{model: statistic(visits) for model, visits in session.items()} for session in sessions])
    for what in ("min_ms", "p10_ms", "p50_ms"):
        report(f"quick: {what}", [{one["model"]: one["statistics"][what] for one in session} for session in quick])
    unstable = [[one["stability"]["verdict"] == "unstable" for one in session] for session in quick]
    print("quick: unstable verdicts per session:", ", ".join(f"{np.mean(of):.0%}" for of in unstable))
    report_trusted(quick)


def write_networks(folder: Path, count: int) -> None:
    """Write random networks of the paper's space, and the ruler."""
    space = validate(load_yaml(find("configs/spaces", "fedsup-mobilenet")), SearchSpace)
    for index, network in enumerate(plan_build(space, num_heldout=count).heldout):
        write_graph(parts_of(space.plan(network)), folder / f"network-{index:03d}.onnx", index)
    write_graph(parts_of(space.plan(space.largest)), folder / "ruler.onnx")


def in_turns(folder: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return the visits of a session in a process of its own, by model."""
    visits: dict[str, list[dict[str, Any]]] = {}
    for event in events(folder, "--ruler", "ruler", "--rounds", str(rounds), "--visit-seconds", "0.012"):
        if event["event"] == "visit":
            visits.setdefault(event["model"], []).append(event)
    return visits


def events(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Return what a session in a process of its own reports."""
    command = [sys.executable, "-m", "fedsup_deploy.device.session", str(folder), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def report(what: str, sessions: Sequence[Mapping[str, float]]) -> None:
    """Print how well pairs of sessions agree, each a time per network."""
    found = []
    for first, second in itertools.combinations(sessions, 2):
        a, b = (np.array([session[model] for model in sorted(first)]) for session in (first, second))
        off = np.abs(a / b - 1)
        found.append((np.mean(off <= 0.05), np.mean(off <= 0.10), spearman(list(a), list(b)) or 0.0))
    middle, worst = np.median(found, axis=0), np.min(found, axis=0)
    within_5, within_10 = (f"{middle[i]:>10.0%} {worst[i]:>7.0%}" for i in (0, 1))
    print(f"{what:24} {within_5} {within_10} {middle[2]:>12.3f} {worst[2]:>7.3f}", flush=True)


def report_trusted(sessions: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Print of how many networks two sessions agree or at least one says that it is unstable."""
    num_pairs = num_stable = num_agree = 0
    for first, second in itertools.combinations(sessions, 2):
        for one, other in zip(first, second, strict=True):
            num_pairs += 1
            is_stable = one["stability"]["verdict"] == other["stability"]["verdict"] == "stable"
            num_stable += is_stable
            num_agree += is_stable and abs(one["statistics"]["p10_ms"] / other["statistics"]["p10_ms"] - 1) <= 0.10
    honest = (num_pairs - num_stable + num_agree) / num_pairs
    print(f"quick: of {num_pairs} pairs {num_stable} stable twice, {num_agree} of them within 10 % (p10)")
    print(f"quick: within 10 %, or called unstable: {honest:.1%}")


def _ratio(visit: Mapping[str, Any]) -> float:
    return float(visit["p10_ms"] / statistics.mean(visit["ruler_ms"]))


def _steady(visits: Visits) -> Visits:
    steady = [visit for visit in visits if abs(np.diff(visit["ruler_ms"])[0]) <= 0.05 * min(visit["ruler_ms"])]
    return steady or visits


if __name__ == "__main__":
    main()
