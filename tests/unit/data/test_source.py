"""How files are opened, and the limits that hold for all formats."""

import os
from pathlib import Path

import pytest

from fedsup_deploy.data.source import counted, max_image_bytes, opened, read_whole, reason_of
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.reading import DEAD_LINK


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_whole(tmp_path / "file") == read_whole(tmp_path / "link") == b"content"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    """To open a pipe is to wait for whoever writes it; /dev/zero never ends."""
    path = tmp_path / "it"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"cannot read .*/it: it is no regular file; remove it"):
        read_whole(path)


def test_missing_files_and_links_to_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for name, reason in (("file", "No such file or directory; get the file again"), ("link", DEAD_LINK)):
        with pytest.raises(DataError, match=f"cannot read .*/{name}: {reason}$"):
            read_whole(tmp_path / name)


def test_a_file_may_have_a_largest_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(9))
    with opened(tmp_path / "file", 9) as file:
        assert file.read() == bytes(9)
    with (
        pytest.raises(DataError, match="file: has 9 bytes, expected at most 8; not this file"),
        opened(tmp_path / "file", 8),
    ):
        pass


def test_images_may_take_half_of_the_memory() -> None:
    total_kib = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    assert 0 < max_image_bytes() <= total_kib * 1024 // 2  # less where a container has less


def test_of_many_names_the_first_are_told() -> None:
    assert counted(["a"]) == "1 (a)"
    assert counted(["a", "b", "c", "d", "e", "\x1b"]) == "6 (a, b, c, d, e, ...)"
    assert counted(["\x1b[2J"]) == r"1 (\x1b[2J)"
    assert counted([]) == "nothing"


def test_what_an_exception_quotes_is_escaped_and_cut() -> None:
    assert reason_of(ValueError("bad\n  \x1b[2J")) == r"bad \x1b[2J"
    cut = reason_of(ValueError("x" * 5000))
    assert len(cut) == 200
    assert cut.count(" ... ") == 1
