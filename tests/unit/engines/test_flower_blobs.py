"""Blobs on a node's disk: bounded, and never another one than was asked for."""

import os
from pathlib import Path

import pytest
import torch

from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.federation.messages import Blob


def blob_of(*values: float) -> Blob:
    return Blob({"b": torch.tensor(values), "a": torch.tensor([values[0]])})


def test_a_blob_is_there_for_the_next_process(tmp_path: Path) -> None:
    DiskBlobs(tmp_path / "blobs").add(blob_of(1, 2))
    found = DiskBlobs(tmp_path / "blobs").get(blob_of(1, 2).name)
    assert found is not None
    assert list(found.tensors) == ["a", "b"]
    assert found.tensors["b"].tolist() == [1, 2]
    assert DiskBlobs(tmp_path / "blobs").get(blob_of(2, 1).name) is None


def test_those_not_used_for_longest_are_given_up(tmp_path: Path) -> None:
    first, second, third = blob_of(1, 1), blob_of(2, 2), blob_of(3, 3)
    size = size_of(first, tmp_path / "one")
    store = DiskBlobs(tmp_path / "blobs", kept_bytes=2 * size)
    for age, blob in enumerate((first, second)):
        store.add(blob)
        os.utime(tmp_path / "blobs" / blob.name, (age, age))
    assert store.get(first.name) is not None
    store.add(third)
    assert [store.get(blob.name) is not None for blob in (first, second, third)] == [True, False, True]


def test_the_last_one_is_kept_however_large(tmp_path: Path) -> None:
    store = DiskBlobs(tmp_path, kept_bytes=1)
    store.add(blob_of(1, 1))
    store.add(blob_of(2, 2))
    assert store.get(blob_of(1, 1).name) is None
    assert store.get(blob_of(2, 2).name) is not None


def test_what_a_killed_writer_left_is_given_up(tmp_path: Path) -> None:
    (tmp_path / f"{'0' * 64}.deadbeef").write_bytes(bytes(10_000))
    os.utime(tmp_path / f"{'0' * 64}.deadbeef", (0, 0))
    DiskBlobs(tmp_path, kept_bytes=5_000).add(blob_of(1, 1))
    assert [path.name for path in tmp_path.iterdir()] == [blob_of(1, 1).name]


@pytest.mark.parametrize("content", [b"", b"noise", bytes(range(256)) * 4])
def test_a_damaged_file_is_no_blob(tmp_path: Path, content: bytes) -> None:
    store, name = DiskBlobs(tmp_path), blob_of(1, 2).name
    (tmp_path / name).write_bytes(content)
    assert store.get(name) is None
    assert not (tmp_path / name).exists()


def test_another_blob_under_a_name_is_no_blob(tmp_path: Path) -> None:
    store = DiskBlobs(tmp_path)
    store.add(blob_of(1, 2))
    (tmp_path / blob_of(1, 2).name).rename(tmp_path / blob_of(3, 4).name)
    assert store.get(blob_of(3, 4).name) is None


def test_no_other_file_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kept", encoding="utf-8")
    assert DiskBlobs(tmp_path / "blobs").get("../secret") is None
    assert (tmp_path / "secret").exists()


def test_a_disk_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("", encoding="utf-8")
    store = DiskBlobs(tmp_path / "blobs")
    store.add(blob_of(1, 2))
    assert store.get(blob_of(1, 2).name) is None


def size_of(blob: Blob, folder: Path) -> int:
    DiskBlobs(folder).add(blob)
    return (folder / blob.name).stat().st_size
