"""What class weights and logit adjustment do where one class has 39 images of 40. Trains all; prints a row for each.

    python benchmarks/imbalance.py [--data FOLDER_WITH_THE_FOUR_IDX_FILES] [--rare 8] [--seeds 3] [--out RUNS]

Two classes are made of the ten of the bundled digits, or of Fashion-MNIST with --data: one of them, the rare one, and
all others together. Clients train on 195 images of these for 5 of the rare one, drawn by the first seed. What is left
of the rare class joins the test images, so that its recall is of many; balanced accuracy and recalls do not depend on
how many there are of each class, accuracy does. Everything else is as in the shipped config. Figures are those of
`fedsup-deploy evaluate`, each with the 95 % interval of one run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.data.dataset import DatasetSplits, load_dataset

PROGRAM = Path(sys.executable).with_name("fedsup-deploy")
#: Images of the rare class for so many of all others.
RARE, COMMON = 5, 195
#: What each run sets in the config.
RUNS: dict[str, dict[str, str]] = {
    "plain": {"training.logit_adjustment": "false"},
    "class weights": {"training.logit_adjustment": "false", "training.class_weights": "true"},
    "logit adjustment": {},
}


def main() -> None:
    """Train what is not there yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST; by default the bundled digits are taken")
    parser.add_argument("--rare", type=int, default=8, help="label of the rare class")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, with the seeds 0, 1, ...")
    parser.add_argument("--partition", choices=("dirichlet", "iid"), default="dirichlet", help="who holds which images")
    parser.add_argument("--arch", default="largest", help="the subnet that is evaluated")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of all runs")
    parser.add_argument("--only", action="append", choices=RUNS, help="a run; may be given again")
    parser.add_argument("--out", type=Path, help="where runs are kept; by default they are not")
    options = parser.parse_args()
    config = "digits" if options.data is None else "fashion-mnist"
    splits = load_dataset(config, options.data)
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        archive = out / f"{config}-{options.rare}.npz"
        _write(archive, splits, options.rare)
        print("| training | balanced accuracy | rare class | others | accuracy | calibration error |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name in options.only or RUNS:
            found = [_result(options, config, archive, out, name, seed) for seed in range(options.seeds)]
            print(_row(name, found), flush=True)


def _write(path: Path, splits: DatasetSplits, rare: int) -> None:
    """Write the two classes as an archive."""
    train, test = splits.train, splits.test
    of_rare, of_others = np.flatnonzero(train.labels_N == rare), np.flatnonzero(train.labels_N != rare)
    drawn = rng.generator(0, "imbalance").permutation(of_rare)
    count = round(len(of_others) * RARE / COMMON)
    kept = np.sort(np.concatenate([of_others, drawn[:count]]))
    rest = train.take(np.sort(drawn[count:]))
    arrays = {
        "train_images": train.images_NHWC[kept],
        "train_labels": (train.labels_N[kept] == rare).astype(np.uint8),
        "test_images": np.concatenate([test.images_NHWC, rest.images_NHWC]),
        "test_labels": (np.concatenate([test.labels_N, rest.labels_N]) == rare).astype(np.uint8),
        "classes": np.array(["others", train.classes[rare]]),
    }
    np.savez_compressed(path, **arrays)


def _result(options: argparse.Namespace, config: str, archive: Path, out: Path, name: str, seed: int) -> dict[str, Any]:
    """Return what `evaluate` says of a run, which is trained unless it is there."""
    run = out / f"{archive.stem}-{options.partition}-{name.replace(' ', '-')}-{seed}"
    settings = {
        "data.dataset": "npz",
        "data.root": str(archive.resolve()),
        **({"partition": "{kind: iid, num_clients: 20}"} if options.partition == "iid" else {}),
        **RUNS[name],
    }
    if not (run / "supernet.safetensors").exists():
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        words += [word for setting in options.settings for word in ("--set", setting)]
        _command("train", "--config", config, "--seed", str(seed), "--out", str(run), "--resume", *words)
    return json.loads(_command("evaluate", str(run), "--arch", options.arch))


def _command(*words: str) -> str:
    ran = subprocess.run([PROGRAM, *words, "--json", "--quiet"], check=True, stdout=subprocess.PIPE, text=True)
    return ran.stdout


def _row(name: str, found: list[dict[str, Any]]) -> str:
    measures = [each["measures"] for each in found]
    recalls = [[each["classes"][label]["recall"] for each in measures] for label in (1, 0)]
    balanced = [
        f"{100 * each['balanced_accuracy']:.1f} ({100 * each['balanced_accuracy_interval'][0]:.1f}-"
        f"{100 * each['balanced_accuracy_interval'][1]:.1f})"
        for each in measures
    ]
    cells = [
        " ".join(balanced),
        *(" ".join(f"{100 * recall:.1f}" for recall in of_class) for of_class in recalls),
        " ".join(f"{100 * each['accuracy']:.1f}" for each in found),
        " ".join(f"{100 * each['calibration_error']:.1f}" for each in measures),
    ]
    return f"| {name} | {' | '.join(f'{cell} %' for cell in cells)} |"


if __name__ == "__main__":
    main()
