"""What a session of many models tells, line by line, as types of JSON objects. No device has this module."""

from typing import List, Literal, Optional, Union

from typing_extensions import TypedDict

from fedsup_deploy.ondevice.records import EnergyRecord, Environment, RunTimes, TimedModel


class Visited(RunTimes):
    """A visit of a model: its `state` is `cached` or `uncached`."""

    model: str
    state: str
    ruler_ms: Optional[List[float]]


class LatencyEvent(TimedModel):
    """A model was timed by itself."""

    event: Literal["latency"]
    model: str


class EnvironmentEvent(Environment):
    """The start of a session."""

    event: Literal["environment"]


class MachineEvent(TypedDict):
    """What a machine is, where nothing is timed."""

    event: Literal["machine"]
    environment: Environment
    memory_mib: int


class EnergyEvent(TypedDict):
    """What a sensor said of a model."""

    event: Literal["energy"]
    model: str
    energy: Optional[EnergyRecord]
    reason: Optional[str]
    """Why there is no figure; None where there is one."""


class LoadEvent(TypedDict):
    """A model was loaded and run once."""

    event: Literal["load"]
    model: str
    load_ms: float
    first_run_ms: float


class VisitEvent(Visited):
    """A model was visited."""

    event: Literal["visit"]
    round: int


class RoundEvent(TypedDict):
    """All models were visited once more; `seconds` since the first."""

    event: Literal["round"]
    done: int
    total: int
    seconds: float


class ErrorEvent(TypedDict):
    """A model cannot be run."""

    event: Literal["error"]
    reason: str


#: What a session of many models tells, one line each.
SessionEvent = Union[EnvironmentEvent, LoadEvent, VisitEvent, RoundEvent]
