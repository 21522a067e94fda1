"""When a fingerprint of images is remembered, and when they must be read again."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.partition import NaturalPartition
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.runs import images
from fedsup_deploy.runs.images import remembered_fingerprint

CONFIG = """
schema: 1
name: images
space: digits
data: {{dataset: image-folder, root: {root}}}
partition: {{kind: iid, num_clients: 2}}
strategy: {{name: fedavg}}
training: {{rounds: 1, clients_per_round: 1, warmup_rounds: 0}}
"""

Ask = Callable[..., tuple[str, int]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two folders of files, as images lie in."""
    for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        (tmp_path / "images" / name).write_bytes(name.encode())
    return tmp_path / "images"


@pytest.fixture
def ask(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return the fingerprint, and how often the images were read for it.

    The clock is an hour ahead, so that files just written have been at rest.
    """
    now = time.time
    monkeypatch.setattr(images.time, "time", lambda: now() + 3600)

    def call(size: int = 8, **change: Any) -> tuple[str, int]:
        (tmp_path / "x.yaml").write_text(CONFIG.format(root=root), encoding="utf-8")
        config = validate(load_yaml(tmp_path / "x.yaml"), TrainConfig).model_copy(update=change)
        reads: list[str] = []

        def read() -> str:
            reads.append("-".join(path.read_bytes().hex() for path in sorted(root.rglob("*.png"))))
            return reads[-1]

        (tmp_path / "run").mkdir(exist_ok=True)
        return remembered_fingerprint(tmp_path / "run" / "kept", config, size, read), len(reads)

    return call


def test_it_is_taken_once_while_nothing_changes(ask: Ask) -> None:
    first, num_reads = ask()
    assert num_reads == 1
    assert ask() == (first, 0)


def test_a_change_that_sets_the_time_of_modification_back_is_noticed(ask: Ask, root: Path) -> None:
    """The same size, the same name, the same time of modification, as a restored copy would have."""
    path = root / "train" / "cat" / "1.png"
    status = path.stat()
    before, _ = ask()
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    after, num_reads = ask()
    assert num_reads == 1
    assert after != before


@pytest.mark.parametrize("change", ["add", "remove", "rename"])
def test_a_file_that_comes_or_goes_is_noticed(ask: Ask, root: Path, change: str) -> None:
    ask()
    if change == "add":
        (root / "train" / "cat" / "9.png").write_bytes(b"9")
    elif change == "remove":
        (root / "train" / "cat" / "1.png").unlink()
    else:
        (root / "train" / "cat" / "1.png").rename(root / "train" / "dog" / "1.png")
    assert ask()[1] == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": 9}])
def test_other_settings_are_other_images(ask: Ask, change: dict[str, Any]) -> None:
    ask()
    assert ask(**change)[1] == 1
    assert ask()[1] == 0, "and the first are still known"


def test_a_list_of_clients_elsewhere_is_noticed(ask: Ask, tmp_path: Path) -> None:
    """It decides who holds what, and so the fingerprint."""
    listed = tmp_path / "clients.csv"
    listed.write_text("file,client\n", encoding="utf-8")
    natural = NaturalPartition(kind="natural", clients=str(listed))
    assert ask(partition=natural)[1] == 1
    assert ask(partition=natural)[1] == 0
    listed.write_text("file,client\na,b\n", encoding="utf-8")
    assert ask(partition=natural)[1] == 1


def test_files_that_changed_just_now_are_not_trusted(
    ask: Ask, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change could carry the same time."""
    monkeypatch.undo()
    assert ask()[1] == 1
    assert ask()[1] == 1
    assert not (tmp_path / "run" / "kept").exists()


def test_a_change_while_the_images_are_read_is_not_remembered(
    ask: Ask, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes, path = Path.read_bytes, root / "train" / "dog" / "2.png"

    def read_and_change(self: Path) -> bytes:
        content = read_bytes(self)
        if self == path:
            path.write_bytes(b"other")
        return content

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_and_change)
        assert ask()[1] == 1
    assert not (tmp_path / "run" / "kept").exists()


def test_the_end_of_a_link_to_a_folder_is_not_watched(ask: Ask, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "train" / "bird").symlink_to(tmp_path / "elsewhere")
    ask()
    assert ask()[1] == 1


def test_a_link_to_a_file_is_as_good_as_the_file(ask: Ask, root: Path, tmp_path: Path) -> None:
    (tmp_path / "far.png").write_bytes(b"far")
    (root / "train" / "cat" / "far.png").symlink_to(tmp_path / "far.png")
    ask()
    assert ask()[1] == 0
    (tmp_path / "far.png").write_bytes(b"FAR")
    assert ask()[1] == 1


def test_a_missing_folder_is_for_the_reader_to_complain_about(ask: Ask, root: Path) -> None:
    root.rename(root.with_name("moved"))
    assert ask() == ("", 1)


@pytest.mark.parametrize("line", [b"{", b'{"state": {}, "fingerprint": "a"}', b'{"state": "a"}', b"[" * 200_000])
def test_what_is_damaged_is_named(ask: Ask, tmp_path: Path, line: bytes) -> None:
    ask()
    (kept,) = (tmp_path / "run" / "kept").iterdir()
    kept.write_bytes(kept.read_bytes() + line + b"\n")
    with pytest.raises(ArtifactError, match=rf"^{kept}:3: damaged: .*; remove the line$"):
        ask()
