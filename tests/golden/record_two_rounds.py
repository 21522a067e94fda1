"""Record a short training run, to notice when the same config and seed no longer mean the same training.

    python tests/golden/record_two_rounds.py

writes `two_rounds.json` beside this file: per round who trained, with which step size, how many bytes travelled and the
loss; at the end the norm of every tensor and the accuracies. Only numbers that another processor reproduces to several
digits: bytes of weights would not be. Record again only when training is meant to change, and say so in the change log.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedsup_deploy import files
from fedsup_deploy.artifact import weights
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.events import read_events
from fedsup_deploy.runs.run import EVENTS, SUPERNET

HERE = Path(__file__).parent
KEPT = {
    "round": ("round", "clients", "learning_rate", "bytes_down", "bytes_up", "absent", "loss"),
    "evaluation": ("round", "accuracy_largest", "accuracy_smallest"),
}


def record() -> dict[str, Any]:
    """Train and return what is to be compared."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(load_train_config(HERE / "two_rounds.yaml"), run)
        arrays, _ = weights.read_arrays(run / SUPERNET, "supernet")
        events = [
            {"event": event["event"], **{key: event[key] for key in KEPT[event["event"]]}}
            for event in read_events(run / EVENTS)
            if event["event"] in KEPT
        ]
    norms = {name: float(np.linalg.norm(array.astype(np.float64))) for name, array in sorted(arrays.items())}
    return {"events": events, "norms": norms}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=HERE / "two_rounds.json")
    files.write_json(parser.parse_args().out, record())
