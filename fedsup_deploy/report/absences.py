"""When clients were absent, or what they sent was refused, and why."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.report import words
from fedsup_deploy.report.figure import Figure, Row, Table, category, quantity, rows
from fedsup_deploy.report.run_figures import MOST_POINTS, RunMaterial
from fedsup_deploy.run_events import AskedClients

#: Clients that are shown.
_MOST_CLIENTS: Final = 10
#: Reasons that have a colour of their own; all others share one.
_MOST_REASONS: Final = 3


def figure(material: RunMaterial) -> Figure | None:
    """Return when the clients that were absent most often were so, and why; None where nobody was.

    Absent is also whose update was refused: the reason says it.
    """
    asked: Counter[int] = Counter()
    missed: dict[int, list[AskedClients]] = {}
    names: dict[str, str] = {}
    for each in material.history.asked:
        names |= each.absent_names
        asked.update(each.clients)
        for client in each.clients:
            if str(client) in each.absent:
                missed.setdefault(client, []).append(each)
    if not missed:
        return None
    ordered = sorted(missed, key=lambda client: (-len(missed[client]), client))
    shown = ordered[:_MOST_CLIENTS]
    called = {client: words.short(names.get(str(client), material.client(client))) for client in shown}
    reasons = Counter(each.absent[str(client)] for client in shown for each in missed[client])
    told = {reason: words.short(reason) for reason, _ in reasons.most_common(_MOST_REASONS)}
    found: list[Row] = [
        {
            "client": called[client],
            "round": each.round + 1,
            "why": told.get(each.absent[str(client)], "another reason"),
        }
        for client in shown
        for each in _some(missed[client])
    ]
    rounds = [each.round + 1 for each in material.history.asked]
    domain: JsonObject = {"domain": [min(rounds), max(rounds)], "nice": False, "padding": 8}
    encoding: JsonObject = {
        "y": category("client"),
        "x": quantity("round", "round", format="d", scale=domain),
        "color": category("why", legend={"columns": 1, "labelLimit": 320}),
    }
    mark: JsonObject = {"type": "tick", "orient": "vertical", "thickness": 3}
    table = [
        (called[client], f"{len(missed[client])} of {asked[client]}", _last(missed[client], client)) for client in shown
    ]
    left_out = len(ordered) - len(shown)
    more = f" {words.counted(left_out, 'client')} more were absent less often." if left_out else ""
    return Figure(
        "absences",
        "Absent or refused, by client",
        f"Rounds in which a client was asked and no update of it was used: a mark each, with the reason.{more}",
        {**rows(found), "height": 22 * len(shown), "mark": mark, "encoding": encoding},
        Table(("client", "rounds without it, of those it was asked in", "the last reason"), tuple(table), left_out),
    )


def _some(rounds: Sequence[AskedClients]) -> Sequence[AskedClients]:
    """Return as many as a plot has room for, from the first to the last."""
    return rounds[:: -(-len(rounds) // MOST_POINTS)]


def _last(rounds: Sequence[AskedClients], client: int) -> str:
    return f"{rounds[-1].absent[str(client)]}, in round {rounds[-1].round + 1}"
