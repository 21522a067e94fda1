"""The program that runs a task of a node: answers one message by our app, and refuses one of any other. Imports flwr.

Flower's own installs the parcel that it is sent and runs the app in it. This one looks into the parcel, and writes
nothing of it anywhere; the app is the one that is installed. `executor.py` starts it for each message.
"""

import argparse
import contextlib
import traceback
from logging import ERROR
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore import log
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fedsup_deploy.engines.flower.executor import connected
from fedsup_deploy.engines.flower.parcel import refusal, what_is_foreign


def main() -> None:
    """Answer the message that the token is for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    for option, kind in (("--runtime-api-address", str), ("--token-file", Path), ("--parent-pid", int)):
        parser.add_argument(option, type=kind, required=True)
    told = parser.parse_args()
    start_parent_process_monitor(told.parent_pid)
    token = told.token_file.read_text(encoding="utf-8")
    with contextlib.closing(connected(told.runtime_api_address, "", RuntimeTokenHttpInterceptor(token))) as client:
        alive = HeartbeatSender(make_task_heartbeat_fn_http(client))
        alive.start()
        message, context, run, fab = pull_task_input(client)
        foreign = what_is_foreign(fab.content) if told.kind == TaskType.CLIENT_APP else f"it is of the kind {told.kind}"
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


def _answered(message: Message, context: Context) -> Message:
    """Return the answer of our app; an error says nothing of what is here, the log says all."""
    # Not before it is known that the message is for it.
    from fedsup_deploy.engines.flower.app import client_app

    try:
        return client_app(message, context)
    except Exception as error:  # noqa: BLE001  whatever it is, there is an answer
        traceback.print_exc()
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message)


if __name__ == "__main__":
    main()
