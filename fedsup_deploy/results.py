"""What commands return: frozen values, and the one way in which they become JSON documents.

The fields of a result are the keys of its document, in their order: scripts depend on both.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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
        left_out = {
            field.name
            for field in dataclasses.fields(self)
            if field.metadata.get(_LEFT_OUT) and getattr(self, field.name) is None
        }
        kind: type = type(self)
        document: dict[str, JsonValue] = _adapter(kind).dump_python(
            self, mode="json", by_alias=True, exclude=left_out, warnings="error"
        )
        return document


@functools.cache
def _adapter(kind: type) -> "TypeAdapter[object]":
    # Here, not above: the help page needs no pydantic.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
