"""How images are split into batches, and which federations are refused because a batch could not be normalised."""

import dataclasses

import numpy as np
import pytest
import torch

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federated.batches import check_can_be_normalized, split
from fedsup_deploy.supernet.layout import Layout

SETTINGS = {"training.batch_size": 16, "calibration.batch_size": 64}


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (1, 4, [1]),
        (4, 4, [4]),
        (5, 4, [5]),
        (6, 4, [4, 2]),
        (9, 4, [4, 5]),
        (3, 1, [1, 1, 1]),
        (3, 2, [3]),
        (7, 100, [7]),
    ],
)
def test_a_last_image_joins_the_batch_before(count: int, batch_size: int, expected: list[int]) -> None:
    order_N = torch.from_numpy(np.random.Generator(np.random.PCG64(0)).permutation(count))
    batches = split(order_N, batch_size)
    assert [len(batch) for batch in batches] == expected
    assert torch.equal(torch.cat(batches), order_N)


@pytest.fixture(scope="module")
def layout(space_of) -> Layout:
    """Eight pixels, halved three times."""
    stages = [{"widths": [4, 8], "depths": [1], "stride": 2} for _ in range(3)]
    return Layout(space_of(*stages, num_classes=10), "batch")


def test_a_client_of_one_image_is_refused_where_maps_shrink_to_one_pixel(layout: Layout, data_of) -> None:
    data = data_of(40, 4)
    check_can_be_normalized(layout, data, SETTINGS)
    poor = dataclasses.replace(data, clients=(*data.clients[:2], data.clients[2][:1], data.clients[3]))
    expected = (
        "client 2 has 1 image to train on, expected 2 or more to normalise by: the maps of this space shrink to one "
        "pixel at 8x8; raise partition.min_samples"
    )
    with pytest.raises(ConfigError, match=f"^{expected}$"):
        check_can_be_normalized(layout, poor, SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_batches_of_one_image_are_refused_there_too(layout: Layout, data_of, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting}: got 1, expected 2 or more to normalise by: the maps"):
        check_can_be_normalized(layout, data_of(40, 4), {**SETTINGS, setting: 1})


def test_one_image_is_enough_where_every_map_has_more_pixels_or_nothing_is_subtracted(
    layout: Layout, digits_space, data_of
) -> None:
    data = data_of(40, 40, min_samples=1)
    settings = dict.fromkeys(SETTINGS, 1)
    check_can_be_normalized(Layout(digits_space, "batch"), data, settings)
    check_can_be_normalized(Layout(layout.space, "parametric"), data, settings)
