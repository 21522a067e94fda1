"""The suite of all engines, `tests/conformance/test_engines.py`, over Flower's messages, in this process."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from local_grid import LocalGrid, app_of

from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.engine import FlowerEngine
from fedsup_deploy.engines.flower.grid import GridCourier
from fedsup_deploy.engines.flower.node import ClientNode
from fedsup_deploy.federation.simulation import Population

SUITE = Path(__file__).parents[1] / "conformance" / "test_engines.py"


def suite_module() -> ModuleType:
    specification = importlib.util.spec_from_file_location("attacks_of_all_engines", SUITE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


suite: Any = suite_module()
#: Flower's nodes have numbers that say nothing, in an order that says nothing.
NODE_IDS = [2**63 + 7 * (3 * client % suite.NUM_CLIENTS) for client in range(suite.NUM_CLIENTS)]


def engines_over(
    populations: Mapping[str, Population],
    folder: Path,
    kept_bytes: int = 2**20,
    received: Callable[[str, bytes], None] = lambda *_: None,
) -> dict[str, FlowerEngine]:
    """Return an engine for each population, all over the same nodes, each of which stands for one client."""
    grid = LocalGrid(
        {
            number: app_of(ClientNode(str(client), populations, DiskBlobs(folder / str(client), kept_bytes)), received)
            for client, number in enumerate(NODE_IDS)
        }
    )
    courier = GridCourier(grid, sleep=lambda _: None)
    directory = Directory(courier, [str(client) for client in range(suite.NUM_CLIENTS)])
    directory.gather(lambda there: there == suite.NUM_CLIENTS)
    return {name: FlowerEngine(courier, name, each.infos(), directory) for name, each in populations.items()}


gate, in_every_exchange = suite.gate, suite.in_every_exchange


@pytest.fixture(scope="module")
def engines(gate: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FlowerEngine]:
    populations = suite.populations(suite.federated_data(), gate.folder)
    return engines_over(populations, tmp_path_factory.mktemp("blobs"))


@pytest.mark.parametrize(("attack", "exchange"), suite.CASES)
def test_an_attack_is_an_absence_with_a_reason(engines: dict[str, Any], attack: str, exchange: str) -> None:
    because, kinds = suite.ATTACKS[attack]
    # What a library says may quote an image.
    because = because.replace(": zero by zero", "")
    suite.check(exchange, engines[attack], suite.HOSTILE, kinds.keys() & suite.EXCHANGES[exchange][0], because)


@in_every_exchange
def test_a_late_answer_is_not_waited_for(engines: dict[str, Any], exchange: str, gate: Any) -> None:
    """Nor does it count in the next exchange."""
    engine = suite.Impatient(engines["late"], gate, before=True)
    because = r"^no answer within 9 s$"
    suite.check(exchange, engine, suite.LATE, suite.EXCHANGES[exchange][0], because, suite.DEADLINE_S)


@in_every_exchange
def test_same_bits_as_in_this_process(engines: dict[str, Any], exchange: str) -> None:
    assert suite.carried_out(exchange, engines[suite.HONEST]) == suite.without(None, frozenset(), exchange)


@in_every_exchange
def test_same_bits_where_a_disk_keeps_no_blob(exchange: str, tmp_path: Path) -> None:
    """Each has to be sent again and again."""
    populations = {suite.HONEST: suite.federated_data().populations()[suite.CLIENTS]}
    (tmp_path / "no folder").write_text("", encoding="utf-8")
    engines = engines_over(populations, tmp_path / "no folder")
    assert suite.carried_out(exchange, engines[suite.HONEST]) == suite.without(None, frozenset(), exchange)


def test_search_sends_each_node_few_messages(tmp_path: Path) -> None:
    """As many as statistics take exchanges, and one for the answers, however many candidates there are."""
    populations = {suite.HONEST: suite.federated_data().populations()[suite.CLIENTS]}
    sent: list[int] = []
    engine = engines_over(populations, tmp_path, received=lambda _, message: sent.append(len(message)))[suite.HONEST]
    sent.clear()
    suite.carried_out("search", engine)
    assert len(sent) == 2 * suite.NUM_CLIENTS
