"""From the outcomes of searches to their record. Everything recorded is priced once more on the way.

Shapes: K candidates, A architectures known to any search, P devices, G genes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact.manifest import PredictorError, ProfileRecord
from fedsup_deploy.artifact.measured import PercentileRecord
from fedsup_deploy.device.held_latency import HeldLatency
from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.measures import ACCURACY
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.fleet import FleetChoice, choose_artifacts
from fedsup_deploy.searchers.noise import AccuracyNoise, cheapest
from fedsup_deploy.searchers.prices import FloatArray, Prices
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.result import DeviceResult, Fleet, FleetOption, Preference, WithinNoise, front_and_best
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import Outcome
from fedsup_deploy.space.plan import BoolArray, IntArray
from fedsup_deploy.space.sampling import row_keys
from fedsup_deploy.space.search_space import SearchSpace

_ERROR_FIELDS: Final = set(PredictorError.model_fields)
ACCURATE: Final = "accurate"
CHEAPER: Final = "cheaper"


def record(
    outcomes: Sequence[Outcome],
    max_artifacts: int | None = None,
    noise: AccuracyNoise | None = None,
    prefer: Preference = ACCURATE,
) -> tuple[tuple[DeviceResult, ...], Fleet | None]:
    """Return the record of each search of a call, and of the fleet if it is to have few architectures.

    A record cannot be made when a candidate turns out not to be within the limits.

    Args:
        outcomes: One per device.
        max_artifacts: The most different architectures for all of them; None asks for no fleet.
        noise: Of the accuracies; None where nobody knows it.
        prefer: What a pick is, and what a fleet gets: the most accurate, or the cheapest within noise of it.

    Raises:
        ConfigError: So few architectures cannot serve all devices.
    """
    assert noise is not None or prefer == ACCURATE, "what is within noise is known"
    if max_artifacts is None:
        return tuple(_device_result(outcome, outcome.genes_KG[:0], noise, prefer) for outcome in outcomes), None
    offers = _Offers.of(outcomes)
    choices = choose_artifacts(offers.goodness(), offers.fits_PA, offers.latency_PA, None)
    if noise is not None and prefer == CHEAPER:
        choices = [offers.cheapened(choice, noise) for choice in choices]
    results = []
    for index, outcome in enumerate(outcomes):
        rows = [choice.rows_P[index] for choice in choices]
        results.append(_device_result(outcome, offers.genes_AG[rows], noise, prefer))
    return tuple(results), _fleet(outcomes, choices, offers.genes_AG, max_artifacts)


def check_fleet(problems: Sequence[Problem], max_artifacts: int | None) -> None:
    """Fail before anything is evaluated where so few architectures cannot serve all devices, however accurate.

    Of a space that was only sampled nobody knows.

    Args:
        problems: One per device, of one pool.
        max_artifacts: As of `record`.

    Raises:
        ConfigError: They cannot.
    """
    pool = problems[0].pool
    if max_artifacts is None or max_artifacts >= len(problems) or not pool.is_complete:
        return
    fits_PA = np.zeros((len(problems), len(pool.genes_NG)), np.bool_)
    for fits_A, problem in zip(fits_PA, problems, strict=True):
        fits_A[problem.feasible_F] = True
    # Where all are equal, the first choice that serves all devices is the smallest.
    fewest = choose_artifacts(np.zeros(fits_PA.shape[1]), fits_PA, np.zeros(fits_PA.shape), None)[0].num_artifacts
    if max_artifacts < fewest:
        names = [problem.target.profile.name for problem in problems]
        raise _too_few(max_artifacts, f"of space {pool.space.name}", names, fewest)


def _device_result(
    outcome: Outcome, assigned_KG: IntArray, noise: AccuracyNoise | None, prefer: Preference
) -> DeviceResult:
    problem = outcome.search.problem
    pool, target = problem.pool, problem.target
    kept_K, within_noise = _kept(outcome, assigned_KG, noise)
    genes_KG = outcome.genes_KG[kept_K]
    (prices,) = price(pool.space, genes_KG, [target])
    candidates = _candidates(pool.space, genes_KG, outcome.scores.take(kept_K), prices, target, noise)
    front, best = front_and_best(candidates, outcome.scores.goal)
    cheaper = None if within_noise is None or prefer == ACCURATE else within_noise.cheapest
    has_all = pool.is_complete and len(outcome.genes_KG) == problem.num_feasible
    is_certified = has_all or outcome.search.searcher.proves_optimum
    about = f"{_goal_in_words(outcome.scores)} and the profile's latency model"
    if cheaper is not None:
        about += f"; certified is the accuracy of {best}, and the pick is the cheapest within noise of it"
    return DeviceResult(
        profile=profile_record(target.profile),
        method=outcome.search.method,
        objective=outcome.scores.goal,
        certified=is_certified,
        certified_relative_to=about if is_certified else None,
        num_architectures=pool.space.num_architectures,
        num_priced=len(pool.genes_NG),
        num_feasible=problem.num_feasible,
        num_evaluated=len(outcome.genes_KG),
        num_measured=int(outcome.scores.is_measured().sum()),
        limits=target.limits.given(),
        risk=target.held.risk,
        percentile=percentile_record(target.held),
        not_checked=target.limits.not_checked(prices.by_limit()),
        candidates=candidates,
        front=front,
        most_accurate=best,
        within_noise=within_noise,
        prefer=prefer,
        pick=cheaper or best,
        seconds=outcome.seconds,
    )


def _goal_in_words(scores: Scores) -> str:
    """Return where the values of a search's goal are from, and on how many images they were measured."""
    is_measured_K = scores.is_measured()
    if not is_measured_K.any():
        return "the accuracy predictor"
    images = ""
    if scores.num_images_K is not None:
        counts = sorted({int(scores.num_images_K[is_measured_K].min()), int(scores.num_images_K.max())})
        images = " to ".join(f"{count:,}" for count in counts) + " "
    mixed = "" if is_measured_K.all() else ", of what was not measured the accuracy predictor,"
    return f"the {objective.TABLE[scores.goal].column} measured on {images}held-out images{mixed}"


