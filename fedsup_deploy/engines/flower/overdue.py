"""Answers that are waited for though their exchange is over.

Known once for all that ask by one courier: whoever asks next is handed whatever comes.
"""

import dataclasses
from collections.abc import Callable, Mapping

from fedsup_deploy.engines.flower.courier import Delivery, Ticket


@dataclasses.dataclass(frozen=True)
class Awaited:
    """An answer.

    Args:
        is_heard: Says whether somebody would still hear it.
        take: Takes what came of the message.
    """

    is_heard: Callable[[], bool]
    take: Callable[[Delivery], None]


class Overdue:
    """Answers to messages under way, by their tickets."""

    def __init__(self) -> None:
        self._awaited: dict[Ticket, Awaited] = {}

    def add(self, awaited: Mapping[Ticket, Awaited]) -> None:
        """Wait for some from now on."""
        self._awaited |= awaited

    def give_up(self) -> tuple[Ticket, ...]:
        """Wait no longer for those that nobody would hear; return their tickets."""
        unheard = tuple(ticket for ticket, each in self._awaited.items() if not each.is_heard())
        for ticket in unheard:
            del self._awaited[ticket]
        return unheard

    def take(self, delivery: Delivery) -> bool:
        """Take what came of a message; return whether it was one of these."""
        awaited = self._awaited.pop(delivery.ticket, None)
        if awaited is not None:
            awaited.take(delivery)
        return awaited is not None
