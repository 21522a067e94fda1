"""The folder a build works in: the models, what was decided, and a journal of every visit. Killed, it can go on.

`plan.json` is written last, after all models: a folder without it holds nothing worth keeping. The journal counts in
whole rounds: what came after the last one is forgotten.
"""

import contextlib
import functools
import shutil
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from fedsup_deploy import files
from fedsup_deploy.artifact.document import first_problem
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.acceptance import accepted_by
from fedsup_deploy.device.building.bench import Bench, BenchFacts, Here
from fedsup_deploy.device.building.plan import FILLER, BuildPlan, write_graphs
from fedsup_deploy.device.session import Schedule
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventFile, read_events
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, parse_json, read_bytes
from fedsup_deploy.ondevice.session_records import SessionEvent
from fedsup_deploy.variant import Precision

_PLAN, _JOURNAL = "plan.json", "journal.jsonl"
#: Short, so that there are many, and every model meets every speed of the machine equally often.
VISIT_SECONDS: Final = 0.005
MIN_ROUNDS: Final = 6
_MAX_ROUNDS: Final = 100_000

Progress = Callable[[str, int, int], None]


class _PlanFile(TypedDict):
    """What `plan.json` holds."""

    schema: Literal[1]
    terms: dict[str, JsonValue]
    models: dict[str, str]


_PLAN_FILE: Final = TypeAdapter(_PlanFile)
_EVENTS: Final = TypeAdapter(list[Annotated[SessionEvent, Field(discriminator="event")]])


