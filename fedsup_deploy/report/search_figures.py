"""Figures of searches: each device's candidates by price and worth, and what few architectures for a fleet cost."""

from collections import Counter
from typing import Final

from pydantic import JsonValue

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.report import apart, words
from fedsup_deploy.report.bundle_facts import LATENCY
from fedsup_deploy.report.figure import Figure, Row, Table, Value, category, quantity, rows
from fedsup_deploy.report.search_facts import (
    Searched,
    drawn,
    most_per_device,
    price,
    price_title,
    ranged,
    role,
    worth,
)
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.result import DeviceResult, Fleet, FleetOption

_CANDIDATES: Final = (
    "Every candidate, the front, the pick, and the limit; strokes, of the front and the pick alone, are what is known "
    "of errors: upward 95 % intervals, across by how much predictions of latency may be off."
)
#: What a candidate is, and how it is drawn.
_ROLES: Final = {"other": "candidate", "front": "front", "pick": "pick"}
#: A limit beyond so many times the highest price is told and not drawn, which would leave no room for the candidates.
FAR: Final = 2.0
#: Numbers of architectures that are told in words.
_MOST_COSTS: Final = 4


def explorer_spec(x_title: str, y_title: str, points: list[Row], limit: float | None, *, is_one: bool) -> JsonObject:
    """Return the plot of candidates.

    Args:
        x_title: What the price is.
        y_title: What the objective is.
        points: Of each candidate `x`, `y`, their bounds `xl`, `xh`, `yl`, `yh`, `role`, `arch` and `search`.
        limit: Of the price; None where there is none.
        is_one: Whether all are of one search.
    """
    scale: JsonObject = {"zero": False, "nice": True, "padding": 14}
    x, y = quantity("x", x_title, scale=scale), quantity("y", y_title, scale=scale, format=".1%")
    colour: JsonObject = category("search", legend=None if is_one else {})
    is_notable: JsonObject = {"filter": "datum.role != 'other'"}
    is_far = limit is not None and limit > FAR * max((_number(point["x"]) for point in points), default=limit)
    places = [_number(point["x"]) for point in points]
    limits: list[Row] = []
    if limit is not None and not is_far:
        limits = [{"x": limit, "text": "limit", "is_left": limit < (min(places) + max(limit, *places)) / 2}]
    beyond: list[Row] = [{"text": f"limit: {words.number(limit)}"}] if is_far else []
    return {
        "height": 340,
        "datasets": {
            "candidates": [{**point} for point in points],
            "limits": [{**each} for each in limits],
            "beyond": [{**each} for each in beyond],
            "chosen": [{**point} for point in points if point["role"] == "pick"],
        },
        "data": {"name": "candidates"},
        "layer": [
            *_limits(x),
            _range(is_notable, {"x": {**x, "field": "xl"}, "x2": {"field": "xh"}, "y": y}),
            _range(is_notable, {"y": {**y, "field": "yl"}, "y2": {"field": "yh"}, "x": x}),
            {
                "transform": [is_notable],
                "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "opacity": 0.8},
                "encoding": {"x": x, "y": y, "color": colour, "order": {"field": "x"}},
            },
            _marks(x, y, colour),
            {
                "data": {"name": "chosen"},
                "mark": {"type": "point", "style": "ring", "filled": False, "size": 500},
                "encoding": {"x": x, "y": y},
            },
            {
                # Larger than what is seen, so that a finger meets it.
                "mark": {"type": "point", "filled": True, "size": 300, "opacity": 0},
                "encoding": {"x": x, "y": y},
            },
        ],
    }


def _limit_texts(label: JsonObject) -> list[JsonObject]:
    """Return the texts beside limits: one at the left has it at its right, where there is room."""
    return [
        {
            "transform": [{"filter": f"{'' if is_left else '!'}datum.is_left"}],
            "mark": {**label, "align": "left" if is_left else "right", "dx": 6 if is_left else -6},
            "encoding": {"text": {"field": "text"}, "y": {"value": 4}},
        }
        for is_left in (True, False)
    ]


