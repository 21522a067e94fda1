"""Whether a parcel of Flower's is ours, read as one that anybody may have sent."""

import io
import warnings
import zipfile

import pytest
from flwr.cli.build import build_fab_from_files

from fedsup_deploy.engines.flower.parcel import APP, CONFIG, what_is_foreign


def packed(*files: tuple[str, str], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two files of one name
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_what_flower_makes_of_our_app_is_ours() -> None:
    assert what_is_foreign(build_fab_from_files({CONFIG: APP.encode()})[0]) is None


def test_so_is_the_same_packed_by_another_machine() -> None:
    assert what_is_foreign(packed((CONFIG, APP), (".info/CONTENT", ""), kind=zipfile.ZIP_BZIP2)) is None


@pytest.mark.parametrize(
    ("parcel", "why"),
    [
        (packed((CONFIG, APP), (".info/CONTENT", ""), ("fedsup_deploy/app.py", "")), "it holds fedsup_deploy/app.py"),
        (packed((CONFIG, APP), (".info/CONTENT", ""), ("sitecustomize.py\n\x1b[2J", "")), r"it holds sitecustomize.py"),
        (packed((CONFIG, APP), (CONFIG, "")), None),
        (packed((CONFIG, APP), (CONFIG, APP), (".info/CONTENT", "")), "it holds 3 files"),
        (packed((CONFIG, APP)), "it holds 1 files"),
        (packed((CONFIG, APP.replace("1.0.0", "1.0.1")), (".info/CONTENT", "")), "its pyproject.toml is another"),
        (
            packed((CONFIG, APP.replace(":client_app", ":other")), (".info/CONTENT", "")),
            "its pyproject.toml is another",
        ),
        (
            packed((CONFIG, APP + "a = 1\n" * 2**17), (".info/CONTENT", ""), kind=zipfile.ZIP_DEFLATED),
            "it cannot be read",
        ),
        (packed((CONFIG, "]"), (".info/CONTENT", "")), "it cannot be read: TOMLDecodeError"),
        (packed((CONFIG, "a=" + "[" * 2**15), (".info/CONTENT", "")), "it cannot be read: "),
        (b"", "it cannot be read: BadZipFile"),
        (b"PK" * 100, "it cannot be read: BadZipFile"),
    ],
)
def test_any_other_is_foreign_with_a_reason_in_one_line(parcel: bytes, why: str | None) -> None:
    foreign = what_is_foreign(parcel)
    assert foreign is not None
    assert foreign.isprintable()
    assert foreign.startswith(why or "")
