"""Are commands as robust as they say? `python benchmarks/kills.py --kills 200 --seed 0` stops them at random moments.

Each case runs one command in a fresh folder, from its very first moment to its end somewhere stops it, and then looks:

- it has ended within --patience seconds, and no process of it is left;
- after TERM, HUP and INT its exit code says so, it left no partial file, no temporary file and no semaphore;
- no file that is there is broken, whatever happened;
- the same command again, with --resume where there is one, succeeds and ends in the same bytes as if undisturbed, but
  for seconds and other measured figures.

Prints a table, and for each failure the arguments that repeat it. Another version of the package is tried with
--program. With --engine NAME, training by that engine is all that is tried, and all that is done is to kill the command
itself; with --config FILE as well it is that config's, such as one of a server whose devices are connected
(docs/fleet.md). Linux only: it looks into /proc.
"""

import argparse
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MARK = "FEDSUP_KILLS_CASE"
#: Fields that differ from one time to the next: measured ones, and hashes of files that hold such.
MEASURED = {"seconds", "seconds_left", "unix_time_s", "measured", "search", "MODEL_CARD.md"}
#: Files that hold nothing else, or the words of the command.
UNCOMPARED = {"command.json", "measured.json", "SHA256SUMS"}
SETTINGS = {
    "training.rounds": 6,
    "training.clients_per_round": 4,
    "training.local_epochs": 1,
    "training.warmup_rounds": 1,
    "training.checkpoint_every": 2,
    "training.evaluate_every": 3,
    "partition.num_clients": 8,
    "calibration.samples_per_client": 32,
    "engine.workers": 2,
}
KINDS = ("kill all", "kill a new worker", "kill a worker", "TERM", "HUP", "INT")
#: Python ends by the signal itself before the command line has begun, and after it is done.
EXPECTED = {"TERM": (143, -15), "HUP": (129, -1), "INT": (130, -2)}
#: With --engine: the command, and not what it has started.
KILLED = "kill the command"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that is stopped.

    Args:
        words: Of the command line.
        resume: More words, when it goes on.
        needs: What must be there: nothing, a finished `run`, or a finished `search`.
        has_workers: Whether it starts processes.
    """

    words: tuple[str, ...]
    resume: tuple[str, ...] = ()
    needs: str = ""
    has_workers: bool = True


LIMITS = ("--accuracy", "measured", "--max-macs", "250000")
COMMANDS = {
    "train": Command(
        ("train", "--config", "digits", *(f"--set={key}={value}" for key, value in SETTINGS.items())), ("--resume",)
    ),
    "search": Command(("search", "--profile", "raspberry-pi-4", *LIMITS), ("--resume",), "run"),
    "fit-accuracy": Command(("fit-accuracy", "runs/digits", "--evaluations", "24"), (), "run"),
    "recalibrate": Command(("recalibrate", "runs/digits", "--arch", "largest"), (), "run"),
    "export": Command(("export", "--search", "runs/digits/search.json"), (), "search"),
    "deploy": Command(("deploy", "--profile", "raspberry-pi-4", "--profile", "pixel-class-phone", *LIMITS), (), "run"),
    "profile build": Command(
        ("profile", "build", "--space", "digits", "--minutes", "0.05"), ("--resume",), has_workers=False
    ),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What happens to which command, when."""

    number: int
    command: str
    kind: str
    moment: float
    """As a share of the time it takes undisturbed."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a case showed."""

    case: Case
    problems: list[str]
    is_undisturbed: bool
    """Whether the command had ended before its moment came."""


