"""How well does a profile of this machine predict? `python benchmarks/latency_prediction.py [--precision int8]`.

Builds a profile as `fedsup-deploy profile build` does, from the 63 parts and 12 networks of the paper's space, and
times beside them, in turns, random networks that the profile never sees, and networks that differ from another in one
choice. It prints the accuracy beside that of a straight line through the MACs, the share of networks inside the 95 %
interval (calibrated on 40 of them, counted on the others, over many random choices of the 40), and how often the
predicted change of a one-choice edit has the right sign, among edits that change the latency by more than the noise:
by more than even and odd rounds disagree on 95 % of the networks.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.building.assemble import About, assemble
from fedsup_deploy.device.building.plan import BuildPlan, plan_build
from fedsup_deploy.device.building.times import Times, times_of
from fedsup_deploy.device.building.workplace import Workplace
from fedsup_deploy.device.heldout import FloatArray, HeldOutError, conformal_half_width, held_out_error
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.resources import find
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.variant import Precision

LEVEL = 0.95
NUM_CONFORMAL = 40
DRAWS = 500


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="fedsup-mobilenet")
    parser.add_argument("--precision", choices=["fp32", "int8"], default="fp32")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--heldout", type=int, default=120)
    parser.add_argument("--edited", type=int, default=20, help="networks of which edits are timed")
    parser.add_argument("--edits", type=int, default=4, help="edits of each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    space = validate(load_yaml(find("configs/spaces", options.space)), SearchSpace)
    plan = plan_build(space, num_heldout=options.heldout, seed=options.seed)
    pairs = one_choice_edits(space, options.edited, options.edits, options.seed)
    more = list(dict.fromkeys(network for pair in pairs for network in pair))
    started = time.perf_counter()
    times = measure(dataclasses.replace(plan, heldout=(*plan.heldout, *more)), options.precision, options.minutes)
    profile = assemble(plan, times, About("host", options.precision)).profile
    seconds = time.perf_counter() - started
    made_from = f"{len(plan.parts)} parts and {len(plan.calibration)} networks"
    timed = f"{len(plan.heldout) + len(more)} more networks timed beside them"
    print(f"{options.precision}: {profile.latency.kind} from {made_from}, {timed}, {seconds:.0f} s in all")
    noise = times.median_disagreement(plan.heldout_models)
    quantile = f"the {times.share:.0%} quantile over visits, even and odd rounds differ by {noise:.1%} in the median"
    print(f"{times.num_rounds} rounds; {quantile}")
    report_accuracy(profile, options.heldout)
    one_time = dataclasses.replace(times, uncached_us={model: times.cached_us[model] for model in times.uncached_us})
    if plan.parts:
        print("the same with one time per part, the cached one:")
        report_accuracy(assemble(plan, one_time, About("host", options.precision)).profile, options.heldout)
    measured_ms = times.of([f"heldout-{index:03d}" for index in range(len(plan.heldout) + len(more))]) / 1e3
    report_coverage(profile, plan, measured_ms[: len(plan.heldout)])
    report_edits(profile, space, pairs, dict(zip(more, measured_ms[len(plan.heldout) :], strict=True)), times)


def measure(plan: BuildPlan, precision: Precision, minutes: float) -> Times:
    """Return the times of all models of a plan."""
    with tempfile.TemporaryDirectory() as folder:
        workplace = Workplace(Path(folder) / "build", plan, 1, precision)
        workplace.begin(lambda *_: None)
        workplace.time_models(minutes, lambda *_: None)
        return times_of(workplace.events, plan.heldout_models, "give more --minutes")


def one_choice_edits(
    space: SearchSpace, num_networks: int, num_edits: int, seed: int
) -> list[tuple[Architecture, Architecture]]:
    """Return pairs of architectures that differ in one gene."""
    random = rng.generator(seed, "benchmark", "edits")
    genes_NG = space.enumerate_genes()
    pairs = []
    for genes in genes_NG[random.choice(len(genes_NG), num_networks, replace=False)]:
        neighbours = genes_NG[(genes_NG != genes).sum(axis=1) == 1]
        chosen = neighbours[random.choice(len(neighbours), num_edits, replace=False)]
        pairs += [(space.decode(genes), space.decode(edit)) for edit in chosen]
    return pairs


def report_accuracy(profile: DeviceProfile, num_heldout: int) -> None:
    """Print the profile's error beside that of the MACs."""
    error = profile.error
    assert isinstance(error, HeldOutError)
    assert error.num_heldout == num_heldout
    for what, found in (("profile", error), ("MACs only", error.macs_only)):
        assert found is not None
        shares = f"within 5 % {found.acc5:.1%}, within 10 % {found.acc10:.1%}, MAPE {found.mape:.2%}"
        print(f"{what:10} {shares}, Spearman {found.spearman}")


def report_coverage(profile: DeviceProfile, plan: BuildPlan, measured_ms: FloatArray) -> None:
    """Print how many networks are inside intervals that were calibrated on others."""
    predicted_ms = predictor_for(profile).predict(costs_of(plan.space, plan.heldout).layers)
    random = rng.generator(0, "benchmark", "coverage")
    found, widths = [], []
    for _ in range(DRAWS):
        order = random.permutation(len(measured_ms))
        some, others = order[:NUM_CONFORMAL], order[NUM_CONFORMAL:]
        width = conformal_half_width(held_out_error(predicted_ms[some], measured_ms[some], "held-out"), LEVEL)
        assert width is not None
        found.append(np.mean(np.abs(measured_ms[others] / predicted_ms[others] - 1) <= width))
        widths.append(width)
    where = f"+-{np.median(widths):.1%} in the median of {DRAWS} draws of {NUM_CONFORMAL} networks"
    print(f"{LEVEL:.0%} interval: {where}; {np.mean(found):.1%} of the others inside on average")


def report_edits(
    profile: DeviceProfile,
    space: SearchSpace,
    pairs: list[tuple[Architecture, Architecture]],
    measured_ms: dict[Architecture, float],
    times: Times,
) -> None:
    """Print how often predicted and measured change have one sign."""
    networks = list(measured_ms)
    predicted = dict(zip(networks, predictor_for(profile).predict(costs_of(space, networks).layers), strict=True))
    noise = float(np.quantile([times.disagreement[model] for model in times.disagreement if "heldout" in model], 0.95))
    changes = np.array(
        [
            (measured_ms[after] / measured_ms[before] - 1, predicted[after] / predicted[before] - 1)
            for before, after in pairs
        ]
    )
    macs = dict(zip(networks, costs_of(space, networks).num_macs, strict=True))
    by_macs = np.array([macs[after] / macs[before] - 1 for before, after in pairs])
    for limit in (noise, 0.05):
        loud = np.abs(changes[:, 0]) > limit
        right = np.mean(np.sign(changes[loud, 0]) == np.sign(changes[loud, 1]))
        macs_right = np.mean(np.sign(changes[loud, 0]) == np.sign(by_macs[loud]))
        print(f"{loud.sum()} of {len(pairs)} edits above {limit:.1%}: sign right {right:.1%} (MACs {macs_right:.1%})")


if __name__ == "__main__":
    main()
