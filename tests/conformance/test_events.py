"""docs/events.md is of the events there are, and what runs record is what it says."""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from fedsup_deploy.measures import ACCURACY, AUC, BALANCED_ACCURACY, CALIBRATION_ERROR, MACRO_F1
from fedsup_deploy.run_events import CORNERS, KINDS, Evaluation, Phase, RunEvent
from fedsup_deploy.version import __version__

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "tests" / "data" / "recorded-runs").glob("*/events.jsonl"))
FIELDS = [(kind, name, field) for kind in (*KINDS.values(), Phase) for name, field in kind.model_fields.items()]
tool = runpy.run_path(str(ROOT / "tools" / "events_page.py"))


def problems_of(path: Path) -> list[str]:
    """Return what is in a file of events that the schema does not have, line by line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        event = json.loads(line)
        kind = KINDS[event["event"]]
        kind.model_validate(event)
        found += [f"{number}: {name}" for name in event.keys() - kind.model_fields.keys() - {"event"}]
    return found


def test_the_page_is_that_of_the_code() -> None:
    page: Any = tool["page"]
    assert (ROOT / "docs" / "events.md").read_text(encoding="utf-8") == page().rstrip("\n") + "\n", (
        "run tools/events_page.py"
    )


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_all_that_recorded_runs_say_is_in_the_schema(path: Path) -> None:
    assert problems_of(path) == []


def test_what_is_not_in_the_schema_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first, *_ = RECORDED[0].read_text(encoding="utf-8").splitlines()
    path.write_text(json.dumps({**json.loads(first), "weather": "fine"}) + "\n")
    assert problems_of(path) == ["1: weather"]


@pytest.mark.parametrize(("kind", "name", "field"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in FIELDS])
def test_every_field_is_described_and_every_number_has_a_unit(kind: type, name: str, field: FieldInfo) -> None:
    assert field.description
    assert ("number" not in tool["type_of"](field.annotation)) or tool["unit_of"](field)
    assert ("integer" not in tool["type_of"](field.annotation)) or tool["unit_of"](field)
    assert tool["since_of"](field, RunEvent.since) <= __version__


def _kinds(base: type[RunEvent]) -> Iterator[type[RunEvent]]:
    """Yield the classes below another that are a kind, and not what several kinds have in common."""
    for each in base.__subclasses__():
        if "event" in vars(each):
            yield each
        yield from _kinds(each)


def test_every_kind_is_listed_by_its_name_and_described() -> None:
    assert set(_kinds(RunEvent)) == set(KINDS.values())
    assert all(kind.event == name and kind.__doc__ for name, kind in KINDS.items())


def test_an_evaluation_has_every_measure_that_is_one_number() -> None:
    for measure in (ACCURACY, BALANCED_ACCURACY, MACRO_F1, AUC, CALIBRATION_ERROR):
        for corner in CORNERS:
            assert {f"{measure}_{corner}", f"{measure}_{corner}_interval"} <= Evaluation.model_fields.keys()
