"""Does a change make training slower? Rounds by two checkouts in turn; prints a row for each subnet.

    python benchmarks/before_and_after.py --data FOLDER BEFORE/.venv/bin/fedsup-deploy AFTER/.venv/bin/fedsup-deploy

Each program trains one round of federated averaging on the shipped config for Fashion-MNIST, where all clients train
the smallest subnet or all the largest, in one worker with one thread. Both train the same images, so the ratio of
seconds of a round, its evaluation of few images included, is that of images per second. The interval is that of the
median, of 95 %, by bootstrap. A program of an older commit needs an environment of its own, with its checkout
installed there.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

#: Clients of a round for each subnet: about as many seconds each.
CLIENTS = {"smallest": 10, "largest": 3}


def main() -> None:
    """Print a row for each subnet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder of Fashion-MNIST's four files")
    parser.add_argument("--pairs", type=int, default=20)
    arguments = parser.parse_args()
    programs = {"before": arguments.before, "after": arguments.after}
    print("| subnet | pairs | images/s, after : before, median | 95 % interval |\n| --- | --- | --- | --- |")
    for subnet, clients in CLIENTS.items():
        ratios = []
        for pair in range(arguments.pairs):
            order = list(programs) if pair % 2 else list(reversed(programs))
            seconds = {name: seconds_of_round(programs[name], arguments.data, subnet, clients) for name in order}
            ratios.append(seconds["before"] / seconds["after"])
        low, high = interval_of_median(np.array(ratios))
        print(f"| {subnet} | {len(ratios)} | {np.median(ratios):.3f} | {low:.3f} to {high:.3f} |", flush=True)


def seconds_of_round(program: Path, data: Path, subnet: str, clients: int) -> float:
    """Return the seconds of the only round of a run by this program."""
    settings = {
        "data.root": str(data.resolve()),
        "data.validation_fraction": "0.01",
        "training.rounds": "1",
        "training.warmup_rounds": "0",
        "training.evaluate_every": "1",
        "training.clients_per_round": str(clients),
        "strategy": f"{{name: fedavg, architecture: {subnet}}}",
        "engine.workers": "1",
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [str(program), "train", "--config", "fashion-mnist", *options, "--out", str(run), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    (seconds,) = (event["seconds"] for event in events if event["event"] == "round")
    return float(seconds)


def interval_of_median(values: np.ndarray) -> tuple[float, float]:
    """Return the bounds of the 95 % interval of the median of `values`, by bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
