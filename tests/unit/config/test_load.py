"""Files in and out, overrides, and the lines that errors name."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fedsup_deploy.config.load import Document, apply_overrides, dump, load_yaml, validate
from fedsup_deploy.errors import ConfigError


class Tier(BaseModel, frozen=True, extra="forbid"):
    share: float
    name: str = "any"


class Plan(BaseModel, frozen=True, extra="forbid"):
    rounds: int
    tiers: tuple[Tier, ...] = ()
    folder: Path | None = None


def document_of(folder: Path, text: str) -> Document:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return load_yaml(path)


def test_load_yaml_keeps_content_and_lines(tmp_path: Path):
    document = document_of(tmp_path, "rounds: 3\ntiers:\n  - {share: 0.5}\n")
    assert document.data == {"rounds": 3, "tiers": [{"share": 0.5}]}
    assert document.line(("tiers", 0, "share")) == 3
    assert document.where(("tiers", 0, "weight")) == f"{tmp_path / 'x.yaml'}:3"
    assert document.line(("nothing",)) == 1


def test_a_file_below_the_working_folder_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    document = document_of(tmp_path, "rounds: 3\n")
    monkeypatch.chdir(tmp_path)
    assert document.where(("rounds",)) == "x.yaml:1"


def test_get_finds_what_the_document_says(tmp_path: Path):
    document = document_of(tmp_path, "rounds: 3\ntiers:\n  - {share: 0.5}\n")
    assert document.get(("tiers", 0, "share")) == 0.5
    for path in [("tiers", 1), ("tiers", "0"), ("rounds", "x"), ("rounds", 0), ("name",)]:
        with pytest.raises(KeyError):
            document.get(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ":1: the file is empty, expected 'key: value' lines"),
        (b"# only a comment\n", ":1: the file is empty, expected 'key: value' lines"),
        (b"[1, 2]\n", ":1: got [1, 2], expected 'key: value' lines"),
        (b"text\n", ":1: got 'text', expected 'key: value' lines"),
        (b"a: 1\nb: \xff\n", ":2: not UTF-8 text; save the file as UTF-8"),
    ],
)
def test_files_that_hold_no_mapping(tmp_path: Path, content: bytes, expected: str):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert str(caught.value) == f"{path}{expected}"


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfrounds: 3\r\n")
    assert load_yaml(path).data == {"rounds": 3}


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^cannot read .*nope\.yaml: no such file or directory$"):
        load_yaml(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match=r"it is no regular file; expected a config"):
        load_yaml(tmp_path)


def test_validate_takes_lists_for_tuples_and_text_for_paths(tmp_path: Path):
    document = document_of(tmp_path, "rounds: 3\ntiers: [{share: 1}]\nfolder: a/b\n")
    assert validate(document, Plan) == Plan(rounds=3, tiers=(Tier(share=1.0),), folder=Path("a/b"))


@pytest.mark.parametrize("written", ["'3'", "3.0", "true", "null"])
def test_validate_converts_no_scalar(tmp_path: Path, written: str):
    """Also for a model that did not ask to be strict."""
    with pytest.raises(ConfigError, match=r"expected an integer$"):
        validate(document_of(tmp_path, f"rounds: {written}\n"), Plan)


@pytest.mark.parametrize(
    ("assignment", "path", "expected"),
    [
        ("rounds=4", ("rounds",), 4),
        ("tiers.0.share=1e-4", ("tiers", 0, "share"), 1e-4),
        ("tiers.1.name=on", ("tiers", 1, "name"), "on"),
        ("tiers=[{share: 1}]", ("tiers",), [{"share": 1}]),
        ("folder=", ("folder",), None),
        ("folder=a=b", ("folder",), "a=b"),
        ("engine.local.workers=2", ("engine", "local", "workers"), 2),
    ],
)
def test_an_override_replaces_one_value(tmp_path: Path, assignment: str, path: tuple[str | int, ...], expected: Any):
    document = document_of(tmp_path, "rounds: 3\ntiers:\n- {share: 0.5}\n- {share: 0.1}\n")
    changed = apply_overrides(document, [assignment])
    assert changed.get(path) == expected
    assert changed.where(path) == f"--set {assignment.partition('=')[0]}"
    assert changed.is_overridden(path)
    assert document.data == {"rounds": 3, "tiers": [{"share": 0.5}, {"share": 0.1}]}, "the original is as it was"


def test_the_last_override_of_a_key_wins(tmp_path: Path):
    document = document_of(tmp_path, "rounds: 3\ntiers:\n- {share: 0.5}\n")
    changed = apply_overrides(document, ["tiers.0.share=0.1", "rounds=4", "tiers=[{share: 0.2}]", "rounds=5"])
    assert changed.data == {"rounds": 5, "tiers": [{"share": 0.2}]}
    assert changed.where(("tiers", 0, "share")) == "--set tiers"


def test_what_is_not_overridden_keeps_its_line(tmp_path: Path):
    changed = apply_overrides(document_of(tmp_path, "rounds: 3\ntiers:\n- {share: 0.5}\n"), ["tiers.0.share=1"])
    assert changed.line(("rounds",)) == 1
    assert changed.line(("tiers", 0)) == 3
    assert changed.line(("tiers", 0, "share")) == 0


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("rounds", "--set rounds: expected key.path=value, such as training.rounds=3"),
        ("=3", "--set =3: expected key.path=value, such as training.rounds=3"),
        ("a..b=3", "--set a..b=3: expected key.path=value, such as training.rounds=3"),
        ("rounds.x=3", "--set rounds.x: rounds is 3, it has no key 'x'"),
        ("rounds.x.y=3", "--set rounds.x.y: rounds is 3, it has no key 'x'"),
        ("tiers.1.share=3", "--set tiers.1.share: got '1', expected the index of an entry of tiers, below 1"),
        ("tiers.-1=3", "--set tiers.-1: got '-1', expected the index of an entry of tiers, below 1"),
        (
            "rounds=[1",
            "--set rounds: not valid YAML while parsing a flow sequence: expected ',' or ']', but got '<stream end>'",
        ),
        (
            "rounds=&x 1",
            "--set rounds: anchors and aliases (&x, *x) are not allowed; write the value out, or quote the text",
        ),
    ],
)
def test_impossible_overrides(tmp_path: Path, assignment: str, expected: str):
    document = document_of(tmp_path, "rounds: 3\ntiers:\n- {share: 0.5}\n")
    with pytest.raises(ConfigError) as caught:
        apply_overrides(document, [assignment])
    assert str(caught.value) == expected


def test_an_unknown_key_of_an_override_is_named_by_it(tmp_path: Path):
    document = apply_overrides(document_of(tmp_path, "rounds: 3\ntiers: [{share: 1}]\n"), ["tiers.0.shard=3"])
    with pytest.raises(ConfigError) as caught:
        validate(document, Plan)
    assert str(caught.value) == "--set tiers.0.shard: unknown key 'shard' in tiers.0; did you mean 'share'?"


def test_an_error_in_an_override_does_not_say_the_key_twice(tmp_path: Path):
    document = apply_overrides(document_of(tmp_path, "rounds: 3\n"), ["rounds=x"])
    with pytest.raises(ConfigError) as caught:
        validate(document, Plan)
    assert str(caught.value) == "--set rounds: got 'x', expected an integer"


def test_dump_keeps_the_order_and_writes_short_lists_in_one_line():
    class Sizes(BaseModel):
        widths: tuple[int, ...]
        name: str
        tiers: tuple[Tier, ...]

    text = dump(Sizes(widths=(1, 2), name="on", tiers=(Tier(share=1e-05, name="1e-4"),)))
    expected = "widths: [1, 2]\nname: 'on'\ntiers:\n- share: 1.0e-05\n  name: '1e-4'\n"
    assert text == expected
