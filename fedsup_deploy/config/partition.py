"""What the options of any partition have in common; the row of one in the registry is its class of options."""

from collections.abc import Callable
from typing import Any, ClassVar

from fedsup_deploy.config.section import Count, Section


class PartitionConfig(Section):
    """What all partitions have in common. One adds its own options, and a `kind` that is a literal: its row's."""

    divide: ClassVar[Callable[..., Any]]
    """Called with the labels, the number of clients, a generator, and all other options but the kind."""

    kind: str
    """Which partition: a name registered under `partition`."""
    num_clients: Count
    """How many clients hold the training images."""
    min_samples: Count = 2
    """Fewest images of a client. Images move from the largest clients until every client has them."""
