"""Pythons with releases of onnxruntime of their time, as devices have them: THE list, and how to get them.

Used by `runtime_matrix.py` and by the tests, in which onnxruntime runs on this machine's processor.
"""

import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Runtime(NamedTuple):
    """A Python with releases of libraries of its time; where none is named, with the newest."""

    python: str
    onnxruntime: str = ""
    numpy: str = ""
    pillow: str = ""

    def __str__(self) -> str:
        """Return what tests are called after."""
        return f"{self.python}-{self.onnxruntime or 'newest'}"


#: onnxruntime 1.10 and Pillow 8.4 are the newest for Python 3.6; 1.8 and 8.1 are the oldest that run.py takes.
RUNTIMES = (
    Runtime("3.6", "1.8.1", "1.19.5", "8.1.2"),
    Runtime("3.6", "1.10.0", "1.19.5", "8.4.0"),
    Runtime("3.7", "1.11.1", "1.21.6", "9.0.1"),
    Runtime("3.7", "1.14.1", "1.21.6", "9.5.0"),
    Runtime("3.8", "1.19.2", "1.24.4", "10.4.0"),
    Runtime("3.13"),
)
#: Of glibc, what wheels of that time are built for.
GLIBC = ("2_34", "2_28", "2_27", "2_17", "2_12")
PACKAGES = ("onnxruntime", "numpy", "pillow")


class MissingPythonError(Exception):
    """A Python that this machine lacks; says which, and how to get it."""


class Installed(NamedTuple):
    """A runtime that can be run.

    Args:
        python: Its Python.
        libraries: The folder of its libraries.
        versions: Of these, by name.
    """

    python: Path
    libraries: Path
    versions: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its Python needs, and no others: ours may keep it from its current folder."""
        return {"PYTHONPATH": str(self.libraries), "PATH": os.environ["PATH"]}

    def run(self, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run its Python with some words, in a folder."""
        command = [str(self.python), *words]
        return subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)


def find_python(version: str) -> Path:
    """Return a Python of a version, such as `3.6`: one of pyenv, or the one on the path.

    Raises:
        MissingPythonError: There is none.
    """
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # not $HOME, which is another one in tests
    root = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    candidates = list(root.glob(f"versions/{version}.*/bin/python{version}"))
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        candidates.append(Path(on_path))
    for candidate in candidates:
        command = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == version:
            return candidate
    raise MissingPythonError(f"Python {version} (install it, for instance with pyenv)")


def install(runtime: Runtime, folder: Path) -> Installed:
    """Download a runtime's libraries into an empty folder that its PYTHONPATH can name.

    These alone, as run.py needs no more; pip would hold what they require against the Python that it runs in.

    Raises:
        MissingPythonError: There is no such Python.
        RuntimeError: pip fails; says what it says.
    """
    python = find_python(runtime.python)
    number, machine = runtime.python.replace(".", ""), platform.machine()
    abis = [f"--abi=cp{number}{'m' if number in {'36', '37'} else ''}", "--abi=abi3", "--abi=none"]
    systems = [f"--platform=manylinux_{glibc}_{machine}" for glibc in GLIBC]
    systems += [f"--platform=manylinux{year}_{machine}" for year in (2014, 2010)]
    wanted = {name: getattr(runtime, name) for name in PACKAGES}
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"),
        *("--only-binary=:all:", "--no-compile", "--no-deps", "--ignore-requires-python", "--implementation=cp"),
        *(f"--python-version={runtime.python}", *abis, *systems, "--target", str(folder)),
        *(f"{name}=={version}" if version else name for name, version in wanted.items()),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    versions = {}
    for path in folder.glob("*.dist-info"):
        name, version = path.name.removesuffix(".dist-info").rsplit("-", 1)
        versions[re.sub(r"[-_.]+", "-", name).lower()] = version
    return Installed(python, folder, versions)
