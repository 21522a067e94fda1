"""The commands of `examples/README.md`, run as they stand there, and what is said of them elsewhere."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.mark.parametrize("section", ["Python", "Node", "C++"])
def test_a_section_ends_with_the_class_of_a_picture(
    set_up: Callable[[str], str], bundle: Path, repository: Path, tmp_path: Path, section: str
) -> None:
    """Of a picture of the size that the model takes, with a bundle of the digits."""
    picture = tmp_path / "digit.png"
    Image.fromarray(np.tile(np.arange(0, 240, 30, dtype=np.uint8), (8, 1))).save(picture)
    environ = {**os.environ, "BUNDLE": str(bundle), "PICTURE": str(picture)}
    command = ["bash", "-euc", set_up(section)]
    ended = subprocess.run(command, cwd=repository, env=environ, capture_output=True, text=True, check=True)
    parity, answer = ended.stdout.splitlines()
    assert parity.startswith("parity  32 recorded images: largest difference ")
    assert parity.replace("1e-5", "1e-05").endswith(" (allowed 1e-05), same class of 32")
    name, digit, share, unit = answer.split()
    assert (name, unit) == (str(picture), "%")
    assert digit in "0123456789"
    assert 10 <= float(share) <= 100


@pytest.mark.parametrize("section", ["Python", "Node", "C++"])
def test_a_bundle_may_be_the_current_folder(example_of: Callable[[str], Any], bundle: Path, section: str) -> None:
    ended = example_of(section).run(".", cwd=bundle)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("parity  32 recorded images")


def test_continuous_integration_has_what_root_installs(
    commands_of: Callable[[str], list[str]], repository: Path
) -> None:
    [installing] = [line for line in commands_of("C++") if line.startswith("apt-get ")]
    packages = [word for word in installing.split()[2:] if not word.startswith("-")]
    assert len(packages) > 8
    assert f'libraries="{" ".join(packages)}"\n' in (repository / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["node", "browser"])
def test_locked_versions_name_no_registry(repository: Path, name: str) -> None:
    text = (repository / "examples" / name / "package-lock.json").read_text(encoding="utf-8")
    assert '"integrity"' in text
    assert '"resolved"' not in text


def test_none_knows_the_package(repository: Path, example_of: Callable[[str], Any]) -> None:
    """Nor could: the Python of the first has nothing but what it names."""
    python = example_of("Python").words[0]
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], cwd=repository, capture_output=True, text=True, check=True
    )
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert {"numpy", "onnxruntime", "pillow"} <= names
    assert not names & {"fedsup-deploy", "fedsup_deploy", "torch"}
