"""A federation over the bundled digits, and engines that answer what they are told."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.data.dataset import DatasetSplits, load_dataset
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw
from fedsup_deploy.federation.messages import Engine, Job, Reply
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData
from fedsup_deploy.space.search_space import SearchSpace

DataOf = Callable[..., FederatedData]
#: From a client and its job to the value of its reply, to the reason why there is none, or to silence.
Answer = Callable[[ClientId, Any], Any]


@pytest.fixture(scope="session")
def digits() -> DatasetSplits:
    return load_dataset("digits", None)


@pytest.fixture(scope="session")
def data_of(digits: DatasetSplits) -> DataOf:
    """Divide the first images of the digits among clients; the server has 60 images to validate on, and 449 more."""

    def make(num_images: int, num_clients: int, *, kind: str = "iid", **options: float) -> FederatedData:
        train = digits.train.take(np.arange(num_images))
        clients = partition(train.labels_N, kind, num_clients, 0, **options)
        return FederatedData(train, tuple(clients), digits.test.take(np.arange(60)), digits.test)

    return make


class Scripted:
    """An engine that keeps what it is asked and gives each job to a function."""

    def __init__(self, infos: Sequence[ClientInfo], answer: Answer) -> None:
        self.asked: list[dict[ClientId, Any]] = []
        self.deadlines: list[float | None] = []
        self._infos, self._answer = infos, answer

    def clients(self) -> Sequence[ClientInfo]:
        return self._infos

    def ask(self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None) -> Iterator[Reply[Any]]:
        self.asked.append(dict(jobs))
        self.deadlines.append(deadline_s)
        for client, job in jobs.items():
            answer = self._answer(client, job)
            if answer is not None:
                yield Reply(client, None, answer) if isinstance(answer, str) else Reply(client, answer)


@pytest.fixture(scope="session")
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture(scope="session")
def federation_over() -> Callable[..., Federation]:
    """Make the server's side over engines; absences are appended to a list where one is given."""

    def make(
        clients: Engine,
        own: Mapping[str, Engine] | None = None,
        absences: list[tuple[str, ClientId, str]] | None = None,
        **changes: Any,
    ) -> Federation:
        told = [] if absences is None else absences
        fields = {
            "preprocessing": Preprocessing((0.5,), (0.25,), 8, 8, 8),
            "calibration": CalibrationDraw(64, 64),
            "calibration_clients": None,
            "terms": Terms(1.0, None),
            "seed": 0,
            **changes,
        }

        def tell(what: str, num_asked: int, absent: Mapping[ClientId, str], *_: object) -> None:
            assert len(absent) <= num_asked
            told.extend((what, client, reason) for client, reason in absent.items())

        return Federation(clients, own or {}, on_absences=tell, **fields)

    return make


@pytest.fixture(scope="session")
def federation_of(federation_over) -> Callable[..., Federation]:
    """Make the server's side of a simulated federation, all of it in this process."""

    def make(data: FederatedData, size: int = 8, **changes: Any) -> Federation:
        engines = {name: InProcess(population) for name, population in data.populations().items()}
        changes = {"preprocessing": Preprocessing.fit(data.train, size), **changes}
        return federation_over(engines.pop(CLIENTS), engines, **changes)

    return make


@pytest.fixture(scope="session")
def digits_space(space_of) -> SearchSpace:
    """Two stages for 8x8 digits: 2 x (2 x 2 x 2) x 2 = 32 architectures."""
    return space_of(
        {"widths": [4, 8], "depths": [1, 2], "kernel_sizes": [3, 5]},
        {"widths": [8, 12], "depths": [1], "stride": 2},
        stem={"widths": [4, 6]},
        num_classes=10,
    )
