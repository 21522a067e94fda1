"""Random search spaces, small enough to run their networks."""

from typing import Any

import pytest
from hypothesis import strategies as st

from fedsup_deploy import registry
from fedsup_deploy.space.search_space import SearchSpace


def _some(*choices: Any, most: int = 2) -> st.SearchStrategy[list[Any]]:
    """Draw one or a few of the choices, ascending."""
    return st.lists(st.sampled_from(choices), min_size=1, max_size=most, unique=True).map(sorted)


@st.composite
def _spaces(draw: st.DrawFn) -> SearchSpace:
    stage = st.fixed_dictionaries(
        {
            "widths": _some(4, 8, 12, 16),
            "depths": _some(1, 2, 3),
            "kernel_sizes": _some(1, 3, 5, 7),
            "expand_ratios": _some(0.5, 1, 1.5, 2),
            "squeeze_excite": _some(False, True),
            "stride": st.sampled_from([1, 2]),
        }
    )
    stages = draw(st.lists(stage, min_size=1, max_size=3))
    return SearchSpace.model_validate(
        {
            "schema": 1,
            "name": "random",
            "family": draw(st.sampled_from(registry.names("family"))),
            "in_channels": draw(st.sampled_from([1, 3])),
            "num_classes": draw(st.integers(2, 5)),
            "resolutions": draw(_some(5, 8, 11, 12)),
            "choices": draw(st.sampled_from(["per-stage", "per-block"])),
            "stem": {
                "widths": draw(_some(2, 4, 8)),
                "kernel_size": draw(st.sampled_from([1, 3, 5])),
                "stride": draw(st.sampled_from([1, 2])),
            },
            "stages": [{"name": f"s{index}", **fields} for index, fields in enumerate(stages)],
        }
    )


@pytest.fixture(scope="session")
def spaces() -> st.SearchStrategy[SearchSpace]:
    """Spaces with everything a space may have: both families, any choices, odd sizes, strides, an elastic stem."""
    return _spaces()
