"""`index.json`, schema 1: which bundle each device class has in a folder of them, why that one, and what was refused.

Owns the fields. What is said of a bundle is what its manifest says, and no field holds a path of a machine. The file is
the business of `indexing`, what people read that of `index_table`.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fedsup_deploy.artifact.manifest import Count, LimitRecord, Sha256
from fedsup_deploy.artifact.measures import Interval
from fedsup_deploy.artifact.variants import FileName, Share
from fedsup_deploy.config.section import Name, NotNegative, Section, Text

FILENAME: Final = "index.json"
SCHEMA: Final = 1


class Choice(Section):
    """What a search says of the network that it gave a device class."""

    method: Text
    """The searcher."""
    objective: Text
    """What it was to be the best in."""
    pick: Text
    """The network that is best for this class alone; another than `arch_id` where few networks serve many classes, or
    the bundle is of a trimmed one."""
    certified: bool
    """Whether it is proven that nothing within the limits is better than the pick."""
    certified_relative_to: Text | None
    """What that takes for granted; null without a proof."""
    num_architectures: Count
    """Architectures of the space."""
    num_feasible: Count
    """Those found within all limits."""
    num_evaluated: Count
    """Those of them whose accuracy is known."""
    num_measured: Count | None
    """Those of them whose accuracy was measured, not predicted; null in searches of older versions."""
    not_checked: tuple[Text, ...]
    """Limits that could not be checked, as the profile has no model of them."""


class IndexedLimit(LimitRecord):
    """A limit, and by how much the network is within it."""

    left: float
    """Share of the limit that is left: 1 - cost / limit; below 0 where it is exceeded."""

    @field_validator("left")
    @classmethod
    def _follows(cls, left: float, info: ValidationInfo) -> float:
        cost, limit = info.data.get("cost"), info.data.get("limit")
        if cost is not None and limit is not None and left != 1 - cost / limit:
            raise ValueError(f"expected {1 - cost / limit}, 1 - cost / limit")
        return left


class IndexedVariant(Section):
    """One variant of a bundle. Predicted and measured latency are two fields, as ever."""

    num_bytes: Annotated[int, Field(ge=1)]
    """Size of its files."""
    accuracy: Share | None
    """Share of the images of the bundle's accuracy that it classifies correctly; null where nobody looked."""
    latency_ms_predicted: NotNegative | None
    """For the device, by its profile; null where that is of another precision."""
    latency_ms_measured_here: NotNegative | None
    """Median on the machine that made the bundle; null where it was not timed there."""


class IndexedBundle(Section):
    """What one device class has."""

    profile: Name
    """The class: its profile."""
    folder: FileName
    """The bundle, below the folder of the index."""
    sums: Sha256
    """SHA-256 of its SHA256SUMS: it is this very bundle, whatever was measured or signed since."""
    arch_id: Text
    """The network."""
    trimmed_from: Text | None
    """The subnet that it was trimmed from; null where it is one itself."""
    accuracy: Share
    """Share of images classified correctly."""
    accuracy_interval: Interval | None
    """Its 95 % interval."""
    split: Text
    """Of which images."""
    num_images: Annotated[int, Field(ge=1)]
    """How many."""
    search: Sha256 | None
    """SHA-256 of the file of the search; null where the network was named."""
    choice: Choice | None
    """What that search says; null as above."""
    limits: dict[Text, IndexedLimit]
    """Limits that were checked, by name, with what the network costs: predicted or counted."""
    latency_limit: Literal["met", "not met", "undecided"] | None
    """Whether the measured latency keeps its limit; null where the machine that made the bundle is not the device."""
    variants: dict[Text, IndexedVariant] = Field(min_length=1)
    """Its variants, by name."""
    left_out: dict[Text, Text]
    """Variants that were asked for and have not passed their gate, with the reason."""


class RefusedBundle(Section):
    """A bundle that was asked for and not made."""

    profile: Name
    """The device class."""
    arch_id: Text
    """The network."""
    reason: Text
    """Why."""


class Index(Section):
    """The bundles of a folder."""

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    """Version of this file format."""
    bundles: tuple[IndexedBundle, ...] = Field(min_length=1)
    """By device class; of one class that of the pick comes before that of a trimmed network."""
    refused: tuple[RefusedBundle, ...]
    """By device class."""

    @model_validator(mode="after")
    def _has_each_bundle_once(self) -> "Index":
        folders = [bundle.folder for bundle in self.bundles]
        if len(set(folders)) != len(folders):
            raise ValueError("bundles: got one twice, expected each once")
        return self
