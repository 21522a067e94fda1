"""Files of tensors: what their documents must hold, and what is refused before it is looked at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedsup_deploy.artifact.weights import CheckpointRecord, SupernetRecord, checked, read_arrays, read_document
from fedsup_deploy.errors import ArtifactError

ARRAYS = {"a": np.zeros(2, np.float32)}
DOCUMENT: dict[str, Any] = {
    "schema": 2,
    "kind": "checkpoint",
    "space_hash": "0" * 64,
    "normalization": "batch",
    "rounds": 3,
    "config_hash": "1" * 64,
    "tensors": "2" * 64,
}


def written(folder: Path, text: str) -> Path:
    """A file of tensors with any text for its document."""
    path = folder / "x.safetensors"
    save_file(ARRAYS, path, metadata={"fedsup-deploy": text})
    return path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 200_000, "nested deeper than 32 levels"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested deeper than 32 levels"),
        ('{"schema": 2, "kind": NaN}', "got NaN, expected a finite number"),
        ('{"schema": 2, "schema": 2}', "the key 'schema' stands twice"),
        ("x", "Expecting value"),
    ],
    ids=["brackets", "mappings", "NaN", "twice", "no JSON"],
)
def test_a_document_that_is_no_json_of_ours_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    for read in (read_document, lambda path: read_arrays(path, "checkpoint")):
        with pytest.raises(ArtifactError, match=rf"not a whole safetensors file \({problem}.*\); make it again$"):
            read(path)


@pytest.mark.parametrize(
    "text", ["null", "[]", "{}", '{"schema": 1}', '{"schema": "2"}', '{"schema": 2}', '{"schema": 2, "kind": 7}']
)
def test_a_document_of_another_layout_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ArtifactError, match="not written by this version of fedsup-deploy"):
        read_document(written(tmp_path, text))


def test_a_header_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((2**24 + 1).to_bytes(8, "little"))
    with pytest.raises(ArtifactError, match="its header has more than 16,777,216 bytes"):
        read_document(path)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("space_hash", None, "space_hash: missing key"),
        ("config_hash", None, "config_hash: missing key"),
        ("rounds", None, "rounds: missing key"),
        ("tensors", None, "tensors: missing key"),
        ("rounds", "3", "rounds: got '3'"),
        ("rounds", -1, "rounds: got -1"),
        ("rounds", [1], "rounds: got "),
        ("config_hash", 7, "config_hash: got 7"),
        ("space_hash", {"a": []}, "space_hash: got "),
        ("normalization", "layer", "normalization: got 'layer'"),
        ("surplus", 1, "surplus: unknown key"),
    ],
)
def test_what_a_checkpoint_lacks_is_named(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    document = {name: each for name, each in {**DOCUMENT, key: value}.items() if each is not None}
    path = written(tmp_path, json.dumps(document))
    with pytest.raises(ArtifactError, match=rf"^{path}: {problem}.*; make it again$"):
        checked(path, read_document(path, "checkpoint"), CheckpointRecord)
    assert checked(path, DOCUMENT, CheckpointRecord).rounds == 3


def test_what_a_supernet_lacks_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"schema": 2, "kind": "supernet", "normalization": "batch"}))
    with pytest.raises(ArtifactError, match=r"space_hash: missing key; make it again$"):
        checked(path, read_document(path, "supernet"), SupernetRecord)
