"""The documents of commands are those on record, and what does not fit them is found."""

import importlib
import pkgutil
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fedsup_deploy
from fedsup_deploy.results import Result

DOCUMENTS = runpy.run_path(str(Path(__file__).parent / "documents.py"))
RECORDED = {*DOCUMENTS["RESULTS"].values(), *DOCUMENTS["INSPECTED"].values()}


def test_the_types_of_results_are_those_on_record() -> None:
    assert DOCUMENTS["text"]() == DOCUMENTS["RECORD"].read_text(encoding="utf-8"), (
        "documents changed; if none of their keys did, record them: python tests/golden/documents.py"
    )


def test_every_result_of_a_command_is_on_record() -> None:
    for module in pkgutil.walk_packages(fedsup_deploy.__path__, "fedsup_deploy."):
        if module.name.startswith(("fedsup_deploy.commands.", "fedsup_deploy.device.", "fedsup_deploy.cli.")):
            importlib.import_module(module.name)
    known = {f"{kind.__module__.removeprefix('fedsup_deploy.')}:{kind.__name__}" for kind in with_subclasses(Result)}
    ours = {name for name in known if not name.startswith("test")}
    assert ours - {"results:Result", "commands.profile_build:WrittenProfile"} <= RECORDED


def with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    for each in kind.__subclasses__():
        yield from with_subclasses(each)


OUTLINE = {"name": "string", "sizes": [{"either": ["integer", "null"]}], "more?": {"*": "number"}, "kind": '"a"'}
FITTING = {"name": "x", "sizes": [1, None], "more": {"b": 1, "c": 0.5}, "kind": "a"}


def without(*names: str) -> dict[str, Any]:
    return {key: value for key, value in FITTING.items() if key not in names}


@pytest.mark.parametrize("document", [FITTING, without("more"), {**FITTING, "sizes": []}])
def test_a_document_fits(document: dict[str, Any]) -> None:
    assert DOCUMENTS["misfit"](OUTLINE, document, "it") is None


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (without("name"), "it: got the keys"),
        ({**FITTING, "new": 1}, "it: got the keys"),
        (dict(reversed(FITTING.items())), "it: got the keys"),
        ({**FITTING, "name": 1}, "it.name: got 1, expected string"),
        ({**FITTING, "sizes": [1, 2.5]}, "it.sizes[1]: 2.5 is none of"),
        ({**FITTING, "sizes": [True]}, "it.sizes[0]: True is none of"),
        ({**FITTING, "sizes": 1}, "it.sizes: got 1, expected a list"),
        ({**FITTING, "more": {"b": "1"}}, "it.more.b: got '1', expected number"),
        ({**FITTING, "more": []}, "it.more: got [], expected a mapping"),
        ({**FITTING, "kind": "b"}, "it.kind: got 'b'"),
    ],
)
def test_what_does_not_fit_is_named(document: dict[str, Any], where: str) -> None:
    assert str(DOCUMENTS["misfit"](OUTLINE, document, "it")).startswith(where)
