"""The list of devices as a data set: numbers without an image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.devices import AnnouncedDevice, read_devices, write_devices
from fedsup_deploy.errors import ConfigError, DataError


def device(name: str, **changes: Any) -> AnnouncedDevice:
    document = {
        "name": name,
        "tier": 0,
        "classes": ("cat", "dog"),
        "shape": (8, 8, 1),
        "pixel_dtype": "uint8",
        "trained": (2, 1),
        "held_out": (0, 1),
        "tested": (0, 0),
        "fingerprint": "0" * 64,
    }
    return AnnouncedDevice.model_validate(document | changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "devices.json"


def test_who_has_how_many_images_is_all_that_is_known(path: Path) -> None:
    write_devices(path, (device("b", tier=1, trained=(0, 2)), device("a")))
    splits = load_dataset("devices", path, clients=ClientList())
    assert splits.train.labels_N.tolist() == [0, 0, 1, 1, 1]
    assert splits.train.image_shape == (8, 8, 1)
    assert splits.owners is not None
    assert splits.owners.names == ("a", "b")
    assert splits.owners.tiers == (0, 1)
    parts = splits.owners.parts("train")
    assert parts is not None
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert splits.validation is not None
    assert splits.validation.labels_N.tolist() == [1, 1]
    assert splits.test is None


def test_no_pixel_can_be_asked_for(path: Path) -> None:
    write_devices(path, (device("a"),))
    images = load_dataset("devices", path, clients=ClientList()).train
    for ask in (lambda: images.images_NHWC, lambda: images.pixels([0]), lambda: images.take(np.arange(1))):
        with pytest.raises(DataError, match=r"^the images lie on devices; set engine\.name to flower"):
            ask()


def test_its_fingerprint_is_that_of_the_devices(path: Path) -> None:
    found = set()
    for changes in ({}, {"fingerprint": "1" * 64}, {"trained": (1, 2)}, {"name": "b"}):
        write_devices(path, (device("a").model_copy(update=changes),))
        found.add(load_dataset("devices", path, clients=ClientList()).train.fingerprint())
    assert len(found) == 4


def test_devices_with_other_images_than_most_are_left_out(path: Path) -> None:
    write_devices(
        path,
        (
            device("a"),
            device("b", shape=(9, 8, 1)),
            device("c"),
            device("d", classes=("dog", "cat")),
            device("e", pixel_dtype="uint16"),
            device("f", resize="pad"),
        ),
    )
    splits = load_dataset("devices", path, clients=ClientList())
    assert splits.owners is not None
    assert splits.owners.names == ("a", "c")
    usual = "the others have 2 classes and images of 8x8 pixels, 1 x uint8"
    assert splits.notes == (
        f"devices left out: 4 (b (2 classes and images of 8x9 pixels, 1 x uint8, {usual}), "
        "d (classes 2 (dog, cat), the others have 2 (cat, dog)), "
        f"e (2 classes and images of 8x8 pixels, 1 x uint16, {usual}), "
        f"f (2 classes and images of 8x8 pixels, 1 x uint8, by pad, {usual}))",
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trained": (1, 2, 3)}, "counts of another number of classes than it names"),
        ({"trained": (0, 0)}, "no image to train on"),
        ({"trained": (9_000_000, 2_000_000)}, "11,000,001 images, expected at most 10,000,000"),
        ({"classes": ("cat", "cat")}, "cat"),
        ({"classes": ("cat", "")}, "class"),
        ({"name": ""}, "name"),
    ],
)
def test_a_device_can_be_impossible(path: Path, changes: dict[str, Any], problem: str) -> None:
    impossible = device("a").model_copy(update=changes)
    assert problem in str(impossible.problem())
    write_devices(path, (impossible,))
    with pytest.raises(DataError, match=r"fedsup-deploy fleet list$"):
        read_devices(path)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1, "devices": []}', '{"schema": 2}', "\0"])
def test_a_damaged_list_is_refused_in_one_line(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"devices\.json: cannot be read: \w+; make it with fedsup-deploy fleet list$"):
        read_devices(path)


def test_a_list_of_more_images_than_fit_into_memory_is_refused(path: Path) -> None:
    write_devices(path, tuple(device(f"d{number}", trained=(9_999_000, 0)) for number in range(11)))
    with pytest.raises(
        DataError, match=r"got 109,989,011 images, expected at most 100,000,000; leave out some devices$"
    ):
        read_devices(path)


def test_a_missing_list_says_how_to_make_it(path: Path) -> None:
    with pytest.raises(DataError, match=r"devices\.json: no such file, .*; make it with fedsup-deploy fleet list$"):
        read_devices(path)


def test_a_name_stands_there_once(path: Path) -> None:
    document = {"schema": 1, "devices": [device("a").model_dump(mode="json")] * 2}
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match="names are there twice"):
        read_devices(path)


def test_each_device_is_a_client_and_no_other_division_goes(path: Path) -> None:
    write_devices(path, (device("a"),))
    with pytest.raises(ConfigError, match=r"expected partition\.kind natural$"):
        load_dataset("devices", path)
    with pytest.raises(ConfigError, match="takes no list of clients"):
        load_dataset("devices", path, clients=ClientList(path))