def _limits(x: JsonObject) -> list[JsonObject]:
    """Return the limits that are drawn, and those that are told at the edge."""
    label: JsonObject = {"type": "text", "style": "limit-text", "align": "right", "baseline": "top"}
    return [
        {
            "data": {"name": "limits"},
            "encoding": {"x": x},
            "layer": [
                {"mark": {"type": "rule", "style": "limit"}},
                *_limit_texts(label),
            ],
        },
        {
            "data": {"name": "beyond"},
            "mark": label,
            "encoding": {"text": {"field": "text"}, "x": {"value": "width"}, "y": {"value": 4}},
        },
    ]


def _marks(x: JsonObject, y: JsonObject, colour: JsonObject) -> JsonObject:
    """Return a mark for each candidate."""
    shape: JsonObject = {
        "field": "role",
        "type": "nominal",
        "scale": {"domain": list(_ROLES), "range": ["circle", "diamond", "triangle-up"]},
        "legend": {"labelExpr": "datum.label == 'other' ? 'candidate' : datum.label"},
    }
    return {
        "mark": {"type": "point", "filled": True},
        "encoding": {
            "x": x,
            "y": y,
            "color": colour,
            "shape": shape,
            "size": {"condition": [_when("pick", 260), _when("front", 90)], "value": 40},
            "opacity": {"condition": [_when("pick", 1), _when("front", 1)], "value": 0.4},
        },
    }


def _number(value: Value) -> float:
    assert isinstance(value, (int, float)), "a place on an axis"
    return value


def _range(notable: JsonObject, encoding: JsonObject) -> JsonObject:
    bound = "xl" if "x2" in encoding else "yl"
    has_bounds: JsonObject = {"filter": f"isValid(datum.{bound})"}
    return {"transform": [notable, has_bounds], "mark": {"type": "rule", "style": "range"}, "encoding": encoding}


def _when(role_name: str, value: float) -> JsonObject:
    return {"test": f"datum.role == '{role_name}'", "value": value}


def candidates(searched: Searched, device: DeviceResult, most: int, name: str) -> Figure:
    """Return the figure of one device: its objective against its latency.

    Args:
        searched: The search.
        device: One of its devices.
        most: Candidates that are drawn.
        name: Of the figure.
    """
    model, goal = searched.result.accuracy_model, device.objective
    points: list[Row] = []
    for each in drawn(device, searched.result, most):
        x, y = ranged(each, LATENCY, device), worth(each, goal, device, model)
        points.append(
            {
                "x": x.value,
                "xl": x.low,
                "xh": x.high,
                "y": y.value,
                "yl": y.low,
                "yh": y.high,
                "role": role(each, device, searched.result),
                "arch": each.arch_id,
                "search": searched.name,
            }
        )
    title = objective.TABLE[goal].column
    return Figure(
        name,
        f"{device.profile.name}: {title} against latency",
        _CANDIDATES,
        explorer_spec(price_title(LATENCY, device), title, points, device.limits.get(LATENCY), is_one=True),
        front_table(searched, device),
    )


def figures(searches: list[Searched]) -> list[Figure]:
    """Return a figure for each device of each search, for pictures."""
    most = most_per_device(searches)
    return [
        candidates(searched, device, most, f"search-{number}-{device.profile.name}")
        for number, searched in enumerate(searches, start=1)
        for device in searched.result.results
    ]


def front_table(searched: Searched, device: DeviceResult) -> Table:
    """Return the front of a device, and what it gets where that is not on it, fastest first."""
    chosen = searched.result.chosen_for(device.profile.name).arch_id
    names = dict.fromkeys((*device.front, chosen))
    found = sorted((device.candidate(name) for name in names), key=lambda each: each.latency_ms_held)
    goal, model = device.objective, searched.result.accuracy_model
    table = []
    for each in found:
        latency, value = price(each, LATENCY, device), worth(each, goal, device, model)
        table.append(
            (
                each.arch_id,
                role(each, device, searched.result),
                words.share(value.value, value.bounds),
                words.number(latency.value, "ms"),
                f"{each.num_macs / 1e6:,.3g} M",
                f"{each.num_params:,}",
            )
        )
    heads = ("arch_id", "is", f"{objective.TABLE[goal].column}, chosen by", "latency", "MACs", "parameters")
    return Table.of(heads, table)


