"""How images are split into batches, and which federations are refused because a batch could not be normalised."""

import numpy as np
import pytest
import torch

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.batches import check_can_be_normalized, split
from fedsup_deploy.federation.client import ClientInfo
from fedsup_deploy.space.search_space import SearchSpace
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


def infos_of(*counts: int) -> list[ClientInfo]:
    """Return what clients with so many images announce."""
    return [ClientInfo(client, count) for client, count in enumerate(counts)]


def test_a_client_of_one_image_is_refused_where_maps_shrink_to_one_pixel(layout: Layout) -> None:
    check_can_be_normalized(layout, infos_of(10, 2, 10), SETTINGS)
    expected = (
        "client 2 has 1 image to train on, expected 2 or more to normalise by: the maps of this space shrink to one "
        "pixel at 8x8; raise partition.min_samples"
    )
    with pytest.raises(ConfigError, match=f"^{expected}$"):
        check_can_be_normalized(layout, infos_of(10, 10, 1, 10), SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_batches_of_one_image_are_refused_there_too(layout: Layout, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting}: got 1, expected 2 or more to normalise by: the maps"):
        check_can_be_normalized(layout, infos_of(10, 10), {**SETTINGS, setting: 1})


def test_one_image_is_enough_where_every_map_has_more_pixels_or_nothing_is_subtracted(
    layout: Layout, digits_space: SearchSpace
) -> None:
    infos, settings = infos_of(1, 1, 1), dict.fromkeys(SETTINGS, 1)
    check_can_be_normalized(Layout(digits_space, "batch"), infos, settings)
    check_can_be_normalized(Layout(layout.space, "parametric"), infos, settings)
