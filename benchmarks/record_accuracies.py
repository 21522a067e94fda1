"""Measures every architecture of a space: `python benchmarks/record_accuracies.py RUN OUT --space FILE`.

Writes the table that `search_quality.py` and `latency_limits.py` search in: the genes in FILE's space, which is that of
the run or a part of it, the accuracy after one-shot recalibration, and the MACs. To measure thousands, it takes few
images: the first of the validation split, and statistics of the first clients only.
"""

import argparse
import csv
import dataclasses
import gzip
import io
from pathlib import Path

import numpy as np

from fedsup_deploy import files
from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation.server.recalibration import evaluate_candidates
from fedsup_deploy.federation.simulation import VALIDATION
from fedsup_deploy.runs.federation import federation_of, load_supernet, open_engines
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.space import cost


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path, help="a .csv.gz file")
    parser.add_argument("--space", required=True, help="whose architectures: a name or file")
    parser.add_argument("--images", type=int, default=1_000, help="of the validation split")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--first", type=int, default=None, help="only so many architectures")
    options = parser.parse_args()
    run = open_run(options.run)
    space = load_space(options.space).with_data(run.space.in_channels, run.space.num_classes)
    genes_NG = space.enumerate_genes()[: options.first]
    architectures = [space.decode(genes) for genes in genes_NG]
    for architecture in architectures:
        run.space.encode(architecture)
    assert run.data.validation is not None
    data = dataclasses.replace(
        run.data,
        clients=run.data.clients[: options.clients],
        held_out=run.data.held_out[: options.clients],
        tiers=run.data.tiers[: options.clients],
        validation=run.data.validation.take(np.arange(options.images)),
    )
    accuracy = []
    with open_engines(run.config, data) as engines:
        federation = federation_of(run.config, engines, run.preprocessing, EventLog())
        for found in evaluate_candidates(federation, load_supernet(run), architectures, VALIDATION):
            accuracy.append(found.share)
            if len(accuracy) % 100 == 0:
                print(f"{len(accuracy):,} of {len(architectures):,}", flush=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(f"g{gene}" for gene in range(genes_NG.shape[1])), "accuracy", "num_macs"])
    num_macs_N = cost.costs(space, genes_NG).num_macs
    writer.writerows([*genes, *rest] for genes, *rest in zip(genes_NG.tolist(), accuracy, num_macs_N, strict=True))
    files.write_bytes(options.out, gzip.compress(text.getvalue().encode(), mtime=0))


if __name__ == "__main__":
    main()
