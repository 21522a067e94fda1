"""Names of classes and files."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.data.names import class_names, decoded, escaped, name_of
from fedsup_deploy.errors import DataError


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1))
def test_usable_names_are_kept_in_nfc_and_can_be_encoded(text: str) -> None:
    (kept,) = class_names([text], "made")
    assert kept == unicodedata.normalize("NFC", text)
    assert class_names([kept], "made") == (kept,)
    assert kept.encode().decode() == kept


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        (["cat", "caf\udce9"], r"name of class 1, 'caf\\udce9', holds '\\udce9'; rename it"),
        (["a\nb"], r"holds '\\n'"),
        (["a\x1b]0;b\x07"], r"holds '\\x1b'"),
        (["a\u2028b"], r"holds '\\u2028'"),
        ([""], "is empty"),
        ([" "], "is empty"),
        (["caf\u00e9", "b", "cafe\u0301"], "two classes are called 'café'"),
    ],
)
def test_other_names_are_refused_in_one_plain_line(classes: list[str], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        class_names(classes, "made")
    assert str(caught.value).isprintable()


def test_a_file_name_that_is_not_utf_8_is_refused_with_its_bytes() -> None:
    with pytest.raises(DataError, match=r"^x/caf\\xe9: the name is not UTF-8; rename it$"):
        name_of(Path(os.fsdecode(b"x/caf\xe9")))


def test_the_locale_does_not_matter(tmp_path: Path) -> None:
    """Where Python takes file names for ASCII, those in UTF-8 are what they are elsewhere."""
    (tmp_path / "cafe\u0301").mkdir()
    code = (
        "import sys, pathlib; from fedsup_deploy.data.names import name_of; "
        "print(sys.getfilesystemencoding(), ascii(name_of(next(pathlib.Path(sys.argv[1]).iterdir()))))"
    )
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["ascii", r"'caf\xe9'"]


def test_paths_are_escaped_for_messages() -> None:
    assert escaped(Path(os.fsdecode(b"caf\xe9/a\nb"))) == r"caf\xe9/a\nb"
    assert escaped(Path("x/日本.png")) == "x/日本.png"


def test_text_of_a_file_has_to_be_utf_8() -> None:
    assert decoded("café".encode(), "here") == "café"
    with pytest.raises(DataError, match=r"here: b'caf\\xe9' is not UTF-8"):
        decoded(b"caf\xe9", "here")
