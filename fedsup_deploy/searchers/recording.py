"""From the outcome of a search to its record. Everything evaluated is priced once more on the way."""

from typing import Final

import numpy as np

from fedsup_deploy.artifact.manifest import PredictorError, ProfileRecord
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.searchers.pricing import Prices, Target, price
from fedsup_deploy.searchers.result import Candidate, DeviceResult, front_and_pick
from fedsup_deploy.searchers.searcher import Outcome
from fedsup_deploy.space.architecture import Architecture

_ERROR_FIELDS: Final = set(PredictorError.model_fields)
_RELATIVE_TO: Final = "the accuracy measured on the validation split and the profile's latency model"


def record(outcome: Outcome) -> DeviceResult:
    """Return the record of a search. It cannot be made when a candidate turns out not to be within the limits."""
    pool, target = outcome.search.problem.pool, outcome.search.problem.target
    genes_KG = np.stack([pool.space.encode(architecture) for architecture in outcome.accuracies])
    (prices,) = price(pool.space, genes_KG, [target])
    candidates = _candidates(outcome.accuracies, prices, target)
    front, pick = front_and_pick(candidates)
    num_feasible = outcome.search.problem.num_feasible
    is_certified = pool.is_complete and len(candidates) == num_feasible
    return DeviceResult(
        profile=profile_record(target.profile),
        method=outcome.search.method,
        certified=is_certified,
        certified_relative_to=_RELATIVE_TO if is_certified else None,
        num_architectures=pool.space.num_architectures,
        num_priced=len(pool.genes_NG),
        num_feasible=num_feasible,
        num_evaluated=len(candidates),
        limits=target.limits.given(),
        not_checked=target.limits.not_checked(prices.by_limit()),
        candidates=candidates,
        front=front,
        pick=pick,
        seconds=outcome.seconds,
    )


def _candidates(accuracies: dict[Architecture, float], prices: Prices, target: Target) -> tuple[Candidate, ...]:
    bounds = target.interval(prices.latency_ms)
    return tuple(
        Candidate(
            arch_id=architecture.arch_id,
            architecture=architecture.to_dict(),
            accuracy=accuracy,
            latency_ms_predicted=float(prices.latency_ms[index]),
            latency_interval_ms=None if bounds is None else (float(bounds[0][index]), float(bounds[1][index])),
            num_macs=int(prices.num_macs[index]),
            num_params=int(prices.num_params[index]),
            memory_mib=float(prices.memory_mib[index]),
            activation_mib=float(prices.activation_mib[index]),
            storage_mib=float(prices.storage_mib[index]),
            energy_mj_estimated=None if prices.energy_mj is None else float(prices.energy_mj[index]),
        )
        for index, (architecture, accuracy) in enumerate(accuracies.items())
    )


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