def fleet(found: Fleet, name: str) -> Figure:
    """Return what each number of architectures for a whole fleet costs."""
    values: list[Row] = []
    table = []
    costs = []
    for option in found.options:
        lost_by: Counter[float] = Counter(round(100 * lost, 6) for lost in option.lost.values())
        values += [
            {
                "artifacts": option.num_artifacts,
                "points": -lost if lost else 0.0,
                "devices": number,
                "told": words.counted(number, "device"),
            }
            for lost, number in sorted(lost_by.items())
        ]
        is_chosen = "in force" if option.num_artifacts == found.chosen else ""
        total = sum(option.lost.values())
        costs.append(f"{words.counted(option.num_artifacts, 'architecture')}: {at_worst(option)}")
        table.append(
            (
                str(option.num_artifacts),
                words.points(-total / max(1, len(option.lost))),
                f"{_worst_off(option)}: {words.points(-max(option.lost.values()))}",
                is_chosen,
            )
        )
    encoding: JsonObject = {
        "x": {"field": "artifacts", "type": "ordinal", "title": "different architectures", "axis": {"labelAngle": 0}},
        "y": quantity("points", "points against its own best", scale={"zero": True, "nice": True}),
    }
    layers: list[JsonValue] = [
        {"mark": {"type": "point", "size": 80}},
        {
            "mark": {"type": "text", "style": "small-text", "align": "left", "dx": 9},
            "encoding": {"text": {"field": "told"}},
        },
    ]
    return Figure(
        name,
        "What few architectures cost",
        "The accuracy of each device less that of its own best candidate where the fleet has so many architectures, a "
        "mark for all that lose the same, with their number, in points, on the images they were chosen by. "
        f"{'; '.join(costs[:_MOST_COSTS])}. In force: {found.chosen}.",
        {**rows(values), "height": 180, "encoding": encoding, "layer": layers},
        Table.of(("architectures", "mean over devices", "the worst device", ""), table),
    )


def at_worst(option: FleetOption) -> str:
    """Return what a number of architectures costs the device that it costs most."""
    most = max(option.lost.values())
    if not most:
        return "no device loses anything"
    return f"{words.points(-most)} at worst ({_worst_off(option)})"


def _worst_off(option: FleetOption) -> str:
    """Return the devices that lose most: of many that lose the same, how many."""
    most = max(option.lost.values())
    worst = sorted(device for device, lost in option.lost.items() if lost > most - words.NOTHING)
    if len(worst) == len(option.lost) > 1:
        return f"each of the {len(worst)} devices"
    return worst[0] if len(worst) == 1 else f"{worst[0]} and {len(worst) - 1} more"


def comparison(searches: list[Searched]) -> Table | None:
    """Return what each device got in each of several searches; None of one search."""
    if len(searches) < 2:
        return None
    table = []
    first = searches[0]
    for other in searches[1:]:
        theirs = {device.profile.name: device for device in other.result.results}
        for device in first.result.results:
            if (again := theirs.get(device.profile.name)) is not None:
                table.append(_compared(first, device, other, again))
    heads = ("device", f"in {words.short(first.name)}", "other search", "there", "worth", "latency", "told apart?")
    return Table.of(heads, table)


def _compared(first: Searched, device: DeviceResult, other: Searched, again: DeviceResult) -> tuple[str, ...]:
    one, two = (each.result.chosen_for(device.profile.name) for each in (first, other))
    slower = words.number(two.latency_ms_held - one.latency_ms_held, "ms")
    if device.objective != again.objective:
        return (device.profile.name, one.arch_id, other.name, two.arch_id, "another objective", slower, "not compared")
    here, there = (
        worth(each, device.objective, result, searched.result.accuracy_model)
        for each, result, searched in ((one, device, first), (two, again, other))
    )
    return (
        device.profile.name,
        one.arch_id,
        other.name,
        "the same" if one.arch_id == two.arch_id else two.arch_id,
        words.points(there.value - here.value),
        slower,
        apart.in_words(here.bounds, there.bounds),
    )
