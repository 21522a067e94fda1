"""Search spaces small enough to check by hand, and a small, valid manifest to start from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.space.search_space import SearchSpace

SpaceOf = Callable[..., SearchSpace]


@pytest.fixture(scope="session")
def space_of() -> SpaceOf:
    """Make a space of the given stages; other fields may be given as well."""

    def make(*stages: dict[str, Any], **fields: Any) -> SearchSpace:
        document = {
            "schema": 1,
            "name": "tiny",
            "family": "mobilenet",
            "in_channels": 1,
            "num_classes": 3,
            "resolutions": [8],
            "stem": {"widths": [4]},
            "stages": [{"name": f"s{index}", **stage} for index, stage in enumerate(stages, start=1)],
        }
        return SearchSpace.model_validate({**document, **fields})

    return make


@pytest.fixture(scope="session")
def tiny_space(space_of: SpaceOf) -> SearchSpace:
    """2 resolutions x 2 stem widths x (2 widths x 2 depths x 2 kernels) x (2 widths) = 64 architectures."""
    return space_of(
        {"widths": [4, 8], "depths": [1, 2], "kernel_sizes": [3, 5]},
        {"widths": [8, 12], "depths": [1], "stride": 2},
        resolutions=[6, 8],
        stem={"widths": [4, 6]},
    )


@pytest.fixture(scope="session")
def detour_space(space_of: SpaceOf) -> SearchSpace:
    """A space whose largest subnet does not cover the supernet: only width 8 needs the shortcut's 1x1 convolution."""
    return space_of({"widths": [8, 16], "depths": [1]}, stem={"widths": [16]})


@pytest.fixture
def draft_document() -> dict[str, Any]:
    """The draft of a manifest, `draft.json`, to be changed by a test."""
    return json.loads((Path(__file__).parent / "artifact" / "draft.json").read_text(encoding="utf-8"))


@pytest.fixture
def document(draft_document: dict[str, Any]) -> dict[str, Any]:
    """A whole manifest, to be changed by a test."""
    gate = {
        "kind": "parity",
        "tolerance": 1e-5,
        "batch_tolerance": 1e-5,
        "batches": [1, 3, 8],
        "num_inputs": 16,
        "max_abs_diff": 4e-6,
        "max_scaled_diff": 1e-6,
        "argmax_agreement": 1.0,
        "batch_invariance_max_abs_diff": 2e-6,
        "batch_invariance_max_scaled_diff": 5e-7,
    }
    predicted = {"value_ms": 1.5, "interval_ms": None, "kind": "roofline", "provenance": ["datasheet", "published"]}
    main = {
        "format": "onnx",
        "precision": "fp32",
        "files": {"model.onnx": 1000},
        "accuracy": 0.9,
        "gate": gate,
        "latency": {"predicted": predicted, "measured": None},
        "ran_by": None,
        "layout": "nchw",
        "counted": {},
    }
    return {**draft_document, "models": {"onnx-fp32": main}}