def _kept(outcome: Outcome, assigned_KG: IntArray, noise: AccuracyNoise | None) -> tuple[IntArray, WithinNoise | None]:
    """Return the rows of an outcome that its record keeps, and what is as accurate as the best.

    Measured ones are all kept, of predicted ones the best.
    """
    problem, is_measured_K = outcome.search.problem, outcome.scores.is_measured()
    (prices,) = price(problem.pool.space, outcome.genes_KG, [problem.target])
    front_F = objective.front(objective.minimised(objective.priced(prices) | objective.scored(outcome.scores)))

    def arch_id(index: int) -> str:
        return problem.pool.space.decode(outcome.genes_KG[index]).arch_id

    goodness_K = objective.goodness(outcome.scores.goal, objective.goal_of(outcome.scores))
    best = objective.best_of(arch_id, goodness_K, prices.latency_ms)
    kept = [np.flatnonzero(is_measured_K), front_F, np.array([best])]
    kept += [np.flatnonzero(np.isin(row_keys(outcome.genes_KG), row_keys(assigned_KG)))]
    within_noise = None
    if noise is not None:
        as_accurate_K = noise.as_accurate(outcome.scores, best)
        cheaper = cheapest(arch_id, as_accurate_K, prices.latency_ms, prices.num_macs, best)
        kept += [] if cheaper is None else [np.array([cheaper])]
        within_noise = WithinNoise(
            rule=noise.rule,
            mae=noise.mae,
            num_candidates=int(as_accurate_K.sum()) - 1,
            cheapest=None if cheaper is None else arch_id(cheaper),
        )
    return np.unique(np.concatenate(kept)).astype(np.int64), within_noise


