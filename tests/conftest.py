"""What all tests share: images, what a machine may lack, and processes that end with the test that started them."""

import contextlib
import functools
import os
import runpy
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from runtimes import Installed, MissingPythonError, Runtime, find_python, install

REPOSITORY = Path(__file__).parents[1]
DATASETS = ("fashion-mnist", "cifar10", "cifar100")
EVERYTHING = "FEDSUP_TEST_ALL"

# No test phones home. onnxruntime looks here when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# How long an example takes is the machine's business, and what else it does. Other examples are drawn in every run.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

Report = pytest.TestReport | pytest.CollectReport


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to fail where something would be left out."""
    parser.addoption(
        "--everything",
        action="store_true",
        default=os.environ.get(EVERYTHING, "0") not in {"", "0"},
        help=f"fail where a test needs what this machine lacks, instead of leaving it out; so does {EVERYTHING}=1",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Report, Report]:
    """With --everything, a test that is left out has failed."""
    return failed_if_left_out((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Report, Report]:
    """The same of a whole module."""
    return failed_if_left_out((yield), collector.config)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in one line how many tests were left out, and how to get what they need."""
    reasons = Counter(map(needed_by, terminalreporter.stats.get("skipped", ())))
    if reasons:
        parts = (f"{counted(number)} {what}" for what, number in reasons.items())
        terminalreporter.write_line(f"left out: {', '.join(parts)}", yellow=True)


def failed_if_left_out(report: Report, config: pytest.Config) -> Report:
    """Return the report, as one of a failure if nothing may be left out."""
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("everything"):
        report.outcome, report.longrepr = "failed", f"left out: {counted(1)} {needed_by(report)}"
    return report


def needed_by(report: Report) -> str:
    """Return what a test that was left out needs, and in brackets how to get that: what `pytest.skip` was told."""
    assert isinstance(report.longrepr, tuple)
    return str(report.longrepr[2]).removeprefix("Skipped: ")


def counted(number: int) -> str:
    """Return the words before what tests need."""
    return "1 test that needs" if number == 1 else f"{number} tests that need"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def sample_images() -> Path:
    """The folder of the sample of Fashion-MNIST that comes with the tests: 1,000 and 500 images, 10 classes."""
    return REPOSITORY / "tests" / "data" / "fashion-mnist"


@pytest.fixture(scope="session")
def full_data() -> Path:
    """The folder of the full data sets, which only the environment variable FEDSUP_DATA names."""
    if "FEDSUP_DATA" not in os.environ:
        pytest.skip(f"full data sets (set FEDSUP_DATA to a folder with {', '.join(f'{name}/' for name in DATASETS)})")
    folder = Path(os.environ["FEDSUP_DATA"]).resolve()
    missing = [name for name in DATASETS if not (folder / name).is_dir()]
    assert not missing, f"FEDSUP_DATA: got {folder}, expected a folder with {', '.join(missing)}"
    return folder


