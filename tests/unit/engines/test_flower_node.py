"""What a node says to messages that it cannot answer, and to the question who it is."""

from collections.abc import Sequence

import pytest
from safetensors.numpy import save

from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.engines.flower.node import HELLO, ClientNode, name_in
from fedsup_deploy.engines.flower.simulation import open_simulation
from fedsup_deploy.errors import DataError, DependencyError
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.client import Client, ClientId, ClientInfo
from fedsup_deploy.federation.frame import PROTOCOL
from fedsup_deploy.federation.jobs.moments import CountPixels
from fedsup_deploy.federation.messages import BlobStore, Reply
from fedsup_deploy.runs.run import load_data

JOBS = {3: CountPixels()}


class Failing:
    """A population whose only client cannot even be made."""

    def infos(self) -> Sequence[ClientInfo]:
        return [ClientInfo(3, 1)]

    def client(self, client: ClientId) -> Client:
        raise ValueError(f"patient {client}, born in 1970")


def said(node: ClientNode, population: str, message: bytes) -> object:
    return encoding.decode_replies(node.answer(population, message), JOBS)


@pytest.fixture
def node() -> ClientNode:
    return ClientNode("camera", {"clients": Failing()}, BlobStore())


def test_who_it_is(node: ClientNode) -> None:
    assert name_in(node.answer("", HELLO)) == "camera"
    with pytest.raises(DataError, match=r"^message: "):
        name_in(b"noise")


def test_an_error_is_told_by_its_type_alone(node: ClientNode) -> None:
    message, _ = encoding.encode_request(JOBS)
    assert said(node, "clients", message) == [Reply(3, None, "ValueError")]


def test_what_it_cannot_read_it_refuses_in_a_line(node: ClientNode) -> None:
    message, _ = encoding.encode_request(JOBS)
    assert said(node, "others", message) == [Reply(3, None, "no such clients here")]
    old = save({}, metadata={"document": "{}", "protocol": "0", "version": "0.0.9"})
    for unread, reason in (
        (b"noise", "message: "),
        (old, f"message: protocol 0 (fedsup-deploy 0.0.9), here it is {PROTOCOL} "),
    ):
        (reply,) = encoding.decode_replies(node.answer("clients", unread), JOBS)
        assert reply.value is None
        assert str(reply.absent).startswith(reason)


def test_where_flower_is_missing_the_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    data = load_data(load_train_config("digits"))
    with (
        pytest.raises(DependencyError, match=r"needs flwr; pip install 'fedsup-deploy\[flower-sim\]'$"),
        open_simulation(data.populations, 1),
    ):
        pass
