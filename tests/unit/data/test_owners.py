"""Whose images are whose: names and lists."""

from pathlib import Path

import pytest

from fedsup_deploy.data.owners import listed_owners, owners_of
from fedsup_deploy.errors import DataError

FILES = {"train": ["train/a/1.png", "train/caf\u00e9/2.png"], "test": ["test/a/3.png"]}
LISTED = "file,client\ntrain/a/1.png,yard\ntrain/caf\u00e9/2.png,roof\n"


def listed(folder: Path, text: str, files: dict[str, list[str]] | None = None) -> tuple[list[str], list[str]]:
    """Return the client of each training image, by name, and the notes."""
    (folder / "clients.csv").write_text(text, encoding="utf-8", newline="")
    owners, notes = listed_owners("mine", folder / "clients.csv", files or FILES)
    return [owners.names[client] for client in owners.clients_N["train"]], notes


def problem(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        listed(folder, text)
    return str(caught.value)


def test_clients_are_in_the_order_of_their_names() -> None:
    owners = owners_of("mine", {"train": ["b", "a", "b"], "test": ["c"]}, ["d"])
    assert owners.names == ("a", "b", "c", "d")
    assert owners.clients_N["train"].tolist() == [1, 0, 1]
    assert [part.tolist() for part in owners.parts("train") or ()] == [[1], [0, 2], [], []]
    assert [part.tolist() for part in owners.parts("test") or ()] == [[], [], [0], []]
    assert owners.parts("validation") is None


def test_numbers_are_in_the_order_of_numbers() -> None:
    assert owners_of("mine", {"train": [10, 9, -1]}).names == ("-1", "9", "10")


def test_a_name_is_the_same_however_it_was_written() -> None:
    """On macOS an accent is a character of its own."""
    assert owners_of("mine", {"train": ["caf\u00e9", "cafe\u0301"]}).names == ("caf\u00e9",)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("", "mine: the name of a client, '', is empty; rename it"),
        ("a\x1b[31m", r"mine: the name of a client, 'a\x1b[31m', holds '\x1b'; rename it"),
        ("a" * 256, f"mine: the name of a client, '{'a' * 40}'... has 256 characters, expected at most 255; rename it"),
    ],
    ids=["empty", "control character", "long"],
)
def test_a_name_that_no_file_can_have_is_refused(client: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        owners_of("mine", {"train": [client]})
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "text",
    [
        LISTED,
        "\ufeff" + LISTED,
        LISTED.replace("\n", "\r\n"),
        LISTED.replace("\u00e9", "e\u0301"),
        LISTED.replace("train/a", "./train/a"),
        'client,file\n"yard","train/a/1.png"\n\nroof,train/caf\u00e9/2.png',
    ],
    ids=["plain", "mark of UTF-8", "Windows", "macOS", "from here", "quoted"],
)
def test_a_list_as_programs_write_it(tmp_path: Path, text: str) -> None:
    assert listed(tmp_path, text) == (["yard", "roof"], [])


def test_what_of_a_list_is_not_used_is_said(tmp_path: Path) -> None:
    text = "when,file,client\n1,train/a/1.png,a\n2,train/caf\u00e9/2.png,b\n3,../x.png,c\n4,train/a/gone.png,c\n"
    assert listed(tmp_path, text) == (
        ["a", "b"],
        [
            "passed over in clients.csv, columns: 1 (when)",
            "listed in clients.csv, but no images of the data set: 2 (../x.png, train/a/gone.png)",
        ],
    )


def test_test_images_are_of_clients_where_all_are_listed(tmp_path: Path) -> None:
    (tmp_path / "clients.csv").write_text(LISTED + "test/a/3.png,yard\n", encoding="utf-8")
    owners, _ = listed_owners("mine", tmp_path / "clients.csv", FILES)
    assert owners.names == ("roof", "yard")
    assert owners.clients_N["test"].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: no column file and client, got nothing; expected a first line file,client"),
        ("file;client\n", ":1: no column file and client, got file;client; expected a first line file,client"),
        ("file,client,file\n", ":1: no column file, got file, client, file; expected a first line file,client"),
        ("file,client\ntrain/a/1.png\n", ":2: got 1 columns, expected 2"),
        (LISTED + "./train/a/1.png,roof\n", ":4: ./train/a/1.png stands there twice; keep one line"),
        ('file,client\n"train', ":2: unexpected end of data; save it as CSV anew"),
        ("file,client\n", f": images of train that it does not list: 2 ({', '.join(FILES['train'])}); add them"),
    ],
    ids=["empty", "semicolons", "column twice", "short line", "file twice", "open quote", "unlisted"],
)
def test_a_list_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    assert problem(tmp_path, text) == f"{tmp_path / 'clients.csv'}{expected}"


def test_some_of_the_test_images_are_a_slip(tmp_path: Path) -> None:
    files = {**FILES, "test": ["test/a/3.png", "test/a/4.png"]}
    with pytest.raises(DataError, match=r"images of test that it does not list: 1 \(test/a/4.png\); add them"):
        listed(tmp_path, LISTED + "test/a/3.png,yard\n", files)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv: no such file, expected the list of partition.clients"):
        listed_owners("mine", tmp_path / "none.csv", FILES)


def test_a_list_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "clients.csv").write_bytes(LISTED.encode("latin-1"))
    with pytest.raises(DataError, match=r"clients.csv: .* is not UTF-8; write it anew"):
        listed_owners("mine", tmp_path / "clients.csv", FILES)
