"""What the command line imports, seen from outside."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedsup_deploy import registry
from fedsup_deploy.cli.main import cli

_REPORT = """
import json, sys
from fedsup_deploy.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def module_of(command: str) -> str:
    return f"fedsup_deploy.cli.{command.replace('-', '_')}"


def modules_after(*args: str) -> tuple[int, set[str]]:
    """Run the command line in a new process. Returns its exit code and the modules it imported."""
    done = subprocess.run([sys.executable, "-c", _REPORT, *args], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


def test_the_help_imports_no_command_and_nothing_heavy():
    code, modules = modules_after("--help")
    assert code == 0
    assert not modules & {"torch", "numpy", "pydantic", "yaml", "rich", "onnx", "onnxruntime", "sklearn"}
    assert not modules & {module_of(name) for name in cli.summaries}


@pytest.mark.parametrize("name", list(cli.summaries))
def test_the_help_of_a_command_imports_that_command_only(name: str):
    code, modules = modules_after(name, "--help")
    assert code == 0
    assert not modules & {"torch", "numpy", "onnx", "onnxruntime", "sklearn"}
    assert modules & {module_of(other) for other in cli.summaries} == {module_of(name)}


def test_a_mistake_in_a_config_is_found_without_torch():
    code, modules = modules_after("train", "--config", "no-such-config")
    assert code == 2
    assert "torch" not in modules


@pytest.mark.parametrize("strategy", registry.names("strategy"))
def test_a_mistake_that_only_a_strategy_knows_is_found_without_torch(strategy: str):
    settings = ["--set", f"strategy={{name: {strategy}}}", "--set", "training.clients_per_round=1000"]
    code, modules = modules_after("train", "--config", "digits", *settings)
    assert code == 2
    assert registry.TABLES["strategy"][strategy].partition(":")[0] in modules
    assert "torch" not in modules


#: Begins as the installed script does, and gets a signal while it imports what the command line is made of.
_STOPPED_AT_ONCE = """
import importlib, signal, sys

class Stopping:
    def find_spec(self, name, *_):
        if name == "click":
            signal.raise_signal(signal.Signals[sys.argv.pop()])

sys.meta_path.insert(0, Stopping())
module, _, function = sys.argv.pop(1).partition(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""


@pytest.mark.parametrize(("name", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_command_that_is_stopped_before_it_began_says_nothing(repository: Path, name: str, exit_code: int) -> None:
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    script = re.search(r'^fedsup-deploy = "(.+)"$', project, re.MULTILINE)
    assert script is not None
    command = [sys.executable, "-c", _STOPPED_AT_ONCE, script[1], "inspect", "digits", name]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (exit_code, "", "")
