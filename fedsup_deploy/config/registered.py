"""Sections of which the registry says what there is: a key of one, such as `kind`, is a registered name.

Owns how such a field is read, so that a new kind is a row in the registry and no union anywhere.
"""

import dataclasses
import functools
import json
import operator
from typing import Annotated, Any

from pydantic import BaseModel, Field, GetCoreSchemaHandler, TypeAdapter, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from fedsup_deploy import registry


@dataclasses.dataclass(frozen=True)
class Registered:
    """Says of a field that it is one of several sections. What is registered is one, or has one as `section`.

    Args:
        table: The kind of things in the registry.
        key: Which key of a section has the registered name, as a literal.
    """

    table: str
    key: str = "kind"

    def sections(self) -> tuple[type[BaseModel], ...]:
        """Return the sections there are, in the order of the registry."""
        found = (registry.resolve(self.table, name) for name in registry.names(self.table))
        return tuple(getattr(each, "section", each) for each in found)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic reads the field: as the union of what is registered by then."""
        schema = handler(source)

        def read(value: Any, info: ValidationInfo) -> Any:
            union = _union(self.sections(), self.key)
            strict = None if info.config is None else info.config.get("strict")
            if info.mode == "json":
                # Lists become tuples then, as everywhere in a file.
                return union.validate_json(json.dumps(value), strict=strict)
            return union.validate_python(value, strict=strict)

        return core_schema.with_info_plain_validator_function(read, serialization=schema.get("serialization"))


@functools.cache
def _union(sections: tuple[type[BaseModel], ...], key: str) -> TypeAdapter[Any]:
    if len(sections) == 1:
        return TypeAdapter(sections[0])
    union: Any = functools.reduce(operator.or_, sections)
    return TypeAdapter(Annotated[union, Field(discriminator=key)])
