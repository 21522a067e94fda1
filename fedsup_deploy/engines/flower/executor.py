"""Runs what a SuperNode or a SuperLink has to run, and nothing but our app: `launch.py` has one for each. Imports flwr.

On a node a task is a process that is forked, and never installs a parcel (`task.py`). Beside a SuperLink it is
Flower's own program, once the parcel's hash is that of ours: as no code is in it, the app is the one that is installed.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from logging import ERROR
from pathlib import Path
from typing import Final

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PushTaskOutputRequest
from flwr.proto.task_pb2 import Task
from flwr.supercore import log
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, SuperExecAuthHttpInterceptor

from fedsup_deploy.engines.flower.connection import connected
from fedsup_deploy.engines.flower.forks import forked
from fedsup_deploy.engines.flower.launch import NODE, NOT_VOUCHED
from fedsup_deploy.engines.flower.parcel import APP, CONFIG, refusal
from fedsup_deploy.engines.flower.submission import program
from fedsup_deploy.errors import FederationError

#: What Flower runs beside a SuperLink for an app of ours.
_OURS: Final = (TaskType.SERVER_APP, TaskType.SIMULATION)
#: What the process of a message is called.
_MESSAGE: Final = "fedsup-message"


class Executor:
    """Runs what there is to run at an address.

    Args:
        kind: Of `launch.py`.
        address: As of `connected`, as is `root`.
        root: See there.
        secret: By which it is told.
    """

    def __init__(self, kind: str, address: str, root: Path | None, secret: bytes) -> None:
        self._address, self._root = address, root
        auth = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=["/flwr.proto.Runtime/AcquireTask"])
        self._client = connected(address, root, auth)
        self._parcel = hashlib.sha256(build_fab_from_files({CONFIG: APP.encode()})[0]).hexdigest()
        self._answer: Callable[[str, str, str], int] | None = None
        if kind == NODE:
            # With torch: what is forked has it.
            from fedsup_deploy.engines.flower.task import answer_message

            self._answer = answer_message

    def close(self) -> None:
        """Ask no more."""
        self._client.close()

    def take(self) -> set[int]:
        """Ask once what there is to run, and start it; return the numbers of the processes that do.

        Raises:
            FederationError: It does not let us in, or is not vouched for.
        """
        try:
            found = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=list(TaskType)))
        except httpx.TransportError as error:
            if NOT_VOUCHED in str(error):
                raise FederationError(f"the certificate of {self._address}: {error}") from error
            return set()  # it has not begun yet, or has much to do
        except httpx.HTTPStatusError as error:
            if error.response.is_client_error:
                raise FederationError(f"what answers at {self._address} does not let its own parent in") from error
            return set()
        return self._started(found.task, found.token) if found.token else set()

    def _started(self, task: Task, token: str) -> set[int]:
        if self._answer is not None:
            # Whose it is, that process finds out itself: only it is told what the parcel holds.
            return {forked(_MESSAGE, functools.partial(self._answer, self._address, token, task.type))}
        if task.type not in _OURS:
            self._refuse(task, token, f"it is of the kind {task.type}")
        elif task.fab_hash != self._parcel:
            self._refuse(task, token, f"its parcel is {task.fab_hash[:8]}, ours is {self._parcel[:8]}")
        else:
            return {forked(task.type, functools.partial(self._become, task.type, token))}
        return set()

    def _become(self, name: str, token: str) -> int:
        """Be a program of Flower's that prints nothing."""
        # Whoever has the token can speak for the run, and all can see what a program is started with: it is in a file
        # without a name.
        file = os.memfd_create("token", 0)
        os.write(file, token.encode())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):
            os.dup2(nowhere, output)
        security = ["--insecure"] if self._root is None else ["--root-certificates", str(self._root)]
        where = ["--runtime-api-address", self._address, "--token-file", f"/dev/fd/{file}"]
        path = program(name)
        return os.execv(path, [path, *security, *where, "--parent-pid", str(os.getppid())])

    def _refuse(self, task: Task, token: str, why: str) -> None:
        """Let a run fail, with a line that says why."""
        line = refusal(task.run_id, why)
        log(ERROR, line)
        with (
            contextlib.closing(connected(self._address, self._root, RuntimeTokenHttpInterceptor(token))) as client,
            contextlib.suppress(httpx.HTTPError),  # it was stopped meanwhile
        ):
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=line))