@pytest.fixture(scope="session")
def sshd() -> Path:
    """The program of an ssh server; where it is, there is a client, too."""
    program = shutil.which("sshd", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if program is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd (install openssh-server)")
    return Path(program)


@pytest.fixture(scope="session")
def model_signing() -> Path:
    """The program that signs and verifies models by OpenSSF, which has libraries of its own in a folder of its own."""
    program = shutil.which(os.environ.get("FEDSUP_MODEL_SIGNING", "model_signing"))
    if program is None:
        how = "install model-signing and pyopenssl apart, and set FEDSUP_MODEL_SIGNING to its program"
        pytest.skip(f"model_signing ({how})")
    return Path(program)


@pytest.fixture(scope="session")
def chromium(pages: dict[str, Any]) -> Iterator[Any]:
    """A browser."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(pages["chromium"]())
        except LookupError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def pages() -> dict[str, Any]:
    """What `tools/report_pictures.py` has to read pages with."""
    return runpy.run_path(str(REPOSITORY / "tools" / "report_pictures.py"))


@pytest.fixture(scope="session")
def python_of() -> Callable[[str], Path]:
    """Find a Python by its version, such as `3.6`."""

    def find(version: str) -> Path:
        try:
            return find_python(version)
        except MissingPythonError as error:
            pytest.skip(str(error))

    return find


@pytest.fixture(scope="session")
def installed(
    python_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Runtime], Installed]:
    """Install one of `RUNTIMES`, which is downloaded once."""

    @functools.cache
    def get(runtime: Runtime) -> Installed:
        python_of(runtime.python)
        return install(runtime, tmp_path_factory.mktemp("libraries"))

    return get


@pytest.fixture(scope="session")
def measured_profile() -> Callable[..., Any]:
    """Make a profile as `profile build` writes it, with the costs of the Raspberry Pi 4 and other changes.

    Of 19 networks, measured over predicted latency is 0.91 to 1.09 at the 10th percentile; the median is 1.25 and the
    90th percentile 1.5 times that, of each. Without percentiles it is one of before they were measured.
    """
    import numpy as np

    from fedsup_deploy.device.heldout import held_out_error
    from fedsup_deploy.device.percentiles import percentiles_of
    from fedsup_deploy.device.profile import DeviceProfile, load_profile

    measured = {"kind": "measured", "protocol": "timed", "date": "2026-01-31", "environment": "a board"}
    predicted_N, p10_N = np.ones(19), np.linspace(0.91, 1.09, 19)
    higher_N = {"p50": 1.25 * p10_N, "p90": 1.5 * p10_N}

    def make(*, has_percentiles: bool = True, **changes: Any) -> DeviceProfile:
        document = load_profile("raspberry-pi-4").model_dump(by_alias=True)
        document |= {
            "name": "measured",
            "error": held_out_error(predicted_N, p10_N, "held-out").model_dump(),
            "provenance": dict.fromkeys(("latency", "accepts", "system"), measured),
            "energy": None,
            "also_loads": (),
        }
        if has_percentiles:
            known = percentiles_of(p10_N, higher_N, predicted_N, higher_N)
            document |= {"percentiles": known.model_dump()}
            document["provenance"]["percentiles"] = measured
        return DeviceProfile.model_validate(document | changes)

    return make


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side: more threads than cores make small networks many times slower.

    It also fixes the order of sums, and so their last bit.
    """
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever runs the tests may have no home, or settings in it.

    Nothing is left there, nor in the checkout, where Hypothesis would leave something, nor beside pytest's temporary
    folders, where torch would.
    """
    from hypothesis.configuration import set_hypothesis_home_dir

    home = tmp_path_factory.mktemp("home")
    os.environ.update(HOME=str(home), TORCHINDUCTOR_CACHE_DIR=str(home / "torch"))
    set_hypothesis_home_dir(home / "hypothesis")


@pytest.fixture(scope="session", autouse=True)
def no_width() -> None:
    """What commands print has no width to keep to, unless a test sets one: shells and pytest-xdist may have set it."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> None:
    """Processes inherit which signals are ignored: from a shell in the background, or from `nohup`.

    Tests send these, and what they start must not depend on who started the tests.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


class Process(NamedTuple):
    """A process that runs on this machine."""

    pid: int
    parent: int
    group: int
    name: str


def all_processes() -> list[Process]:
    """Return every process but those that have ended and that nobody has collected yet."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            before, _, after = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
            number, _, name = before.partition(" (")
            state, parent, group, *_ = after.split()
            if state not in "ZX":
                found.append(Process(int(number), int(parent), int(group), name))
    return found


@pytest.fixture(scope="session")
def processes() -> Callable[[], list[Process]]:
    """Return what runs on this machine."""
    return all_processes


def becomes(is_so: Callable[[], bool]) -> bool:
    """Wait until something is so; return whether it became so within five minutes, which is long even under load."""
    deadline = time.monotonic() + 300
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return so


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Wait until something is so."""
    return becomes


#: In the environment of a process that a test started and of all that come from it, wherever they belong.
_MARK = "FEDSUP_STARTED_BY_A_TEST"


class Children:
    """Starts processes, each in a group of its own, and ends all that is left of them. To be used with `with`."""

    def __init__(self) -> None:
        self._started: list[tuple[subprocess.Popen[Any], str]] = []

    def start(
        self, command: list[Any], env: Mapping[str, str] | None = None, **options: Any
    ) -> "subprocess.Popen[Any]":
        """Start a process; options as for `subprocess.Popen`."""
        mark = uuid.uuid4().hex
        environ = {**(os.environ if env is None else env), _MARK: mark}
        self._started.append((subprocess.Popen(command, env=environ, start_new_session=True, **options), mark))
        return self._started[-1][0]

    def running(self, process: "subprocess.Popen[Any]") -> dict[int, str]:
        """Return all that runs and comes from a process, itself included: command lines by number."""
        (mark,) = (mark for started, mark in self._started if started is process)
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
                if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
                    found[int(folder.name)] = command.replace("\0", " ")
        return found

    def end(self, process: "subprocess.Popen[Any]") -> None:
        """End a process and what it started."""
        process.kill()
        for pid in self.running(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._started = [each for each in self._started if each[0] is not process]
        with process:
            process.wait()

    def survivors(self, process: "subprocess.Popen[Any]") -> list[str]:
        """Return what still runs of a process a while after it ended."""
        becomes(lambda: not self.running(process))
        return list(self.running(process).values())

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *_: object) -> None:
        while self._started:
            self.end(self._started[-1][0])


@pytest.fixture(scope="session")
def children_type() -> type[Children]:
    """For fixtures whose processes live longer than a test."""
    return Children


@pytest.fixture
def children() -> Iterator[Children]:
    """Start processes that end with the test, if not before."""
    with Children() as children:
        yield children
