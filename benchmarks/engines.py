"""What does an engine cost, beside what clients compute?

    python benchmarks/engines.py [--rounds 10] [--server SERVER_CONFIG]

Trains the digits over 20 clients, of which 4 take part in a round and all train the smallest subnet, by each engine in
turn: in this process, with two workers, and simulated by Flower where that is installed. Printed are the median seconds
of a round after the first, those until the first round was done, and the bytes of one client and round. With a config
of a server whose devices are connected (docs/fleet.md), a run over these is the last row.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.files import sha256
from fedsup_deploy.runs.run import SUPERNET

CONFIG = """
schema: 1
name: engines
space: digits
data: {dataset: digits}
partition: {kind: iid, num_clients: 20}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}]}
training: {rounds: ROUNDS, clients_per_round: 4, warmup_rounds: 0, evaluate_every: 1000, checkpoint_every: 1000}
"""


def measured(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Train, and return what a round costs and what came of it."""
    rounds: list[dict[str, Any]] = []
    begun = time.perf_counter()
    first_s = 0.0

    def listen(event: dict[str, Any]) -> None:
        nonlocal first_s
        if event["event"] == "round":
            first_s = first_s or time.perf_counter() - begun
            rounds.append(event)

    train(config, folder, listeners=(listen,))
    return {
        "seconds": statistics.median(event["seconds"] for event in rounds[1:]),
        "first_s": first_s,
        "bytes": (rounds[0]["bytes_down"] + rounds[0]["bytes_up"]) / len(rounds[0]["clients"]),
        "supernet": sha256(folder / SUPERNET)[:8],
    }


def main() -> None:
    """Print a row for each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--server", type=Path, help="config of a server whose devices are connected")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    engines = {"in this process": ["engine.workers=1"], "two workers": ["engine.workers=2"]}
    if importlib.util.find_spec("ray") is not None:
        engines["Flower, simulated"] = ["engine.name=flower"]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "engines.yaml"
        path.write_text(CONFIG.replace("ROUNDS", str(given.rounds)), encoding="utf-8")
        for number, (engine, overrides) in enumerate(engines.items()):
            show(engine, measured(load_train_config(path, overrides), Path(name) / str(number)))
        if given.server is not None:
            config = load_train_config(given.server, [f"training.rounds={given.rounds}", "training.warmup_rounds=0"])
            show("Flower, devices", measured(config, Path(name) / "devices"))


def show(engine: str, found: dict[str, Any]) -> None:
    """Print a row."""
    seconds = f"{found['seconds']:.2f} s a round, {found['first_s']:.1f} s to the first"
    print(f"{engine:<18} {seconds}, {found['bytes']:,.0f} bytes a client; supernet {found['supernet']}", flush=True)


if __name__ == "__main__":
    main()
