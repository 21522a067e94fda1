"""A device as a client: what it trains on, what it holds out, and what it announces of both."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TESTED, TRAINED, Client
from fedsup_deploy.federation.jobs.announce import Announce, Announcement
from fedsup_deploy.runs.announced import devices_of
from fedsup_deploy.runs.own_images import OneDevice, client_of


def config_of(path: Path, tier: int = 0, **data: Any) -> ClientConfig:
    own = {"dataset": "npz", "root": path, **data}
    document = {"schema": 1, "name": "camera", "superlink": "server:1", "data": own, "tier": tier}
    return ClientConfig.model_validate(document)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write ten training images of two classes, and of others as many as are asked for."""

    def write(**others: int) -> Path:
        arrays: dict[str, Any] = {}
        for number, (kind, count) in enumerate({"train": 10, "test": 2, **others}.items()):
            arrays[f"{kind}_images"] = np.full((count, 4, 4), number, dtype=np.uint8)
            arrays[f"{kind}_images"][:, 0, 0] = np.arange(count)
            arrays[f"{kind}_labels"] = np.arange(count) % 2
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return write


def sizes(client: Client) -> dict[str, int]:
    return {which: len(client.images(which)) for which in (TRAINED, HELD_OUT, TESTED) if client.has(which)}


def test_validation_images_are_held_out_as_they_are(write: Any) -> None:
    assert sizes(client_of(config_of(write(val=3)))) == {TRAINED: 10, HELD_OUT: 3, TESTED: 2}


def test_else_a_share_is_held_out_and_always_the_same(write: Any) -> None:
    first, second = (client_of(config_of(write(), validation_fraction=0.3)) for _ in range(2))
    assert sizes(first) == {TRAINED: 7, HELD_OUT: 3, TESTED: 2}
    pixels = [
        client.images(which).images_NHWC[:, 0, 0, 0].tolist()
        for client in (first, second)
        for which in (TRAINED, HELD_OUT)
    ]
    assert pixels[:2] == pixels[2:]
    assert sorted(pixels[0] + pixels[1]) == list(range(10))


def test_or_none(write: Any) -> None:
    assert sizes(client_of(config_of(write(), validation_fraction=0))) == {TRAINED: 10, TESTED: 2}


def test_a_device_is_itself_whatever_its_number_and_announces_what_it_has(write: Any) -> None:
    device = OneDevice(config_of(write(val=3), tier=2))
    assert device.client(0) is device.client(17)
    said = device.client(5).perform(Announce())
    assert (said.classes, said.height, said.width, said.channels, said.tier) == (("0", "1"), 4, 4, 1, 2)
    assert [counts.tolist() for counts in (said.trained_K, said.held_out_K, said.tested_K)] == [[5, 5], [2, 1], [1, 1]]
    (listed,), unfit = devices_of({"camera": said})
    assert (listed.name, listed.trained, listed.tier, unfit) == ("camera", (5, 5), 2, {})


def test_its_fingerprint_is_that_of_its_images(write: Any) -> None:
    first = client_of(config_of(write(val=3))).perform(Announce()).fingerprint
    assert client_of(config_of(write(val=3))).perform(Announce()).fingerprint == first
    assert client_of(config_of(write(val=4))).perform(Announce()).fingerprint != first


def test_who_announces_the_impossible_is_refused_by_name() -> None:
    counts = np.array([1, 1])

    def saying(**changes: Any) -> Announcement:
        fields = {"trained_K": counts, "held_out_K": counts, "tested_K": counts, "classes": ("a", "b")}
        fields |= {"height": 4, "width": 4, "channels": 1, "pixel_dtype": "uint8", "tier": 0}
        fields |= {"resize": "", "profile": "", "fingerprint": "0" * 64}
        return Announcement(**(fields | changes))

    devices, unfit = devices_of(
        {
            "honest": saying(),
            "negative": saying(trained_K=np.array([-1, 3])),
            "flat": saying(trained_K=np.array(3)),
            "short": saying(trained_K=np.array([3])),
            "empty": saying(trained_K=np.array([0, 0])),
            "tierless": saying(tier=-1),
            "sizeless": saying(height=0),
            "typeless": saying(pixel_dtype="float64"),
            "unnamed": saying(classes=("a", "a")),
            "print": saying(fingerprint="/etc/passwd"),
            "": saying(),
        }
    )
    assert [device.name for device in devices] == ["honest"]
    assert unfit.keys() == {
        "negative",
        "flat",
        "short",
        "empty",
        "tierless",
        "sizeless",
        "typeless",
        "unnamed",
        "print",
        "",
    }


def test_a_root_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own\.npz"):
        client_of(config_of(tmp_path / "own.npz"))


def test_it_trains_on_no_more_images_than_it_may_and_always_the_same(write: Any) -> None:
    first, second = (client_of(config_of(write(val=3), max_images=4)) for _ in range(2))
    assert sizes(first) == {TRAINED: 4, HELD_OUT: 3, TESTED: 2}
    kept = [client.images(TRAINED).images_NHWC[:, 0, 0, 0].tolist() for client in (first, second)]
    assert kept[0] == kept[1] == sorted(kept[0])
    assert sizes(client_of(config_of(write(val=3), max_images=11)))[TRAINED] == 10


def test_it_tells_its_profile_and_how_its_images_become_squares(write: Any) -> None:
    document = config_of(write(val=3), image_size=4, resize="pad").model_dump(by_alias=True)
    said = client_of(ClientConfig.model_validate(document | {"profile": "raspberry-pi-4"})).perform(Announce())
    (listed,), _ = devices_of({"camera": said})
    assert (listed.profile, listed.resize) == ("raspberry-pi-4", "pad")
    (silent,), _ = devices_of({"camera": client_of(config_of(write(val=3))).perform(Announce())})
    assert (silent.profile, silent.resize) == (None, None)


def test_who_has_other_images_than_most_is_refused_in_a_line_that_names_both(write: Any) -> None:
    said = client_of(config_of(write(val=3))).perform(Announce())
    others = {"padded": dataclasses.replace(said, resize="pad"), "named": dataclasses.replace(said, classes=("1", "0"))}
    devices, unfit = devices_of({"a": said, "b": said, **others})
    assert [device.name for device in devices] == ["a", "b"]
    one = "2 classes and images of 4x4 pixels, 1 x uint8"
    assert unfit == {
        "padded": f"{one}, by pad, the others have {one}",
        "named": "classes 2 (1, 0), the others have 2 (0, 1)",
    }
