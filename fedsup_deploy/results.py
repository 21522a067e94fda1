"""What commands return: frozen values, and the one way in which they become JSON documents.

The fields of a result are the keys of its document, in their order: scripts depend on both.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import JsonValue, TypeAdapter

_LEFT_OUT: Final = "is left out while None"
#: Metadata of a field that is no key of the document while it is None.
LEFT_OUT_IF_NONE: Final[Mapping[str, bool]] = MappingProxyType({_LEFT_OUT: True})


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command found or did. Its subclasses are frozen dataclasses whose fields have types that JSON can hold."""

    def to_dict(self) -> "dict[str, JsonValue]":
        """Return the JSON document.

        Raises:
            PydanticSerializationError: A value is not of the type of its field.
        """
        kind: type = type(self)
        document: dict[str, JsonValue] = _adapter(kind).dump_python(
            self, mode="json", by_alias=True, exclude=_left_out(self), warnings="error"
        )
        return document


def _left_out(value: "DataclassInstance") -> dict[str, Any]:
    """Return what is no key of the document: of a value in a field, too, but not of those in a list."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        of_field = getattr(value, field.name)
        if of_field is None and field.metadata.get(_LEFT_OUT):
            found[field.name] = True
        elif dataclasses.is_dataclass(of_field) and not isinstance(of_field, type) and (below := _left_out(of_field)):
            found[field.name] = below
    return found


@functools.cache
def _adapter(kind: type) -> "TypeAdapter[object]":
    # Here, not above: the help page needs no pydantic.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
