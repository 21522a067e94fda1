"""`Architecture` as a value, and its document."""

import copy
import dataclasses
import hashlib
import pickle
from typing import Any

import pytest

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.architecture import Architecture, Block

SMALL = Architecture(8, 4, ((Block(4, 3),), (Block(8, 5, 2, has_se=True), Block(8, 3))))
DOCUMENT = {
    "resolution": 8,
    "stem_width": 4,
    "stages": [
        [{"width": 4, "kernel_size": 3, "expand_ratio": 1.0, "has_se": False}],
        [
            {"width": 8, "kernel_size": 5, "expand_ratio": 2.0, "has_se": True},
            {"width": 8, "kernel_size": 3, "expand_ratio": 1.0, "has_se": False},
        ],
    ],
}


def test_document_lists_every_choice() -> None:
    assert SMALL.to_dict() == DOCUMENT
    assert Architecture.from_dict(DOCUMENT) == SMALL


def test_arch_id_is_the_hash_of_the_canonical_document() -> None:
    one = Architecture(8, 4, ((Block(4, 3),),))
    canonical = (
        b'{"resolution":8,"stages":[[{"expand_ratio":1.0,"has_se":false,"kernel_size":3,"width":4}]],"stem_width":4}'
    )
    assert one.arch_id == "a" + hashlib.sha256(canonical).hexdigest()[:11]


def test_equal_choices_are_one_value() -> None:
    """An integer expand ratio is the float of the same size."""
    floats = Architecture(8, 4, ((Block(4, 3, 1.0),), (Block(8, 5, 2.0, has_se=True), Block(8, 3, 1.0))))
    assert floats == SMALL
    assert hash(floats) == hash(SMALL)
    assert floats.arch_id == SMALL.arch_id


def test_every_choice_is_part_of_the_arch_id() -> None:
    others = [
        dataclasses.replace(SMALL, resolution=9),
        dataclasses.replace(SMALL, stem_width=5),
        dataclasses.replace(SMALL, stages=SMALL.stages[:1]),
        dataclasses.replace(SMALL, stages=(SMALL.stages[0], SMALL.stages[1][:1])),
        dataclasses.replace(SMALL, stages=SMALL.stages[::-1]),
        *(
            dataclasses.replace(SMALL, stages=((dataclasses.replace(SMALL.stages[0][0], **change),), SMALL.stages[1]))
            for change in ({"width": 5}, {"kernel_size": 5}, {"expand_ratio": 2.0}, {"has_se": True})
        ),
    ]
    assert len({architecture.arch_id for architecture in (SMALL, *others)}) == 1 + len(others)


def test_value_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.resolution = 9  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.stages[0][0].width = 9  # type: ignore[misc]


def test_value_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(SMALL))  # noqa: S301  our own bytes
    assert again == SMALL
    assert again.arch_id == SMALL.arch_id


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document: Any = copy.deepcopy(DOCUMENT)
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "architecture: got None, expected the keys resolution, stem_width, stages"),
        ([], r"architecture: got \[\], expected the keys"),
        ({}, r"architecture: got \[\], expected the keys"),
        ({**DOCUMENT, "depth": 1}, r"architecture: got \['depth', 'resolution', .*\], expected the keys"),
        (changed(("resolution",), "8"), "architecture: resolution is '8', expected int"),
        (changed(("resolution",), 8.0), r"architecture: resolution is 8\.0, expected int"),
        (changed(("stem_width",), True), "architecture: stem_width is True, expected int"),
        (changed(("stages",), {}), "architecture: stages is {}, expected list"),
        (changed(("stages", 0), 3), "architecture: got 3 for a stage, expected a list of blocks"),
        (changed(("stages", 0, 0), 3), "block of an architecture: got 3, expected the keys width"),
        (changed(("stages", 0, 0, "has_se"), 0), "block of an architecture: has_se is 0, expected bool"),
        (changed(("stages", 0, 0, "expand_ratio"), "1"), "expand_ratio is '1', expected float"),
        (changed(("stages", 0, 0, "expand_ratio"), True), "expand_ratio is True, expected float"),
    ],
)
def test_malformed_document_is_refused(document: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}" if ":" in message else message):
        Architecture.from_dict(document)
