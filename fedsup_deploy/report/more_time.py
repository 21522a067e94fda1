"""What a higher limit on latency would bring a device, as far as anybody has looked, and the best network tried at all.

How right a network is does not depend on the device: what was tried for another one on the same images counts as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from fedsup_deploy.device import limits
from fedsup_deploy.report import apart, words
from fedsup_deploy.report.bundle_facts import LATENCY
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import PRICES, Searched, worth
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.result import DeviceResult

#: Of the limit on latency: what takes less is not held back by it.
_NEAR_THE_LIMIT: Final = 0.9
_WITH_THE_RUN: Final = "put the run of the search on this page"


class Tried(NamedTuple):
    """A network that was tried, for whatever device.

    Args:
        candidate: It.
        device: For which.
        searched: By which search.
    """

    candidate: Candidate
    device: DeviceResult
    searched: Searched


def tried(chosen: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]) -> Iterator[Tried]:
    """Yield all networks that were measured on the same images as one, also for other devices and by other searches."""
    for each in (searched, *others):
        if each.result.run.hash != searched.result.run.hash or each.result.accuracy_model.kind != "measured":
            continue
        for found in each.result.results:
            for candidate in found.candidates:
                is_same = candidate.accuracy is not None and candidate.num_images == chosen.num_images is not None
                if is_same and candidate.worth(device.objective) is not None:
                    yield Tried(candidate, found, each)


def better_tried(
    chosen: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]
) -> list[Tried]:
    """Return the networks that were tried on the same images and are better than what a device gets, the best first."""
    sign = 1 if objective.TABLE[device.objective].is_maximised else -1

    def goodness(candidate: Candidate) -> float:
        value = candidate.worth(device.objective)
        assert value is not None, "only what has a value is looked at"
        return sign * value

    once = {each.candidate.arch_id: each for each in tried(chosen, device, searched, others)}
    found = (each for each in once.values() if goodness(each.candidate) > goodness(chosen) + words.NOTHING)
    return sorted(found, key=lambda each: (-goodness(each.candidate), each.candidate.num_macs, each.candidate.arch_id))


def most_accurate(
    chosen: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]
) -> str | None:
    """Return which is the best network that was tried for any device, and why a device does not get it.

    None where it gets that one, or one that is as good on the same images.
    """
    better = better_tried(chosen, device, searched, others)
    if not better:
        return None
    best = better[0]
    here = worth(chosen, device.objective, device, searched.result.accuracy_model)
    there = worth(best.candidate, device.objective, best.device, best.searched.result.accuracy_model)
    noise = apart.in_words(there.bounds, here.bounds)
    lead = f"{words.points(there.value - here.value)} on the same images, {noise}"
    why = _why_not(best.candidate, device, searched, others)
    return f"{best.candidate.arch_id} ({words.share(there.value)}, {lead}): {why}"


def costs_here(
    candidate: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]
) -> Mapping[str, float] | None:
    """Return what a network costs on a device, by the name of the limit, as far as the device has one.

    None where nobody knows: it was neither priced nor tried there, with the same profile and the same kind of latency.
    """
    known = searched.priced.get(device.profile.name, {}).get(candidate.arch_id)
    if known is not None:
        return known
    for each in (searched, *others):
        for found in each.result.results:
            is_same = (found.profile, found.percentile, found.risk) == (device.profile, device.percentile, device.risk)
            for known_there in found.candidates if is_same and each.result.run.hash == searched.result.run.hash else ():
                if known_there.arch_id == candidate.arch_id:
                    prices = {limit: known_there.price(limit) for limit in device.limits}
                    return {limit: value for limit, value in prices.items() if value is not None}
    return None


def _over(costs: Mapping[str, float], device: DeviceResult) -> str | None:
    """Return the limit that costs are over; None where they keep all that are known."""
    return next((limit for limit, most in device.limits.items() if costs.get(limit, 0.0) > most), None)


def _why_not(candidate: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]) -> str:
    """Return why a device does not get a network: by what it costs there, or by what was tried there."""
    if any(each.arch_id == candidate.arch_id for each in device.candidates):
        if device.prefer == "cheaper":
            return "it keeps the limits; the cheapest that cannot be told apart from it was asked for"
        return "it keeps the limits, and is none of the few that the fleet has"
    costs = costs_here(candidate, device, searched, others)
    if costs is None:
        all_tried = f"all {device.num_feasible:,} that keep the limits were tried"
        if device.num_evaluated >= device.num_feasible:
            return f"it is over a limit here: {all_tried}"
        known = "its profile has changed since the search" if device.profile.name in searched.priced else _WITH_THE_RUN
        tried_here = f"this search tried {device.num_evaluated:,} of the {device.num_feasible:,} that keep the limits"
        return f"{tried_here}, not this one; what it costs here cannot be computed: {known}"
    if (limit := _over(costs, device)) is not None:
        row = limits.TABLE[limit]
        what = "" if limit == LATENCY else f" of {PRICES.get(limit, limit).partition(',')[0]}"
        over = f"over the limit of {words.number(device.limits[limit], row.unit)}"
        return f"it needs {words.number(costs[limit], row.unit)}{what}, {over}"
    needs = f"it needs {words.number(costs[LATENCY], 'ms')} here and" if LATENCY in costs else "it"
    take = f"fedsup-deploy export RUN --arch {candidate.arch_id} --profile {device.profile.name}"
    return f"{needs} keeps the limits, but this search did not try it: take it ({take})"


def in_words(
    chosen: Candidate,
    device: DeviceResult,
    searched: Searched,
    others: Sequence[Searched],
    runs: Sequence[RunMaterial],
) -> str:
    """Return what more time would bring, as far as anybody has looked."""
    if LATENCY not in device.limits:
        return "no limit on latency was set"
    if device.num_feasible == device.num_architectures:
        return f"nothing: all {device.num_architectures:,} subnets of the space keep all limits"
    number = len({each.candidate.arch_id for each in tried(chosen, device, searched, others)})
    is_all = number >= device.num_architectures
    better = better_tried(chosen, device, searched, others)
    if is_all and not better:
        return f"nothing: all {device.num_architectures:,} subnets of the space were tried, and none is better"
    told = [_beyond(chosen, device, searched, other) for other in others if _is_wider(device, searched, other)]
    if not told and better:
        told = _steps(better, chosen, device, searched, others)
        told += [f"all {number:,} subnets of the space were tried"] if is_all and told else []
    if told:
        return "; ".join(told)
    hints = [hint for run in runs if (hint := _hint(chosen, searched, run)) is not None]
    told = [*([] if better else [_nothing_better(device, number)]), *hints[:1]]
    return "; ".join([*told, _to_know_more(chosen, device)])


def _steps(
    better: Sequence[Tried], chosen: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]
) -> list[str]:
    """Return how much more time the next better network takes, and the best one, of those whose cost here is known."""
    here = worth(chosen, device.objective, device, searched.result.accuracy_model)
    known = [(each, costs_here(each.candidate, device, searched, others)) for each in better]
    slower = [
        (costs[LATENCY] - chosen.latency_ms_held, each)
        for each, costs in known
        if costs is not None and costs.get(LATENCY, 0.0) > device.limits[LATENCY]
    ]
    if not slower:
        return []
    told = []
    nearest, best = min(slower, key=lambda found: found[0]), slower[0]
    for more, each in (nearest, best) if nearest is not best else (best,):
        there = worth(each.candidate, device.objective, each.device, each.searched.result.accuracy_model)
        noise = apart.in_words(here.bounds, there.bounds)
        gain = f"{words.points(there.value - here.value)}, {noise}"
        told.append(f"{words.number(more, 'ms')} more: {each.candidate.arch_id}, {gain}")
    return [*told[:-1], f"{told[-1]}, the best tried"] if len(told) > 1 else told


def _nothing_better(device: DeviceResult, number: int) -> str:
    """Return that of so many networks that were tried, for whatever device, none is better."""
    if number <= len(device.candidates):
        return "not known: nothing beyond the limit was tried"
    return f"of all {number:,} networks that were tried on these images, for whatever device, none is better"


def _to_know_more(chosen: Candidate, device: DeviceResult) -> str:
    """Return what would tell more: a higher limit only where the pick is near it, or all that fits was tried."""
    share, untried = chosen.latency_ms_held / device.limits[LATENCY], device.num_feasible - device.num_evaluated
    if share >= _NEAR_THE_LIMIT or untried <= 0:
        return "to know more, search with a higher limit and put both on one page"
    return (
        "some of the limit is left and not all that fit were tried: to know more, try more of them before you raise it "
        "(fedsup-deploy search --evaluations N)"
    )


def _hint(chosen: Candidate, searched: Searched, run: RunMaterial) -> str | None:
    """Return how right the largest subnet of the space was after training; None where that is of other images."""
    kept, of = run.kept, searched.result.run
    is_its_own = (of.name, of.rounds) == (run.path_name, len(run.history.rounds))
    if kept is None or not is_its_own or chosen.accuracy is None or kept.num_images != chosen.num_images:
        return None
    known, interval = kept.accuracy("largest"), kept.interval("largest")
    noise = apart.in_words(interval, chosen.accuracy_interval)
    return f"after training the largest subnet of all had {words.share(known, interval)} of the same images: {noise}"


def _is_wider(device: DeviceResult, searched: Searched, other: Searched) -> bool:
    """Return whether another search of the run has looked beyond the limit of a device, and at nothing else."""
    name = device.profile.name
    theirs = next((each for each in other.result.results if each.profile.name == name), None)
    if theirs is None or other.result.run.hash != searched.result.run.hash or theirs.objective != device.objective:
        return False
    limits_but_latency = [{**each.limits, LATENCY: 0.0} for each in (device, theirs)]
    return (
        limits_but_latency[0] == limits_but_latency[1]
        and theirs.limits.get(LATENCY, float("inf")) > device.limits[LATENCY]
    )


def _beyond(chosen: Candidate, device: DeviceResult, searched: Searched, other: Searched) -> str:
    """Return what a device gets where another search allows it more time."""
    theirs = other.result.for_profile(device.profile.name)
    there = other.result.chosen_for(device.profile.name)
    here_worth = worth(chosen, device.objective, device, searched.result.accuracy_model)
    there_worth = worth(there, device.objective, theirs, other.result.accuracy_model)
    limit = f"up to {words.number(theirs.limits[LATENCY], 'ms')}" if LATENCY in theirs.limits else "without a limit"
    if there.latency_ms_held <= chosen.latency_ms_held:
        return f"nothing that was found {limit} ({other.name})"
    slower = words.number(there.latency_ms_held - chosen.latency_ms_held, "ms")
    return (
        f"{slower} more: {there.arch_id}, {words.points(there_worth.value - here_worth.value)}, "
        f"{apart.in_words(here_worth.bounds, there_worth.bounds)} "
        f"({other.name}, {limit})"
    )