@dataclasses.dataclass(frozen=True)
class _Offers:
    """What a fleet can be given: all architectures of which a call knows how good they are."""

    space: SearchSpace
    genes_AG: IntArray
    scores: Scores
    macs_A: IntArray
    fits_PA: BoolArray
    latency_PA: FloatArray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "_Offers":
        """Return what the outcomes of a call have evaluated."""
        keys_by_device = [row_keys(outcome.genes_KG) for outcome in outcomes]
        keys_A, first_A = np.unique(np.concatenate(keys_by_device), return_index=True)
        genes_AG = np.concatenate([outcome.genes_KG for outcome in outcomes])[first_A]
        scores = functools.reduce(Scores.with_more, (outcome.scores for outcome in outcomes)).take(first_A)
        fits_PA = np.stack([np.isin(keys_A, keys) for keys in keys_by_device])
        space = outcomes[0].search.problem.pool.space
        prices = price(space, genes_AG, [outcome.search.problem.target for outcome in outcomes])
        latency_PA = np.stack([one.latency_ms for one in prices])
        return cls(space, genes_AG, scores, prices[0].num_macs, fits_PA, latency_PA)

    def goodness(self) -> FloatArray:
        """Return how good each is in the goal of the search, shape (A,): more is better."""
        return objective.goodness(self.scores.goal, objective.goal_of(self.scores))

    def cheapened(self, choice: FleetChoice, noise: AccuracyNoise) -> FleetChoice:
        """Return a choice in which each architecture is the cheapest that is as accurate within noise.

        It takes the place of that for all profiles, so it fits them all and is slower on none. No two become one.
        """
        rows_P = np.array(choice.rows_P)
        for row in sorted(set(choice.rows_P)):
            served_P = np.flatnonzero(rows_P == row)
            may_A = noise.as_accurate(self.scores, row) & self.fits_PA[served_P].all(axis=0)
            may_A &= (self.latency_PA[served_P] <= self.latency_PA[served_P][:, [row]]).all(axis=0)
            may_A[rows_P] = False
            latency_A = self.latency_PA[served_P].sum(axis=0)
            found = cheapest(self._arch_id, may_A, latency_A, self.macs_A, row)
            rows_P[served_P] = row if found is None else found
        accuracy_A = self.scores.accuracy_K
        best_P = np.where(self.fits_PA, accuracy_A, -1.0).max(axis=1)
        loss_P = tuple((best_P - accuracy_A[rows_P]).tolist())
        return FleetChoice(choice.num_artifacts, tuple(rows_P.tolist()), loss_P)

    def _arch_id(self, row: int) -> str:
        return self.space.decode(self.genes_AG[row]).arch_id


def _fleet(
    outcomes: Sequence[Outcome], choices: Sequence[FleetChoice], genes_AG: IntArray, max_artifacts: int
) -> Fleet:
    space = outcomes[0].search.problem.pool.space
    names = [outcome.search.problem.target.profile.name for outcome in outcomes]
    options = tuple(
        FleetOption(
            num_artifacts=choice.num_artifacts,
            assigned={
                name: space.decode(genes_AG[row]).arch_id for name, row in zip(names, choice.rows_P, strict=True)
            },
            lost=dict(zip(names, choice.loss_P, strict=True)),
        )
        for choice in choices
    )
    allowed = [option.num_artifacts for option in options if option.num_artifacts <= max_artifacts]
    if not allowed:
        raise _too_few(max_artifacts, "found", names, options[0].num_artifacts)
    return Fleet(max_artifacts=max_artifacts, options=options, chosen=max(allowed))


def _too_few(max_artifacts: int, where: str, names: Sequence[str], fewest: int) -> ConfigError:
    return ConfigError(
        f"max-artifacts: got {max_artifacts}, but no {max_artifacts} of the architectures {where} fit all of "
        f"{', '.join(names)}; expected at least {fewest}"
    )


