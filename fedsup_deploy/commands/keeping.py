"""Which supernet a run ends with: the last one, or the best of those that were evaluated (`training.keep`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from fedsup_deploy.artifact.weights import CheckpointRecord
from fedsup_deploy.commands.resuming import settings_hash
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.federation.server.strategy import ServerState
from fedsup_deploy.run_events import Evaluation, RunEvent
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.federation import read_checkpoint, save_supernet
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


class SupernetKeeping(Protocol):
    """Is shown every supernet that is evaluated, and writes the one that the run ends with."""

    def offer(self, supernet: Supernet, rounds: int, scores: Mapping[str, JsonValue]) -> None:
        """Look at a supernet.

        Args:
            supernet: What was evaluated.
            rounds: After how many rounds.
            scores: Of its `evaluation` event.
        """
        ...

    def write(self, path: Path, last: Supernet) -> None:
        """Write the supernet that is kept, atomically.

        Args:
            path: Where to.
            last: That of the last round.
        """
        ...


class KeepLast:
    """Ends with the supernet of the last round."""

    def offer(self, supernet: Supernet, rounds: int, scores: Mapping[str, JsonValue]) -> None:
        """Look away."""

    def write(self, path: Path, last: Supernet) -> None:
        """Write the last."""
        save_supernet(path, "supernet", last)


class KeepBest:
    """Ends with the first of those with the highest mean accuracy of the largest and the smallest subnet.

    It is in a file of its own, so that a run that goes on still has it. A resumed run repeats rounds, and finds in them
    what it found before: the file may be of one of these already.

    Args:
        path: The file.
        layout: Of the supernet.
        config_hash: Of the settings that decide the weights.
        is_new: Whether none was evaluated yet: what lies there is of rounds that are repeated, or were given up.

    Raises:
        ArtifactError: The file is missing, though there was an evaluation, or damaged, or of another config.
    """

    def __init__(self, path: Path, layout: Layout, config_hash: str, *, is_new: bool) -> None:
        self._path, self._layout, self._config_hash = path, layout, config_hash
        if is_new:
            path.unlink(missing_ok=True)
        self._accuracy = None if is_new else self._read()[1].accuracy

    def offer(self, supernet: Supernet, rounds: int, scores: Mapping[str, JsonValue]) -> None:
        """Write a supernet to the file if it is better than all before, atomically."""
        largest, smallest = scores["accuracy_largest"], scores["accuracy_smallest"]
        assert isinstance(largest, float)
        assert isinstance(smallest, float)
        accuracy = (largest + smallest) / 2
        if self._accuracy is None or accuracy > self._accuracy:
            save_supernet(
                self._path, "checkpoint", supernet, rounds=rounds, accuracy=accuracy, config_hash=self._config_hash
            )
            self._accuracy = accuracy

    def write(self, path: Path, last: Supernet) -> None:  # noqa: ARG002
        """Write the best, with the rounds that it was trained for and its accuracy.

        Raises:
            ArtifactError: The file of the best is missing or damaged.
        """
        state, record = self._read()
        save_supernet(path, "supernet", state.supernet, rounds=record.rounds, accuracy=record.accuracy)

    def _read(self) -> tuple[ServerState, CheckpointRecord]:
        state, record = read_checkpoint(self._path, self._layout)
        if record.config_hash != self._config_hash:
            raise ArtifactError(f"{self._path}: belongs to another config; choose another --out")
        return state, record


def keeping_of(
    folder: Path, config: TrainConfig, layout: Layout, first_round: int, before: Sequence[RunEvent]
) -> SupernetKeeping:
    """Return what decides which supernet a run ends with.

    Args:
        folder: Of the run.
        config: Its settings.
        layout: Of the supernet.
        first_round: Rounds that are done.
        before: What was recorded of them.

    Raises:
        ArtifactError: As of `KeepBest`.
    """
    if config.training.keep == "last":
        return KeepLast()
    best = folder / runs.BEST
    # Evaluations may all have been skipped. Events may be missing, and the file is there.
    was_evaluated = best.exists() or any(isinstance(event, Evaluation) for event in before)
    is_new = first_round < config.training.evaluate_every or not was_evaluated
    return KeepBest(best, layout, settings_hash(config), is_new=is_new)
