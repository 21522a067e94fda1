"""The JSON documents that commands print: their keys, in order, and the types of their values.

Scripts depend on them: a key may be added, and none changed. `python tests/golden/documents.py` writes
`documents.json` anew, from the types of the results;
every document that a test reads off a command has to fit it (`tests/e2e/conftest.py`).

A key with ? need not be there. The values of {"*": ...} stand under any keys, those of [...] in a list; of
{"either": ...} it is one.
"""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "documents.json"
#: What each command returns.
RESULTS = {
    "demo": "commands.demo:Demonstration",
    "train": "commands.training_summary:Trained",
    "watch": "commands.watch:RunView",
    "train --dry-run": "federation.server.forecast:Forecast",
    "evaluate": "commands.evaluate:Evaluated",
    "fit-accuracy": "commands.fit_accuracy:AccuracyFit",
    "search": "commands.search:WrittenSearch",
    "extract": "commands.extract:Extracted",
    "recalibrate": "commands.recalibrate:Recalibrated",
    "export": "commands.export:Exported",
    "deploy": "commands.deploy:Deployed",
    "measure": "commands.measure:MeasuredModel",
    "measure --trtexec": "commands.measure_engine:RecordedEngine",
    "sign": "commands.sign:SignedBundle",
    "verify": "artifact.verified:VerifiedBundle",
    "report": "commands.report:Reported",
    "inspect --resolution": "commands.resolution:ResolutionCosts",
    "profile list": "device.summary:ProfileList",
    "profile validate": "cli.profile:ValidFiles",
    "profile check": "device.published.check:ProfileCheck",
    "profile diff": "device.difference:ProfileDifference",
    "profile build": "commands.profile_build:BuiltProfile",
    "profile fit": "commands.profile_fit:FittedProfile",
    "fleet init": "commands.fleet_init:MadeAuthority",
    "fleet kit": "commands.fleet_kit:DeviceKits",
    "fleet register": "commands.fleet_register:RegisteredDevices",
    "fleet unregister": "commands.fleet_unregister:UnregisteredDevices",
    "fleet list": "commands.fleet_list:DeviceListing",
}
#: What `inspect` says of each kind of thing, below `path` and `kind`.
INSPECTED = {
    "bundles": "commands.inspect:ExportsFacts",
    "run": "commands.inspect:RunFacts",
    "search": "commands.inspect:SearchFacts",
    "search space": "commands.inspect:SpaceFacts",
    "device profile": "device.summary:ProfileSummary",
    "ONNX model": "commands.inspect:ModelFacts",
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def text() -> str:
    """Return the record, from the types."""
    found = {command: outline_of(kind) for command, kind in RESULTS.items()}
    for what, kind in INSPECTED.items():
        found[f"inspect: {what}"] = {"path": "string", "kind": json.dumps(what), **outline_of(kind)}
    return json.dumps(found, indent=1) + "\n"


def outline_of(kind: str) -> Any:
    """Return the outline of the documents of a type, named as in the registry."""
    from pydantic import TypeAdapter

    module, _, name = kind.partition(":")
    schema = TypeAdapter(getattr(importlib.import_module(f"fedsup_deploy.{module}"), name)).json_schema()
    return _outline(schema, schema.get("$defs", {}))


def _outline(schema: dict[str, Any], named: dict[str, Any]) -> Any:
    schema = named[schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema
    for either in ("anyOf", "oneOf"):
        if either in schema:
            return {"either": [_outline(option, named) for option in schema[either]]}
    if "const" in schema or "enum" in schema:
        values = [json.dumps(value) for value in schema.get("enum", [schema.get("const")])]
        return values[0] if len(values) == 1 else {"either": values}
    if "properties" in schema:
        required = schema.get("required", ())
        return {
            key if key in required else f"{key}?": _outline(value, named) for key, value in schema["properties"].items()
        }
    if schema.get("type") == "object":
        values = schema.get("additionalProperties", True)
        return {"*": "any" if values is True else _outline(values, named)}
    if schema.get("type") == "array":
        entries = schema["prefixItems"] if "prefixItems" in schema else [schema["items"]]
        return [_outline(each, named) for each in entries]
    return schema.get("type", "any")


def check(words: Sequence[str], document: Any) -> None:
    """Fail unless the document that a command printed fits the record.

    Args:
        words: The command's arguments.
        document: What it printed; of a command that is not on record, and of an error, anything.
    """
    name = " ".join(words[:2]) if words[0] == "profile" else words[0]
    variant = next((option for option in ("--trtexec", "--resolution", "--dry-run") if option in words), None)
    name = f"inspect: {document['kind']}" if name == "inspect" and variant is None else name
    name = name if variant is None else f"{name} {variant}"
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    if name in recorded:
        problem = misfit(recorded[name], document, name)
        assert problem is None, problem


def misfit(outline: Any, value: Any, where: str) -> str | None:
    """Return the first thing in a document that does not fit an outline; None if all fits."""
    if isinstance(outline, list):
        return _misfit_of_list(outline, value, where)
    if isinstance(outline, dict) and "either" in outline:
        is_fit = any(misfit(each, value, where) is None for each in outline["either"])
        return None if is_fit else f"{where}: {value!r} is none of {outline['either']}"
    if isinstance(outline, dict):
        return _misfit_of_mapping(outline, value, where)
    if outline == "any" or json.dumps(value) == outline:
        return None
    is_fit = (
        outline in TYPES and isinstance(value, TYPES[outline]) and (outline == "boolean") == isinstance(value, bool)
    )
    return None if is_fit else f"{where}: got {value!r}, expected {outline}"


def _misfit_of_list(outline: list[Any], value: Any, where: str) -> str | None:
    if not isinstance(value, list) or (len(outline) > 1 and len(value) != len(outline)):
        return f"{where}: got {value!r}, expected a list"
    each = outline * len(value) if len(outline) == 1 else outline
    problems = (
        misfit(of, entry, f"{where}[{index}]") for index, (of, entry) in enumerate(zip(each, value, strict=True))
    )
    return next((problem for problem in problems if problem), None)


def _misfit_of_mapping(outline: dict[str, Any], value: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where}: got {value!r}, expected a mapping"
    if "*" in outline:
        problems = (misfit(outline["*"], each, f"{where}.{key}") for key, each in value.items())
        return next((problem for problem in problems if problem), None)
    expected = [key for key in outline if not key.endswith("?") or key[:-1] in value]
    if list(value) != [key.removesuffix("?") for key in expected]:
        return f"{where}: got the keys {list(value)}, expected {list(outline)}"
    problems = (
        misfit(outline[key], value[key.removesuffix("?")], f"{where}.{key.removesuffix('?')}") for key in expected
    )
    return next((problem for problem in problems if problem), None)


if __name__ == "__main__":
    RECORD.write_text(text(), encoding="utf-8")
