"""Write docs/events.md: every event of a run, its fields, their units. Run: python tools/events_page.py."""

import textwrap
import types
import typing
from pathlib import Path

from pydantic.fields import FieldInfo

from fedsup_deploy.run_events import KINDS, Phase, RunEvent

PAGE = Path(__file__).resolve().parents[1] / "docs" / "events.md"

HEAD = """# What a run records: `events.jsonl`

Written by `tools/events_page.py` from `fedsup_deploy/run_events.py`, the one definition that `train` writes by and that
`watch`, `report` and `train --resume` read by.

`RUN/events.jsonl` has one JSON object in each line, in the order of what happened, appended while the run trains.
`event` says which kind it is. Numbers are finite. A last line without a line end is still being written, or was cut
short by a kill: leave it out. After `train --resume` the lines of rounds that are trained again are gone: the file is
written anew, so whoever follows it looks at its inode. Later versions may add kinds and fields, and never change what
one means: pass over those that you do not know. A client's number is its index from 0; where it is a key it is a
string.

```
import json

with open("runs/digits/events.jsonl") as file:
    events = [json.loads(line) for line in file if line.endswith("\\n")]
losses = [event["loss"] for event in events if event["event"] == "round"]
```

`watch --json` has the same in one document, with sums ([watch.md](watch.md)).

*needed* is *yes* where every line of the kind has the field; the others are left out, or null, where there is nothing
to say or an older version trained the run.
"""

_NAMES = {int: "integer", float: "number", str: "text", bool: "boolean"}


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, "## Of all events\n", _table({"event": None, **RunEvent.model_fields}, RunEvent.since)]
    for name, kind in KINDS.items():
        own = {key: field for key, field in kind.model_fields.items() if key not in RunEvent.model_fields}
        parts += [f"## `{name}`\n", textwrap.fill(described(kind), 120) + "\n", _table(own, kind.since)]
        if kind.model_fields.get("phases") is not None:
            parts += ["Each of `phases`:\n", _table(Phase.model_fields, kind.since)]
    return "\n".join(parts)


def described(kind: type) -> str:
    """Return what the docstring of a kind says, but for its arguments."""
    return " ".join((kind.__doc__ or "").split())


def unit_of(field: FieldInfo) -> str | None:
    """Return the unit of a field's numbers, as its type has it; None where it has none."""
    for found in (field.json_schema_extra, *(getattr(each, "json_schema_extra", None) for each in _metadata(field))):
        if isinstance(found, dict) and "unit" in found:
            return str(found["unit"])
    return None


def since_of(field: FieldInfo, kind_since: str) -> str:
    """Return the version that was the first to record a field."""
    extra = field.json_schema_extra
    return str(extra.get("since", kind_since)) if isinstance(extra, dict) else kind_since


def type_of(annotation: object) -> str:
    """Return what stands in JSON, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_of(arguments[0])
    if origin in {types.UnionType, typing.Union}:
        return type_of(next(each for each in arguments if each is not type(None)))
    if origin is list:
        return f"list of {type_of(arguments[0])}"
    if origin is dict:
        return f"object of {type_of(arguments[1])}"
    return _NAMES.get(annotation, "object" if annotation is Phase else "any") if isinstance(annotation, type) else "any"


def _metadata(field: FieldInfo) -> list[object]:
    found: list[object] = list(field.metadata)
    waiting: list[object] = [field.annotation]
    while waiting:
        each = waiting.pop()
        found += list(getattr(each, "__metadata__", ()))
        waiting += list(typing.get_args(each))
    return found


def _table(fields: dict[str, FieldInfo | None], since: str) -> str:
    lines = ["| field | type | unit | needed | since | what |", "| --- | --- | --- | --- | --- | --- |"]
    for name, field in fields.items():
        if field is None:
            lines.append(f"| `{name}` | text | | yes | {since} | Which kind. |")
            continue
        needed = "yes" if field.is_required() else ""
        cells = (f"`{name}`", type_of(field.annotation), unit_of(field) or "", needed, since_of(field, since))
        what = " ".join((field.description or "").split())
        lines.append(f"| {' | '.join(cells)} | {what} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page().rstrip("\n") + "\n", encoding="utf-8")
