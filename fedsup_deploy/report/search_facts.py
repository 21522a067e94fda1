"""What a search says, as values to draw: points with their bounds. `answers` says it in words.

A price is what a limit is about (`device.limits`), an objective what makes a subnet better (`searchers.objective`).
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import JsonValue

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.device import limits
from fedsup_deploy.report import blocks, off_by
from fedsup_deploy.report.bundle_facts import LATENCY
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.result import AccuracyModel, DeviceResult, SearchResult

#: What a price is called on an axis; others by their names.
PRICES: Final = {
    LATENCY: "latency, ms",
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
        priced: What networks that were tried for other devices cost on a device, by its name, the arch_id, and the
            name of the limit, as far as somebody has computed it.
    """

    name: str
    result: SearchResult
    no_bundle: Mapping[str, str] = dataclasses.field(default_factory=dict)
    precisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    priced: Mapping[str, Mapping[str, Mapping[str, float]]] = dataclasses.field(default_factory=dict)


def price_title(name: str, device: DeviceResult) -> str:
    """Return what a price is called for a device."""
    if name != LATENCY:
        return PRICES.get(name, name.replace("_", " "))
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


def ranged(candidate: Candidate, name: str, device: DeviceResult) -> Known:
    """Return a price of a candidate as it is drawn: a latency without bounds with those of its profile's error."""
    known = price(candidate, name, device)
    found = off_by.bounds(known.value, known.bounds, device.profile) if name == LATENCY else known.bounds
    return Known(known.value) if found is None else Known(known.value, *found)


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
                "prices": [_short(ranged(each, name, device)) for name in price_names],
                "objectives": [_short(worth(each, name, device, result.accuracy_model)) for name in objective_names],
            }
            for each in candidates
        ],
    }


def _short(known: Known) -> list[JsonValue]:
    """Return a value and its bounds with as many digits as a plot shows."""
    return [None if value is None else float(f"{value:.6g}") for value in (known if known.bounds else known[:1])]
