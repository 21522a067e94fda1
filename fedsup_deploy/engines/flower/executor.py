"""The program that runs what a SuperNode or a SuperLink has to run, and nothing but our app: `launch.py` starts it.

Imports flwr. On a node a task is a process of `task.py`, which never installs a parcel. Beside a SuperLink it is
Flower's own program, once the parcel's hash is that of ours: as no code is in it, the app is the one that is installed.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
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
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from fedsup_deploy.engines.flower.launch import NODE, SECRET
from fedsup_deploy.engines.flower.parcel import APP, CONFIG, refusal
from fedsup_deploy.engines.flower.submission import program

#: The module that runs a task of a node.
_TASK: Final = "fedsup_deploy.engines.flower.task"
#: What Flower runs beside a SuperLink for an app of ours.
_OURS: Final = (TaskType.SERVER_APP, TaskType.SIMULATION)
#: Seconds between looks whether there is something to run, which each message waits for.
_TICK_S: Final = 0.2


def connected(address: str, root: str, *interceptors: ProtobufClientInterceptor) -> RuntimeHttpClient:
    """Return a connection to what tells tasks.

    Args:
        address: Host and port.
        root: Path of the authority that vouches for it; empty: it is not encrypted.
        interceptors: Say who asks.
    """
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    authority = Path(root).read_bytes() if root else None
    return RuntimeHttpClient.from_server_address(address, not root, authority, [version, *interceptors])


class Executor:
    """Runs what there is to run at an address.

    Args:
        kind: Of `launch.py`.
        address: As of `connected`, as is `root`.
        root: See there.
        folder: With the secret.
    """

    def __init__(self, kind: str, address: str, root: str, folder: Path) -> None:
        self._kind, self._address, self._root = kind, address, root
        secret = (folder / SECRET).read_bytes()
        methods = ["/flwr.proto.Runtime/AcquireTask"]
        self._client = connected(
            address, root, SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=methods)
        )
        self._parcel = hashlib.sha256(build_fab_from_files({CONFIG: APP.encode()})[0]).hexdigest()
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self, parent: int) -> None:
        """Run what there is to run for as long as the parent lives.

        Raises:
            httpx.HTTPStatusError: It does not let us in.
        """
        request = AcquireTaskRequest(supported_task_types=list(TaskType))
        while os.getppid() == parent:
            self._running = [process for process in self._running if process.poll() is None]
            try:
                found = self._client.AcquireTask(request)
            except httpx.TransportError:
                pass  # it has not begun yet, or has much to do
            except httpx.HTTPStatusError as error:
                if error.response.is_client_error:
                    raise
            else:
                if found.token:
                    self._take(found.task, found.token)
            time.sleep(_TICK_S)

    def _take(self, task: Task, token: str) -> None:
        if self._kind == NODE:
            # Whose it is, it finds out itself: only it is told what the parcel holds.
            self._start([sys.executable, "-m", _TASK, task.type], token, output=None)
        elif task.type not in _OURS:
            self._refuse(task, token, f"it is of the kind {task.type}")
        elif task.fab_hash != self._parcel:
            self._refuse(task, token, f"its parcel is {task.fab_hash[:8]}, ours is {self._parcel[:8]}")
        else:
            security = ["--root-certificates", self._root] if self._root else ["--insecure"]
            self._start([program(task.type), *security], token, output=subprocess.DEVNULL)

    def _start(self, command: list[str], token: str, output: int | None) -> None:
        # Whoever has the token can speak for the run, and all can see what a program is started with: it is in a file
        # without a name.
        file = os.memfd_create("token")
        try:
            os.write(file, token.encode())
            address, parent = ("--runtime-api-address", self._address), ("--parent-pid", str(os.getpid()))
            told = [*command, *address, *parent, "--token-file", f"/dev/fd/{file}"]
            self._running.append(subprocess.Popen(told, stdout=output, stderr=output, pass_fds=(file,)))
        finally:
            os.close(file)

    def _refuse(self, task: Task, token: str, why: str) -> None:
        """Let a run fail, with a line that says why."""
        line = refusal(task.run_id, why)
        log(ERROR, line)
        with (
            contextlib.closing(connected(self._address, self._root, RuntimeTokenHttpInterceptor(token))) as client,
            contextlib.suppress(httpx.HTTPError),  # it was stopped meanwhile
        ):
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=line))


def main() -> None:
    """Run what there is to run until the parent ends."""
    kind, address, root, folder, parent = sys.argv[1:]
    # Ctrl-C is for the parent, with which this ends. It is not ignored: what is started here would ignore it, too.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        Executor(kind, address, root, Path(folder)).run(int(parent))
    except BaseException:
        # Rather no node than one that answers nothing.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(parent), signal.SIGTERM)
        raise


if __name__ == "__main__":
    main()
