"""What a run will compute, known before it begins: who trains what in each round follows from the seed."""

import itertools
from collections.abc import Sequence
from typing import Final

from fedsup_deploy import rng
from fedsup_deploy.federation.client import ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment
from fedsup_deploy.federation.server.client_sampling import cohort_size, draw_cohort
from fedsup_deploy.federation.server.federation import Federation, calibration_images
from fedsup_deploy.federation.server.rounds import RoundParams
from fedsup_deploy.federation.server.strategy import Strategy
from fedsup_deploy.run_events import CORNERS, Phase
from fedsup_deploy.space import sampling
from fedsup_deploy.supernet.layout import Layout

#: Rounds of a phase, and clients of each, that are looked at: a mean of these is near enough.
_MOST_ROUNDS: Final = 32
_MOST_CLIENTS: Final = 50


def planned_phases(federation: Federation, strategy: Strategy, params: RoundParams, layout: Layout) -> list[Phase]:
    """Return the work of all rounds: of those before clients begin to train something else, and of those after."""
    eligible = strategy.eligible(list(federation.infos.values()))
    begins = sorted({0, params.rounds, min(strategy.warm_up_again_at, params.rounds)})
    found = []
    for begin, end in itertools.pairwise(begins):
        step = -(-(end - begin) // _MOST_ROUNDS)
        macs = [
            _round_macs(index, eligible, strategy, params, layout, federation.seed) for index in range(begin, end, step)
        ]
        found.append(Phase(rounds=end - begin, client_macs=round(sum(macs) / len(macs))))
    return found


def evaluation_macs(federation: Federation, layout: Layout) -> int:
    """Return the multiply-accumulates of one evaluation of the corners of the space, statistics included."""
    _, judging, _ = federation.judging(federation.choosing_split)
    num_images = sum(info.num_held_out for info in judging)
    num_images += sum(calibration_images(info, federation.calibration) for info in federation.calibrating)
    return num_images * sum(layout.num_macs(layout.space.resolve(corner)) for corner in CORNERS)


def _round_macs(
    index: int, eligible: Sequence[ClientInfo], strategy: Strategy, params: RoundParams, layout: Layout, seed: int
) -> float:
    num_clients = cohort_size(params.clients_per_round, len(eligible))
    cohort = draw_cohort(eligible, num_clients, params.oversample, seed, index)
    shown = cohort[:: -(-len(cohort) // _MOST_CLIENTS)]
    plan = strategy.plan(index, shown, seed)
    macs = sum(info.num_samples * _image_macs(plan[info.client], layout, seed) for info in shown)
    return macs * params.training.epochs * len(cohort) / len(shown)


def _image_macs(assignment: Assignment, layout: Layout, seed: int) -> int:
    """Return the multiply-accumulates of one image in all subnets that a client trains."""
    if assignment.architecture is not None:
        return sum(map(layout.num_macs, (assignment.architecture, *assignment.inner)))
    # Other steps draw others.
    drawn = sampling.sandwich(layout.space, rng.generator(seed, "planned work"), assignment.num_subnets)
    return sum(map(layout.num_macs, drawn))
