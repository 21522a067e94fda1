"""Validation errors in words, for models of every shape."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, field_validator, model_validator

from fedsup_deploy.config.document import show
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.problems import misfit
from fedsup_deploy.errors import ConfigError


class Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Roofline(Base):
    kind: Literal["roofline"]
    rate: float = Field(gt=0)


class Lookup(Base):
    kind: Literal["lookup"]
    lookup: dict[str, Annotated[float, Field(ge=0)]]


Latency = Annotated[Roofline | Lookup, Field(discriminator="kind")]


class Stage(Base):
    widths: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
    bounds: tuple[int, int] = (0, 1)
    ratio: StrictFloat | StrictInt = 1
    size: int | None = None


class Three(Base):
    first: int
    second: int
    third: int


class Device(Base):
    schema_version: Literal[1] = Field(1, alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z]{1,9}$")] = "a"
    is_small: bool = False
    mode: Literal["fast", "exact"] = "fast"
    latency: Latency = Roofline(kind="roofline", rate=1)
    several: list[Latency] = []
    stages: tuple[Stage, ...] = ()
    limit: Annotated[float, Field(le=2.5, multiple_of=0.5, allow_inf_nan=False)] = 1.0
    most: int = 3
    three: Three | None = None
    free: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _not_bad(cls, name: str) -> str:
        if name == "bad":
            raise ValueError("got 'bad', expected something good")
        return name

    @model_validator(mode="after")
    def _most_is_enough(self) -> "Device":
        if self.most < len(self.stages):
            raise misfit([(("most",), self.most, f">= the number of stages ({len(self.stages)})")])
        if self.most == 99:
            raise misfit([(("latency", "rate"), None, "a source")])
        if self.most == 100:
            raise ValueError("nothing fits")
        return self


def problem(folder: Path, text: str) -> str:
    """Return the message without the name of the file."""
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        validate(load_yaml(path), Device)
    message = str(caught.value)
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: fast\nnme: a\n", "2: unknown key 'nme'; did you mean 'name'?"),
        ("schema_version: 1\n", "1: unknown key 'schema_version'; did you mean 'schema'?"),
        ("schema: 2\n", "1: schema: got 2, expected 1"),
        ("name: 3\n", "1: name: got 3, expected text"),
        ("name: A\n", "1: name: got 'A', expected text that matches ^[a-z]{1,9}$"),
        ("name: bad\n", "1: name: got 'bad', expected something good"),
        ("is_small: 1\n", "1: is_small: got 1, expected true or false"),
        ("mode: quick\n", "1: mode: got 'quick', expected 'fast' or 'exact'"),
        ("limit: 3\n", "1: limit: got 3, expected <= 2.5"),
        ("limit: 1.2\n", "1: limit: got 1.2, expected a multiple of 0.5"),
        ("limit: [1]\n", "1: limit: got [1], expected a number"),
        ("stages: 3\n", "1: stages: got 3, expected a list"),
        ("stages:\n- 3\n", "2: stages.0: got 3, expected a mapping"),
        ("stages:\n- widths: []\n", "2: stages.0.widths: got [], expected at least 1 entries"),
        ("stages:\n- widths: [1, x]\n", "2: stages.0.widths.1: got 'x', expected an integer"),
        ("stages:\n- bounds: [1]\n", "2: stages.0.bounds: got [1], expected more entries"),
        ("stages:\n- bounds: [1, 2, 3]\n", "2: stages.0.bounds: got [1, 2, 3], expected at most 2 entries"),
        ("stages:\n- ratio: wide\n", "2: stages.0.ratio: got 'wide', expected a number"),
        ("stages:\n- size: wide\n", "2: stages.0.size: got 'wide', expected an integer"),
        ("stages:\n- width: [1]\n", "2: unknown key 'width' in stages.0; did you mean 'widths'?"),
        ("most: 1\nstages: [{}, {}]\n", "1: most: got 1, expected >= the number of stages (2)"),
        ("stages: [{}, {}, {}, {}]\n", "1: most: got the default 3, expected >= the number of stages (4)"),
        ("most: 100\n", "1: nothing fits"),
        ("three: {second: 1}\n", "1: missing keys 'first', 'third' in three"),
        ("three: {second: 1, third: 2}\nmode: quick\n", "1: missing key 'first' in three (and 1 more)"),
        ("three: {}\nmode: quick\nfoo: 1\n", "1: missing keys 'first', 'second', 'third' in three (and 2 more)"),
    ],
)
def test_problems_in_words(tmp_path: Path, text: str, expected: str):
    assert problem(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency: 3\n", "1: latency: got 3, expected a mapping"),
        ("latency:\n  rate: 3\n", "1: missing key 'kind' in latency"),
        ("latency:\n  kind: table\n", "2: latency.kind: got 'table', expected one of 'roofline', 'lookup'"),
        ("latency:\n  kind: roofline\n", "1: missing key 'rate' in latency of kind 'roofline'"),
        ("latency:\n  kind: roofline\n  rate: 0\n", "3: latency.rate: got 0, expected > 0"),
        (
            "latency:\n  kind: roofline\n  rate: 1\n  rat: 2\n",
            "4: unknown key 'rat' in latency of kind 'roofline'; did you mean 'rate'?",
        ),
        ("latency:\n  kind: lookup\n  lookup:\n    a: -1\n", "4: latency.lookup.a: got -1, expected >= 0"),
        ("several:\n- kind: roofline\n  rate: x\n", "3: several.0.rate: got 'x', expected a number"),
        ("most: 99\nlatency:\n  kind: roofline\n  rate: 1\n", "4: latency.rate: got 1, expected a source"),
    ],
)
def test_members_of_a_union_are_no_part_of_the_path(tmp_path: Path, text: str, expected: str):
    """Pydantic's location names the member; in the file there is no such key, or another one (`lookup`)."""
    assert problem(tmp_path, text) == expected


def test_the_first_problem_of_the_file_is_told_and_the_others_are_counted(tmp_path: Path):
    text = "name: 3\nstages:\n- widths: [x, y]\nmode: quick\nfoo: 1\n"
    assert problem(tmp_path, text) == "1: name: got 3, expected text (and 4 more)"


def test_long_numbers_are_shortened_as_well():
    assert show(10**59) == "1" + "0" * 59
    assert show(10**60) == "1" + "0" * 56 + "..."
    assert show(-(10**299)) == "-1" + "0" * 55 + "..."


def test_long_values_are_shortened(tmp_path: Path):
    assert problem(tmp_path, f"mode: {'x' * 99}\n") == f"1: mode: got '{'x' * 57}...', expected 'fast' or 'exact'"
    assert (
        problem(tmp_path, f"mode: [{'1, ' * 50}1]\n") == "1: mode: got a list of 51 entries, expected 'fast' or 'exact'"
    )
