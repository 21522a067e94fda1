"""How far the package says what its functions return: `Any` is the exception, each with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "fedsup_deploy"
#: `Any` by another name: `space.layers.layer` says why.
ANY = {"Any", "Number", "Flag"}
#: Public functions and methods that may return `Any`, or something of it. It only ever goes down.
MOST = 7


def test_few_public_functions_return_any() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in sorted(ROOT.rglob("*.py"))
        for function in public_functions(ast.parse(path.read_text(encoding="utf-8")).body)
        if function.returns is not None and says_any(function.returns)
    ]
    assert len(found) <= MOST, "\n".join(found)


def public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield the public functions of a module or class, and those of its public classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)


def says_any(annotation: ast.expr) -> bool:
    """Return whether an annotation names `Any`; one in quotes is code as well."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if says_any(ast.parse(node.value, mode="eval").body):
                return True
        elif isinstance(node, ast.Name) and node.id in ANY:
            return True
    return False


def test_any_is_found_wherever_it_stands() -> None:
    source = (
        "class A:\n    def f(self) -> 'dict[str, Any]': ...\n    def _g(self) -> Any: ...\ndef h() -> list[int]: ..."
    )
    found = [(function.name, says_any(function.returns)) for function in public_functions(ast.parse(source).body)]
    assert found == [("f", True), ("h", False)]
