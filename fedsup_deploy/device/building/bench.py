"""The machine whose profile is built: this one, or another that ssh can log in to.

Both are timed by the same program, `device.session`; nothing that is built knows which it was.
"""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from fedsup_deploy.device.measure import visits_here
from fedsup_deploy.device.remote.measure import machine_there, session_there
from fedsup_deploy.device.remote.ssh import Access
from fedsup_deploy.device.session import Schedule
from fedsup_deploy.ondevice import machine
from fedsup_deploy.ondevice.records import Environment
from fedsup_deploy.ondevice.session_records import SessionEvent


class BenchFacts(NamedTuple):
    """What a machine says of itself."""

    environment: Environment
    """As `ondevice.machine` has it."""
    memory_mib: int
    """Its memory, in MiB."""


class Bench(Protocol):
    """A machine on which models are timed."""

    @property
    def name(self) -> str | None:
        """What it is called; None of this machine."""

    def facts(self, threads: int) -> BenchFacts:
        """Return what it says of itself with so many threads of the runtime."""

    def visits(
        self, models: Mapping[str, Path], schedule: Schedule, *, threads: int, filler: str, uncached: Collection[str]
    ) -> Iterator[SessionEvent]:
        """Yield the events of `session.visits` there.

        Args:
            models: Files here by name, the filler among them.
            schedule: How often and how long.
            threads: Threads of the runtime.
            filler: The one that fills the cache.
            uncached: Those that are also timed after it.
        """


class Here:
    """This machine."""

    name = None

    def facts(self, threads: int) -> BenchFacts:
        """Return what it says of itself with so many threads of the runtime."""
        return BenchFacts(machine.environment(threads), machine.memory_mib())

    def visits(
        self, models: Mapping[str, Path], schedule: Schedule, *, threads: int, filler: str, uncached: Collection[str]
    ) -> Iterator[SessionEvent]:
        """Yield the events; see `Bench`.

        Raises:
            ArtifactError: A model is missing or cannot be run.
            ConfigError: An impossible number of threads or rounds.
        """
        others = {name: path for name, path in models.items() if name != filler}
        yield from visits_here(others, schedule, threads=threads, filler=models[filler], uncached=uncached)


@dataclasses.dataclass(frozen=True)
class There:
    """Another machine.

    Args:
        access: How to get into it.
    """

    access: Access

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.access.target)

    def facts(self, threads: int) -> BenchFacts:
        """Return what it says of itself with so many threads of the runtime.

        Raises:
            DeviceError: It cannot be reached, lacks something, or cannot have so many threads.
        """
        found = machine_there(self.access, threads)
        return BenchFacts(found["environment"], found["memory_mib"])

    def visits(
        self, models: Mapping[str, Path], schedule: Schedule, *, threads: int, filler: str, uncached: Collection[str]
    ) -> Iterator[SessionEvent]:
        """Yield the events; see `Bench`. Closed, it ends the program there, and waits until nothing is left of it.

        Raises:
            ArtifactError: A model is missing.
            DeviceError: It cannot be reached, the connection was cut, or a model cannot be run there.
        """
        options = [
            *("--threads", str(threads), "--rounds", str(schedule.rounds), "--first-round", str(schedule.first_round)),
            *("--visit-seconds", repr(schedule.visit_seconds), "--seed", str(schedule.seed), "--filler", filler),
            *("--uncached", *uncached),
        ]
        with contextlib.closing(session_there(self.access, models, options)) as events:
            for event in events:
                if event["event"] not in {"latency", "energy", "machine"}:
                    yield cast("SessionEvent", event)
