"""Is one federated supernet as good as a network trained for each size? Trains both; prints a row for each subnet.

    python benchmarks/results.py --data FOLDER_WITH_THE_FOUR_IDX_FILES [--rounds 20] [--seeds 1]

All rows have the same images, clients, rounds and clients a round: federated averaging of the smallest and of the
largest subnet on all clients, of the largest on the clients that can train it (the second quarter, as in the tiers of
the shipped configs), and our supernets. By name there are more: our recipe without one of its parts, and the paper's
with one thing changed, which tell what it lacks. Runs are kept in --out: what is there already is not trained again.
Test accuracies are those of `fedsup-deploy evaluate`; an interval is that of Wilson for one run, of Student for a
difference over seeds, both of 95 %.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.runs.run import load_space
from fedsup_deploy.space import cost

PROGRAM = Path(sys.executable).with_name("fedsup-deploy")
PAPER = {"strategy.paper": "true"}
SMALLEST, LARGEST = "{architecture: smallest}", "{architecture: largest}"
#: What each run sets in the config, and the subnet it is for: None is all.
RUNS: dict[str, tuple[dict[str, str], str | None]] = {
    "FedAvg of the smallest": ({"strategy": "{name: fedavg, architecture: smallest}"}, "smallest"),
    "FedAvg of the largest": ({"strategy": "{name: fedavg, architecture: largest}"}, "largest"),
    "FedAvg of the largest, capable clients": (
        {"strategy": "{name: fedavg, architecture: largest, clients: [[25, 49]]}"},
        "largest",
    ),
    "E-FedSup": ({}, None),
    "FedSup": ({"strategy": "{name: fedsup, num_subnets: 3}"}, None),
    "E-FedSup, paper": (PAPER, None),
    "E-FedSup, all sizes from the start": ({"strategy.smallest_first": "0"}, None),
    "E-FedSup, averages only": ({"strategy.extrapolate": "false"}, None),
    "FedAvg of the smallest, extrapolated": (
        {"strategy": "{name: fedavg, architecture: smallest, extrapolate: true}"},
        "smallest",
    ),
    "paper, one of ten largest": ({**PAPER, "strategy.tiers": f"[{', '.join([SMALLEST] * 9 + [LARGEST])}]"}, None),
    "paper, half largest": ({**PAPER, "strategy.tiers": f"[{SMALLEST}, {LARGEST}]"}, None),
    "paper, no logit adjustment": ({**PAPER, "training.logit_adjustment": "false"}, None),
    "paper, half the rate": ({**PAPER, "training.learning_rate": "0.05"}, None),
    "paper, momentum 0.9": ({**PAPER, "training.momentum": "0.9"}, None),
    "paper, 256 calibration images": ({**PAPER, "calibration.samples_per_client": "256"}, None),
}
#: Those of a table that is made in a few minutes; the rest is asked for by name.
USUAL = tuple(RUNS)[:5]


def main() -> None:
    """Train what is not there yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the images")
    parser.add_argument("--config", default="fashion-mnist", help="a shipped config, or a file")
    parser.add_argument("--rounds", type=int, help="instead of the config's")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each strategy, with the seeds 0, 1, ...")
    parser.add_argument("--only", action="append", choices=RUNS, help="a run; may be given again")
    parser.add_argument("--out", type=Path, help="where runs are kept; by default they are not")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = _results(options, options.out or Path(scratch))
    _print_accuracies(found)
    if options.seeds > 1:
        _print_differences(found)


def _results(options: argparse.Namespace, out: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return what each seed gave, by strategy and subnet."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    subnets = {"smallest": "smallest", **_medium_subnets(options.config), "largest": "largest"}
    for seed in range(options.seeds):
        for name in options.only or USUAL:
            settings, only = RUNS[name]
            run = out / f"{name.lower().replace(' ', '-').replace(',', '')}-{seed}"
            trained = _train(options, run, seed, settings)
            for label, arch in subnets.items():
                if only in {None, label}:
                    score = _ask("evaluate", str(run), "--arch", arch)
                    found.setdefault((name, label), []).append({**trained, **score})
                    print(f"{name}, seed {seed}, {label}: {score['accuracy']:.4f}", file=sys.stderr)
    return found


def _medium_subnets(config_name: str) -> dict[str, str]:
    """Return the arch_id of the subnet of median MACs in each range of parameters that a tier of the config has."""
    config = load_train_config(config_name)
    space = load_space(config)
    genes_NG = space.enumerate_genes()
    costs = cost.costs(space, genes_NG)
    chosen = {}
    ranges = [tier["params"] for tier in config.model_dump()["strategy"]["tiers"] if "params" in tier]
    for index, (low, high) in enumerate(ranges, start=1):
        inside = np.flatnonzero((costs.num_params >= low) & (costs.num_params <= high))
        middle = inside[np.argsort(costs.num_macs[inside], kind="stable")[len(inside) // 2]]
        chosen[f"medium {index}"] = space.decode(genes_NG[middle]).arch_id
    return chosen


def _train(options: argparse.Namespace, run: Path, seed: int, settings: dict[str, str]) -> dict[str, Any]:
    changes = {"data.root": options.data.absolute(), "seed": seed, "training.rounds": options.rounds, **settings}
    sets = [word for key, value in changes.items() if value is not None for word in ("--set", f"{key}={value}")]
    return _ask("train", "--config", options.config, "--out", str(run), "--resume", *sets)


def _ask(*words: str) -> dict[str, Any]:
    ran = subprocess.run([PROGRAM, *words, "--json"], check=False, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"fedsup-deploy {' '.join(words)}: {ran.stderr.strip()}")
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def _print_accuracies(found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    print("| run | subnet | test accuracy | MB down | client MACs | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for (strategy, subnet), rows in found.items():
        low, high = _wilson(rows[0]["accuracy"], rows[0]["num_images"])
        interval = f" ({100 * low:.1f} to {100 * high:.1f})" if len(rows) == 1 else ""
        accuracies = " ".join(f"{100 * row['accuracy']:.2f}" for row in rows)
        bytes_down, macs, seconds = (
            statistics.mean(row[key] for row in rows) for key in ("bytes_down", "client_macs", "seconds")
        )
        amounts = f"{bytes_down / 1e6:.0f} | {macs / 1e12:.2f} T | {seconds:.0f}"
        print(f"| {strategy} | {subnet} | {accuracies} %{interval} | {amounts} |")


def _print_differences(found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Print each supernet's subnets against the networks that were trained alone, paired by seed."""
    alone = {key: rows for key, rows in found.items() if RUNS[key[0]][1] is not None}
    print("\n| subnet | against | mean difference, points | 95 % interval |\n| --- | --- | --- | --- |")
    for key, mine in found.items():
        for other, theirs in alone.items() if key not in alone else ():
            pairs = zip(mine, theirs, strict=True)
            points = [100 * (here["accuracy"] - there["accuracy"]) for here, there in pairs]
            low, high = _student(points)
            print(f"| {key[0]}, {key[1]} | {other[0]} | {statistics.mean(points):+.2f} | {low:+.2f} to {high:+.2f} |")


def _wilson(share: float, count: int) -> tuple[float, float]:
    interval = stats.binomtest(round(share * count), count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def _student(values: Sequence[float]) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values) - half, statistics.mean(values) + half


if __name__ == "__main__":
    main()