def main() -> int:
    """Run the cases and print what they showed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, action="append", help="the number of a case; may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--patience", type=float, default=60, help="seconds after which a command hangs")
    parser.add_argument("--program", type=Path, default=Path(sys.executable).with_name("fedsup-deploy"))
    parser.add_argument("--engine", help="train by this engine, and kill nothing but the command")
    parser.add_argument("--config", type=Path, help="of what that trains, in place of the digits")
    options = parser.parse_args()
    if options.engine is not None:
        COMMANDS.clear()
        COMMANDS["train"] = training_by(options.engine, options.config)
    kinds = KINDS if options.engine is None else (KILLED,)
    cases = [case_of(options.seed, number, kinds) for number in options.only or range(options.kills)]
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        bench = Bench(options.program.absolute(), Path(name), options.patience)
        for command in dict.fromkeys(case.command for case in cases):
            bench.learn(command)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            outcomes = list(pool.map(bench.try_case, cases))
    report(outcomes, kinds, options.seed)
    return int(any(outcome.problems for outcome in outcomes))


def training_by(engine: str, config: Path | None) -> Command:
    """Return training by an engine, of the digits or of a config."""
    settings = tuple(f"--set={key}={value}" for key, value in SETTINGS.items()) if config is None else ()
    what = "digits" if config is None else str(config.absolute())
    words = ("train", "--config", what, "--engine", engine, "--out", "runs/killed", *settings)
    return Command(words, ("--resume",))


def case_of(seed: int, number: int, kinds: Sequence[str]) -> Case:
    """Return a case: every command meets every kind in turn, at a random moment."""
    meetings = [
        (name, kind)
        for kind in kinds
        for name, command in COMMANDS.items()
        if command.has_workers or "worker" not in kind
    ]
    name, kind = meetings[number % len(meetings)]
    return Case(number, name, kind, random.Random(f"{seed}/{number}").random())


class Bench:
    """Runs commands in folders of their own, and knows how they end undisturbed.

    Args:
        program: The command line.
        folder: Where everything happens.
        patience: Seconds until a command hangs.
    """

    def __init__(self, program: Path, folder: Path, patience: float) -> None:
        self._program, self._folder, self._patience = program, folder, patience
        self._seconds: dict[str, float] = {}
        self._contents: dict[str, dict[str, str]] = {}

    def learn(self, name: str) -> None:
        """Find out how a command ends undisturbed, and how long it takes."""
        print(f"undisturbed: {name}", file=sys.stderr)
        workplace = self._prepared(COMMANDS[name].needs)
        started = time.monotonic()
        self._finish(workplace, COMMANDS[name].words)
        self._seconds[name] = time.monotonic() - started
        self._contents[name] = contents(workplace.work)

    def try_case(self, case: Case) -> Outcome:
        """Stop a command, look at what is left, and let it go on."""
        command = COMMANDS[case.command]
        workplace = self._prepared(command.needs)
        running = Running(self._program, command.words, workplace)
        try:
            running.wait_for(case, self._seconds[case.command])
            is_undisturbed = running.process.poll() is not None
            running.stop(case.kind)
            problems = [*running.problems_of_end(case.kind, self._patience)]
        finally:
            running.kill_all()
        problems += [*problems_of_files(workplace, is_clean=case.kind in EXPECTED)]
        if case.kind == KILLED:
            problems += [f"left in TMPDIR: {path.name}" for path in workplace.temporary.glob("fedsup-*/flower.log")]
        try:
            self._finish(workplace, (*command.words, *command.resume))
        except SystemExit as error:
            problems.append(f"again: {error}")
        else:
            problems += [
                f"again: {each}" for each in differences(self._contents[case.command], contents(workplace.work))
            ]
        shutil.rmtree(workplace.folder, ignore_errors=True)
        print(f"case {case.number}: {case.command}, {case.kind}: {problems or 'ok'}", file=sys.stderr)
        return Outcome(case, problems, is_undisturbed)

    def _prepared(self, needs: str) -> "Workplace":
        """Return a fresh workplace that holds what a command needs, made once."""
        workplace = Workplace(self._folder / uuid.uuid4().hex)
        if needs:
            made = Workplace(self._folder / needs)
            if not made.folder.exists():
                inner, words = {"run": ("", "train"), "search": ("run", "search")}[needs]
                shutil.copytree(self._prepared(inner).folder, made.folder)
                self._finish(made, COMMANDS[words].words)
            shutil.copytree(made.folder, workplace.folder)
        for folder in (workplace.work, workplace.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        return workplace

    def _finish(self, workplace: "Workplace", words: Sequence[str]) -> None:
        """Run a command to its end.

        Raises:
            SystemExit: It failed.
        """
        for more in ((), ("--minutes", "0.3"), ("--minutes", "1")):
            running = Running(self._program, (*words, *more), workplace)
            code = running.process.wait()
            # It measures again, for longer.
            if not is_unsteady(words, code):
                break
        if code != 0:
            raise SystemExit(f"{' '.join(words)}: exit code {code}: {running.complaint()}")


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where a command runs."""

    folder: Path

    @property
    def work(self) -> Path:
        """The current folder of the command."""
        return self.folder / "work"

    @property
    def temporary(self) -> Path:
        """Its TMPDIR."""
        return self.folder / "tmp"


