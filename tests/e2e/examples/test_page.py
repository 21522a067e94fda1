"""The page of `examples/browser`: what it takes a bundle from, and whom it asks for anything."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def page(example_of: Callable[[str], Any]) -> Any:
    return example_of("Browser")


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    """A picture of the size that the model of the digits takes."""
    Image.fromarray(np.tile(np.arange(0, 240, 30, dtype=np.uint8), (8, 1))).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


@pytest.mark.parametrize("has_folder", [True, False])
def test_it_takes_an_archive_of_a_bundle(
    page: Any, bundle: Path, digit: Path, tmp_path: Path, has_folder: bool
) -> None:
    root, base = (bundle.parent, bundle.name) if has_folder else (bundle, ".")
    archive = Path(shutil.make_archive(str(tmp_path / "bundle"), "zip", root, base))
    assert page.open(archive, "#files").startswith("Parity: 32 recorded images")
    [told] = page.choose([digit])
    assert told.split()[0] in "0123456789"


def test_it_takes_the_files_of_a_bundle(page: Any, bundle: Path) -> None:
    assert page.open(sorted(bundle.iterdir()), "#files").startswith("Parity: 32 recorded images")


def test_one_picture_that_cannot_be_read_stops_no_other(page: Any, bundle: Path, digit: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert page.open(bundle).startswith("Parity: ")
    refused, told = page.choose([text, digit])
    assert "%" not in refused
    assert told.endswith(" %")


def test_pictures_of_one_bundle_are_not_given_to_one_that_was_refused(page: Any, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no bundle")
    assert page.open(bundle).startswith("Parity: ")
    assert page.is_ready()
    assert "cannot be used" in page.choose_bundle([tmp_path / "notes.txt"], "#files")
    assert not page.is_ready()


def test_it_asks_its_own_server_for_its_own_files_and_nobody_for_anything_else(
    page: Any, bundle: Path, digit: Path
) -> None:
    """And may not: the page says so itself to the browser."""
    page.asked.clear()
    page.ask(bundle, [digit])
    assert page.asked
    assert all(method == "GET" and url.startswith(page.address) for method, url in page.asked)
    assert {url.removeprefix(page.address).split("/")[0] for _, url in page.asked} == {"browser", "javascript"}
    assert page.refuses_to_ask("http://127.0.0.1:9/")
