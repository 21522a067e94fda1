"""What two profiles say differently, figure by figure and in what they predict for a space: `profile diff`.

It compares what stands in the files. Which of the two is right, only a measurement tells.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from fedsup_deploy import resources, rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.heldout import spearman
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import costs
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

DEFAULT_SPACE: Final = "fedsup-mobilenet"

# A larger space is compared on this many random architectures.
_MAX_COMPARED: Final = 12_000


def compare_profiles(first: str, second: str, space: str = DEFAULT_SPACE) -> dict[str, Any]:
    """Compare two profiles.

    Args:
        first: Shipped name, or file.
        second: The same, of the other.
        space: Shipped name or file of the search space whose predictions are compared.

    Returns:
        `first` and `second` (`name` and `hash`); `figures`: for each that differs its `path`, both values, and for
        numbers the relative `change`; `provenance`: paths whose source differs; `predictions` over the space.

    Raises:
        ConfigError: There is no such profile or space, or one is wrong.
    """
    profiles = load_profile(first), load_profile(second)
    documents = [profile.model_dump(mode="json", by_alias=True) for profile in profiles]
    provenances = [document.pop("provenance") for document in documents]
    for document in documents:
        # Said by `first` and `second`, and prose.
        del document["name"], document["description"]
    flat_first, flat_second = (dict(_flat(document)) for document in documents)
    return {
        "first": _identity(profiles[0]),
        "second": _identity(profiles[1]),
        "figures": [
            _entry(path, flat_first.get(path), flat_second.get(path))
            for path in dict.fromkeys([*flat_first, *flat_second])
            if flat_first.get(path) != flat_second.get(path)
        ],
        "provenance": [
            path
            for path in dict.fromkeys([*provenances[0], *provenances[1]])
            if provenances[0].get(path) != provenances[1].get(path)
        ],
        "predictions": _predictions(
            *profiles, validate(load_yaml(resources.find("configs/spaces", space)), SearchSpace)
        ),
    }


def _identity(profile: DeviceProfile) -> dict[str, str]:
    return {"name": profile.name, "hash": profile.profile_hash}


def _flat(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _entry(path: str, first: Any, second: Any) -> dict[str, Any]:
    has_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (first, second))
    change = second / first - 1 if has_numbers and first != 0 else None
    return {"path": path, "first": first, "second": second, "change": change}


def _predictions(first: DeviceProfile, second: DeviceProfile, space: SearchSpace) -> dict[str, Any]:
    """Return how the second profile's predictions relate to the first's; `problem` where one has none for the space."""
    if space.num_architectures <= _MAX_COMPARED:
        genes_NG = space.enumerate_genes()
    else:
        genes_NG = random_genes(space, rng.generator(0, "profile-diff"), _MAX_COMPARED)
    layers = costs(space, genes_NG).layers
    described = {"space": space.name, "num_architectures": len(genes_NG)}
    try:
        first_ms_N, second_ms_N = (predictor_for(profile).predict(layers) for profile in (first, second))
    except ConfigError as error:
        return {**described, "problem": str(error)}
    ratio_N = second_ms_N / first_ms_N
    return {
        **described,
        "median_ratio": float(np.median(ratio_N)),
        "smallest_ratio": float(ratio_N.min()),
        "largest_ratio": float(ratio_N.max()),
        "spearman": spearman(first_ms_N.tolist(), second_ms_N.tolist()),
    }
