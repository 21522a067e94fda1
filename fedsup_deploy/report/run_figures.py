"""Figures of a run: curves over its rounds, its clients, its tiers.

Shapes: R rounds, N clients.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.config.document import show
from fedsup_deploy.federation.server.assignment import Tier
from fedsup_deploy.federation.server.fedsup_config import EFedSupConfig, FedSupConfig, rounds_of_the_smallest
from fedsup_deploy.federation.simulation import tiers_by_index
from fedsup_deploy.report import words
from fedsup_deploy.report.figure import Figure, Row, Table, category, quantity, rows
from fedsup_deploy.run_events import CORNERS, AskedClients, Evaluation
from fedsup_deploy.runs.clients import ClientFacts
from fedsup_deploy.runs.history import History
from fedsup_deploy.runs.run import ImageFacts, Run

#: Points of a curve; of more rounds each point is the mean of several.
MOST_POINTS: Final = 400
#: Points of a curve that are marked.
_MOST_MARKS: Final = 100
#: Bars that tell how often clients took part.
_MOST_BARS: Final = 24
#: Clients that are listed one by one.
MOST_CLIENTS: Final = 1_000_000

_Played = TypeVar("_Played", bound=AskedClients)


@dataclasses.dataclass(frozen=True)
class RunMaterial:
    """What there is to show of a run.

    Args:
        run: It.
        history: What happened in it.
        facts: What it says of its images; None where an older version made it.
        kept_after: Rounds after which its supernet was the best, which is kept; None where the last is.
    """

    run: Run
    history: History
    facts: ImageFacts | None
    kept_after: int | None = None

    @property
    def path_name(self) -> str:
        """Name of its folder; empty for the folder one is in."""
        return self.run.path.name

    @property
    def kept(self) -> Evaluation | None:
        """The evaluation of the supernet that is kept; None where there is none."""
        return self.history.evaluation_after(self.kept_after)

    @property
    def _clients(self) -> ClientFacts | None:
        return None if self.facts is None else self.facts.all_clients

    @property
    def client_names(self) -> tuple[str, ...] | None:
        """Names of all clients by number; None where they have none, or nobody knows."""
        return self._clients.names if self._clients is not None else None

    def client(self, number: int) -> str:
        """Return how a client is called."""
        names = self.client_names
        return f"client {number}" if names is None or number >= len(names) else names[number]

    @property
    def has_tiers_by_number(self) -> bool:
        """Whether the tier of a client follows from its number; devices announce theirs, which a run does not keep."""
        return self.run.config.engine.superlink is None

    @property
    def num_clients(self) -> int:
        """Clients that may take part."""
        clients = self._clients
        return (self.history.num_clients or 0) if clients is None else clients.num_clients

    @property
    def seen(self) -> tuple[int, ...]:
        """Numbers of the clients that may take part; none where these are too many to list."""
        clients = self._clients
        unseen = frozenset[str]() if clients is None else frozenset(clients.unseen)
        number = self.num_clients + len(unseen)
        if number > MOST_CLIENTS:
            return ()
        names = self.client_names or tuple(map(str, range(number)))
        return tuple(client for client, name in enumerate(names) if name not in unseen)


def figures(material: RunMaterial) -> list[Figure]:
    """Return all figures of a run that there is something to show in."""
    history = material.history
    found: list[Figure] = []
    if history.rounds:
        found.append(_loss(history))
    if history.evaluations:
        found.append(_accuracy(history))
    if history.rounds:
        took_part = _participation(history)
        found += [] if took_part is None else [took_part]
        found += [_bytes(material), _seconds(history), _turns(material)]
        if material.run.config.strategy.num_tiers > 1 and material.seen and material.has_tiers_by_number:
            found.append(_tiers(material))
    if material.facts is not None and material.facts.class_counts is not None:
        found.append(_classes(material.facts.classes, material.facts.class_counts))
    return found


def _curve(rounds: Sequence[_Played], value: Callable[[_Played], float], name: str) -> list[Row]:
    """Return the points of a curve; `round` counts from 1."""
    step = max(1, -(-len(rounds) // MOST_POINTS))
    groups = [rounds[start : start + step] for start in range(0, len(rounds), step)]
    return [
        {"round": group[-1].round + 1, "value": sum(map(value, group)) / len(group), "what": name} for group in groups
    ]


def _means(rounds: Sequence[AskedClients]) -> str:
    step = -(-len(rounds) // MOST_POINTS)
    return "" if step == 1 else f" Each point is the mean of {step} rounds."


def _over_rounds(points: Sequence[Row], title: str, *, zero: bool) -> JsonObject:
    encoding: JsonObject = {
        "x": quantity("round", "round", format="d", scale={"zero": False, "nice": False}),
        "y": quantity("value", title, scale={"zero": zero, "nice": True}),
    }
    if len({point["what"] for point in points}) > 1:
        encoding |= {"color": category("what"), "strokeDash": category("what")}
    mark: JsonObject = {"type": "line", "point": len(points) <= _MOST_MARKS}
    return {**rows(points), "height": 200, "mark": mark, "encoding": encoding}


def _table(rounds: Sequence[_Played], heads: Sequence[str], cells: Callable[[_Played], Sequence[str]]) -> Table:
    return Table.of(("round", *heads), [(str(each.round + 1), *cells(each)) for each in rounds])


def _loss(history: History) -> Figure:
    begun = [each for each in history.rounds if each.loss_before is not None]
    points = [
        *_curve(history.rounds, lambda each: each.loss, "while they trained"),
        *_curve(begun, lambda each: each.loss_before or 0.0, "with what they were sent"),
    ]
    return Figure(
        "loss",
        "Loss",
        f"Mean of the clients' losses, weighted by their images. Lower is better.{_means(history.rounds)}",
        _over_rounds(points, "loss", zero=False),
        _table(
            history.rounds,
            ["loss while they trained", *(["with what they were sent"] if begun else [])],
            lambda each: [words.number(each.loss), *([words.number(each.loss_before)] if begun else [])],
        ),
    )


def _accuracy(history: History) -> Figure:
    points: list[Row] = []
    for each in history.evaluations:
        for corner in CORNERS:
            low, high = each.interval(corner) or (None, None)
            value: Row = {"round": each.round + 1, "value": each.accuracy(corner), "what": f"{corner} subnet"}
            points.append({**value, "low": low, "high": high})
    images = {each.num_images for each in history.evaluations if each.num_images is not None}
    on = f" on {max(images):,} images" if images else ""
    x = quantity("round", "round", format="d", scale={"zero": False, "nice": False, "padding": 12})
    y = quantity("value", "accuracy", format=".0%")
    layers: list[JsonObject] = [
        {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {"mark": {"type": "line", "point": {"size": 60}}, "encoding": {"y": y}},
    ]
    table = Table.of(
        ("round", *(f"{corner} subnet" for corner in CORNERS)),
        [
            (str(each.round + 1), *(words.share(each.accuracy(corner), each.interval(corner)) for corner in CORNERS))
            for each in history.evaluations
        ],
    )
    return Figure(
        "accuracy",
        "Accuracy by size",
        f"Of the largest and the smallest subnet after recalibration{on}; strokes are 95 % intervals.",
        {**rows(points), "height": 220, "encoding": {"x": x, "color": category("what")}, "layer": [*layers]},
        table,
    )


def _participation(history: History) -> Figure | None:
    """Return who took part; None where as many answered in every round, which a number says."""
    if len({(len(each.clients), len(each.answered)) for each in history.asked}) == 1:
        return None
    answered = _curve(history.asked, lambda each: len(each.answered), "answered")
    absent = _curve(history.asked, lambda each: len(each.clients) - len(each.answered), "absent")
    encoding: JsonObject = {
        "x": quantity("round", "round", format="d", scale={"zero": False, "nice": False}),
        "y": quantity("value", "clients", scale={"zero": True, "nice": True}, stack="zero"),
        "color": {**category("what"), "scale": {"domain": ["answered", "absent"]}},
        "order": {"field": "what", "sort": "descending"},
    }
    mark: JsonObject = {"type": "area", "opacity": 0.75, "interpolate": "step", "line": False}
    return Figure(
        "participation",
        "Who took part",
        f"Clients asked in each round: those that answered, and those that did not.{_means(history.asked)}",
        {**rows([*answered, *absent]), "height": 160, "mark": mark, "encoding": encoding},
        _table(
            history.asked,
            ["asked", "answered"],
            lambda each: [str(len(each.clients)), str(len(each.answered))],
        ),
    )


def _bytes(material: RunMaterial) -> Figure:
    history, mib = material.history, 2.0**20
    if all(each.bytes_down == each.bytes_up for each in history.asked):
        points = _curve(history.asked, lambda each: each.bytes_down / mib, "to clients, and as much from them")
        which = "The line is one way: as much comes from clients as goes to them. "
    else:
        points = [
            *_curve(history.asked, lambda each: each.bytes_down / mib, "to clients"),
            *_curve(history.asked, lambda each: each.bytes_up / mib, "from clients"),
        ]
        which = ""
    down, up = (sum(getattr(each, way) for each in history.asked) for way in ("bytes_down", "bytes_up"))
    says = f"{which}Tensors of all clients of a round; in all {words.size(down)} to them, {words.size(up)} from them."
    return Figure(
        "bytes",
        "Bytes on the wire",
        f"{says}{_larger_from(material)}{_means(history.asked)}",
        {**_over_rounds(points, "MiB per round, one way", zero=True)},
        _table(
            history.asked,
            ["to clients", "from clients", "to each of them"],
            lambda each: [
                words.size(each.bytes_down),
                words.size(each.bytes_up),
                words.size(each.bytes_down / max(1, len(each.clients))),
            ],
        ),
    )


def _larger_from(material: RunMaterial) -> str:
    """Return from which round on subnets of all sizes travel, where the first rounds do without larger ones."""
    config, strategy = material.run.config, material.run.config.strategy
    if not isinstance(strategy, FedSupConfig | EFedSupConfig):
        return ""
    first = rounds_of_the_smallest(config.training.rounds, strategy.smallest_first, paper=strategy.paper)
    if not 0 < first < len(material.history.asked):
        return ""
    return f" To round {first} all clients train the smallest subnet only; from round {first + 1} on all sizes travel."


def _seconds(history: History) -> Figure:
    points = _curve(history.asked, lambda each: each.seconds, "seconds")
    total = sum(each.seconds for each in history.asked)
    return Figure(
        "seconds",
        "Time of a round",
        f"On the machine that trained; {words.seconds(total)} in all.{_means(history.asked)}",
        {**_over_rounds(points, "seconds", zero=True)},
        _table(history.asked, ["time"], lambda each: [words.seconds(each.seconds)]),
    )


def turns_of(material: RunMaterial) -> Counter[int]:
    """Return how often each client has answered; of all that may take part, also those that never did."""
    turns: Counter[int] = Counter(dict.fromkeys(material.seen, 0))
    for each in material.history.asked:
        turns.update(each.answered)
    return turns


def _turns(material: RunMaterial) -> Figure:
    turns = turns_of(material)
    step = max(1, -(-(max(turns.values(), default=0) + 1) // _MOST_BARS))
    bars: Counter[int] = Counter(number // step for number in turns.values())
    found: list[Row] = [
        {
            "times": str(at) if step == 1 else f"{at * step} to {at * step + step - 1}",
            "clients": bars[at],
        }
        for at in range(min(bars, default=0), max(bars, default=0) + 1)
    ]
    which = "" if material.seen else " that did"
    encoding: JsonObject = {
        "x": category("times", "times a client took part", axis={"labelAngle": 0}),
        "y": quantity("clients", "clients", scale={"zero": True, "nice": True}),
    }
    return Figure(
        "clients",
        "How often clients took part",
        f"Of {words.counted(len(turns), 'client')}{which}, in {words.counted(len(material.history.asked), 'round')}.",
        {**rows(found), "height": 160, "mark": {"type": "bar", "style": "bar"}, "encoding": encoding},
        Table.of(("times", "clients"), [(str(row["times"]), str(row["clients"])) for row in found]),
    )


def tier_words(material: RunMaterial) -> list[str]:
    """Return what the clients of each tier train; of a strategy that is not ours as its config writes it."""
    strategy = material.run.config.strategy
    if isinstance(strategy, EFedSupConfig):
        return [_trained(tier) for tier in strategy.tiers]
    listed = strategy.model_dump(mode="json").get("tiers")
    return list(map(show, listed)) if isinstance(listed, list) else [""] * strategy.num_tiers


def _trained(tier: Tier) -> str:
    if tier.params is not None:
        return "a random subnet of {:,} to {:,} parameters".format(*tier.params)
    if tier.architecture is None:
        return "a random subnet of any size"
    return f"the {tier.architecture} subnet" if tier.architecture in CORNERS else f"the subnet {tier.architecture}"


def _tiers(material: RunMaterial) -> Figure:
    turns, seen = turns_of(material), material.seen
    told = tier_words(material)
    of_client = dict(zip(seen, tiers_by_index(len(seen), len(told)), strict=True))
    clients: Counter[int] = Counter(of_client.values())
    updates: Counter[int] = Counter()
    for client, number in turns.items():
        if client in of_client:
            updates[of_client[client]] += number
    found: list[Row] = [
        {"tier": f"tier {tier}", "updates": updates[tier], "clients": clients[tier], "trains": trains}
        for tier, trains in enumerate(told)
    ]
    encoding: JsonObject = {
        "y": category("tier"),
        "x": quantity("updates", "updates that arrived", scale={"zero": True, "nice": True}),
    }
    return Figure(
        "tiers",
        "Tiers",
        f"Updates that arrived from each class of devices. {'; '.join(_who_trains(told))}.",
        {**rows(found), "height": 28 * len(found), "mark": {"type": "bar", "style": "bar"}, "encoding": encoding},
        Table.of(
            ("tier", "clients", "updates", "trains"),
            [tuple(str(row[key]) for key in ("tier", "clients", "updates", "trains")) for row in found],
        ),
    )


def _who_trains(told: Sequence[str]) -> list[str]:
    """Return what each tier trains, tiers that train the same together."""
    tiers: dict[str, list[str]] = {}
    for tier, trains in enumerate(told):
        tiers.setdefault(trains, []).append(str(tier))
    return [
        f"{'Tier' if len(which) == 1 else 'Tiers'} {' and '.join(which)}: {trains or 'as its strategy says'}"
        for trains, which in tiers.items()
    ]


def _classes(names: Sequence[str], counts: Sequence[int]) -> Figure:
    found: list[Row] = [{"class": name, "images": count} for name, count in zip(names, counts, strict=True)]
    encoding: JsonObject = {
        "y": category("class"),
        "x": quantity("images", "images", scale={"zero": True, "nice": True}),
    }
    shown = found[:100]
    return Figure(
        "classes",
        "Images of each class",
        "That the clients train on, all of them together; who has which is known to the clients alone.",
        {**rows(shown), "height": 20 * len(shown), "mark": {"type": "bar", "style": "bar"}, "encoding": encoding},
        Table.of(("class", "images"), [(str(row["class"]), f"{row['images']:,}") for row in found]),
    )


def warnings(material: RunMaterial) -> Table | None:
    """Return what training has warned of; None where it has of nothing."""
    found = [(str(each.round + 1), each.words) for each in material.history.health]
    return Table.of(("round", "what is wrong"), found) if found else None
