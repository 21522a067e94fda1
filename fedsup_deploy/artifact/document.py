"""JSON documents of a bundle: reading one believes nothing.

Owns what all of them refuse: unknown and doubled keys, values of another type, numbers that are not finite. Knows no
field of any document.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import JsonValue, ValidationError

from fedsup_deploy.config.document import dotted, show
from fedsup_deploy.config.section import Section
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice.reading import parse_json

JsonObject = dict[str, JsonValue]


Document = TypeVar("Document", bound=Section)


def to_text(document: Section) -> str:
    """Return the text of a document: two spaces, a final newline, no NaN."""
    return (
        json.dumps(document.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False, ensure_ascii=False)
        + "\n"
    )


def from_text(kind: type[Document], text: str | bytes, schema: int, where: str, again: str) -> Document:
    """Return the document of a text.

    Args:
        kind: Which document.
        text: The text.
        schema: The version of it that is read.
        where: Name of the file, for messages.
        again: How to make it again, for messages; a damaged one can be copied again as well.

    Raises:
        ArtifactError: It is no JSON object, of another schema version, or a key is missing, unknown or wrong.
    """
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ArtifactError(f"{where}: damaged: {error}; copy or {again}") from error
    version = found.get("schema") if isinstance(found, dict) else None
    if isinstance(version, int) and version > schema:
        newer = f"schema: got {show(version)}, which a later version of fedsup-deploy wrote"
        raise ArtifactError(f"{where}: {newer}; this one reads {schema}: update it")
    if version != schema:
        raise ArtifactError(f"{where}: schema: got {show(version)}, expected {schema}; {again}")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(
            f"{where}: {first_problem(error, found if isinstance(found, dict) else None)}; copy or {again}"
        ) from error


def first_problem(error: ValueError, document: JsonValue = None) -> str:
    """Return what is wrong with a document, on one line: the first problem, and how many more there are.

    Args:
        error: Of reading it.
        document: Itself, where its keys are to be told from what else pydantic names on the way to a value.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    details = error.errors(include_url=False)
    first, more = details[0], f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    first["loc"] = tuple(_keys(first["loc"], document))
    if first["type"] == "value_error":  # what it says is ours, and names what it is about unless that is one value
        value = first["input"]
        got = [] if isinstance(value, Mapping | Section) or not first["loc"] else [f"got {show(value)}"]
        text = ": ".join([*([dotted(first["loc"])] if first["loc"] else []), *got, str(first["ctx"]["error"])])
    else:
        said = f"got {show(first['input'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        what = {"missing": "missing key", "extra_forbidden": "unknown key"}.get(first["type"], said)
        text = f"{dotted(first['loc'])}: {what}"
    return text.replace("\n", "\\n") + more


def _keys(location: tuple[str | int, ...], document: JsonValue) -> Iterator[str | int]:
    """Yield the keys of a location, without the names of members of unions; the last may be missing in the document."""
    for index, part in enumerate(location):
        if isinstance(document, dict) and part not in document and index + 1 < len(location):
            continue
        yield part
        if isinstance(document, dict):
            document = document.get(str(part))
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
