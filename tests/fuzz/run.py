"""Damaged inputs of every kind, and what no command may do with one.

    python tests/fuzz/run.py --target manifest --index 123      one input again; its files stay where it says
    python tests/fuzz/run.py --count 10000                      so many over all targets

An input is named by its target and index: the same two give the same input, for the same base (`base.make`).
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import base
from archives import INSTALL_PY
from targets import RUN_PY, TARGETS

from fedsup_deploy.cli.main import main as fedsup_deploy
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.install import main as install_py
from fedsup_deploy.ondevice.run import main as run_py

#: No damaged input is worth longer, even on a busy machine.
MOST_SECONDS = 60
MOST_CHARACTERS = 2000
#: More memory than before: no damaged input is worth that.
MOST_BYTES = 2**30
_EXIT_CODES = range(12)
#: Of a bundle, and what they are started with; other words are those of `fedsup-deploy`.
PROGRAMS = MappingProxyType({RUN_PY: lambda words: run_py([*words, "--skip-latency"]), INSTALL_PY: install_py})


class TooSlow(BaseException):
    """It took too long."""


def check(target: str, index: int, made: Path, folder: Path) -> list[str]:
    """Damage an input, run a command on it, and return what was wrong with how that ended.

    Args:
        target: What is damaged.
        index: Which damage.
        made: What `base.make` has made.
        folder: An empty folder to work in.
    """
    shutil.copytree(made, folder, dirs_exist_ok=True, symlinks=True)
    words = TARGETS[target](random.Random(f"{target} {index}"), folder)
    before = _content(folder)
    _peak_bytes()  # what it took to damage it is nobody's fault
    memory_before = _peak_bytes()
    out, err = io.StringIO(), io.StringIO()
    problems, started = [], time.monotonic()
    code: Any = None
    try:
        with _limited(), contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = PROGRAMS.get(words[0], lambda _: fedsup_deploy(words))(words[1:])
    except TooSlow:
        problems.append(f"more than {MOST_SECONDS} s")
    except BaseException as error:  # noqa: BLE001  whatever it is, it is what is looked for
        problems.append(f"raised {type(error).__name__}: {error}")
    if (grown := _peak_bytes() - memory_before) > MOST_BYTES:
        problems.append(f"{grown / 2**30:.1f} GiB of memory")
    problems += _problems(code, out.getvalue(), err.getvalue())
    left = _content(folder) - before
    if code != 0 and left:
        problems.append(f"left {sorted(left)}")
    if (runs := _runs(folder)) != _runs(made) and not (words[0] == INSTALL_PY and code == 0):
        problems.append(f"another model is current on the device: {runs}")
    return [f"{target} {index}: {problem} | {words} | {time.monotonic() - started:.1f} s" for problem in problems]


def _runs(folder: Path) -> str:
    """Return which model a device has, by the hashes of its files as they are."""
    current = folder / base.DEVICE / "current"
    names = sorted(bundle_files.list_files(current))
    return f"{current.readlink()} {bundle_files.sha256sums(current, names)}"


def _problems(code: object, out: str, err: str) -> Iterator[str]:
    said = err.splitlines()[-1][:300] if err else ""
    if code not in _EXIT_CODES:
        yield f"exit code {code}: {said!r}"
    if "Traceback" in err:
        yield f"a traceback: {said!r}"
    for name, text in (("stdout", out), ("stderr", err)):
        for line in text.split("\n"):
            # Of a table, lines are as wide as they must be.
            if not line.isprintable():
                yield f"a control character on {name}: {line[:300]!r}"
            if name == "stderr" and len(line) > MOST_CHARACTERS:
                yield f"a line of {len(line)} characters on {name}: {line[:100]!r}"
    if code not in {0, None} and len([line for line in err.splitlines() if not line.startswith("note: ")]) > 1:
        yield f"more than one line: {err[:300]!r}"


def _peak_bytes() -> int:
    """Return the most memory that this process has had since it was last asked."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_KiB = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # from now on it is counted anew
    return 1024 * peak_KiB


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, action="append", help="what is damaged (default: everything)")
    parser.add_argument("--index", type=int, help="only this input")
    parser.add_argument("--first", type=int, default=0, help="first index (default 0)")
    parser.add_argument("--count", type=int, default=1000, help="inputs over all targets (default 1000)")
    parser.add_argument("--base", type=Path, help="a folder for the whole inputs, kept (default: made anew)")
    return parser.parse_args()


def main() -> int:
    """Run the command line. Returns 1 where something was wrong. Side effects: Prints what."""
    faulthandler.enable()
    arguments = _arguments()
    targets = arguments.target or list(TARGETS)
    num_failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        made = arguments.base or Path(scratch, "base")
        if not made.is_dir():
            made.mkdir(parents=True)
            base.make(made)
        for target in targets:
            each = max(arguments.count // len(targets), 1)
            indices = range(arguments.first, arguments.first + each) if arguments.index is None else [arguments.index]
            failed, started = [], time.monotonic()
            for index in indices:
                print(f"{target} {index}", file=sys.stderr)  # noqa: T201  where a crash of the process is looked for
                folder = Path(tempfile.mkdtemp(dir=scratch)) if arguments.index is None else Path(tempfile.mkdtemp())
                problems = check(target, index, made, folder)
                if arguments.index is None:
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    print(f"files: {folder}")  # noqa: T201
                for problem in problems:
                    print(problem, flush=True)  # noqa: T201
                failed += [index] if problems else []
            counts = {"target": target, "inputs": len(indices), "failed": failed}
            print(json.dumps({**counts, "seconds": round(time.monotonic() - started, 1)}), flush=True)  # noqa: T201
            num_failed += len(failed)
    return 1 if num_failed else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
