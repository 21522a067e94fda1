"""A SuperLink of Flower's in this process, and nodes that push to it what they like: no network, no process."""

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

#: Seconds for which a node counts as there.
PRESENT_S = 600.0


def junk(kind: str, body: bytes) -> bytes:
    """Return an object that says what it is and how long, which is all that a SuperLink looks at, and is none."""
    return f"{kind}  {len(body)}".encode() + b"\x00" + body


class SuperLinkHere:
    """A SuperLink with one run, all of it in memory."""

    def __init__(self) -> None:
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self.state = factory.state()
        self.run = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        # Messages cannot be made outside of a task.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self.run, 1
        self.grid = HttpGrid(token="none")
        [task] = self.state.get_tasks(run_ids=[self.run])
        self.state.claim_task(task.task_id)
        self.state.activate_task(task.task_id)
        [run] = self.state.get_run_info(run_ids=[self.run])
        self.grid.set_run(run)
        self.client = self._client()
        self.grid._client = self.client

    def _client(self) -> Any:
        """Return what asks the SuperLink as an app does."""
        task = SimpleNamespace(run_id=self.run, task_id=1)
        names = {
            "GetNodes": "get_nodes",
            "PushMessages": "push_messages",
            "PullMessages": "pull_messages",
            "PushObject": "push_object",
            "PullObject": "pull_object",
            "ConfirmMessageReceived": "confirm_message_received",
        }

        def calls(name: str) -> Callable[[Any], Any]:
            return lambda request: getattr(runtime_handlers, name)(request, self.state, task)

        return SimpleNamespace(**{ours: calls(theirs) for ours, theirs in names.items()})

    def connect(self, name: str) -> int:
        """Let a node come; return its number."""
        node: int = self.state.create_node(NOOP_FLWR_AID, "owner", name.encode(), PRESENT_S, name=name)
        assert self.state.activate_node(node, PRESENT_S)
        return node

    def answer(self, node: int, reply: Callable[[Message], Message], content: bytes | None = None) -> None:
        """Let a node take the message that waits for it, if there is one, and answer.

        Args:
            node: Which.
            reply: Returns the answer to a message.
            content: Pushed in place of the content of the answer.
        """
        for waiting in self.state.get_message_ins(node_id=node, limit=1):
            self._answer(node, reply(self._whole(waiting)), content)

    def _whole(self, waiting: Message) -> Message:
        number = waiting.metadata.message_id
        tree = iterate_object_tree(self.state.object_store.get_object_tree(number))
        contents = {each.object_id: self.state.object_store.get(each.object_id) for each in tree}
        found: Message = inflate_object_from_contents(number, contents)
        found.metadata.__dict__["_message_id"] = number
        return found

    def _answer(self, node: int, message: Message, content: bytes | None) -> None:
        message.metadata.__dict__["_src_node_id"] = node
        objects = {number: each.deflate() for number, each in get_all_nested_objects(message).items()}
        tree = get_object_tree(message)
        if content is not None:
            # The message names its content by the hash of that.
            number = hashlib.sha256(content).hexdigest()
            [theirs] = [child.object_id for child in tree.children]
            head = objects[tree.object_id].replace(theirs.encode(), number.encode())
            tree = message_pb2.ObjectTree(
                object_id=hashlib.sha256(head).hexdigest(), children=[message_pb2.ObjectTree(object_id=number)]
            )
            objects = {number: content, tree.object_id: head}
        self._push(node, message, tree, objects)

    def _push(self, node: int, message: Message, tree: Any, objects: dict[str, bytes]) -> None:
        message.metadata.__dict__["_message_id"] = tree.object_id
        pushed = fleet_handlers.push_messages(
            fleet_pb2.PushMessagesRequest(
                node=Node(node_id=node),
                messages_list=[message_to_proto(remove_content_from_message(message))],
                message_object_trees=[tree],
            ),
            self.state,
        )
        for number in pushed.objects_to_push:
            request = message_pb2.PushObjectRequest(
                node=Node(node_id=node),
                run_id=self.run,
                object_id=number,
                object_content=objects[number],
                session_id=pushed.session_id,
            )
            assert fleet_handlers.push_object(request, self.state).stored
