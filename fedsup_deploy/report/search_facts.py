"""What a search says, as values to draw and to read: points with their bounds, and answers in words.

A price is what a limit is about (`device.limits`), an objective what makes a subnet better (`searchers.objective`).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pydantic import JsonValue

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.device import limits
from fedsup_deploy.report import blocks, bundle_facts, standing, verdict, words
from fedsup_deploy.report.bundle_facts import LATENCY, BundleMaterial
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.result import AccuracyModel, DeviceResult, SearchResult

#: What a price is called on an axis; others by their names.
_PRICES: Final = {
    "macs": "multiply-accumulates",
    "params": "parameters",
    "memory_mib": "weights and activations, MiB",
    "activation_mib": "activations, MiB",
    "storage_mib": "size of the ONNX file, MiB",
    "energy_mj": "estimated energy, mJ",
    "resolution": "side of the image, pixels",
}
#: Candidates of one search that are drawn; the front and the pick always are.
MOST_CANDIDATES: Final = 2000


class Known(NamedTuple):
    """A value and its bounds, where any are claimed."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both bounds, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Searched:
    """A search to show.

    Args:
        name: What it is called on the page.
        result: It.
        no_bundle: Why there can be no bundle, by the names of those devices for which that is so, as far as their
            profiles are at hand.
        precisions: What predictions and sizes are of, such as `int8`, by the names of the devices, as far as above.
    """

    name: str
    result: SearchResult
    no_bundle: Mapping[str, str] = dataclasses.field(default_factory=dict)
    precisions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def price_title(name: str, device: DeviceResult) -> str:
    """Return what a price is called for a device."""
    if name != LATENCY:
        return _PRICES.get(name, name.replace("_", " "))
    held = [] if device.percentile is None else [str(device.percentile)]
    held += [] if device.risk is None else [f"bound at {device.risk:g}"]
    return "predicted latency, ms" + (f" ({'; '.join(held)})" if held else "")


def prices_of(device: DeviceResult) -> list[str]:
    """Return the names of the prices that all candidates of a device have."""
    return [name for name in limits.TABLE if all(each.price(name) is not None for each in device.candidates)]


def objectives_of(device: DeviceResult) -> list[str]:
    """Return the names of the objectives that all candidates of a device have a value of, the goal first."""
    names = [
        row.name
        for row in objective.TABLE.values()
        if row.score is not None and all(each.worth(row.name) is not None for each in device.candidates)
    ]
    return sorted(names, key=lambda name: name != device.objective)


def price(candidate: Candidate, name: str, device: DeviceResult) -> Known:
    """Return a price of a candidate; of the latency with the bounds of the profile's predictor."""
    value = candidate.price(name)
    assert value is not None, "whoever asks has looked which prices there are"
    if name != LATENCY or candidate.latency_interval_ms is None:
        return Known(value)
    ratio = 1.0 if device.percentile is None else device.percentile.ratio
    low, high = (ratio * bound for bound in candidate.latency_interval_ms)
    return Known(value, min(low, value), high if candidate.latency_upper_ms is None else max(low, value))


def worth(candidate: Candidate, name: str, device: DeviceResult, model: AccuracyModel) -> Known:
    """Return an objective of a candidate; bounds are 95 % intervals, of predictions their mean absolute error."""
    value = candidate.worth(name)
    assert value is not None, "whoever asks has looked which objectives there are"
    if candidate.is_predicted(name):
        return (
            Known(value)
            if model.mae is None
            else Known(value, max(0.0, value - model.mae), min(1.0, value + model.mae))
        )
    interval = candidate.accuracy_interval if name == "accuracy" else None
    if name == device.objective and candidate.objective_interval is not None:
        interval = candidate.objective_interval
    return Known(value) if interval is None else Known(value, *interval)


def role(candidate: Candidate, device: DeviceResult, result: SearchResult) -> str:
    """Return what a candidate is among those of its device; `pick` is what the device gets, also in a fleet."""
    if candidate.arch_id == result.chosen_for(device.profile.name).arch_id:
        return "pick"
    return "front" if candidate.arch_id in device.front else "other"


