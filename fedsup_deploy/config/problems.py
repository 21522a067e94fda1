"""What pydantic found wrong, in one line a user can act on.

Owns the wording of validation errors and the way back from pydantic's location, which also names the members of
unions, to the keys of the file. It never validates.

A validator of ours states its problem as `ValueError("got X, expected Y")`, or, where the problem belongs to a key
further inside, by raising `misfit`.
"""

import typing
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, NamedTuple, Union

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from fedsup_deploy.config.document import Document, dotted, show
from fedsup_deploy.config.reader import KeyPath
from fedsup_deploy.config.registered import Registered
from fedsup_deploy.registry import nearest

_MISSING: Final = "missing key"
_EXPECTED: Final = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "none_required": "null",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "greater_than": "> {gt}",
    "greater_than_equal": ">= {ge}",
    "less_than": "< {lt}",
    "less_than_equal": "<= {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "union_tag_invalid": "one of {expected_tags}",
}


def describe(error: ValidationError, model: type[BaseModel], document: Document) -> str:
    """Return `file:line: what is wrong`: the first problem in the order of the file, and how many more there are."""
    found: dict[KeyPath, str] = {}
    for detail in error.errors(include_url=False):
        place = _place(detail["loc"], model)
        if not _is_echo(detail):
            # The members of a union each complain about the same value; one of them is enough.
            path, text = _text(detail, place, document)
            found.setdefault(path, text)
    first, *others = sorted(found, key=document.line)
    # Whoever writes a file from scratch learns at once what belongs into it.
    missing = [path for path in (first, *others) if path[:-1] == first[:-1] and found[path].startswith(_MISSING)]
    if found[first].startswith(_MISSING) and len(missing) > 1:
        keys = ", ".join(repr(path[-1]) for path in missing)
        found[first] = found[first].replace(f"{_MISSING} {first[-1]!r}", f"{_MISSING}s {keys}", 1)
        others = [path for path in others if path not in missing]
    more = f" (and {len(others)} more)" if others else ""
    where, name = document.where(first), f"{dotted(first)}: "
    text = found[first].removeprefix(name) if f"{where}: ".endswith(f" {name}") else found[first]
    return f"{where}: {text}{more}"


def misfit(misfits: Sequence[tuple[KeyPath, Any, str]]) -> ValidationError:
    """Return the error for values that do not fit to others, to be raised by a validator of the model around them.

    Args:
        misfits: For each the path of the key from that model, its value, and what was expected instead.
    """
    details: list[InitErrorDetails] = [
        {
            "type": PydanticCustomError("misfit", "expected {expected}", {"expected": expected}),
            "loc": path,
            "input": value,
        }
        for path, value, expected in misfits
    ]
    return ValidationError.from_exception_data("misfit", details)


class _Place(NamedTuple):
    """Where pydantic points to, in the words of the file."""

    path: KeyPath
    owner: type[BaseModel] | None
    """The model whose key comes last in the path."""
    variant: str
    """Which member of a union the owner is, such as ` of kind 'iid'`."""


class _Kind(NamedTuple):
    """What may stand at a place."""

    members: tuple[Any, ...]
    discriminator: str | None = None


def _place(location: tuple[str | int, ...], model: type[BaseModel]) -> _Place:
    kind, pending = _kind(model, None), ""
    place = _Place((), None, "")
    for part in location:
        member = _tagged(kind, part)
        if member is not None:
            pending = f" of {kind.discriminator} {part!r}"
            kind = _kind(member, None)
        elif len(kind.members) > 1 and kind.discriminator is None:
            kind = _kind(next((m for m in kind.members if getattr(m, "__name__", "") == part), Any), None)
        elif part != "[key]":
            owner = kind.members[0] if _is_model(kind.members[0]) else None
            place, pending = _Place((*place.path, part), owner, pending), ""
            kind = _child(kind.members[0], part)
    return place


def _kind(annotation: Any, discriminator: str | Any) -> _Kind:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        given = [m.discriminator for m in arguments[1:] if isinstance(m, FieldInfo) and m.discriminator]
        return _kind(arguments[0], given[0] if given else discriminator)
    if origin in {Union, UnionType}:
        members = tuple(member for member in arguments if member is not NoneType)
        if len(members) == 1:
            return _kind(members[0], discriminator)
        return _Kind(members, discriminator if isinstance(discriminator, str) else None)
    return _Kind((annotation,))


def _child(annotation: Any, key: str | int) -> _Kind:
    if _is_model(annotation):
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        field = fields.get(str(key))
        if field is None:
            return _Kind((Any,))
        known = [_Kind(each.sections(), each.key) for each in field.metadata if isinstance(each, Registered)]
        return known[0] if known else _kind(field.annotation, field.discriminator)
    arguments = typing.get_args(annotation)
    is_fixed_tuple = typing.get_origin(annotation) is tuple and Ellipsis not in arguments
    if is_fixed_tuple and isinstance(key, int):
        return _kind(arguments[key] if key < len(arguments) else Any, None)
    entries = [argument for argument in arguments if argument is not Ellipsis]
    return _kind(entries[-1] if entries else Any, None)


def _tagged(kind: _Kind, tag: str | int) -> Any:
    """Return the member of a discriminated union that a tag stands for; None if it is a key, as in a `misfit`."""
    for member in kind.members if kind.discriminator is not None else ():
        field = member.model_fields.get(kind.discriminator) if _is_model(member) else None
        if field is not None and tag in typing.get_args(field.annotation):
            return member
    return None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_echo(detail: ErrorDetails) -> bool:
    """Return whether a list is called too short only because its entries were refused, each with its own error."""
    minimum = detail.get("ctx", {}).get("min_length", 0)
    return detail["type"] == "too_short" and len(detail["input"]) >= minimum


def _text(detail: ErrorDetails, place: _Place, document: Document) -> tuple[KeyPath, str]:
    """Return the path a problem belongs to, and the problem in words."""
    kind, context = detail["type"], detail.get("ctx", {})
    discriminator = str(context.get("discriminator", "")).strip("'")
    if kind == "union_tag_not_found":
        kind, place = "missing", _Place((*place.path, discriminator), None, "")
    if kind == "union_tag_invalid":
        place = _Place((*place.path, discriminator), None, "")
    path = place.path
    if kind == "missing" and isinstance(path[-1], int):
        return path, f"{dotted(path[:-1])}: got {show(detail['input'])}, expected more entries"
    inside = f" in {dotted(path[:-1])}{place.variant}" if len(path) > 1 else ""
    if kind == "missing":
        return path, f"{_MISSING} {path[-1]!r}{inside}"
    if kind == "extra_forbidden":
        return path, f"unknown key {path[-1]!r}{inside}{nearest(str(path[-1]), _keys(place.owner))}"
    return path, _wrong_value(kind, detail, path, document)


def _wrong_value(kind: str, detail: ErrorDetails, path: KeyPath, document: Document) -> str:
    context = {key: f"{value:g}" if isinstance(value, float) else value for key, value in detail.get("ctx", {}).items()}
    name = f"{dotted(path)}: " if path else ""
    try:
        got = show(document.get(path))
    except KeyError:
        got = f"the default {show(detail['input'])}"
    expected = _EXPECTED.get(kind, "{expected}" if "expected" in context else None)
    if expected is not None:
        return f"{name}got {got}, expected {expected.format(**context)}"
    if "error" in context:
        return f"{name}{context['error']}"
    return f"{name}got {got}: {detail['msg']}"


def _keys(owner: type[BaseModel] | None) -> list[str]:
    return [] if owner is None else [field.alias or name for name, field in owner.model_fields.items()]
