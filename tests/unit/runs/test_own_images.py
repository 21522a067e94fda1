"""A device as a client: what it trains on, what it holds out, and what it announces of both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.commands.fleet_list import devices_of
from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TESTED, TRAINED, Client
from fedsup_deploy.federation.jobs.announce import Announce, Announcement
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
        fields |= {"height": 4, "width": 4, "channels": 1, "pixel_dtype": "uint8", "tier": 0, "fingerprint": "0" * 64}
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
