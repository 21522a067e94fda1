"""Results as JSON documents."""

import dataclasses
import json
from pathlib import Path

import pytest
from pydantic_core import PydanticSerializationError

from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result


@dataclasses.dataclass(frozen=True)
class Part:
    share: float
    each: tuple[float, ...] | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclasses.dataclass(frozen=True)
class Found(Result):
    out: Path
    parts: tuple[float, ...]
    limit: float | None
    clients: Part | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


def test_fields_are_the_keys_in_their_order_and_none_is_null() -> None:
    document = Found(Path("a") / "b", (0.5, 1.0), None).to_dict()
    assert json.dumps(document) == '{"out": "a/b", "parts": [0.5, 1.0], "limit": null}'


def test_a_field_that_is_left_out_while_none_is_a_key_else() -> None:
    assert Found(Path("a"), (), 2.0, Part(0.25)).to_dict()["clients"] == {"share": 0.25}
    assert Found(Path("a"), (), 2.0, Part(0.25, (0.5,))).to_dict()["clients"] == {"share": 0.25, "each": [0.5]}


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(PydanticSerializationError, match="limit"):
        Found(Path("a"), (), "two").to_dict()
