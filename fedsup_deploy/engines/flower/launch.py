"""The program that a SuperNode or a SuperLink of ours is started as: nothing runs in it but our app.

Flower's own executor installs and runs whatever app a run brings. `python -m fedsup_deploy.engines.flower.launch
node|server HOST:PORT ROOT_CERTIFICATES COMMAND...` becomes COMMAND, told to start nothing by itself ("process
isolation"), with ours (`executor.py`) as its child, which asks at HOST:PORT what there is to run. Nobody else is told,
for the two share a secret. ROOT_CERTIFICATES is empty where what is said there is not encrypted.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

NODE: Final = "node"
SERVER: Final = "server"
#: Of a folder in Flower's, the file that is read by both.
SECRET: Final = "secret"
_EXECUTOR: Final = "fedsup_deploy.engines.flower.executor"


def launched(kind: str, address: str, root_certificates: Path | None, command: list[str]) -> list[str]:
    """Return the command that starts another so; it has to be told FLWR_HOME.

    Args:
        kind: `NODE` or `SERVER`.
        address: Where the command will answer its executor, host:port.
        root_certificates: Of the authority that vouches for it; None: it is not encrypted.
        command: Of a SuperNode or a SuperLink.
    """
    root = "" if root_certificates is None else str(root_certificates)
    return [sys.executable, "-m", __name__, kind, address, root, *command]


def main() -> None:
    """Become the command, and let its executor be a child."""
    kind, address, root, *command = sys.argv[1:]
    folder = Path(os.environ["FLWR_HOME"]) / "executor"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for path in folder.iterdir():
        path.unlink()
    (folder / SECRET).write_bytes(secrets.token_bytes(32))
    subprocess.Popen([sys.executable, "-m", _EXECUTOR, kind, address, root, str(folder), str(os.getpid())])
    os.execvp(command[0], [*command, "--isolation", "process", "--superexec-auth-secret-file", str(folder / SECRET)])


if __name__ == "__main__":
    main()
