"""What the options of any partition have in common; the row of one in the registry is its class of options."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fedsup_deploy.config.section import Section


class PartitionConfig(Section):
    """What all partitions have in common. One adds its own options, and a `kind` that is a literal: its row's."""

    divide: ClassVar[Callable[..., Any]]
    """Called with the labels, the number of clients, a generator, and all other options but the kind."""

    kind: str
    """Which partition: a name registered under `partition`."""
    num_clients: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many clients hold the training images; at most a million."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 2
    """Fewest images of a client; at most a million. Images move from the largest clients until every client has
    them."""
