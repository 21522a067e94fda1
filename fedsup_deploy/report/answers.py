"""What a search answers for each of its devices, in words."""

import dataclasses
from collections.abc import Sequence

from fedsup_deploy.device import limits
from fedsup_deploy.report import apart, bundle_facts, more_time, off_by, standing, verdict, words
from fedsup_deploy.report.bundle_facts import LATENCY, BundleMaterial
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import PRICES, Known, Searched, price, worth
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.result import AccuracyModel, DeviceResult


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a search answers for one device, in words.

    Args:
        device: Name of the profile.
        pick: Its arch_id.
        value: How right the pick is: its bundle on test images; without one, `chosen_by`.
        chosen_by: The objective that it was chosen by, with its interval and its sample; None where `value` says it.
        latency: Of the pick, with its interval.
        room: The limits and how far the pick stays below them.
        why: Why it was picked.
        best: The most accurate network that was tried for any device, and why it is not that; None where it is.
        sure: What it can be told from.
        cheaper: What is much cheaper and as good, or what is the cheapest as good; None where nobody knows.
        less: What the next faster subnet of the front costs.
        more: What more time would bring.
        trust: How the device's costs are known.
        bundle: Why there can be none; None where that is not known.
        clients: How right it is for the tenth of the clients for whom it is worst; None where they were not asked.
    """

    device: str
    pick: str
    value: str
    chosen_by: str | None
    latency: str
    room: tuple[str, ...]
    why: str
    best: str | None
    sure: str
    cheaper: str | None
    less: str
    more: str
    trust: str
    bundle: str | None
    clients: str | None


def answer(
    device: DeviceResult,
    searched: Searched,
    others: Sequence[Searched] = (),
    bundle: BundleMaterial | None = None,
    runs: Sequence[RunMaterial] = (),
    bundles: Sequence[BundleMaterial] = (),
) -> Answer:
    """Return what a search answers for one device.

    Args:
        device: What was found for it.
        searched: The search.
        others: Searches that may have looked beyond its limits.
        bundle: Of what it gets, for it; None where none is on the page.
        runs: Those on the page, of which one may be the search's own.
        bundles: Those on the page, which know what networks are worth on test images.
    """
    result = searched.result
    chosen = result.chosen_for(device.profile.name)
    found = worth(chosen, device.objective, device, result.accuracy_model)
    told = _worth(chosen, device, result.accuracy_model, found)
    precision = precision_of(device, searched, bundle)
    latency, cheaper = price(chosen, LATENCY, device), standing.much_cheaper(chosen, device)
    error = off_by.in_words(latency.value, latency.bounds, device.profile)
    return Answer(
        device=device.profile.name,
        pick=chosen.arch_id,
        value=told if bundle is None else bundle_facts.accuracy(bundle.manifest),
        chosen_by=None if bundle is None else told,
        latency=f"{words.number(latency.value, 'ms')}{_of(precision)}, {error}",
        room=tuple(_room(chosen, device, precision)),
        why=standing.why(device, result),
        best=more_time.most_accurate(chosen, device, searched, others),
        sure=standing.how_sure(chosen, device),
        cheaper=standing.not_much_cheaper_in_words(chosen, device)
        if cheaper is None
        else standing.cheaper_in_words(cheaper, chosen, bundles),
        less=_less(chosen, device, result.accuracy_model),
        more=more_time.in_words(chosen, device, searched, others, runs),
        trust=_trust(device),
        bundle=searched.no_bundle.get(device.profile.name),
        clients=None if chosen.worst_decile is None else f"{words.share(chosen.worst_decile)} in the mean",
    )


def _worth(chosen: Candidate, device: DeviceResult, model: AccuracyModel, found: Known) -> str:
    told = words.share(found.value, found.bounds)
    if chosen.is_predicted(device.objective):
        known = "" if model.num_measured is None else f" from {words.counted(model.num_measured, 'measured subnet')}"
        return f"{told}, predicted{known}; in brackets: its mean absolute error"
    if chosen.num_images is None:
        return told
    of = "that clients hold out" if model.kind == "clients" else "for validation"
    return f"{told}, of {words.counted(chosen.num_images, 'image')} {of}; chosen by these, so probably too high"


def precision_of(device: DeviceResult, searched: Searched, bundle: BundleMaterial | None) -> str | None:
    """Return which precision the costs of a device are of: by its profile, or its bundle; None where neither tells."""
    known = searched.precisions.get(device.profile.name)
    return bundle_facts.limits_precision(bundle.manifest) if known is None and bundle is not None else known


def _of(precision: str | None) -> str:
    return "" if precision is None else f" of {precision}"


def _room(chosen: Candidate, device: DeviceResult, precision: str | None) -> list[str]:
    told = []
    for name, limit in device.limits.items():
        row, value = limits.TABLE[name], chosen.price(name)
        named = "latency" if name == LATENCY else PRICES.get(name, name).partition(",")[0]
        if row.unit in {"ms", "MiB"}:
            named += _of(precision)
        if value is None:
            told.append(f"{named}: at most {words.number(limit, row.unit)}, not checked")
        else:
            is_bound = row.is_predicted and device.risk is not None
            kept = verdict.of(name, value, limit, device.profile, is_bound=is_bound).told
            share = words.rounded(value / limit)
            told.append(f"{named}: {words.number(value)} of {words.number(limit, row.unit)} ({share}), {kept}")
    return told or ["no limit"]


def _less(chosen: Candidate, device: DeviceResult, model: AccuracyModel) -> str:
    """Return what the nearest faster subnet of the front costs in the objective."""
    front = [device.candidate(arch_id) for arch_id in device.front]
    faster = [each for each in front if each.latency_ms_held < chosen.latency_ms_held]
    if not faster:
        return "it is the fastest of the front"
    next_one = faster[-1]
    saved = chosen.latency_ms_held - next_one.latency_ms_held
    here, there = (worth(each, device.objective, device, model) for each in (chosen, next_one))
    noise = "" if here.bounds is None else f", {apart.in_words(here.bounds, there.bounds)}"
    return f"{words.number(saved, 'ms')} less: {next_one.arch_id}, {words.points(there.value - here.value)}{noise}"


def _trust(device: DeviceResult) -> str:
    known = f"costs are {' and '.join(device.profile.provenance)}"
    error = device.profile.error
    return f"{known}; {off_by.NEVER if error == 'none' else bundle_facts.heldout(error)}"