class Workplace:
    """A build under way.

    Args:
        folder: Where it works.
        plan: What is timed.
        threads: Threads of the runtime.
        precision: Number format of the models.
        bench: The machine that is timed; None: this one.
    """

    def __init__(
        self, folder: Path, plan: BuildPlan, threads: int, precision: Precision, bench: Bench | None = None
    ) -> None:
        self.folder, self.plan, self.threads, self.precision = folder, plan, threads, precision
        self._bench = bench or Here()
        self._events = EventFile(folder / _JOURNAL)

    def begin(self, progress: Progress) -> None:
        """Write the models, and what was decided.

        Args:
            progress: Called with the name of what is done, how much of it, and of how much.

        Side effects: Removes what was in the folder.
        """
        self.remove()
        names = list(self.plan.graphs())
        hashes = {}
        for name, path in zip(names, write_graphs(self.plan, self.folder, self._scheme()), strict=True):
            hashes[name] = files.sha256(path)
            progress("models", len(hashes), len(names))
        files.write_json(self.folder / _PLAN, {"schema": 1, "terms": self._terms(), "models": hashes})

    def resume(self) -> bool:
        """Return whether there is something to go on with.

        Raises:
            ConfigError: It was begun with other settings, or on another machine.
            ArtifactError: A file of it was altered.

        Side effects: Forgets what was timed after the last whole round.
        """
        path = self.folder / _PLAN
        if not path.is_file():
            return False
        try:
            begun = _PLAN_FILE.validate_python(parse_json(read_bytes(path, MOST_BYTES_OF_JSON)), strict=True)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error.strerror}; begin anew without --resume") from error
        except ValueError as error:
            raise ArtifactError(f"{path}: damaged: {first_problem(error)}; begin anew without --resume") from error
        old, hashes = begun["terms"], begun["models"]
        terms = self._terms()
        for key in (*terms, *(old.keys() - terms.keys())):
            if old.get(key) != terms.get(key):
                found = f"{key} is {terms.get(key)}, the build was begun with {old.get(key)}"
                raise ConfigError(f"cannot resume {self.folder}: {found}; begin anew without --resume")
        for name, expected in hashes.items():
            model = self._model(name)
            if not model.is_file() or files.sha256(model) != expected:
                raise ArtifactError(f"{model}: missing or altered; begin anew without --resume")
        self._events.drop_after(self.rounds)
        return True

    def time_models(self, minutes: float, progress: Progress) -> None:
        """Time all models in turns until the time is over, that of an interrupted build included.

        Args:
            minutes: Time for the rounds. At least six are made, and none is cut short.
            progress: See `begin`.

        Raises:
            ArtifactError: A model cannot be run.
            DeviceError: Another machine cannot be reached, or the connection was cut; whole rounds are kept.

        Side effects: Appends to the journal.
        """
        first_round, seconds = self.rounds, self.seconds
        total = round(60 * minutes)
        if self._is_over(first_round, seconds, total):
            return
        num_loaded, num_models = 0, len(self.plan.graphs()) - 1
        with contextlib.closing(self._visits(first_round)) as events:
            for event in events:
                if event["event"] == "round":
                    event["seconds"] = round(seconds + event["seconds"], 3)
                self._events.append(event)
                if event["event"] == "load":
                    num_loaded += 1
                    progress("loading", num_loaded, num_models)
                elif event["event"] == "round":
                    progress("timing, seconds", min(int(event["seconds"]), total), total)
                    if self._is_over(event["done"], event["seconds"], total):
                        return

    def _visits(self, first_round: int) -> Generator[SessionEvent, None, None]:
        yield from self._bench.visits(
            {name: self._model(name) for name in self.plan.graphs()},
            Schedule(_MAX_ROUNDS, VISIT_SECONDS, self.plan.seed, first_round),
            threads=self.threads,
            filler=FILLER,
            uncached=list(self.plan.part_models.values()),
        )

    @functools.cached_property
    def facts(self) -> BenchFacts:
        """What the machine that is timed says of itself."""
        return self._bench.facts(self.threads)

    @property
    def events(self) -> list[SessionEvent]:
        """The events of all whole rounds, and of the starts.

        Raises:
            ArtifactError: The journal is damaged, or of an earlier version that noted less.
        """
        path = self.folder / _JOURNAL
        try:
            events = _EVENTS.validate_python(read_events(path) if path.is_file() else [], strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            line, _, *keys = first["loc"]
            key = ".".join(map(str, keys))
            # A line is written as a whole: what is not in it was not known to whoever wrote it.
            is_older = first["type"] == "missing"
            what = f"has no {key}: an earlier version began this build" if is_older else f"damaged: {key}"
            raise ArtifactError(f"{path}:{int(line) + 1}: {what}; begin anew without --resume") from error
        num_rounds = _rounds(events)
        return [event for event in events if event["event"] != "visit" or event["round"] < num_rounds]

    @property
    def rounds(self) -> int:
        """Whole rounds timed so far."""
        return _rounds(self.events)

    @property
    def seconds(self) -> float:
        """Time of those rounds."""
        return max((float(event["seconds"]) for event in self.events if event["event"] == "round"), default=0.0)

    def remove(self) -> None:
        """Remove the folder. Side effects: Removes it."""
        # What says that the rest is whole goes first.
        (self.folder / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_over(self, rounds: int, seconds: float, total: float) -> bool:
        return rounds >= MIN_ROUNDS and seconds >= total

    def _model(self, name: str) -> Path:
        return self.folder / f"{name}.onnx"

    def _scheme(self) -> Int8Scheme | None:
        """Return how models are written in int8: as networks are exported for the profile that comes of them."""
        return accepted_by(self.facts.environment).int8_scheme if self.precision == "int8" else None

    def _terms(self) -> dict[str, JsonValue]:
        """Return what must be the same for times to be put together."""
        plan, environment, scheme = self.plan, self.facts.environment, self._scheme()
        networks = [network.to_dict() for network in (*plan.calibration, *plan.heldout)]
        return {
            **({} if self._bench.name is None else {"machine": self._bench.name}),
            "space": plan.space.name,
            "space hash": files.sha256_of(plan.space.to_dict()),
            "seed": plan.seed,
            "precision": self.precision,
            "int8": None if scheme is None else scheme.model_dump(),
            "threads": self.threads,
            "cpu": environment["cpu"],
            "onnxruntime": environment["onnxruntime"],
            "choice of models": files.sha256_of([plan.kind, list(plan.parts), networks]),
        }


def _rounds(events: Iterable[SessionEvent]) -> int:
    return max((int(event["done"]) for event in events if event["event"] == "round"), default=0)
