"""A run that nobody may write, such as one on another's disk: it is worked with as well, and keeps nothing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Deny = Callable[..., "subprocess.CompletedProcess[str]"]

# The superuser may write everything, unless the right to do so (CAP_DAC_OVERRIDE) is given away before.
WITHOUT_THE_RIGHT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
NOTE = "locked cannot be written: permission denied; accuracies and statistics are not kept there, and found anew "


@pytest.fixture
def locked(workshop: Any, tmp_path: Path) -> Iterator[Path]:
    """A run of which nothing was found out yet, and that cannot be written; `open` is the same, and can."""
    ignored = shutil.ignore_patterns("statistics", "evaluations", "search.json*")
    for name in ("open", "locked"):
        shutil.copytree(workshop.folder / "runs" / "digits", tmp_path / name, ignore=ignored)
    folders = [tmp_path / "locked", *(path for path in (tmp_path / "locked").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield tmp_path / "locked"
    for folder in folders:
        folder.chmod(0o755)


@pytest.fixture
def command(locked: Path) -> Deny:
    """Run a command beside the run."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        program = Path(sys.executable).with_name("fedsup-deploy")
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_THE_RIGHT, program, *words],
            cwd=locked.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "seconds"}


def of_both(command: Deny, *words: str) -> tuple[Any, Any]:
    """Return the documents of a command about the run that can be written, and about the one that cannot.

    `RUN` stands for its name, in other words as well.
    """
    documents = []
    for name in ("open", "locked"):
        ended = command(*(word.replace("RUN", name) for word in words), "--json")
        assert ended.returncode == 0, ended.stderr
        notes = [line for line in ended.stderr.splitlines() if line.startswith("note: ")]
        assert [NOTE in note for note in notes] == [True] * (name == "locked")
        document = json.loads(ended.stdout.replace(name, "RUN"), object_hook=without_times)
        documents.append(document)
    return documents[0], documents[1]


def test_it_is_evaluated_searched_and_exported_with_the_same_results(command: Deny, locked: Path) -> None:
    opened, closed = of_both(command, "evaluate", "RUN", "--arch", "smallest")
    assert closed == opened

    found = ("search", "--run", "RUN", "--profile", "raspberry-pi-4", "--evaluations", "3", "--out", "RUN.json")
    opened, closed = of_both(command, *found)
    assert closed == opened

    of_both(command, "export", "--search", "RUN.json", "--format", "onnx", "--out", "bundles-RUN")
    manifests = [
        json.loads(path.read_text()) for path in sorted(locked.parent.glob("bundles-*/*/*/manifest.json"), reverse=True)
    ]
    assert len(manifests) == 2
    opened, closed = ({**manifest["lineage"], "search": None} for manifest in manifests)
    assert closed == opened
    models = [path.read_bytes() for path in sorted(locked.parent.glob("bundles-*/*/*/model.onnx"))]
    assert models[0] == models[1]
    assert {path.name for path in locked.iterdir()} & {"statistics", "evaluations"} == set()


def test_statistics_that_can_be_written_nowhere_are_not_taken(command: Deny, locked: Path) -> None:
    """They can where they are asked for in another place."""
    refused = command("recalibrate", "locked", "--arch", "smallest")
    assert (refused.returncode, refused.stdout) == (8, "")
    assert refused.stderr == (
        f"error: cannot write {Path('locked') / 'statistics'}: permission denied; make its folder writable\n"
    )
    opened, closed = of_both(command, "recalibrate", "RUN", "--arch", "smallest", "--out", "RUN.safetensors")
    assert (opened.pop("statistics") is None, closed.pop("statistics")) == (False, None)
    assert closed == opened
    contents = [(locked.parent / f"{name}.safetensors").read_bytes() for name in ("open", "locked")]
    assert contents[0] == contents[1]


def test_what_it_is_asked_to_keep_is_refused_before_the_work(command: Deny) -> None:
    for words, place in (
        (("search", "--run", "locked", "--profile", "raspberry-pi-4"), "locked/search.json"),
        (("fit-accuracy", "locked"), "locked/accuracy.safetensors"),
    ):
        refused = command(*words)
        assert (refused.returncode, refused.stdout) == (8, "")
        assert refused.stderr.startswith(f"error: cannot write {place}: permission denied; ")


def test_a_fleet_is_deployed_from_it_with_the_search_beside_the_bundles(command: Deny, locked: Path) -> None:
    words = ("--profile", "raspberry-pi-4", "--evaluations", "3", "--format", "onnx", "--out", "bundles", "--json")
    made = command("deploy", "--run", "locked", *words)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["search"] == "bundles/search.json"
    assert (locked.parent / "bundles" / "search.json").is_file()
    [manifest] = (locked.parent / "bundles").glob("raspberry-pi-4/*/manifest.json")

    bundle = manifest.parent
    bundle.chmod(0o555)
    refused = command("measure", str(bundle))
    assert (refused.returncode, refused.stdout) == (8, "")
    assert refused.stderr == (
        f"error: cannot write {bundle}/measured.json: permission denied; name a file elsewhere with --out\n"
    )
    measured = command("measure", str(bundle), "--out", "measured.json", "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["out"] == "measured.json"
    assert (locked.parent / "measured.json").is_file()
    bundle.chmod(0o755)