class Running:
    """A command in a process group of its own, and all processes that come from it."""

    def __init__(self, program: Path, words: Sequence[str], workplace: Workplace) -> None:
        self._words, self._token, self._log = words, uuid.uuid4().hex, workplace.folder / "stderr"
        environment = {**os.environ, MARK: self._token, "TMPDIR": str(workplace.temporary)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, *words],
                cwd=workplace.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def wait_for(self, case: Case, usual_seconds: float) -> None:
        """Wait until it is time to stop the command, or it has ended."""
        ends = time.monotonic() + case.moment * usual_seconds
        if case.kind == "kill a new worker":
            while not self.workers() and self.process.poll() is None:
                time.sleep(0.001)
            ends = time.monotonic() + 0.3 * case.moment**2
        while time.monotonic() < ends and self.process.poll() is None:
            time.sleep(0.001)

    def stop(self, kind: str) -> None:
        """Do it."""
        if kind == "kill all":
            self.kill_all()
        elif kind == KILLED:
            self.process.kill()
        elif kind in EXPECTED and self.process.poll() is None:
            send(-self.process.pid, signal.Signals[f"SIG{kind}"])
        elif "worker" in kind:
            while not (workers := self.workers()) and self.process.poll() is None:
                time.sleep(0.001)
            for pid in workers[:1]:
                send(pid, signal.SIGKILL)

    def problems_of_end(self, kind: str, patience: float) -> Iterator[str]:
        """Say what is wrong with how the command ended."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            yield f"hangs: still there after {patience:g} s"
            return
        ends = time.monotonic() + patience
        while self.processes() and time.monotonic() < ends:
            time.sleep(0.05)
        if left := self.processes():
            yield f"processes left: {left}"
        expected = (0, *({"kill all": (-9,), KILLED: (-9,)} | EXPECTED).get(kind, (7,)))
        if code not in expected and not is_unsteady(self._words, code):
            yield f"exit code {code}, expected one of {expected}: {self.complaint()}"
        if code > 0 and "Traceback" in self._log.read_text(errors="replace"):
            yield f"a traceback: {self.complaint()}"
        if kind in EXPECTED and (left := [path.name for path in Path("/dev/shm").glob(f"*{self.process.pid}*")]):
            yield f"left in /dev/shm: {left}"

    def complaint(self) -> str:
        """Return the last line the command wrote to stderr."""
        return (self._log.read_text(errors="replace").splitlines() or ["(silent)"])[-1]

    def workers(self) -> list[int]:
        """Return the worker processes, in any version of the package."""
        return [pid for pid, command in self.processes().items() if "worker.py" in command or "spawn_main" in command]

    def processes(self) -> dict[int, str]:
        """Return all running processes that come from the command, with their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self._token}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def kill_all(self) -> None:
        """Kill every process of the command: the first one first, or it could start more."""
        self.process.kill()
        while left := self.processes():
            for pid in left:
                send(pid, signal.SIGKILL)
        self.process.wait()


