"""What a process of a node does with its message: answers it by our app, and refuses one of any other. Imports flwr.

Flower's own installs the parcel that it is sent and runs the app in it. This one looks into the parcel, and writes
nothing of it anywhere; the app is the one that is installed. `executor.py` forks a process for each message.
"""

import contextlib
import traceback
from logging import ERROR

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore import log
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fedsup_deploy.engines.flower.app import client_app
from fedsup_deploy.engines.flower.connection import connected
from fedsup_deploy.engines.flower.parcel import refusal, what_is_foreign


def answer_message(address: str, token: str, kind: str) -> int:
    """Answer a message, in a process of its own; return its code.

    Args:
        address: Of the node, which is on this machine: host and port.
        token: For the message.
        kind: Of the task, in Flower's words.
    """
    with contextlib.closing(connected(address, None, RuntimeTokenHttpInterceptor(token))) as client:
        alive = HeartbeatSender(make_task_heartbeat_fn_http(client))
        alive.start()
        message, context, run, fab = pull_task_input(client)
        foreign = what_is_foreign(fab.content) if kind == TaskType.CLIENT_APP else f"it is of the kind {kind}"
        if foreign is None:
            reply, details = _answered(message, context), ""
        else:
            details = refusal(run.run_id, foreign)
            log(ERROR, details)
            reply = Message(Error(ErrorCode.INVALID_FAB, details), reply_to=message)
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.FAILED if reply.has_error() else SubStatus.COMPLETED, details)
        if alive.is_running:
            alive.stop()
    return 0


def _answered(message: Message, context: Context) -> Message:
    """Return the answer of our app; an error says nothing of what is here, the log says all."""
    try:
        return client_app(message, context)
    except Exception as error:  # noqa: BLE001  whatever it is, there is an answer
        traceback.print_exc()
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message)