def _candidates(
    space: SearchSpace, genes_KG: IntArray, scores: Scores, prices: Prices, target: Target, noise: AccuracyNoise | None
) -> tuple[Candidate, ...]:
    bounds, is_measured_K = target.interval(prices.latency_ms), scores.is_measured()
    percentile_ms_K = target.held.predicted(prices.latency_ms)
    upper_ms_K = None if target.held.upper_ratio is None else prices.latency_held_ms
    costs = _costs(prices, scores)
    candidates = []
    for index, genes in enumerate(genes_KG):
        architecture, accuracy = space.decode(genes), float(scores.accuracy_K[index])
        candidates.append(
            Candidate(
                arch_id=architecture.arch_id,
                architecture=architecture.to_dict(),
                accuracy=accuracy if is_measured_K[index] else None,
                **_sample(scores, index, accuracy, noise),
                objective_interval=_interval(scores, index),
                accuracy_predicted=None if is_measured_K[index] else accuracy,
                worst_decile=_at(scores.worst_decile_K, index),
                latency_ms_predicted=float(prices.latency_ms[index]),
                latency_interval_ms=None if bounds is None else (float(bounds[0][index]), float(bounds[1][index])),
                latency_percentile_ms=float(percentile_ms_K[index]),
                latency_upper_ms=_at(upper_ms_K, index),
                **costs[index],
            )
        )
    return tuple(candidates)


def _sample(scores: Scores, index: int, accuracy: float, noise: AccuracyNoise | None) -> dict[str, Any]:
    """Return what a candidate's record says of the images it was measured on."""
    if scores.num_images_K is None or not scores.is_measured()[index]:
        return {}
    num_images = int(scores.num_images_K[index])
    # Without noise it is a mean over clients; where noise is not asked for, such a mean has a worst decile beside it.
    is_share = noise is not None or (scores.goal != ACCURACY and scores.worst_decile_K is None)
    interval = CountedAccuracy.of_share(accuracy, num_images).interval if is_share else None
    return {"num_images": num_images, "accuracy_interval": interval}


def _interval(scores: Scores, index: int) -> tuple[float, float] | None:
    """Return the interval of the goal of a search, where that has no field of its own."""
    found_K3 = scores.measures_K3.get(scores.goal)
    return None if found_K3 is None else (float(found_K3[index, 1]), float(found_K3[index, 2]))


def _costs(prices: Prices, scores: Scores) -> list[dict[str, Any]]:
    """Return what a candidate's record says of what limits and objectives are about, where it has a field for it."""
    priced = prices.by_limit()
    records: list[dict[str, Any]] = [{"more": {}} for _ in prices.latency_ms]
    for name, values_K in priced.items():
        row = TABLE[name]
        for record, value in zip(records, values_K.tolist(), strict=True):
            if row.recorded_as is None:
                record["more"][name] = value
            elif row.recorded_as in Candidate.model_fields:
                record[row.recorded_as] = int(value) if row.is_count else value
    for name, values_K in (objective.priced(prices) | objective.scored(scores)).items():
        if objective.TABLE[name].recorded_as is None:
            for record, value in zip(records, values_K.tolist(), strict=True):
                record["more"][name] = value
    return records


def _at(values_K: FloatArray | None, index: int) -> float | None:
    return None if values_K is None else float(values_K[index])


def percentile_record(held: HeldLatency) -> PercentileRecord:
    """Return what results and bundles say of the percentile that a limit on latency means."""
    return PercentileRecord(name=held.percentile, ratio=held.ratio, is_assumed=held.is_assumed)


def profile_record(profile: DeviceProfile) -> ProfileRecord:
    """Return what results and bundles say of the profile they were made with."""
    return ProfileRecord.model_validate(
        {
            "name": profile.name,
            "hash": profile.profile_hash,
            "provenance": profile.provenance_kinds,
            "error": "none" if profile.error == "none" else profile.error.model_dump(include=_ERROR_FIELDS),
        }
    )