def is_unsteady(words: Sequence[str], code: int) -> bool:
    """Return whether a command ended because the machine was too busy to measure, which is no fault of the command."""
    return words[0] == "profile" and code == 6


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, or to a group as a negative number; nothing if it has ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def problems_of_files(workplace: Workplace, *, is_clean: bool) -> Iterator[str]:
    """Say which files are broken; and which should not be there, if the command could clean up."""
    if is_clean:
        partial = [path for path in workplace.work.rglob("*") if ".partial-" in path.name]
        yield from (f"left: {path.relative_to(workplace.folder)}" for path in partial)
        yield from (f"left in TMPDIR: {path.name}" for path in workplace.temporary.iterdir())
    for path in workplace.work.rglob("*"):
        if path.is_file() and ".partial-" not in str(path) and (problem := broken(path)):
            yield f"broken: {path.relative_to(workplace.work)}: {problem}"


def broken(path: Path) -> str:
    """Return what is wrong with a file, seen without the package."""
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            document = json.loads(content)
            for name, entry in document.get("files", {}).items() if path.name == "manifest.json" else ():
                digest = entry if isinstance(entry, str) else entry["sha256"]
                if hashlib.sha256((path.parent / name).read_bytes()).hexdigest() != digest:
                    return f"another {name}"
        if path.suffix == ".safetensors":
            start = 8 + int.from_bytes(content[:8], "little")
            header = json.loads(content[8:start])
            end = max(tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__")
            return "" if len(content) == start + end else "cut"
    except (ValueError, KeyError, OSError) as error:
        return repr(error)
    return "" if content or path.suffix not in {".yaml", ".onnx", ".pt", ".npz"} else "empty"


def contents(folder: Path) -> dict[str, str]:
    """Return the files of a folder with a hash of what they hold, but for measured figures."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name not in UNCOMPARED:
            found[name] = "a profile" if name.startswith("profiles/") else hashlib.sha256(steady(path)).hexdigest()
    return found


def steady(path: Path) -> bytes:
    """Return what a file holds without its measured figures."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(without_measured(json.loads(content))).encode()
    if path.name == "MODEL_CARD.md":
        return b"\n".join(line for line in content.splitlines() if b"MEASURED" not in line)
    if path.name == "events.jsonl":
        events = [json.loads(line) for line in content.splitlines()]
        return json.dumps([without_measured(event) for event in events if event["event"] == "round"]).encode()
    return content


def without_measured(document: Any) -> Any:
    """Return a JSON document without the fields that differ from one time to the next."""
    if isinstance(document, dict):
        return {key: without_measured(value) for key, value in document.items() if key not in MEASURED}
    return [without_measured(value) for value in document] if isinstance(document, list) else document


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return how two folders differ."""
    names = sorted(expected.keys() | found.keys())
    words = {name: "missing" if name not in found else "added" if name not in expected else "other" for name in names}
    return [f"{words[name]}: {name}" for name in names if expected.get(name) != found.get(name)]


def report(outcomes: Sequence[Outcome], kinds: Sequence[str], seed: int) -> None:
    """Print how many cases of each kind failed, of how many that met the command at work; and how to repeat them."""
    print(f"{'failed / stopped at work':24}" + "".join(f"{kind:>20}" for kind in kinds))
    for name in COMMANDS:
        row = []
        for kind in kinds:
            mine = [each for each in outcomes if (each.case.command, each.case.kind) == (name, kind)]
            stopped = sum(not each.is_undisturbed for each in mine)
            row.append(f"{sum(bool(each.problems) for each in mine)} / {stopped}" if mine else "-")
        print(f"{name:24}" + "".join(f"{cell:>20}" for cell in row))
    for outcome in outcomes:
        for problem in outcome.problems:
            case = outcome.case
            print(f"--seed {seed} --only {case.number}: {case.command}, {case.kind}: {problem}")
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    print(f"{failed} of {len(outcomes)} cases failed")


if __name__ == "__main__":
    sys.exit(main())
