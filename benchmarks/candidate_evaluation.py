"""What does it cost a search to evaluate a subnet, alone and beside others?

    python benchmarks/candidate_evaluation.py RUN

Draws subnets, sorts them as a search does, and has one process count their answers after one-shot recalibration: one
by one, then several at once, which compute once what neighbours have in common. It stops if both give other counts.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from interleaved import ratio_of_medians, time_in_turn

from fedsup_deploy.events import EventLog
from fedsup_deploy.federation.server.recalibration import CandidateAnswers, evaluate_candidates
from fedsup_deploy.federation.simulation import VALIDATION
from fedsup_deploy.runs.federation import load_supernet, open_run_federation
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.space import sampling


def main() -> None:
    """Measure, and print the seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--drawn", type=int, default=200, help="subnets that a search evaluates")
    parser.add_argument("--timed", type=int, default=16, help="consecutive ones of these that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    run = open_run(options.run)
    engine = run.config.engine.model_copy(update={"workers": 1})
    run = dataclasses.replace(run, config=run.config.model_copy(update={"engine": engine}))
    genes_NG = sampling.random_genes(run.space, np.random.Generator(np.random.PCG64(0)), options.drawn)
    genes_NG = np.unique(run.space.canonical(genes_NG), axis=0)
    begin = (len(genes_NG) - options.timed) // 2
    subnets = [run.space.decode(genes) for genes in genes_NG[begin : begin + options.timed]]
    supernet = load_supernet(run)
    with open_run_federation(run, EventLog()) as federation:

        def one_by_one() -> list[CandidateAnswers]:
            return [next(evaluate_candidates(federation, supernet, [subnet], VALIDATION)) for subnet in subnets]

        def together() -> list[CandidateAnswers]:
            return list(evaluate_candidates(federation, supernet, subnets, VALIDATION))

        if one_by_one() != together():
            raise SystemExit("other counts together than one by one")
        seconds = time_in_turn({"one by one": one_by_one, "together": together}, options.repeats)
    for name, values in seconds.items():
        print(f"{name}: {min(values) / len(subnets):.2f} s for a subnet")
    print(f"ratio of medians {ratio_of_medians(seconds, 'one by one', 'together'):.2f}")


if __name__ == "__main__":
    main()
