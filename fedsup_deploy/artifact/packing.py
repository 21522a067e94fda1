"""Packing: one file of several modules of this package, so that a device is sent one file and needs nothing of ours.

The modules are read, never run. Each stands in the file as it is written, after those it imports; what they import from
elsewhere is at the top, once. That works only if they keep some rules, and what breaks one is refused.
"""

import ast
import importlib.util
import symtable
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OURS: Final = "fedsup_deploy"
#: Libraries that a device has, Pillow where it classifies images; the standard library is there as well.
LIBRARIES: Final = frozenset({"PIL", "numpy", "onnxruntime"})
#: The oldest Python of a device.
OLDEST_PYTHON: Final = (3, 6)

SourceOf = Callable[[str], str]


class PackingError(ValueError):
    """Modules that cannot become one file; says which and why."""


@dataclass(frozen=True, order=True)
class Import:
    """One name that a module imports at its top level: `import module`, or `from module import name`."""

    module: str
    name: str = ""

    @property
    def bound(self) -> str:
        """The name it gives in the module that has it."""
        return self.name or self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"from {self.module} import {self.name}" if self.name else f"import {self.module}"


@dataclass(frozen=True)
class Module:
    """A module, taken apart.

    Args:
        name: Its full name.
        docstring: Its lines as written.
        imports: What it imports at its top level, in order.
        body: The rest of its text.
        defines: The names it gives to functions, classes and values.
    """

    name: str
    docstring: str
    imports: tuple[Import, ...]
    body: str
    defines: frozenset[str]

    @property
    def of_ours(self) -> tuple[Import, ...]:
        """What it imports from this package."""
        return tuple(each for each in self.imports if is_ours(each.module))

    @property
    def of_others(self) -> frozenset[Import]:
        """What it imports from elsewhere."""
        return frozenset(self.imports) - frozenset(self.of_ours)


