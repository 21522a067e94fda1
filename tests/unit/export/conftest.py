"""What the tests of all exporters share."""

from collections.abc import Callable

import pytest
import torch

from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import FoldedNetwork


@pytest.fixture(scope="session")
def network(space_of: Callable[..., SearchSpace]) -> FoldedNetwork:
    """A network with every kind of layer, and a pool of an odd map: images of 7x7 pixels, 3 classes."""
    stage = {"widths": [6], "depths": [2], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    space = space_of(stage, resolutions=[7])
    plan = space.plan(space.largest)
    weights = random_weights(parts_of(plan), seed=0)
    return FoldedNetwork(plan, {name: torch.from_numpy(array) for name, array in weights.items()})
