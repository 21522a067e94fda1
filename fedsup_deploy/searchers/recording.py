"""From the outcomes of searches to their record. Everything recorded is priced once more on the way.

Shapes: K candidates, A architectures known to any search, P devices, G genes.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fedsup_deploy.artifact.manifest import PredictorError, ProfileRecord
from fedsup_deploy.artifact.measured import PercentileRecord
from fedsup_deploy.device.held_latency import HeldLatency
from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.fleet import FleetChoice, choose_artifacts
from fedsup_deploy.searchers.prices import FloatArray, Prices
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.result import Candidate, DeviceResult, Fleet, FleetOption, front_and_pick
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import Outcome
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import row_keys
from fedsup_deploy.space.search_space import SearchSpace

_ERROR_FIELDS: Final = set(PredictorError.model_fields)
_MEASURED: Final = "the accuracy measured on held-out images"
_PREDICTED: Final = "the accuracy predictor"
_MIXED: Final = "the accuracy measured on held-out images, of what was not measured the accuracy predictor,"


def record(
    outcomes: Sequence[Outcome], max_artifacts: int | None = None
) -> tuple[tuple[DeviceResult, ...], Fleet | None]:
    """Return the record of each search of a call, and of the fleet if it is to have few architectures.

    A record cannot be made when a candidate turns out not to be within the limits.

    Args:
        outcomes: One per device.
        max_artifacts: The most different architectures for all of them; None asks for no fleet.

    Raises:
        ConfigError: So few architectures cannot serve all devices.
    """
    choices, genes_AG = ([], None) if max_artifacts is None else _fleet_choices(outcomes)
    results = []
    for index, outcome in enumerate(outcomes):
        rows = [choice.rows_P[index] for choice in choices]
        assigned_KG = outcome.genes_KG[:0] if genes_AG is None else genes_AG[rows]
        results.append(_device_result(outcome, assigned_KG))
    if max_artifacts is None or genes_AG is None:
        return tuple(results), None
    return tuple(results), _fleet(outcomes, choices, genes_AG, max_artifacts)


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


def _device_result(outcome: Outcome, assigned_KG: IntArray) -> DeviceResult:
    problem = outcome.search.problem
    pool, target = problem.pool, problem.target
    kept_K = _kept(outcome, assigned_KG)
    genes_KG = outcome.genes_KG[kept_K]
    (prices,) = price(pool.space, genes_KG, [target])
    candidates = _candidates(pool.space, genes_KG, outcome.scores.take(kept_K), prices, target)
    front, pick = front_and_pick(candidates)
    has_all = pool.is_complete and len(outcome.genes_KG) == problem.num_feasible
    is_certified = has_all or outcome.search.searcher.proves_optimum
    num_measured = int(outcome.scores.is_measured().sum())
    accuracy = {len(outcome.genes_KG): _MEASURED, 0: _PREDICTED}.get(num_measured, _MIXED)
    return DeviceResult(
        profile=profile_record(target.profile),
        method=outcome.search.method,
        certified=is_certified,
        certified_relative_to=f"{accuracy} and the profile's latency model" if is_certified else None,
        num_architectures=pool.space.num_architectures,
        num_priced=len(pool.genes_NG),
        num_feasible=problem.num_feasible,
        num_evaluated=len(outcome.genes_KG),
        num_measured=num_measured,
        limits=target.limits.given(),
        risk=target.held.risk,
        percentile=percentile_record(target.held),
        not_checked=target.limits.not_checked(prices.by_limit()),
        candidates=candidates,
        front=front,
        pick=pick,
        seconds=outcome.seconds,
    )


def _kept(outcome: Outcome, assigned_KG: IntArray) -> IntArray:
    """Return the rows of an outcome that its record keeps: measured ones all, of predicted ones the best."""
    problem, is_measured_K = outcome.search.problem, outcome.scores.is_measured()
    (prices,) = price(problem.pool.space, outcome.genes_KG, [problem.target])
    front_F = objective.front(objective.minimised(objective.priced(prices) | objective.scored(outcome.scores)))
    best = objective.pick(
        lambda index: problem.pool.space.decode(outcome.genes_KG[index]).arch_id,
        outcome.scores.accuracy_K,
        prices.latency_ms,
    )
    assigned = np.flatnonzero(np.isin(row_keys(outcome.genes_KG), row_keys(assigned_KG)))
    return np.unique(np.concatenate([np.flatnonzero(is_measured_K), front_F, [best], assigned])).astype(np.int64)


def _fleet_choices(outcomes: Sequence[Outcome]) -> tuple[list[FleetChoice], IntArray]:
    """Return the best choices, and the genes of the architectures that their rows are about."""
    keys_by_device = [row_keys(outcome.genes_KG) for outcome in outcomes]
    keys_A, first_A = np.unique(np.concatenate(keys_by_device), return_index=True)
    genes_AG = np.concatenate([outcome.genes_KG for outcome in outcomes])[first_A]
    accuracy_A = np.concatenate([outcome.scores.accuracy_K for outcome in outcomes])[first_A]
    fits_PA = np.stack([np.isin(keys_A, keys) for keys in keys_by_device])
    space = outcomes[0].search.problem.pool.space
    prices = price(space, genes_AG, [outcome.search.problem.target for outcome in outcomes])
    latency_PA = np.stack([one.latency_ms for one in prices])
    return choose_artifacts(accuracy_A, fits_PA, latency_PA, None), genes_AG


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
    space: SearchSpace, genes_KG: IntArray, scores: Scores, prices: Prices, target: Target
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
