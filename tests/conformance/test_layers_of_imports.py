"""Imports point down, as docs/architecture.md says: read off the source, and seen from outside."""

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsup_deploy import registry

PACKAGE = "fedsup_deploy"
ROOT = Path(__file__).parents[2] / PACKAGE

#: Device profiles and the limits there are, which searches read; the rest of `device` stands higher.
PROFILE = (
    *("device.limits", "device.latency", "device.heldout", "device.percentiles", "device.acceptance"),
    *("device.profile", "device.held_latency"),
)
#: What a bundle says of itself, the program in it, and the files of a model; the rest of `artifact` stands higher.
BUNDLE = tuple(
    f"artifact.{name}"
    for name in (
        "document",
        "engine",
        "external_data",
        "manifest",
        "measured",
        "measures",
        "packing",
        "program",
        "variants",
    )
)
#: From the lowest layer up. A module belongs where the longest matching name stands; what a line lists are groups.
LAYERS = (
    (
        "accuracy",
        "answers",
        "measures",
        "processor",
        "errors",
        "rng",
        "registry",
        "locks",
        "places",
        "files",
        "events",
        "run_events",
        "resources",
        "results",
        "shared_files",
        "libraries",
        "memory",
        "version",
        "variant",
        "ondevice",
    ),
    ("config.reader", "config.document", "config.section", "config.registered", "config.problems", "config.load"),
    ("space", "config", "data", *PROFILE, *BUNDLE),
    ("supernet",),
    ("federation", "searchers", "device", "export", "artifact"),
    ("engines", "report", "runs"),
    ("commands",),
    ("api",),
    ("cli", ""),
)
#: The layer whose groups do not import each other.
SIBLINGS = LAYERS[4]
#: What can be used where torch is not installed, or before it is needed.
TORCH_FREE = (
    *("space", "config", "data", "searchers", "device.profile", "device.predictor"),
    *(
        "federation.client",
        "federation.simulation",
        "runs.run",
        "runs.images",
        "runs.history",
        "runs.time_left",
        "report",
    ),
    # Whether a device can have a bundle is said of what was searched by predictions.
    "export.wanted",
    *BUNDLE,
    *sorted(
        {
            row.partition(":")[0].removeprefix(f"{PACKAGE}.")
            for kind in ("strategy", "exporter")
            for row in registry.TABLES[kind].values()
        }
    ),
)


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Return the package's modules by their name below the package; the package itself is ''."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, *, at_import_time: bool) -> Iterator[str]:
    """Yield the modules of the package that a module imports: all, or those it imports when it is itself imported."""
    for node in at_module_level(modules()[name].body) if at_import_time else ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (below(alias.name) for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            if node.module is not None and is_ours(node.module):
                for alias in node.names:
                    inner = below(f"{node.module}.{alias.name}")
                    yield inner if inner in modules() else below(node.module)


def at_module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run on import: not those of functions, nor those for type checkers only."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from at_module_level(statement.orelse)
        elif not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in ("body", "orelse", "finalbody"):
                yield from at_module_level(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from at_module_level(handler.body)


def is_ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def below(name: str) -> str:
    return name.removeprefix(PACKAGE).removeprefix(".")


def place_of(name: str) -> tuple[int, str]:
    """Return the layer of a module, from 0, and its group in it."""
    fitting = [
        (len(group), layer, group)
        for layer, groups in enumerate(LAYERS)
        for group in groups
        if name == group or (group and name.startswith(f"{group}."))
    ]
    assert fitting, f"{name} has no layer: say in LAYERS, and in docs/architecture.md, where it belongs"
    _, layer, group = max(fitting)
    return layer, group


def problem_with(name: str, imported: str) -> str | None:
    (layer, group), (other_layer, other_group) = place_of(name), place_of(imported)
    if other_layer > layer:
        return f"{name} imports {imported}, which is above it"
    if layer == other_layer and group != other_group and {group, other_group} <= set(SIBLINGS):
        return f"{name} imports {imported}, its sibling"
    return None


def test_the_rule_sees_what_it_should() -> None:
    """What the tests below rely on: the parser finds imports, and bad ones are problems."""
    assert set(imports("space.architecture", at_import_time=True)) == {"errors", "files"}
    assert "cli.tables" in set(imports("cli.output", at_import_time=False))
    assert "cli.tables" not in set(imports("cli.output", at_import_time=True))
    assert problem_with("space.plan", "supernet.model") == "space.plan imports supernet.model, which is above it"
    assert (
        problem_with("searchers.methods.exact", "device.predictor")
        == "searchers.methods.exact imports device.predictor, its sibling"
    )
    assert problem_with("device.profile", "artifact.store") is not None
    assert problem_with("searchers.pricing", "device.profile") is None
    assert problem_with("supernet.model", "supernet.slices") is None
    with pytest.raises(AssertionError, match="has no layer"):
        place_of("utils")


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    """Also those inside functions. The package's own front only names what it offers."""
    found = {problem_with(name, imported) for imported in imports(name, at_import_time=False)}
    assert found <= {None}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: set(imports(name, at_import_time=True)) for name in modules()}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(modules())


def test_no_folders_import_each_other_in_a_circle() -> None:
    """A folder and those within it are different folders; the front of the package is none."""
    graph: dict[str, set[str]] = {}
    for name in modules().keys() - {"", "api"}:
        inside = graph.setdefault(name.rpartition(".")[0], set())
        inside |= {found.rpartition(".")[0] for found in imports(name, at_import_time=False)}
    folders = {folder: found - {folder, ""} for folder, found in graph.items() if folder}
    order = list(graphlib.TopologicalSorter(folders).static_order())
    assert set(order) == set(folders)


def test_one_package_alone_imports_flower() -> None:
    """At its start; no statement imports these modules: they are programs, or are loaded by their names."""
    users = {
        name: place
        for name, tree in modules().items()
        for place, nodes in (("inside", ast.walk(tree)), ("at import", at_module_level(tree.body)))
        if any({"flwr", "ray"} & {imported.partition(".")[0] for imported in imported_by(node)} for node in nodes)
    }
    assert users == dict.fromkeys(
        (
            f"engines.flower.{each}"
            for each in ("app", "carrier", "connection", "executor", "grid", "registered", "task")
        ),
        "at import",
    )
    assert (
        users.keys()
        & {imported for name in modules() for imported in imports(name, at_import_time=False) if name not in users}
        == set()
    )


def imported_by(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_what_runs_on_a_device_needs_nothing_else_of_the_package() -> None:
    """It is sent there alone."""
    inside = [name for name in modules() if place_of(name)[1] == "ondevice"]
    assert len(inside) > 5
    needed = {imported for name in inside for imported in imports(name, at_import_time=False)}
    assert needed <= set(inside)
    assert set(imports("device.session", at_import_time=False)) <= set(inside)
    assert list(imports("device.remote.bootstrap", at_import_time=False)) == []


@pytest.mark.parametrize("name", TORCH_FREE)
def test_torch_free_modules_import_no_torch(name: str) -> None:
    """With everything below the name, each in the order of the files, in a new process."""
    inside = [module for module in modules() if module == name or module.startswith(f"{name}.")]
    assert inside
    assert heavy_after(*inside) == set()


def test_start_of_the_command_line_imports_no_torch() -> None:
    assert heavy_after("cli.main", *(module for module in modules() if module.startswith("cli."))) == set()


def test_front_of_the_package_imports_no_torch() -> None:
    assert heavy_after("", "api") == set()


def test_torch_is_seen_where_it_is_imported() -> None:
    assert heavy_after("supernet.model") == {"torch"}


def heavy_after(*names: str) -> set[str]:
    """Return which of the heavy libraries are loaded after importing modules of the package in a new process."""
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    full = [f"{PACKAGE}.{name}".removesuffix(".") for name in names]
    ran = subprocess.run([sys.executable, "-c", program, *full], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return {"torch", "onnx", "onnxruntime", "sklearn", "torch_pruning", "fvcore"} & set(ran.stdout.split())
