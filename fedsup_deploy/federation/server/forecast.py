"""What rounds will send to clients and get back, before any is played: from who is asked and what each trains."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import torch

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.client import ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate, Train
from fedsup_deploy.federation.messages import Blob, Reply
from fedsup_deploy.federation.server.client_sampling import cohort_size, draw_cohort
from fedsup_deploy.federation.server.cohort import Terms, num_needed
from fedsup_deploy.federation.server.rounds import RoundParams
from fedsup_deploy.federation.server.strategy import Strategy
from fedsup_deploy.results import Result
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.layout import Layout

#: Of more assignments than these, those of as many rounds are looked at, all over the run.
_MOST_ASSIGNMENTS: Final = 2_000
_BYTES_OF_A_WEIGHT: Final = 4
#: A number that is written with as many digits as any: what is not known yet is as long as this in a message.
_LONG_NUMBER: Final = 0.1 + 0.2


class Link(Protocol):
    """How fast a device is reached."""

    @property
    def down_mbit_s(self) -> float:
        """Megabits per second to it."""
        ...

    @property
    def up_mbit_s(self) -> float:
        """The same from it."""
        ...

    @property
    def latency_ms(self) -> float:
        """Milliseconds that a message takes, either way."""
        ...


@dataclasses.dataclass(frozen=True)
class TierForecast:
    """What clients of a tier are sent for training, and send back.

    Args:
        tier: Which.
        clients: In it that can take part.
        bytes_down_per_round: Size of the tensors that all of them are sent in a round, on average, as is counted.
        bytes_up_per_round: The same of what they send back, where all answer.
        message_bytes_down: The largest message that one of them is sent in the run.
        message_bytes_up: The largest that it sends.
        transfer_s: How long both take on the tier's link, in seconds; None where no link is stated.
    """

    tier: int
    clients: int
    bytes_down_per_round: int
    bytes_up_per_round: int
    message_bytes_down: int
    message_bytes_up: int
    transfer_s: float | None


@dataclasses.dataclass(frozen=True)
class Forecast(Result):
    """What the rounds of a run send.

    Args:
        rounds: Rounds in all.
        asked_per_round: Clients asked in each.
        bytes_down: Size of the tensors sent to clients, in all.
        bytes_up: The same of what they send back, where all answer.
        rounds_looked_at: As many as `rounds`, and then figures are exact; fewer of a long run.
        tiers: Those of which somebody is asked.
    """

    rounds: int
    asked_per_round: int
    bytes_down: int
    bytes_up: int
    rounds_looked_at: int
    tiers: tuple[TierForecast, ...]

    @property
    def words(self) -> str:
        """All of it in a line."""
        per_round = _megabytes(self.bytes_down / self.rounds)
        most = [
            f"{f'tier {tier.tier} ' if len(self.tiers) > 1 else ''}{_megabytes(tier.message_bytes_down)}"
            + ("" if tier.transfer_s is None else f" ({tier.transfer_s:,.1f} s to it and back)")
            for tier in self.tiers
        ]
        return f"a round sends {per_round} to clients, and as much comes back; to one at most: {', '.join(most)}"


def forecast(
    layout: Layout,
    strategy: Strategy,
    params: RoundParams,
    infos: Sequence[ClientInfo],
    seed: int,
    example: Train,
    links: Sequence[Link] | None,
) -> Forecast:
    """Return what the rounds of a run will send.

    Who is asked and what each trains follows from the seed, so nothing is estimated, but for the share of messages that
    is no tensor: that is of `example`.

    Args:
        layout: Of the supernet.
        strategy: Who trains what.
        params: How rounds run.
        infos: All clients.
        seed: Of the run.
        example: A job as clients will get it; its tensors and assignment are replaced.
        links: Of each tier, or one for all; None: not known.

    Raises:
        ConfigError: Fewer clients can take part than a round has.
    """
    eligible = strategy.eligible(infos)
    num_clients = cohort_size(params.clients_per_round, len(eligible))
    looked_at = _rounds_to_look_at(params.rounds, num_clients)
    totals: dict[int, int] = {}
    largest: dict[int, Assignment] = {}
    sizes = _Sizes(layout)
    for index in looked_at:
        cohort = draw_cohort(eligible, num_clients, params.oversample, seed, index)
        plan = strategy.plan(index, cohort, seed)
        for info in cohort:
            assignment = plan[info.client]
            totals[info.tier] = totals.get(info.tier, 0) + sizes.of(assignment)
            if info.tier not in largest or sizes.of(assignment) > sizes.of(largest[info.tier]):
                largest[info.tier] = assignment
    tiers = []
    for tier, assignment in sorted(largest.items()):
        down, up = _messages(example, assignment, layout)
        link = None if links is None else link_of(links, tier)
        per_round = round(totals[tier] / len(looked_at))
        count = sum(info.tier == tier for info in eligible)
        seconds = None if link is None else transfer_s(link, down, up)
        tiers.append(TierForecast(tier, count, per_round, per_round, down, up, seconds))
    total = round(sum(totals.values()) * params.rounds / len(looked_at))
    return Forecast(params.rounds, len(cohort), total, total, len(looked_at), tuple(tiers))


def check_in_time(found: Forecast, deadline_s: float | None, links: Sequence[Link] | None) -> None:
    """Refuse a run of which some tier's messages alone take longer than a round.

    Raises:
        ConfigError: Names the tier that takes longest, bytes, seconds, and what to do.
    """
    late = [tier for tier in found.tiers if deadline_s is not None and (tier.transfer_s or 0.0) > deadline_s]
    if not late or links is None:
        return
    worst = max(late, key=lambda tier: tier.transfer_s or 0.0)
    seconds, link = worst.transfer_s or 0.0, link_of(links, worst.tier)
    others = f" ({len(late)} tiers take longer than {deadline_s:g} s)" if len(late) > 1 else ""
    raise ConfigError(
        f"federation.deadline_s: got {deadline_s:g}, expected at least {math.ceil(seconds)}: tier {worst.tier} is sent "
        f"{worst.message_bytes_down:,} bytes at {link.down_mbit_s:g} Mbit/s and sends {worst.message_bytes_up:,} at "
        f"{link.up_mbit_s:g} Mbit/s, which alone takes {seconds:,.1f} s{others}; raise federation.deadline_s, or let "
        "strategy.tiers give it smaller subnets"
    )


def check_judged_in_time(layout: Layout, judges: Sequence[ClientInfo], terms: Terms, links: Sequence[Link]) -> None:
    """Refuse a run that could not be evaluated: too few of its devices would have the largest subnet in time.

    Who alone is too slow is absent from evaluations, and may well train smaller subnets.

    Args:
        layout: Of the supernet.
        judges: The clients that evaluate networks.
        terms: What is expected of them.
        links: Of each tier, or one for all.

    Raises:
        ConfigError: Says bytes, how many would answer, and what to do.
    """
    size = _BYTES_OF_A_WEIGHT * sum(map(math.prod, layout.shapes.values()))
    seconds = sorted(transfer_s(link_of(links, info.tier), size, 0) for info in judges)
    needed = num_needed(terms.quorum, len(judges))
    if terms.deadline_s is None or not judges or seconds[needed - 1] <= terms.deadline_s:
        return
    in_time = sum(each <= terms.deadline_s for each in seconds)
    raise ConfigError(
        f"federation.deadline_s: got {terms.deadline_s:g}, expected at least {math.ceil(seconds[needed - 1])}: an "
        f"evaluation sends devices the largest subnet, {size:,} bytes, which {in_time} of {len(judges)} get in time, "
        f"{needed} must; raise federation.deadline_s, lower federation.quorum, or give the server images (data.server)"
    )


def link_of(links: Sequence[Link], tier: int) -> Link:
    """Return the link of a tier, where there is one for each, or one for all."""
    return links[tier if len(links) > 1 else 0]


def transfer_s(link: Link, bytes_down: int, bytes_up: int) -> float:
    """Return how long a message to a device and its answer travel, in seconds."""
    seconds = 8 * bytes_down / (1e6 * link.down_mbit_s) + 8 * bytes_up / (1e6 * link.up_mbit_s)
    return round(seconds + 2 * link.latency_ms / 1000, 3)


class _Sizes:
    """Bytes of the tensors of assignments."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[Architecture | None, int] = {}

    def of(self, assignment: Assignment) -> int:
        """Return the bytes of the tensors that a client is sent, and sends back."""
        architecture = assignment.architecture
        if architecture not in self._known:
            shapes = _shapes(self._layout, assignment).values()
            self._known[architecture] = _BYTES_OF_A_WEIGHT * sum(map(math.prod, shapes))
        return self._known[architecture]


def _shapes(layout: Layout, assignment: Assignment) -> Mapping[str, tuple[int, ...]]:
    if assignment.architecture is None:
        return layout.shapes
    where = layout.slices(assignment.architecture)
    return {name: tuple(part.stop - part.start for part in index) for name, index in where.items()}


def _messages(example: Train, assignment: Assignment, layout: Layout) -> tuple[int, int]:
    """Return the bytes of the message that asks one client, and of its answer."""
    tensors = {name: torch.zeros(shape) for name, shape in _shapes(layout, assignment).items()}
    job = dataclasses.replace(example, assignment=assignment, weights=Blob(tensors))
    message, _ = encoding.encode_request({0: job})
    update = ClientUpdate(10**4, _LONG_NUMBER, tensors, 10**9, _LONG_NUMBER)
    return len(message), len(encoding.encode_replies([Reply(0, update)], {0: job}))


def _rounds_to_look_at(rounds: int, num_clients: int) -> Sequence[int]:
    step = math.ceil(rounds * num_clients / _MOST_ASSIGNMENTS)
    return range(0, rounds, step)


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.3g} MB" if num_bytes < 1e9 else f"{num_bytes / 1e6:,.0f} MB"
