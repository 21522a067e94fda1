"""What a higher limit on latency would bring a device, as far as anybody has looked, and the best network tried at all.

How right a network is does not depend on the device: what was tried for another one on the same images counts as well.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fedsup_deploy.device import limits
from fedsup_deploy.report import apart, words
from fedsup_deploy.report.bundle_facts import LATENCY
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import PRICES, Searched, worth
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.result import DeviceResult


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


def best_tried(chosen: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]) -> Tried | None:
    """Return the best network that was tried on the same images; None where none is better than what a device gets."""
    sign = 1 if objective.TABLE[device.objective].is_maximised else -1

    def goodness(candidate: Candidate) -> float:
        value = candidate.worth(device.objective)
        assert value is not None, "only what has a value is looked at"
        return sign * value

    found = min(
        tried(chosen, device, searched, others),
        key=lambda each: (-goodness(each.candidate), each.candidate.num_macs, each.candidate.arch_id),
        default=None,
    )
    return None if found is None or goodness(found.candidate) <= goodness(chosen) + words.NOTHING else found


def most_accurate(
    chosen: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]
) -> str | None:
    """Return which is the best network that was tried for any device, and why a device does not get it.

    None where it gets that one, or one that is as good on the same images.
    """
    best = best_tried(chosen, device, searched, others)
    if best is None:
        return None
    here = worth(chosen, device.objective, device, searched.result.accuracy_model)
    there = worth(best.candidate, device.objective, best.device, best.searched.result.accuracy_model)
    noise = apart.in_words(there.bounds, here.bounds)
    lead = f"{words.points(there.value - here.value)} on the same images, {noise}"
    return f"{best.candidate.arch_id} ({words.share(there.value)}, {lead}): {_why_not(best, device, searched)}"


def _why_not(best: Tried, device: DeviceResult, searched: Searched) -> str:
    """Return why a device does not get a network: by what it costs there, where somebody knows that."""
    name, arch_id = device.profile.name, best.candidate.arch_id
    if any(each.arch_id == arch_id for each in device.candidates):
        if device.prefer == "cheaper":
            return "it keeps the limits; the cheapest that cannot be told apart from it was asked for"
        return "it keeps the limits, and is none of the few that the fleet has"
    known = searched.priced.get(name, {}).get(arch_id)
    if known is None:
        return f"tried {_where(best, searched)}; what it costs here is not known"
    for limit, most in device.limits.items():
        if limit in known and known[limit] > most:
            row = limits.TABLE[limit]
            what = "" if limit == LATENCY else f" of {PRICES.get(limit, limit).partition(',')[0]}"
            over = f"over the limit of {words.number(most, row.unit)}"
            return f"it needs {words.number(known[limit], row.unit)}{what}, {over}"
    return f"tried {_where(best, searched)}; it keeps the limits here as well, and was not tried"


def _where(best: Tried, searched: Searched) -> str:
    """Return for which device a network was tried, and by which search where that is another one."""
    by = "" if best.searched is searched else f" by {words.short(best.searched.name)}"
    return f"for {best.device.profile.name}{by}"


def _nothing_better(chosen: Candidate, device: DeviceResult, searched: Searched, others: Sequence[Searched]) -> str:
    """Return that nothing better was tried, for whatever device."""
    number = len({each.candidate.arch_id for each in tried(chosen, device, searched, others)})
    if number <= len(device.candidates):
        return "not known: nothing beyond the limit was tried"
    return f"of all {number:,} networks that were tried on these images, for whatever device, none is better"


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
    told = [_beyond(chosen, device, searched, other) for other in others if _is_wider(device, searched, other)]
    if told:
        return "; ".join(told)
    hints = [hint for run in runs if (hint := _hint(chosen, searched, run)) is not None]
    is_best = best_tried(chosen, device, searched, others) is None
    told = [*([_nothing_better(chosen, device, searched, others)] if is_best else []), *hints[:1]]
    return "; ".join([*told, "to know more, search with a higher limit and put both on one page"])


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
