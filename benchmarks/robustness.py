"""What clients that fail, are silent or poison their updates cost in accuracy, with our defences and without.

    python benchmarks/robustness.py [--quick] [--seeds 5] [--share 0.3] [--only "mixed, checked" ...] [--out FOLDER]

Trains the shipped config `digits` in this process; with --quick the smallest subnet alone, by federated averaging over
ten clients that have as many images of all classes. In each round a share of the clients is at fault: all kinds of
faults mixed, or one kind alone. Printed are test accuracies, the mean of the largest and the smallest subnet if both
are trained; for all seeds together what was lost against clean runs of the same seeds, with the 95 % interval of
Student; and how many updates were rejected. Runs are kept in --out: what is there already is not trained again.
"""

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from faults import ENGINE, FAULTS, injected
from scipy import stats

from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.processor import processor

#: What is set of the section `averaging`.
PLAIN: Final = {"max_norm": "null"}
CHECKED: Final[dict[str, str]] = {}
TRIMMED: Final = {"clip_norm": "2", "trim": "0.2"}
HARD: Final = {"clip_norm": "2", "trim": "0.3"}
CLEAN: Final = "clean"
#: For each condition which faults there are, and the settings.
CONDITIONS: Final[dict[str, tuple[Sequence[str], dict[str, str]]]] = {
    CLEAN: ((), CHECKED),
    "clean, trimmed": ((), TRIMMED),
    "mixed, plain": (tuple(FAULTS), PLAIN),
    "mixed, checked": (tuple(FAULTS), CHECKED),
    "mixed, trimmed": (tuple(FAULTS), TRIMMED),
    **{f"{kind}, plain": ((kind,), PLAIN) for kind in FAULTS},
    **{f"{kind}, checked": ((kind,), CHECKED) for kind in FAULTS},
    **{f"{kind}, trimmed": ((kind,), TRIMMED) for kind in FAULTS},
    **{f"{kind}, trimmed harder": ((kind,), HARD) for kind in FAULTS},
}
USUAL: Final = tuple(CONDITIONS)[:5]
#: What --quick sets in the config.
QUICK: Final = (
    "strategy={name: fedavg, architecture: smallest}",
    "partition={kind: iid, num_clients: 10}",
    "training.rounds=8",
    "training.local_epochs=2",
    "training.warmup_rounds=1",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to: test accuracy, clients at fault, updates that were rejected, and that did not come."""

    accuracy: float
    faults: int
    rejected: int
    absent: int


def main() -> None:
    """Train what is not there yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train one small network for a few rounds")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each condition, with the seeds 0, 1, ...")
    parser.add_argument("--share", type=float, default=0.3, help="of the clients of a round that are at fault")
    parser.add_argument("--only", action="append", choices=CONDITIONS, help="a condition; may be given again")
    parser.add_argument("--out", type=Path, help="where runs are kept; by default they are not")
    options = parser.parse_args()
    print(f"share of clients at fault {options.share:g}, seeds 0 to {options.seeds - 1}, {processor()}\n")
    print("| condition | test accuracy | lost, points | 95 % interval | faults | rejected | absent |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        clean = [_outcome(out, CLEAN, seed, options.share, is_quick=options.quick) for seed in range(options.seeds)]
        for name in options.only or USUAL:
            found = [_outcome(out, name, seed, options.share, is_quick=options.quick) for seed in range(options.seeds)]
            print(_row(name, found, clean), flush=True)


def _outcome(out: Path, name: str, seed: int, share: float, *, is_quick: bool) -> Outcome:
    """Return what a run came to, which is trained unless it is there."""
    kinds, settings = CONDITIONS[name]
    run = out / f"{name.replace(',', '').replace(' ', '-')}-{seed}-{share:g}{'-quick' if is_quick else ''}"
    kept = out / f"{run.name}.json"
    if kept.exists():
        return Outcome(**json.loads(kept.read_text(encoding="utf-8")))
    overrides = [f"seed={seed}", f"engine.name={ENGINE}", "engine.workers=1", "training.evaluate_every=24"]
    overrides += QUICK if is_quick else ()
    overrides += [f"averaging.{key}={value}" for key, value in settings.items()]
    with injected(kinds, share if kinds else 0.0) as injection:
        trained = train(load_train_config("digits", overrides), run)
        subnets = ("smallest",) if is_quick else ("smallest", "largest")
        accuracy = statistics.mean(evaluate(run, arch).accuracy for arch in subnets)
    found = Outcome(accuracy, len(injection.done), trained.updates.rejected, trained.updates.absent)
    kept.write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")
    return found


def _row(name: str, found: Sequence[Outcome], clean: Sequence[Outcome]) -> str:
    lost = [100 * (before.accuracy - after.accuracy) for before, after in zip(clean, found, strict=True)]
    mean, interval = statistics.mean(lost), ""
    if len(lost) > 1:
        half = float(stats.t.ppf(0.975, len(lost) - 1)) * statistics.stdev(lost) / math.sqrt(len(lost))
        interval = f"{mean - half:+.2f} to {mean + half:+.2f}"
    accuracies = " ".join(f"{100 * each.accuracy:.1f}" for each in found)
    counts = " | ".join(str(sum(getattr(each, key) for each in found)) for key in ("faults", "rejected", "absent"))
    return f"| {name} | {accuracies} % | {mean:+.2f} | {interval} | {counts} |"


if __name__ == "__main__":
    main()