def source_of(name: str) -> str:
    """Return the text of a module of this package."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise PackingError(f"{name}: no such module")
    return Path(found.origin).read_text(encoding="utf-8")


def pack(entry: str, prologue: str | None = None, source_of: SourceOf = source_of) -> str:
    """Return the text of one file that does what a module does when it is started.

    Args:
        entry: The module; its docstring is the file's.
        prologue: A module that stands before all imports but its own.
        source_of: Returns the text of a module by its name.

    Raises:
        PackingError: A module is no Python 3.6, imports what no device has, imports in a way that cannot be put
            together, or defines a name that another one defines or imports.
    """
    modules = in_import_order(entry, source_of)
    first = [] if prologue is None else [read_module(prologue, source_of(prologue))]
    _refuse_clashes([*first, *modules])
    done = {each for module in first for each in module.of_others}
    others = {each for module in modules for each in module.of_others} - done
    parts = [modules[-1].docstring]
    parts += [f"{_heading(module)}\n\n{_statements(done)}\n\n{module.body}" for module in first]
    parts += [_statements(others)]
    parts += [f"{_heading(module)}\n\n{module.body}" for module in modules]
    return "\n\n\n".join(parts) + "\n"


def in_import_order(entry: str, source_of: SourceOf = source_of) -> list[Module]:
    """Return a module and all of this package that it needs, each after those it imports.

    Raises:
        PackingError: As for `pack`, or modules import each other in a circle.
    """
    done: dict[str, Module] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise PackingError(f"{name}: imports itself by way of {' and '.join(path)}")
        module = read_module(name, source_of(name))
        for needed in module.of_ours:
            if needed.module not in done:
                add(needed.module, (*path, name))
            if needed.name not in done[needed.module].defines:
                raise PackingError(f"{name}: imports {needed.name}, which is no name that {needed.module} defines")
        done[name] = module

    add(entry, ())
    return list(done.values())


def read_module(name: str, source: str) -> Module:
    """Return a module, taken apart.

    Raises:
        PackingError: It is no Python 3.6, or has an import that cannot be put together with others.
    """
    try:
        tree = ast.parse(source, feature_version=OLDEST_PYTHON)
    except SyntaxError as error:
        raise PackingError(f"{name}:{error.lineno}: {error.msg}, in Python 3.6") from error
    has_docstring = ast.get_docstring(tree) is not None
    head = tree.body[:1] if has_docstring else []
    for_checkers = [node for node in tree.body if isinstance(node, ast.If) and _is_for_type_checkers(node)]
    kept = [node for node in tree.body if node not in for_checkers]
    at_top = [node for node in kept if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in (inner for statement in kept for inner in ast.walk(statement)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _refuse_import(name, node, is_at_top=node in at_top)
    lines = source.splitlines()
    rest = [node for node in kept if node not in head and node not in at_top]
    body = _without(lines, [*head, *at_top, *for_checkers])
    if _same_code(body, rest):
        return Module(
            name,
            "\n".join(lines[: head[0].end_lineno]) if has_docstring else "",
            tuple(each for node in at_top for each in _imports_of(node)),
            body,
            frozenset(_defined_names(name, source)),
        )
    raise PackingError(f"{name}: an import shares its line with something else")


def _is_for_type_checkers(node: ast.If) -> bool:
    """Return whether a statement is left out: a device has no type checker."""
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse


def is_ours(module: str) -> bool:
    """Return whether a module is one of this package."""
    return module == OURS or module.startswith(f"{OURS}.")


def _refuse_import(name: str, node: ast.Import | ast.ImportFrom, *, is_at_top: bool) -> None:
    """Refuse an import that a device cannot do, or that would mean something else in the packed file."""
    where = f"{name}:{node.lineno}"
    is_relative = isinstance(node, ast.ImportFrom) and node.level > 0
    for each in () if is_relative else _imports_of(node):
        top = each.module.partition(".")[0]
        if is_ours(each.module) and not (is_at_top and each.name):
            raise PackingError(f"{where}: {each}: expected `from MODULE import NAME` at the top of the module")
        if top == "__future__" or (top not in sys.stdlib_module_names | LIBRARIES and not is_ours(each.module)):
            allowed = ", ".join(sorted(LIBRARIES))
            raise PackingError(f"{where}: {each}: expected the standard library of Python 3.6, {allowed}")
    if is_relative or any(alias.name == "*" or (is_at_top and alias.asname) for alias in node.names):
        raise PackingError(f"{where}: {ast.unparse(node)}: expected an absolute import of names, as they are")


def _refuse_clashes(modules: Iterable[Module]) -> None:
    """Refuse a name that means different things in two modules."""
    meanings: dict[str, str] = {}
    for module in modules:
        found = {each.bound: f"`{each}`" for each in module.of_others}
        found |= dict.fromkeys(module.defines, f"defined in {module.name}")
        for name in sorted(found):
            if meanings.setdefault(name, found[name]) != found[name]:
                raise PackingError(f"{module.name}: {name} is {found[name]}, but it is {meanings[name]}, too")


def _imports_of(node: ast.Import | ast.ImportFrom) -> Iterator[Import]:
    for alias in node.names:
        yield Import(alias.name) if isinstance(node, ast.Import) else Import(str(node.module), alias.name)


def _defined_names(name: str, source: str) -> Iterator[str]:
    for symbol in symtable.symtable(source, name, "exec").get_symbols():
        if symbol.is_assigned():
            yield symbol.get_name()


def _without(lines: list[str], nodes: list[ast.stmt]) -> str:
    """Return the text without the lines of some statements."""
    cut = {number for node in nodes for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return "\n".join(line for number, line in enumerate(lines, start=1) if number not in cut).strip("\n")


def _same_code(text: str, nodes: list[ast.stmt]) -> bool:
    return [ast.dump(node) for node in ast.parse(text).body] == [ast.dump(node) for node in nodes]


def _heading(module: Module) -> str:
    summary = module.docstring.partition("\n")[0].strip('"')
    return f"# {module.name}: {summary}"


def _statements(imports: Iterable[Import]) -> str:
    """Return import statements, each module once: first those of modules, then those of names from modules."""
    whole = sorted(each for each in imports if not each.name)
    by_module: dict[str, list[str]] = {}
    for each in sorted(each for each in imports if each.name):
        by_module.setdefault(each.module, []).append(each.name)
    names = [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]
    return "\n".join([*map(str, whole), *names])
