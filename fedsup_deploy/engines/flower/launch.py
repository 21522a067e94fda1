"""Starts a SuperNode or a SuperLink of ours, and runs what it has to run: our app, and nothing else.

Flower's own executor installs and runs whatever app a run brings. Here Flower's program is told to start nothing by
itself ("process isolation"), and is the child of the process that asks it what there is to run, with `executor.py`.
Nobody else is told, for the two share a secret; and neither is there without the other.

`python -m fedsup_deploy.engines.flower.launch HOST:PORT COMMAND...` does it for a SuperLink that is not encrypted.
"""

import functools
import importlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fedsup_deploy.engines.flower.forks import collected, end, forked

NODE: Final = "flower-supernode"
SERVER: Final = "flower-superlink"
#: What OpenSSL says of a certificate for other names, or of another authority.
NOT_VOUCHED: Final = "CERTIFICATE_VERIFY_FAILED"
_EXECUTOR: Final = "fedsup_deploy.engines.flower.executor"
#: Seconds between looks whether there is something to run, which each message waits for.
_TICK_S: Final = 0.2


def launch(kind: str, address: str, root_certificates: Path | None, run: Callable[[Sequence[str]], int]) -> int:
    """Run a program of Flower's, and what it has to run, until it ends; return its code, -n: signal n has ended it.

    Args:
        kind: `NODE` or `SERVER`.
        address: Where the program answers us, host:port.
        root_certificates: Of the authority that vouches for it; None: it is not encrypted.
        run: Is the program, in a process of its own, with further arguments.

    Raises:
        FederationError: Something else answers there.

    Side effects: Imports flwr, and for a node torch, once for all that is forked. It reads then what the environment
    tells it.
    """
    secret = secrets.token_bytes(32)
    executor = importlib.import_module(_EXECUTOR).Executor(kind, address, root_certificates, secret)
    # No file has it that anybody could find, and nothing that is started later.
    file = os.memfd_create("secret", 0)
    try:
        os.write(file, secret)
        words = ["--isolation", "process", "--superexec-auth-secret-file", f"/dev/fd/{file}"]
        program = forked(kind, functools.partial(run, words))
    finally:
        os.close(file)
    running = {program}
    try:
        while True:
            codes = collected(running)
            running -= codes.keys()
            if program in codes:
                return codes[program]
            running |= executor.take()
            time.sleep(_TICK_S)
    finally:
        end(running)
        executor.close()


def launch_server(address: str, root_certificates: Path | None, command: Sequence[str]) -> int:
    """Run a SuperLink, as `launch` does.

    Args:
        address: As of `launch`, as is `root_certificates`.
        root_certificates: See there.
        command: Of the SuperLink.
    """
    return launch(SERVER, address, root_certificates, lambda words: os.execv(command[0], [*command, *words]))


if __name__ == "__main__":
    sys.exit(abs(launch_server(sys.argv[1], None, sys.argv[2:])))
