"""What two profiles say differently, figure by figure and in what they predict for a space: `profile diff`.

It compares what stands in the files. Which of the two is right, only a measurement tells.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from pydantic import JsonValue

from fedsup_deploy import rng
from fedsup_deploy.device.heldout import spearman
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.results import Result
from fedsup_deploy.space.cost import costs
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

# A larger space is compared on this many random architectures.
_MAX_COMPARED: Final = 12_000


@dataclasses.dataclass(frozen=True)
class ProfileId:
    """Which profile."""

    name: str
    hash: str


@dataclasses.dataclass(frozen=True)
class DifferentFigure:
    """A figure that two profiles state differently.

    Args:
        path: Where it stands in both.
        first: What the first says; None where it says nothing.
        second: What the second says.
        change: From the first to the second, relative to the first; None for what is no number.
    """

    path: str
    first: JsonValue
    second: JsonValue
    change: float | None


@dataclasses.dataclass(frozen=True)
class ComparedPredictions:
    """How the predictions of the second profile relate to those of the first.

    Args:
        space: The search space.
        num_architectures: That were compared.
        median_ratio: Second / first.
        smallest_ratio: The same.
        largest_ratio: The same.
        spearman: Rank correlation; None where one profile predicts the same for all.
    """

    space: str
    num_architectures: int
    median_ratio: float
    smallest_ratio: float
    largest_ratio: float
    spearman: float | None


@dataclasses.dataclass(frozen=True)
class NoPredictions:
    """Why there is nothing to compare: one of the profiles predicts nothing for the space."""

    space: str
    num_architectures: int
    problem: str


@dataclasses.dataclass(frozen=True)
class ProfileDifference(Result):
    """What two profiles say differently.

    Args:
        first: One.
        second: The other.
        figures: Those that differ.
        provenance: Paths of figures whose source differs.
        predictions: What that does to latencies.
    """

    first: ProfileId
    second: ProfileId
    figures: tuple[DifferentFigure, ...]
    provenance: tuple[str, ...]
    predictions: ComparedPredictions | NoPredictions


def compare_profiles(first: str, second: str, space: SearchSpace) -> ProfileDifference:
    """Compare two profiles.

    Args:
        first: Shipped name, or file.
        second: The same, of the other.
        space: The search space whose predictions are compared.

    Raises:
        ConfigError: There is no such profile, or one is wrong.
    """
    profiles = load_profile(first), load_profile(second)
    documents = [profile.model_dump(mode="json", by_alias=True) for profile in profiles]
    provenances = [document.pop("provenance") for document in documents]
    for document, profile in zip(documents, profiles, strict=True):
        # Said by `first` and `second`, and prose.
        del document["name"], document["description"]
        told: list[JsonValue] = [f"{bad}: {bad.symptom}; {bad.cure} ({bad.source})" for bad in profile.known_bad]
        document["known_bad"] = told or None
    flat_first, flat_second = (dict(_flat(document)) for document in documents)
    return ProfileDifference(
        first=ProfileId(profiles[0].name, profiles[0].profile_hash),
        second=ProfileId(profiles[1].name, profiles[1].profile_hash),
        figures=tuple(
            _figure(path, flat_first.get(path), flat_second.get(path))
            for path in dict.fromkeys([*flat_first, *flat_second])
            if flat_first.get(path) != flat_second.get(path)
        ),
        provenance=tuple(
            path
            for path in dict.fromkeys([*provenances[0], *provenances[1]])
            if provenances[0].get(path) != provenances[1].get(path)
        ),
        predictions=_predictions(*profiles, space),
    )


def _flat(document: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _figure(path: str, first: JsonValue, second: JsonValue) -> DifferentFigure:
    numbers = [value for value in (first, second) if isinstance(value, (int, float)) and not isinstance(value, bool)]
    change = numbers[1] / numbers[0] - 1 if len(numbers) == 2 and numbers[0] != 0 else None
    return DifferentFigure(path, first, second, change)


def _predictions(
    first: DeviceProfile, second: DeviceProfile, space: SearchSpace
) -> ComparedPredictions | NoPredictions:
    if space.num_architectures <= _MAX_COMPARED:
        genes_NG = space.enumerate_genes()
    else:
        genes_NG = random_genes(space, rng.generator(0, "profile-diff"), _MAX_COMPARED)
    layers = costs(space, genes_NG).layers
    try:
        first_ms_N, second_ms_N = (predictor_for(profile).predict(layers) for profile in (first, second))
    except ConfigError as error:
        return NoPredictions(space.name, len(genes_NG), str(error))
    ratio_N = second_ms_N / first_ms_N
    return ComparedPredictions(
        space=space.name,
        num_architectures=len(genes_NG),
        median_ratio=float(np.median(ratio_N)),
        smallest_ratio=float(ratio_N.min()),
        largest_ratio=float(ratio_N.max()),
        spearman=spearman(first_ms_N.tolist(), second_ms_N.tolist()),
    )
