"""Do picks keep their limit on this machine? `python benchmarks/latency_limits.py --host FILE`.

FILE is a profile that `fedsup-deploy profile build` made here; a table holds the accuracies. A limit means a percentile
of latency: p50 and p90, or those that --percentile names. For each it searches for twenty limits and several seeds,
each time for the most accurate architecture predicted within the limit, and for the most accurate whose upper bound is
(`--risk`). The best is seldom as slow as it may be, so it also draws architectures at random among those within their
limit by 2 % at most. All are then written as graphs and timed in one session, in turns, as the profile was; beside them
the networks that the profile was checked with, or others drawn like them.

A pick violates its limit if that percentile of its latency is longer by more than the noise: what even and odd rounds
of the session disagree by in it on 95 % of its networks. The machine is faster in some sessions than in others. What
the profile's networks take today, over what they were predicted to take, and that over the same when the profile was
built, is how much slower it is: the violations are counted as measured, and with every time divided by that.
"""

import argparse
import dataclasses
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from search_quality import SPACE, TABLE, read_accuracies
from threadpoolctl import threadpool_limits

from fedsup_deploy import rng
from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.commands.search import target_for
from fedsup_deploy.device.building.plan import BuildPlan, plan_build
from fedsup_deploy.device.building.times import Times, times_of
from fedsup_deploy.device.building.workplace import Workplace
from fedsup_deploy.device.heldout import FloatArray, HeldOutError
from fedsup_deploy.device.percentiles import PERCENTILES
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.events import EventLog
from fedsup_deploy.ondevice.records import Percentile
from fedsup_deploy.searchers.methods.choice import open_search
from fedsup_deploy.searchers.pool import Pool, make_pool
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.problem import pose
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import run_searches
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import row_keys
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.variant import Precision

LIMITS_AT = (0.05, 0.95)
NOISE_QUANTILE = 0.95
# Share of the limit that those drawn at random stay below it at most.
NEAR = 0.02


@dataclasses.dataclass(frozen=True)
class Request:
    """A limit and the architecture that is to keep it.

    Args:
        kind: How it was picked.
        percentile: Which percentile of latency the limit means.
        limit_ms: The limit.
        pick: The architecture; None where nothing fits.
    """

    kind: str
    percentile: Percentile
    limit_ms: float
    pick: Architecture | None


