"""Tracker `tensorboard`: scalars of a run as TensorBoard's event files, in `RUN/tensorboard`. Needs tensorboardX."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedsup_deploy.errors import DependencyError
from fedsup_deploy.run_events import CORNERS, Evaluation, HealthWarning, Round, RunEvent

FOLDER: Final = "tensorboard"
#: How long a point may wait before it can be seen.
_FLUSH_S: Final = 5


class TensorBoard:
    """Writes the scalars of rounds and evaluations. A step is the number of rounds that are over.

    Args:
        folder: Of the run.

    Side effects: Removes what an earlier process wrote there: whoever goes on tells all of it again.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        place = folder / FOLDER
        shutil.rmtree(place, ignore_errors=True)
        self._writer = SummaryWriter(str(place), flush_secs=_FLUSH_S)
        self._num_warnings = 0

    @staticmethod
    def require() -> None:
        """Fail now where the library is missing.

        Raises:
            DependencyError: It is not installed.
        """
        if importlib.util.find_spec("tensorboardX") is None:
            raise DependencyError(
                "--track tensorboard needs tensorboardX, which is not installed; "
                "run: pip install 'fedsup-deploy[tensorboard]'"
            )

    def read(self, event: RunEvent) -> None:
        """Write the points of an event."""
        if isinstance(event, (Round, Evaluation, HealthWarning)):
            for name, value in self._points(event):
                self._writer.add_scalar(name, value, event.round + 1, walltime=event.unix_time_s)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _points(self, event: Round | Evaluation | HealthWarning) -> Iterator[tuple[str, float]]:
        if isinstance(event, Round):
            yield from _of_round(event)
            yield "health/warnings", self._num_warnings
        elif isinstance(event, Evaluation):
            for corner in CORNERS:
                yield f"accuracy/{corner}", event.accuracy(corner)
            for corner, balanced in zip(
                CORNERS, (event.balanced_accuracy_largest, event.balanced_accuracy_smallest), strict=True
            ):
                if balanced is not None:
                    yield f"balanced_accuracy/{corner}", balanced
            if event.seconds is not None:
                yield "seconds/evaluation", event.seconds
        else:
            self._num_warnings += 1


def _of_round(event: Round) -> Iterator[tuple[str, float]]:
    yield "loss/training", event.loss
    if event.loss_before is not None:
        yield "loss/before_training", event.loss_before
    if event.learning_rate is not None:
        yield "learning_rate", event.learning_rate
    yield "clients/asked", len(event.clients)
    yield "clients/answered", len(event.answered)
    yield "bytes/down", event.bytes_down
    yield "bytes/up", event.bytes_up
    yield "seconds/round", event.seconds
