"""The programs of `examples/`, set up and run by the commands of their README, and bundles for them.

They need libraries of their own, which those commands install below `examples/`: `make test-examples`.
"""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

NEEDED = "programs and libraries of the examples (make test-examples)"
IS_ASKED = os.environ.get("FEDSUP_EXAMPLES", "0") not in {"", "0"}
README = Path(__file__).parents[3] / "examples" / "README.md"
#: What a section of the README needs from the system.
PROGRAMS = {
    "Python": ("python3",),
    "Node": ("node", "npm"),
    "Browser": ("node", "npm", "python3"),
    "C++": ("python3", "cmake", "g++", "pkg-config"),
}
#: Whatever a page does is done by then, also where all cores are busy.
DEADLINE_MS = 1_800_000


class Absent(pytest.Module):
    """A module that would need what is not there: it counts as one test."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(NEEDED, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave out every module unless it is asked for: these tests install what they need."""
    return None if IS_ASKED else Absent.from_parent(parent, path=module_path)


class Said(NamedTuple):
    """What an example said of a bundle and pictures, and what it gave the model: (N, C, S, S), flat."""

    parity: dict[str, Any]
    images: list[dict[str, Any]]
    inputs: "np.ndarray[Any, np.dtype[np.float32]]"


class Program:
    """An example that is a program: the last command of its section runs it with a bundle and a picture."""

    def __init__(self, run: str, repository: Path, folder: Path) -> None:
        *words, bundle, picture = shlex.split(run)
        assert (bundle, picture) == ("$BUNDLE", "$PICTURE")
        self.words = [str(repository / word) if word.startswith("examples/") else word for word in words]
        self._inputs = folder / "inputs"

    def run(self, *words: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run it."""
        command = [*self.words, *map(str, words)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)

    def ask(self, bundle: Path, pictures: list[Path]) -> Said:
        """Return what it says, which must be without a complaint."""
        ended = self.run(bundle, *pictures, "--json", "--inputs", self._inputs)
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout[-1000:]
        document = json.loads(ended.stdout)
        assert [each["file"] for each in document["images"]] == list(map(str, pictures))
        return Said(document["parity"], document["images"], np.fromfile(self._inputs, np.float32))

    def refusal(self, bundle: Path, *pictures: Path) -> str:
        """Return what it says of a bundle or picture that it must not take."""
        ended = self.run(bundle, *pictures)
        assert ended.returncode == 1
        return ended.stdout + ended.stderr


class Page:
    """The example that is a page, in a browser."""

    def __init__(self, browser: Any, address: str) -> None:
        self._page = browser.new_context().new_page()
        self._said = list[str]()
        self.asked = list[tuple[str, str]]()
        self._page.on("console", lambda message: self._said.append(message.text))
        self._page.on("pageerror", lambda error: self._said.append(str(error)))
        self._page.on("request", lambda request: self.asked.append((request.method, request.url)))
        self.address = address

    def open(self, bundle: Path | list[Path], control: str = "#folder") -> str:
        """Choose a bundle; return what the page says of it."""
        self._page.goto(f"{self.address}browser/")
        return self.choose_bundle(bundle, control)

    def choose_bundle(self, bundle: Path | list[Path], control: str) -> str:
        """Choose a bundle in the page that is open; return what it says of it."""
        self._page.set_input_files(control, bundle)
        self._page.wait_for_selector("#state[aria-busy=false]", timeout=DEADLINE_MS)
        assert self._said == []
        return str(self._page.inner_text("#state"))

    def is_ready(self) -> bool:
        """Return whether pictures can be chosen."""
        return bool(self._page.is_enabled("#pictures"))

    def refuses_to_ask(self, url: str) -> bool:
        """Return whether the browser keeps the page from asking somebody else, and says why."""
        asking = f"fetch({url!r}).then(() => false, () => true)"
        is_refused = bool(self._page.evaluate(asking))
        said = " ".join(self._said)
        self._said.clear()
        return is_refused and "Content Security Policy" in said

    def choose(self, pictures: list[Path]) -> list[str]:
        """Choose pictures; return what the page says of each."""
        self._page.set_input_files("#pictures", pictures)
        self._page.wait_for_selector("#answers[aria-busy=false]", timeout=DEADLINE_MS)
        assert self._said == []
        return [str(row).partition("\t")[2] for row in self._page.locator("#answers tr").all_inner_texts()]

    def ask(self, bundle: Path, pictures: list[Path]) -> Said:
        """Return what it says, which must be without a complaint."""
        assert self.open(bundle).startswith("Parity: ")
        told = self.choose(pictures)
        found = self._page.evaluate(
            "import('./page.js').then(({ found }) => ({ ...found, inputs: found.inputs.map((each) => [...each]) }))"
        )
        images = found["images"]
        assert [each["file"] for each in images] == [picture.name for picture in pictures], told
        return Said(found["parity"], images, np.array(found["inputs"], np.float32).ravel())

    def refusal(self, bundle: Path, *pictures: Path) -> str:
        """Return what it says of a bundle or picture that it must not take."""
        said = self.open(bundle)
        return said if not pictures else self.choose(list(pictures))[0]


@pytest.fixture(scope="session")
def commands_of() -> Callable[[str], list[str]]:
    """Return the commands in a section of the README, in order."""
    return commands_in


def commands_in(section: str) -> list[str]:
    """Return the commands in a section of the README, in order."""
    text = README.read_text(encoding="utf-8")
    [text] = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return blocks.replace("\\\n", " ").splitlines()


@pytest.fixture(scope="session")
def set_up(repository: Path) -> Callable[[str], str]:
    """Set an example up, by the commands of its section; return the last, which runs it."""

    @functools.cache
    def install(section: str) -> str:
        for program in PROGRAMS[section]:
            if shutil.which(program) is None:
                pytest.skip(f"{program} (install it, for the section {section} of examples/README.md)")
        *commands, run = commands_in(section)
        # Of what root installs the others say what is missing.
        script = "\n".join(command for command in commands if not command.startswith("apt-get "))
        command = ["bash", "-euc", script]
        ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return run

    return install


@pytest.fixture(scope="session")
def example_of(
    set_up: Callable[[str], str],
    repository: Path,
    request: pytest.FixtureRequest,
    children_type: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Program | Page]]:
    """Set up the example of a section of the README."""
    with children_type() as children:

        @functools.cache
        def get(section: str) -> Program | Page:
            if section != "Browser":
                return Program(set_up(section), repository, tmp_path_factory.mktemp("example"))
            browser = request.getfixturevalue("chromium")
            *words, port = shlex.split(set_up(section))
            assert port == "8000"
            # Any port that is free, which the server prints.
            server = children.start(
                [*words, "0"], {**os.environ, "PYTHONUNBUFFERED": "1"}, cwd=repository, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            [address] = re.findall(r"\((http://127\.0\.0\.1:[0-9]+/)\)", server.stdout.readline())
            return Page(browser, address)

        yield get


@pytest.fixture(params=PROGRAMS)
def example(request: pytest.FixtureRequest, example_of: Callable[[str], Any]) -> Any:
    """Each of them."""
    return example_of(request.param)


@pytest.fixture(scope="session")
def in_python(example_of: Callable[[str], Any]) -> Any:
    """The one with onnxruntime in Python, with which the others are compared."""
    return example_of("Python")
