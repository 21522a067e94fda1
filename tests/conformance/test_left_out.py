"""What happens to tests that need what a machine lacks: left out and counted, or, where nothing may be, failed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# One needs the full data sets, the other does not.
TESTS = tuple(
    f"tests/integration/test_real_datasets.py::{name}"
    for name in ("test_fashion_mnist_is_the_official_set", "test_the_sample_is_balanced_and_looks_like_the_whole")
)
# It needs a Python of a device, with which files are run there, and nothing else.
WITH_AN_OLD_PYTHON = (
    "tests/unit/ondevice/test_old_runtimes.py::test_old_python_without_libraries_classifies_nothing[3.6]"
)
# What needs an example alone, without a bundle.
EXAMPLE = "tests/e2e/examples/test_programs.py::test_a_folder_that_is_no_bundle_is_refused[Node]"
NEEDED = "1 test that needs full data sets (set FEDSUP_DATA to a folder with fashion-mnist/, cifar10/, cifar100/)"


@pytest.fixture
def run(repository: Path, tmp_path: Path) -> Run:
    """Run tests elsewhere, as on a machine without data sets but for what is said otherwise."""

    def run(*options: str, tests: tuple[str, ...] = TESTS, **variables: str) -> "subprocess.CompletedProcess[str]":
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("FEDSUP_", "PYTEST_"))}
        words = [sys.executable, "-m", "pytest", *tests, "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}"]
        return subprocess.run(
            [*words, *options],
            env={**ours, **variables},
            cwd=repository,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_what_is_left_out_is_counted_in_one_line_that_says_how_to_get_it(run: Run) -> None:
    """Also where the tests run in other processes, as with `make test`."""
    ran = run("-n", "1")
    assert ran.returncode == 0
    assert "1 passed, 1 skipped" in ran.stdout
    assert [line for line in ran.stdout.splitlines() if "left out" in line] == [f"left out: {NEEDED}"]


def test_where_nothing_may_be_left_out_it_is_a_failure_in_the_same_words(run: Run) -> None:
    ran = run(FEDSUP_TEST_ALL="1")
    assert ran.returncode == 1
    assert "1 passed, 1 error" in ran.stdout
    assert f"left out: {NEEDED}" in ran.stdout


def test_a_folder_that_lacks_data_sets_is_no_reason_to_leave_anything_out(run: Run, tmp_path: Path) -> None:
    ran = run(FEDSUP_DATA=str(tmp_path))
    assert ran.returncode == 1
    assert f"FEDSUP_DATA: got {tmp_path}, expected a folder with fashion-mnist, cifar10, cifar100" in ran.stdout


def test_a_python_of_a_device_that_is_not_there_is_a_failure_where_nothing_may_be_left_out(
    run: Run, tmp_path: Path
) -> None:
    nowhere = {"PYENV_ROOT": str(tmp_path), "PATH": str(tmp_path)}
    needed = "left out: 1 test that needs Python 3.6 (install it, for instance with pyenv)"
    ran = run(tests=(WITH_AN_OLD_PYTHON,), **nowhere)
    assert (ran.returncode, needed in ran.stdout) == (0, True)
    ran = run(tests=(WITH_AN_OLD_PYTHON,), FEDSUP_TEST_ALL="1", **nowhere)
    assert (ran.returncode, needed in ran.stdout) == (1, True)


def test_examples_are_set_up_where_they_are_asked_for_alone(run: Run) -> None:
    """They install what they need, which `make test` must not."""
    ran = run(tests=(EXAMPLE.partition("::")[0],))
    assert (ran.returncode, "1 skipped" in ran.stdout) == (pytest.ExitCode.NO_TESTS_COLLECTED, True)
    assert "left out: 1 test that needs programs and libraries of the examples (make test-examples)" in ran.stdout


def test_what_an_example_lacks_is_a_failure_where_nothing_may_be_left_out(run: Run, tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path), "FEDSUP_EXAMPLES": "1"}
    needed = "left out: 1 test that needs node (install it, for the section Node of examples/README.md)"
    ran = run(tests=(EXAMPLE,), **nowhere)
    assert (ran.returncode, needed in ran.stdout) == (0, True)
    ran = run(tests=(EXAMPLE,), FEDSUP_TEST_ALL="1", **nowhere)
    assert (ran.returncode, needed in ran.stdout) == (1, True)


def test_continuous_integration_leaves_out_what_needs_an_emulator_and_nothing_else(repository: Path) -> None:
    """Slow tests were once left out by the dozen where a Python was missing, because the emulator was."""
    lines = (repository / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    apart = ("flower", "formats", "e2e/examples")
    assert f'apart="{" ".join(f"--ignore=tests/{name}" for name in apart)}"' in lines
    # They have environments of their own.
    usual = lines.index('PYTEST_ADDOPTS="$apart" make test')
    theirs = [lines.index(f"make test-{Path(name).name}") for name in apart]
    assert lines.index("export FEDSUP_TEST_ALL=1") < usual < min(theirs)
    [lenient] = [line for line in lines if "FEDSUP_TEST_ALL=0" in line]
    assert lenient.split()[1:] == [".venv/bin/python", "-m", "pytest", "tests/e2e/test_arm64.py"]
    [slow] = [line for line in lines if "make test-slow" in line]
    assert slow == 'PYTEST_ADDOPTS="$apart --ignore=tests/e2e/test_arm64.py" make test-slow'