def main() -> None:
    """Search, measure, and print how often a limit was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", type=Path, required=True, help="profile of this machine")
    parser.add_argument("--space", default=str(SPACE), help="what it was built for: a name, file or run")
    parser.add_argument("--table", type=Path, default=TABLE, help="columns: one per gene, accuracy, num_macs")
    parser.add_argument("--method", default="evolution", help="the searcher")
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--limits", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--percentile", nargs="+", choices=PERCENTILES, default=["p50", "p90"], help="what limits mean")
    parser.add_argument("--risk", type=float, default=0.95)
    parser.add_argument("--minutes", type=float, default=8.0, help="length of the session")
    parser.add_argument("--build-seed", type=int, default=0, help="seed that the profile was built with")
    options = parser.parse_args()
    threadpool_limits(1)
    space, profile = load_space(options.space), unlimited(load_profile(str(options.host)))
    if not isinstance(profile.error, HeldOutError):
        parser.error(f"{options.host} does not say how far its predictions are off; build one with profile build")
    pool, accuracy_N = make_pool(space, 0), read_accuracies(options.table, space)
    requests: list[Request] = []
    for percentile, risk in itertools.product(options.percentile, (None, options.risk)):
        for limit_ms in limits_of(profile, pool, percentile, options.limits):
            target = target_for(profile, {"latency_ms": limit_ms}, risk, percentile)
            for seed in range(options.seeds):
                found = best_found(pool, accuracy_N, target, (options.method, options.evaluations, seed))
                near = any_near(pool, target, seed)
                requests += [
                    Request(f"{options.method}: {held_to(target)}", percentile, limit_ms, found),
                    Request(f"any near it: {held_to(target)}", percentile, limit_ms, near),
                ]
    measure_and_report(space, profile, requests, options.minutes, options.build_seed)


def measure_and_report(
    space: SearchSpace, profile: DeviceProfile, requests: Sequence[Request], minutes: float, build_seed: int
) -> None:
    """Time all that was picked, and print how often a limit was broken."""
    picks = tuple(dict.fromkeys(request.pick for request in requests if request.pick is not None))
    controls = plan_build(space, seed=build_seed).heldout
    print(f"{len(requests)} limits to keep, {len(picks)} different networks and {len(controls)} to compare", flush=True)
    times = measure(space, (*picks, *controls), profile, minutes)
    names = models(len(picks) + len(controls))
    print(f"{times.num_rounds} rounds in {times.seconds:.0f} s", flush=True)
    for percentile in dict.fromkeys(request.percentile for request in requests):
        measured_ms, noise = percentile_of(times, percentile, names)
        slower = how_much_slower(space, profile, percentile, controls, measured_ms[len(picks) :])
        print(f"\n{percentile}: even and odd rounds differ by {noise:.1%} or less on {NOISE_QUANTILE:.0%} of networks")
        print(f"the {len(controls)} networks of the profile take {slower:.3f} times as long as when it was built")
        of_percentile = [request for request in requests if request.percentile == percentile]
        report(of_percentile, dict(zip(picks, measured_ms.tolist(), strict=False)), noise, slower)


def percentile_of(times: Times, percentile: Percentile, names: list[str]) -> tuple[FloatArray, float]:
    """Return a percentile of the latency of some models in ms, shape (N,), and its noise over all of the session."""
    if percentile == "p10":
        return times.of(names) / 1e3, float(np.quantile(list(times.disagreement.values()), NOISE_QUANTILE))
    noise = np.quantile(list(times.higher_disagreement[percentile].values()), NOISE_QUANTILE)
    return times.higher_of(names)[percentile] / 1e3, float(noise)


def unlimited(profile: DeviceProfile) -> DeviceProfile:
    """Return a profile without limits of its own."""
    return profile.model_copy(update={"limits": type(profile.limits)()})


def limits_of(profile: DeviceProfile, pool: Pool, percentile: Percentile, count: int) -> list[float]:
    """Return limits on latency that from few to nearly all architectures are predicted within, in ms."""
    (prices,) = price(pool.space, pool.genes_NG, [target_for(profile, {}, percentile=percentile)])
    return [float(limit) for limit in np.quantile(prices.latency_held_ms, np.linspace(*LIMITS_AT, count))]


def best_found(pool: Pool, accuracy_N: FloatArray, target: Target, search: tuple[str, int, int]) -> Architecture | None:
    """Return the most accurate architecture that a search finds within a limit; None where nothing fits.

    Args:
        pool: The whole space.
        accuracy_N: Of all of it.
        target: The device with its limit.
        search: Method, evaluations and seed.
    """
    keys_N = row_keys(pool.genes_NG)

    def evaluate(genes_KG: IntArray, num_known: int) -> Scores:
        del num_known
        return Scores(accuracy_N[np.searchsorted(keys_N, row_keys(genes_KG))])

    try:
        (problem,) = pose(pool, [target], EventLog())
    except InfeasibleError:
        return None
    (outcome,) = run_searches([open_search(problem, *search)], evaluate)
    return pool.space.decode(outcome.genes_KG[np.argmax(outcome.scores.accuracy_K)])


def any_near(pool: Pool, target: Target, seed: int) -> Architecture | None:
    """Return a random architecture that keeps the limit by little; None where there is none."""
    (prices,) = price(pool.space, pool.genes_NG, [target])
    limit_ms = target.limits.given()["latency_ms"]
    assert limit_ms is not None
    share_N = prices.by_limit()["latency_ms"] / limit_ms
    near = np.flatnonzero((share_N <= 1) & (share_N > 1 - NEAR))
    if not len(near):
        return None
    return pool.space.decode(pool.genes_NG[rng.generator(seed, "benchmark", "near").choice(near)])


def held_to(target: Target) -> str:
    """Return what is within the limit, in words."""
    return "prediction" if target.held.risk is None else f"bound at {target.held.risk:g}"


def measure(space: SearchSpace, networks: tuple[Architecture, ...], profile: DeviceProfile, minutes: float) -> Times:
    """Return the times of networks, measured as a profile is built."""
    plan = BuildPlan(space, "fitted", {}, (), networks, 0)
    precision: Precision = "int8" if profile.runtime.dtype == "int8" else "fp32"
    with tempfile.TemporaryDirectory() as folder:
        workplace = Workplace(Path(folder) / "build", plan, profile.runtime.threads, precision)
        workplace.begin(lambda *_: None)
        workplace.time_models(minutes, lambda *_: None)
        return times_of(workplace.events, plan.heldout_models, "give more --minutes")


def models(count: int) -> list[str]:
    """Return the names under which so many networks are timed."""
    return [f"heldout-{index:03d}" for index in range(count)]


def how_much_slower(
    space: SearchSpace,
    profile: DeviceProfile,
    percentile: Percentile,
    controls: Sequence[Architecture],
    measured_ms: FloatArray,
) -> float:
    """Return how much slower this machine is than when the profile was built, by networks that no search picked."""
    assert isinstance(profile.error, HeldOutError)
    known = profile.error.ratios
    if percentile != "p10":
        assert profile.percentiles is not None, "a search has asked for it"
        known = profile.percentiles.of(percentile).ratios
    predicted_ms = predictor_for(profile).predict(costs_of(space, controls).layers)
    return float(np.median(measured_ms / predicted_ms) / np.median(known))


def report(requests: Sequence[Request], measured_ms: Mapping[Architecture, float], noise: float, slower: float) -> None:
    """Print how often limits were broken, by the way of picking: as measured, and at the speed of the build."""
    print(f"{'':26} {'':>12} {'as measured':>24} {'at the speed of the build':>28}")
    print(
        f"{'':26} {'fit/none fits':>12} {'violations':>14} {'worst':>9} {'violations':>18} {'worst':>9} {'median':>8}"
    )
    for kind in dict.fromkeys(request.kind for request in requests):
        of_kind = [request for request in requests if request.kind == kind]
        ratios = np.array([measured_ms[one.pick] / one.limit_ms for one in of_kind if one.pick is not None])
        columns = f"{kind:26} {f'{len(ratios)}/{len(of_kind) - len(ratios)}':>12}"
        for width, divisor in ((14, 1.0), (18, slower)):
            over = ratios / divisor - 1
            columns += f" {np.sum(over > noise):>{width}} {np.max(over, initial=-1.0):>+9.1%}"
        print(f"{columns} {np.median(ratios / slower) - 1:>+8.1%}")


if __name__ == "__main__":
    main()
