"""Published latencies of known networks: the schema of `profiles/published/*.yaml`, and which profile a row is about.

Owns the files. Every figure in them was printed by somebody else, whom the file names; none is ours. Imports no torch.
"""

from typing import Final, Literal

from pydantic import Field, field_validator

from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.section import Positive, Section, Text
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.device.published import networks as reference_networks
from fedsup_deploy.registry import nearest
from fedsup_deploy.resources import shipped_folder, shipped_names
from fedsup_deploy.variant import Dtype

KIND: Final = "profiles/published"


class Scaling(Section):
    """How times of a table are converted before they are compared with predictions."""

    factor: Positive
    """What a printed time is multiplied by."""
    dtype: Dtype
    """Element type the product stands for."""
    because: Text
    """Why that is a fair guess."""


class PublishedRow(Section):
    """One printed time."""

    network: Text
    """A name that `fedsup_deploy.device.published.networks` knows."""
    ms: Positive
    """Time of one inference at batch 1, as printed, in ms."""
    is_deduced_from: bool = False
    """Whether costs of the shipped profile were deduced from this row, which it then has to give back."""
    known_miss: Text | None = None
    """Why the profile misses this row. It counts in the profile's error, and a check reports it without failing."""
    beyond: Text | None = None
    """Why the profile is not about such a network at all. It is shown, and decides nothing."""

    @field_validator("network")
    @classmethod
    def _is_known(cls, network: str) -> str:
        known = reference_networks.names()
        if network not in known:
            raise ValueError(f"unknown network {network!r}{nearest(network, known)}")
        return network


class PublishedTable(Section):
    """Times from one source, under the same conditions."""

    source: Text
    """Who printed them, and where."""
    device: Text
    """What they were measured on."""
    runtime: Text
    """What ran the networks, in lower case, such as `ncnn`."""
    threads: int | None = Field(ge=1)
    """Threads that shared one inference; null where the source does not say."""
    dtype: Dtype
    """Element type of weights and activations."""
    scaling: Scaling | None = None
    """Set where the times stand for another element type or clock than that of the profiles."""
    rows: tuple[PublishedRow, ...] = Field(min_length=1)
    """The times."""

    @property
    def factor(self) -> float:
        """What a printed time is multiplied by to be compared."""
        return 1.0 if self.scaling is None else self.scaling.factor

    def runs_like(self, profile: DeviceProfile) -> bool:
        """Return whether a printed time is one that the profile's costs ought to explain.

        Threads and element type have to be those of the profile. So has the runtime, but for costs that were deduced
        from a table's own rows: those are costs of the table's runtime, whatever the profile will be used with.
        """
        dtype = self.dtype if self.scaling is None else self.scaling.dtype
        runtimes = {profile.runtime.name}
        if is_deduced(profile) and any(row.is_deduced_from for row in self.rows):
            runtimes.add(self.runtime)
        threads = profile.runtime.threads
        return self.runtime in runtimes and dtype == profile.runtime.dtype and self.threads in {None, threads}


class PublishedLatencies(Section):
    """All tables about one class of devices."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file format."""
    profiles: tuple[Text, ...] = Field(min_length=1)
    """Names of the profiles the tables are about."""
    tables: tuple[PublishedTable, ...] = Field(min_length=1)
    """The tables."""


def is_deduced(profile: DeviceProfile) -> bool:
    """Return whether a profile's costs come from published times, as they stand."""
    return profile.calibration is None and "published" in profile.provenance_kinds


def published_tables(name: str) -> list[PublishedTable]:
    """Return the tables that are about the profile of that name; none for a device nobody printed times of.

    Raises:
        ConfigError: A shipped file is wrong; the message names file and line.
    """
    found: list[PublishedTable] = []
    for stem in shipped_names(KIND):
        latencies = load_published(stem)
        if name in latencies.profiles:
            found += latencies.tables
    return found


def load_published(stem: str) -> PublishedLatencies:
    """Return one shipped file.

    Raises:
        ConfigError: It cannot be read or is wrong; the message names file and line.
    """
    return validate(load_yaml(shipped_folder(KIND) / f"{stem}.yaml"), PublishedLatencies)