def drawn(device: DeviceResult, result: SearchResult, most: int) -> list[Candidate]:
    """Return the candidates that are drawn: the front and the pick, and of the others as many as there is room for."""
    kept = {*device.front, device.pick, result.chosen_for(device.profile.name).arch_id}
    others = [each.arch_id for each in device.candidates if each.arch_id not in kept]
    room = min(len(others), max(0, most - len(kept)))
    kept |= {others[at * len(others) // room] for at in range(room)}
    return [each for each in device.candidates if each.arch_id in kept]


def most_per_device(searches: list[Searched]) -> int:
    """Return how many candidates of each device are drawn."""
    num_devices = sum(len(each.result.results) for each in searches)
    return max(20, MOST_CANDIDATES // max(1, num_devices))


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
        sure: What it can be told from.
        cheaper: What is much cheaper and as good; None where there is nothing of the kind.
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
) -> Answer:
    """Return what a search answers for one device.

    Args:
        device: What was found for it.
        searched: The search.
        others: Searches that may have looked beyond its limits.
        bundle: Of what it gets, for it; None where none is on the page.
        runs: Those on the page, of which one may be the search's own.
    """
    result = searched.result
    chosen = result.chosen_for(device.profile.name)
    found = worth(chosen, device.objective, device, result.accuracy_model)
    told = _worth(chosen, device, result.accuracy_model, found)
    precision = precision_of(device, searched, bundle)
    latency, cheaper = price(chosen, LATENCY, device), standing.much_cheaper(chosen, device)
    return Answer(
        device=device.profile.name,
        pick=chosen.arch_id,
        value=told if bundle is None else bundle_facts.accuracy(bundle.manifest),
        chosen_by=None if bundle is None else told,
        latency=f"{words.number(latency.value, 'ms')}{_of(precision)} ({words.between(latency.bounds, 'ms')})",
        room=tuple(_room(chosen, device, precision)),
        why=standing.why(device, result),
        sure=standing.how_sure(chosen, device),
        cheaper=None if cheaper is None else standing.cheaper_in_words(cheaper, chosen),
        less=_less(chosen, device, result.accuracy_model),
        more=_more(chosen, device, searched, others, runs),
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
    return f"{told}, of {words.counted(chosen.num_images, 'image')} {of}, by which it was chosen: that flatters"


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
        named = "latency" if name == LATENCY else _PRICES.get(name, name).partition(",")[0]
        if row.unit in {"ms", "MiB"}:
            named += _of(precision)
        if value is None:
            told.append(f"{named}: at most {words.number(limit, row.unit)}, not checked")
        else:
            is_bound = row.is_predicted and device.risk is not None
            kept = verdict.of(name, value, limit, device.profile, is_bound=is_bound).told
            told.append(
                f"{named}: {words.number(value)} of {words.number(limit, row.unit)} ({value / limit:.0%}), {kept}"
            )
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
    noise = "" if here.bounds is None else f", {overlap(here.bounds, there.bounds)}"
    return f"{words.number(saved, 'ms')} less: {next_one.arch_id}, {words.points(there.value - here.value)}{noise}"


def _more(
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
    told = ["not known: nothing beyond the limit was tried", *hints[:1]]
    return "; ".join([*told, "search with a higher one, and put both on one page"])


def _hint(chosen: Candidate, searched: Searched, run: RunMaterial) -> str | None:
    """Return how right the largest subnet of the space was after training; None where that is of other images."""
    kept, of = run.kept, searched.result.run
    is_its_own = (of.name, of.rounds) == (run.path_name, len(run.history.rounds))
    if kept is None or not is_its_own or chosen.accuracy is None or kept.num_images != chosen.num_images:
        return None
    known, interval = kept.accuracy("largest"), kept.interval("largest")
    noise = overlap(interval, chosen.accuracy_interval)
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
        f"{overlap(here_worth.bounds, there_worth.bounds)} ({other.name}, {limit})"
    )


def overlap(one: tuple[float, float] | None, two: tuple[float, float] | None) -> str:
    """Return whether two values may be the same, by their intervals."""
    if one is None or two is None:
        return "not known whether that is noise"
    return "intervals overlap" if one[0] <= two[1] and two[0] <= one[1] else "intervals lie apart"


def _trust(device: DeviceResult) -> str:
    known = f"costs {' and '.join(device.profile.provenance)}"
    error = device.profile.error
    if error == "none":
        return f"{known}; nobody has measured how far predictions are off"
    off = words.percent(error.mape)
    return f"{known}; predictions were off by {off} on {words.counted(error.num_heldout, 'network')}"


def document(searches: list[Searched]) -> JsonObject:
    """Return all that the page's own program needs to draw any device, price and objective of the searches.

    Of an architecture the places of its blocks in `blocks`; the prices and objectives of a candidate are in the order
    in which those of its device are named.
    """
    most = most_per_device(searches)
    listed: dict[str, int] = {}
    architectures: JsonObject = {}
    found: list[JsonValue] = []
    for searched in searches:
        devices: JsonObject = {}
        for device in searched.result.results:
            candidates = drawn(device, searched.result, most)
            for each in candidates:
                if each.arch_id not in architectures:
                    architectures[each.arch_id] = _places(each, listed)
            devices[device.profile.name] = _device(device, candidates, searched.result)
        found.append({"name": searched.name, "devices": devices})
    return {"searches": found, "architectures": architectures, "blocks": [json.loads(row) for row in listed]}


def _places(candidate: Candidate, listed: dict[str, int]) -> list[JsonValue]:
    """Return where the blocks of a candidate are among all that are listed; new ones are added there."""
    rows = (json.dumps(row) for row in blocks.block_rows(candidate.to_architecture()))
    return [listed.setdefault(row, len(listed)) for row in rows]


def _device(device: DeviceResult, candidates: list[Candidate], result: SearchResult) -> JsonObject:
    price_names, objective_names = prices_of(device), objectives_of(device)
    return {
        "prices": {name: price_title(name, device) for name in price_names},
        "objectives": {name: objective.TABLE[name].column for name in objective_names},
        "limits": {name: limit for name, limit in device.limits.items() if name in price_names},
        "candidates": [
            {
                "arch": each.arch_id,
                "role": role(each, device, result),
                "images": each.num_images,
                "is_predicted": each.accuracy is None,
                "prices": [_short(price(each, name, device)) for name in price_names],
                "objectives": [_short(worth(each, name, device, result.accuracy_model)) for name in objective_names],
            }
            for each in candidates
        ],
    }


def _short(known: Known) -> list[JsonValue]:
    """Return a value and its bounds with as many digits as a plot shows."""
    return [None if value is None else float(f"{value:.6g}") for value in (known if known.bounds else known[:1])]
