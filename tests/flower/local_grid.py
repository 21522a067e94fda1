"""A grid of Flower's in this process: no SuperLink, no Ray. A message is answered when its answer is asked for."""

import uuid
from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.task_identity import TaskIdentity

from fedsup_deploy.engines.flower.grid import content_of, read_content
from fedsup_deploy.engines.flower.node import ClientNode


class LocalGrid:
    """Carries messages to apps.

    Args:
        apps: For each node its app; nodes may be added.
        names: For nodes that are registered the name.
    """

    def __init__(self, apps: dict[int, ClientApp], names: dict[int, str] | None = None) -> None:
        self.apps, self.names = apps, {} if names is None else names
        #: Nodes that are there, get messages, and do not answer.
        self.mute: set[int] = set()
        #: Where messages went, in their order.
        self.asked: list[int] = []
        self._sent: dict[str, Message] = {}
        # Messages cannot be made outside of a task.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, name=self.names.get(node, "")) for node in self.apps]

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        numbers: list[str | None] = []
        for message in messages:
            number = str(uuid.uuid4())
            message.metadata.__dict__["_message_id"] = number
            self._sent[number] = message
            self.asked.append(message.metadata.dst_node_id)
            numbers.append(number if message.metadata.dst_node_id in self.apps else None)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        heard = (number for number in message_ids if self._sent[number].metadata.dst_node_id not in self.mute)
        if (number := next(heard, None)) is None:
            return []
        message = self._sent.pop(number)
        context = Context(1, message.metadata.dst_node_id, {}, RecordDict(), {})
        try:
            return [self.apps[message.metadata.dst_node_id](message, context)]
        except Exception as error:  # noqa: BLE001  as Flower does it, with what the error says
            return [Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=message)]


def app_of(node: ClientNode, received: Callable[[str, bytes], None] = lambda *_: None) -> ClientApp:
    """Return the app of a node."""

    def answer(message: Message, context: Context) -> Message:
        population, content = read_content(message.content)
        received(population, content)
        return Message(content_of(population, node.answer(population, content)), reply_to=message)

    app = ClientApp()
    app.query()(answer)
    return app
