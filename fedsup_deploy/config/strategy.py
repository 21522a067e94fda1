"""What a training config asks of the options of any strategy.

It knows no strategy: the row of one in the registry is its class of options, in a torch-free module of its own.
"""

from collections.abc import Sequence
from typing import ClassVar

from fedsup_deploy.config.reader import KeyPath
from fedsup_deploy.config.section import Section


class StrategyConfig(Section):
    """What every strategy says. One adds its own options, and a `name` that is a literal: its row's."""

    strategy: ClassVar[str]
    """`module:attribute` of what is called with the space, the number of rounds and all options but the name."""

    name: str
    """Which strategy."""

    @property
    def num_tiers(self) -> int:
        """Classes that clients are divided into by capability."""
        return 1

    def misfits(self, num_clients: int) -> Sequence[tuple[KeyPath, object, str]]:
        """Return which options do not fit to so many clients: for each its path, its value, and what was expected."""
        del num_clients
        return ()

    def able_clients(self, num_clients: int) -> tuple[int, str | None]:
        """Return how many of the clients can take part, and which option decides it, if one does.

        Only asked where all options fit.
        """
        return num_clients, None
