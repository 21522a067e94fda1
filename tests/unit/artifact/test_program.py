"""What is sent to devices, as files: Python 3.6, few libraries, and everything that the modules have."""

import ast
import hashlib
import importlib
import inspect
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import ondevice
from fedsup_deploy.artifact.packing import pack
from fedsup_deploy.artifact.program import INSTALLER, program
from fedsup_deploy.device import session
from fedsup_deploy.device.remote import bootstrap
from fedsup_deploy.ondevice import bundle_outputs, latency_statistics, timing

#: These name types for whoever reads a report; no device has them.
RECORDS = {"records", "manifest_records", "session_records", "install_records"}
#: What `install.py` has, and `run.py` does not.
OF_INSTALLER = {"install", "p256", "releases", "signature", "unpacking"}
MODULES = sorted(
    path for path in Path(str(ondevice.__file__)).parent.glob("*.py") if path.stem not in {"__init__", *RECORDS}
)
FILES: dict[str, Callable[[], str]] = {
    **{f"ondevice/{path.name}": path.read_text for path in MODULES},
    "device/session.py": lambda: Path(session.__file__).read_text(),
    "device/remote/bootstrap.py": lambda: Path(bootstrap.__file__).read_text(),
    "run.py": lambda: program().decode(),
    "install.py": lambda: program(INSTALLER).decode(),
    "session.py": lambda: pack(session.__name__),
}
#: Of `typing`, what Python 3.6 has and these files may use: NoReturn since 3.6.2, the rest from its start.
TYPING = {
    *("IO", "Any", "Callable", "Collection", "Dict", "Iterable", "Iterator", "List", "Mapping", "NamedTuple"),
    *("NoReturn", "Optional", "Sequence", "Set", "Tuple", "Type", "TYPE_CHECKING", "TypeVar", "Union", "cast"),
}
#: Of the standard library, what it does not have.
NEWER = {
    *("contextvars", "dataclasses", "graphlib", "tomllib", "zoneinfo", "cached_property", "nullcontext"),
    *("perf_counter_ns", "time_ns", "process_time_ns", "monotonic_ns", "removeprefix", "removesuffix", "isascii"),
    *(
        "is_relative_to",
        "with_stem",
        "hardlink_to",
        "readlink",
        "capture_output",
        "text",
        "missing_ok",
        "dirs_exist_ok",
    ),
    *("math.prod", "math.dist", "math.comb", "math.perm", "math.isqrt", "get_args", "get_origin", "unparse"),
}


@pytest.fixture(scope="module")
def packed() -> types.ModuleType:
    """The packed run.py, imported."""
    module = types.ModuleType("packed")
    module.__file__ = "run.py"
    exec(compile(program(), "run.py", "exec"), vars(module))
    return module


@pytest.mark.parametrize("name", FILES)
def test_file_is_python_3_6(name: str) -> None:
    tree = ast.parse(FILES[name](), feature_version=(3, 6))
    compile(tree, name, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__"
            assert node.module != "typing" or {alias.name for alias in node.names} <= TYPING
        assert not set(names_in(node)) & NEWER, f"line {getattr(node, 'lineno', 0)}"
        assert not is_debug_text(node)


def names_in(node: ast.AST) -> Iterator[str]:
    """Yield the names of attributes, arguments and imports; a text may be one, too, as it is asked for by `getattr`."""
    if isinstance(node, ast.Attribute):
        yield node.attr
        yield ast.unparse(node)
    elif isinstance(node, ast.keyword):
        yield node.arg or ""
    elif isinstance(node, ast.alias):
        yield from node.name.split(".")
    elif isinstance(node, ast.ImportFrom):
        yield from (node.module or "").split(".")


def is_debug_text(node: ast.AST) -> bool:
    """Return whether it is an f-string with `{value=}`, which becomes a text that ends so, and the value's repr."""
    if not isinstance(node, ast.JoinedStr):
        return False
    pairs = zip(node.values, node.values[1:], strict=False)
    return any(
        isinstance(text, ast.Constant)
        and str(text.value).endswith("=")
        and isinstance(value, ast.FormattedValue)
        and value.conversion == ord("r")
        for text, value in pairs
    )


@pytest.mark.parametrize("name", FILES)
def test_annotations_can_be_evaluated_by_python_3_6(name: str) -> None:
    """They are, as `__future__` is not imported: neither `list[int]` nor `int | None`."""
    for node in ast.walk(ast.parse(FILES[name]())):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            for part in () if annotation is None else ast.walk(annotation):
                assert not isinstance(part, ast.BinOp), ast.unparse(part)
                if isinstance(part, ast.Subscript):
                    assert ast.unparse(part.value) in TYPING


@pytest.mark.parametrize(
    ("name", "libraries"),
    [
        ("run.py", {"numpy", "onnxruntime", "PIL"}),
        ("session.py", {"numpy", "onnxruntime"}),
        ("install.py", set[str]()),
    ],
)
def test_file_imports_only_the_standard_library_and_few_others(name: str, libraries: set[str]) -> None:
    """And those not before they are needed: without them it says what to install."""
    tree = ast.parse(FILES[name]())

    def imported(nodes: Any) -> set[str]:
        found = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).split(".")[0])
        return found

    assert imported(tree.body) <= sys.stdlib_module_names
    assert imported(ast.walk(tree)) - sys.stdlib_module_names == libraries
    assert not {"importlib", "__import__", "exec", "eval"} & {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
    }


def test_packed_file_has_all_that_the_modules_define(packed: types.ModuleType) -> None:
    names = []
    for path in (path for path in MODULES if path.stem not in OF_INSTALLER):
        module = importlib.import_module(f"{ondevice.__name__}.{path.stem}")
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ or (name.isupper() and not name.startswith("_")):
                found = getattr(packed, name)
                assert type(found).__name__ == type(value).__name__, name
                if inspect.isfunction(value):
                    assert found.__doc__ == value.__doc__
                    assert inspect.getsource(value) in program().decode()
                names.append(name)
    assert len(names) > 60


def test_packed_file_computes_what_the_modules_compute(packed: Any) -> None:
    visits_ns = [[10**6 + 37 * run * visit % 1000 for run in range(70)] for visit in range(1, 9)]
    samples_ns = [ns for visit in visits_ns for ns in visit]
    for name, arguments in {
        "quantile": (samples_ns, 0.9),
        "summarize": (samples_ns,),
        "p90_bound_ms": (samples_ns,),
    }.items():
        assert getattr(packed, name)(*arguments) == getattr(latency_statistics, name)(*arguments)
    found = packed.stability(visits_ns, packed.pooled_p10, "p10", 0.1)
    assert found == latency_statistics.stability(visits_ns, latency_statistics.pooled_p10, "p10", 0.1)
    outputs_VK = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    arguments = (
        lambda x_BK: x_BK + np.float32(1e-6),
        outputs_VK,
        outputs_VK,
        dict.fromkeys(("tolerance", "batch_tolerance"), 1e-5),
    )
    assert packed.check_outputs(*arguments) == bundle_outputs.check_outputs(*arguments)
    assert {name: tuple(each) for name, each in packed.PROTOCOLS.items()} == {
        name: tuple(each) for name, each in timing.PROTOCOLS.items()
    }


def test_packed_file_is_the_same_in_every_process() -> None:
    """Whatever the order of sets is there."""
    code = "import sys; from fedsup_deploy.artifact.program import program; sys.stdout.buffer.write(program())"
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True)
        assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(program()).digest()
