"""What the options of any partition have in common; the row of one in the registry is its class of options."""

import abc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple, Protocol

from pydantic import BeforeValidator, Field

from fedsup_deploy.config.document import show
from fedsup_deploy.config.section import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: A number of clients, a share of them, or their names; the numbers of clients that have no names.
Unseen = int | float | tuple[int | str, ...]


def _number_share_or_names(unseen: object) -> object:
    """Refuse all else in one line: of a union each member would complain."""
    is_fit = unseen is None
    if isinstance(unseen, list | tuple):
        is_fit = len(unseen) > 0 and all(_is_client(each) for each in unseen)
    elif isinstance(unseen, int | float) and not isinstance(unseen, bool):
        is_fit = unseen > 0 and (isinstance(unseen, int) or unseen < 1)
    if not is_fit:
        expected = "a number of clients, a share between 0 and 1, or a list of clients"
        raise ValueError(f"got {show(unseen)}, expected {expected}")
    return tuple(unseen) if isinstance(unseen, list) else unseen


def _is_client(each: object) -> bool:
    return bool(each) if isinstance(each, str) else isinstance(each, int) and not isinstance(each, bool) and each >= 0


class ClientList(NamedTuple):
    """Says that a data set is to tell whose images are whose.

    Args:
        path: A CSV file with columns `file` and `client`; None where the data set tells by itself.
    """

    path: Path | None = None


class Ownership(Protocol):
    """Whose images are whose."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the clients, each once and in order."""
        ...

    def parts(self, split: str) -> "list[NDArray[np.int64]] | None":
        """Return for each client the ascending indices of its images of a split; None where they are of no client."""
        ...


class Holdings(NamedTuple):
    """Who holds which training images.

    Args:
        names: Of the clients, each once.
        parts: For each the ascending indices of its images, maybe none.
    """

    names: tuple[str, ...]
    parts: "list[NDArray[np.int64]]"


class PartitionConfig(Section, abc.ABC):
    """What all partitions have in common. One adds its own options, and a `kind` that is a literal: its row's."""

    server_has_images: ClassVar[bool] = True
    """What `data.server_images` is where the config does not say."""

    kind: str
    """Which partition: a name registered under `partition`."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 2
    """Fewest images of a client; at most a million. Images move from the largest clients until every client has
    them; `natural` moves none, and leaves out clients with fewer, which `train` names."""
    unseen: Annotated[Unseen | None, BeforeValidator(_number_share_or_names)] = None
    """Clients that take no part in training, statistics and search: a number or a share of them, drawn by the seed, or
    a list of their names. `evaluate` tells how right a subnet is on them: on sites it has never seen. null: none."""

    @property
    def stated_clients(self) -> int | None:
        """How many clients there are, where the config says it and not the data."""
        return None

    def client_list(self, root: Path | None) -> ClientList | None:
        """Return where a data set at `root` is to say whose images are whose; None where that is not asked."""
        del root
        return None

    @abc.abstractmethod
    def holdings(self, labels_N: "NDArray[np.int64]", owners: Ownership | None, seed: int) -> Holdings:
        """Return who holds which training images.

        Args:
            labels_N: Class of each.
            owners: Whose they are, where the data set says so.
            seed: Of the run.

        Raises:
            ConfigError: There are too few images, or the data set does not say whose they are and must.
        """
