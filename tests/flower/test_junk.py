"""A device that pushes what Flower cannot read: it alone is absent, and the run goes on."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from flwr.app import Message
from safetensors.numpy import save
from superlink_here import SuperLinkHere, junk
from test_attacks import suite

from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.courier import Letter
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.engine import FlowerEngine
from fedsup_deploy.engines.flower.grid import GridCourier, content_of, read_content
from fedsup_deploy.engines.flower.node import ClientNode
from fedsup_deploy.federation import frame
from fedsup_deploy.federation.jobs.moments import CountPixels
from fedsup_deploy.federation.simulation import CLIENTS

NAMES = ("ada", "bob", "eve")
EVE = 2
JUNK = {
    "text": junk("RecordDict", b"not json"),
    "array": junk("Array", b"\xff\xff"),
    "arrays": junk("ArrayRecord", b"{}garbage"),
    "config": junk("ConfigRecord", b"\xff"),
}


def by(node: ClientNode) -> Callable[[Message], Message]:
    """Return what answers Flower's messages as a node does."""

    def reply(asked: Message) -> Message:
        population, message = read_content(asked.content)
        return Message(content_of(population, node.answer(population, message)), reply_to=asked)

    return reply


class Garbled(ClientNode):
    """A node whose answers are other bytes."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def answer(self, population: str, message: bytes) -> bytes:
        del population, message
        return self._said


def fleet(folder: Path, pushed: Mapping[int, bytes], said: Mapping[int, bytes] | None = None) -> FlowerEngine:
    """Return the engine of three devices.

    Args:
        folder: Of what they keep.
        pushed: What some of them push in place of their answers.
        said: What some of them answer, whatever they are asked.
    """
    superlink = SuperLinkHere()
    populations = {CLIENTS: suite.federated_data().populations()[CLIENTS]}
    numbers = [superlink.connect(name) for name in NAMES]
    nodes = [ClientNode(name, populations, DiskBlobs(folder / name)) for name in NAMES]
    for client, message in (said or {}).items():
        nodes[client] = Garbled(message)

    def work(_: float) -> None:
        for client, (number, node) in enumerate(zip(numbers, nodes, strict=True)):
            superlink.answer(number, by(node), pushed.get(client))

    courier = GridCourier(superlink.grid, sleep=work)
    return FlowerEngine(courier, CLIENTS, populations[CLIENTS].infos()[: len(NAMES)], Directory(courier, NAMES))


@pytest.mark.parametrize("kind", JUNK)
def test_who_pushes_what_flower_cannot_read_is_absent_and_nobody_else(kind: str, tmp_path: Path) -> None:
    engine = fleet(tmp_path, {EVE: JUNK[kind]})
    for _ in range(2):
        replies = {reply.client: reply for reply in engine.ask(dict.fromkeys(range(len(NAMES)), CountPixels()))}
        assert [client for client in sorted(replies) if replies[client].value is not None] == [0, 1]
        assert str(replies[EVE].absent).startswith(f"{frame.MALFORMED_ANSWER}: Flower cannot read it (")


@pytest.mark.parametrize(
    "said",
    [b"noise", frame.pack({"said": [["2", None, None]]}, {}), frame.pack({}, {})],
    ids=["noise", "a name for a number", "nothing"],
)
def test_an_answer_that_we_cannot_read_is_a_malformed_one(said: bytes, tmp_path: Path) -> None:
    """Flower passes it on. An update of that kind is told and counted as rejected, by how the reason begins."""
    engine = fleet(tmp_path, {}, {EVE: said})
    replies = {reply.client: reply for reply in engine.ask(dict.fromkeys(range(len(NAMES)), CountPixels()))}
    assert [client for client in sorted(replies) if replies[client].value is not None] == [0, 1]
    assert str(replies[EVE].absent).startswith(f"{frame.MALFORMED_ANSWER}: ")


def test_an_answer_of_another_version_is_none_that_is_rejected(tmp_path: Path) -> None:
    said = save({}, metadata={"document": "{", "protocol": "99", "version": "9.1"})
    engine = fleet(tmp_path, {}, {EVE: said})
    replies = {reply.client: reply for reply in engine.ask(dict.fromkeys(range(len(NAMES)), CountPixels()))}
    assert str(replies[EVE].absent).startswith("message: protocol 99 (fedsup-deploy 9.1), here it is ")


@pytest.mark.parametrize("num_sent", [1, 2])
def test_a_superlink_that_cannot_be_asked_ends_the_run(num_sent: int) -> None:
    """It is no device that is at fault then."""

    def gone(_: object) -> None:
        raise ConnectionError("gone")

    superlink = SuperLinkHere()
    courier = GridCourier(superlink.grid)
    for name in NAMES[:num_sent]:
        courier.send(Letter(superlink.connect(name), CLIENTS, b""))
    superlink.client.PullMessages = superlink.client.GetNodes = gone
    with pytest.raises(ConnectionError, match=r"^gone$"):
        courier.receive(0)
