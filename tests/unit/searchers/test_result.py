"""search.json: what is in it, what is refused, and what a search records."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import files
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog
from fedsup_deploy.searchers.methods.choice import open_search
from fedsup_deploy.searchers.noise import RULE, AccuracyNoise
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import pose
from fedsup_deploy.searchers.recording import record
from fedsup_deploy.searchers.result import SCHEMA, DeviceResult, NamedHash, SearchedRun, SearchResult, load_result
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import Outcome, run_searches
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.search_space import SearchSpace

MakeTarget = Callable[..., Target]


def accuracies(genes_KG: Any, _num_known: int) -> Scores:
    """The width is the fourth gene: 0.25 of 100 images for `narrow`, 0.5 for `wide`."""
    return Scores(0.25 + 0.25 * genes_KG[:, 3], num_images_K=np.full(len(genes_KG), 100))


def found(space: SearchSpace, target: Target, **options: Any) -> DeviceResult:
    options = {"method": "exact", "evaluations": None, "seed": 0, **options}
    searches = [open_search(problem, **options) for problem in pose(make_pool(space, 0), [target], EventLog())]
    return record(run_searches(searches, accuracies), noise=AccuracyNoise())[0][0]


@pytest.fixture
def document(toy_space: SearchSpace, make_target: MakeTarget) -> dict[str, Any]:
    """A search for two devices: both architectures fit the first, only the smaller one the second."""
    results = tuple(found(toy_space, make_target(name, macs=macs)) for name, macs in DEVICES.items())
    hashed = NamedHash(name="made-up", hash="0" * 64)
    run = SearchedRun(name="made-up", hash="0" * 64, rounds=40, path="../runs/made-up")
    return SearchResult(schema=SCHEMA, run=run, space=hashed, seed=0, results=results, seconds=1.5).to_dict()


DEVICES = {"raspberry-pi-4": 840, "jetson-nano": 839}


def test_the_record_of_an_exact_search(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    narrow, wide = toy_space.smallest, toy_space.largest
    target = make_target(macs=840, interval=lambda latency_ms_N: (latency_ms_N / 2, latency_ms_N * 2))
    document = found(toy_space, target).model_dump(mode="json")
    seconds = document.pop("seconds")
    assert seconds >= 0
    assert document == {
        "profile": {
            "name": "raspberry-pi-4",
            "hash": target.profile.profile_hash,
            "provenance": ["published"],
            "error": "none",
        },
        "method": "exact",
        "objective": "accuracy",
        "certified": True,
        "certified_relative_to": "the accuracy measured on 100 held-out images and the profile's latency model",
        "num_architectures": 2,
        "num_priced": 2,
        "num_feasible": 2,
        "num_evaluated": 2,
        "num_measured": 2,
        "limits": {"latency_ms": 1e6, "macs": 840},
        "risk": None,
        "percentile": {"name": "p50", "ratio": 1.0, "is_assumed": True},
        "not_checked": [],
        "candidates": [
            {
                "arch_id": narrow.arch_id,
                "architecture": narrow.to_dict(),
                "accuracy": 0.25,
                "num_images": 100,
                "accuracy_interval": [0.175452, 0.343045],
                "accuracy_predicted": None,
                "worst_decile": None,
                "latency_ms_predicted": 0.644,
                "latency_interval_ms": [0.322, 1.288],
                "latency_percentile_ms": 0.644,
                "latency_upper_ms": None,
                "num_macs": 644,
                "num_params": 52,
                "memory_mib": (52 + 96) * 4 / 2**20,
                "storage_mib": (52 * 4 + 1295) / 2**20,
                "activation_mib": 96 * 4 / 2**20,
                "energy_mj_estimated": None,
            },
            {
                "arch_id": wide.arch_id,
                "architecture": wide.to_dict(),
                "accuracy": 0.5,
                "num_images": 100,
                "accuracy_interval": [0.403832, 0.596168],
                "accuracy_predicted": None,
                "worst_decile": None,
                "latency_ms_predicted": 0.84,
                "latency_interval_ms": [0.42, 1.68],
                "latency_percentile_ms": 0.84,
                "latency_upper_ms": None,
                "num_macs": 840,
                "num_params": 74,
                "memory_mib": (74 + 160) * 4 / 2**20,
                "storage_mib": (74 * 4 + 1562) / 2**20,
                "activation_mib": 160 * 4 / 2**20,
                "energy_mj_estimated": None,
            },
        ],
        "front": [narrow.arch_id, wide.arch_id],
        "most_accurate": wide.arch_id,
        "within_noise": {"rule": RULE, "mae": None, "num_candidates": 0, "cheapest": None},
        "prefer": "accurate",
        "pick": wide.arch_id,
    }


def test_only_a_search_that_evaluated_all_there_is_is_certified(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    part = found(digits_space, make_target(macs=500_000), method="random", evaluations=10)
    assert (part.certified, part.certified_relative_to, part.num_evaluated) == (False, None, 10)
    assert part.num_evaluated < part.num_feasible < part.num_priced == part.num_architectures == 128
    whole = found(digits_space, make_target(macs=500_000), method="random", evaluations=128)
    assert whole.certified
    assert whole.num_evaluated == whole.num_feasible == part.num_feasible


def test_a_sampled_space_is_never_certified(huge_space: SearchSpace, make_target: MakeTarget) -> None:
    """Even though everything feasible among the samples, as small as the smallest subnet, was evaluated."""
    smallest = int(costs_of(huge_space, [huge_space.smallest]).num_params[0])
    result = found(huge_space, make_target(params=smallest), method="auto", evaluations=100)
    assert not result.certified
    assert result.num_evaluated == result.num_feasible < 100
    assert result.num_priced < result.num_architectures == huge_space.num_architectures


def test_a_limit_that_nobody_can_check_is_in_the_record(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    target = make_target()
    document = target.profile.model_dump(by_alias=True)
    profile = type(target.profile).model_validate({**document, "limits": {"energy_mj": 3.0}})
    limits = type(target.limits)(latency_ms=0.7, energy_mj=3.0)
    result = found(toy_space, dataclasses.replace(target, profile=profile, limits=limits))
    assert result.limits == {"latency_ms": 0.7, "energy_mj": 3.0}
    assert result.not_checked == ("energy_mj",)


def test_a_candidate_beyond_a_limit_cannot_be_recorded(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    """A searcher that proposes what it must not: the record prices it anew."""
    (problem,) = pose(make_pool(toy_space, 0), [make_target(macs=700)], EventLog())
    search = open_search(problem, "exact", None, 0)
    with pytest.raises(ValueError, match="macs is 840, expected at most 700"):
        record([Outcome(search, toy_space.encode(toy_space.largest)[None], Scores(np.array([0.5])), seconds=0.0)])


def test_what_is_written_is_read_back(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    files.write_json(path, document)
    result = load_result(path)
    assert result.to_dict() == document
    assert result.for_profile("jetson-nano").picked.num_macs == 644
    assert result.for_profile("raspberry-pi-4").picked.to_architecture().stages[0][0].width == 4
    with pytest.raises(ConfigError, match="no result for profile 'jetson'; did you mean 'jetson-nano'"):
        result.for_profile("jetson")


def changed(document: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return document


FIRST = ("results", 0, "candidates", 0)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("schema",), 2, "schema: got 2: input should be 1"),
        (("surplus",), 1, "surplus: unknown key"),
        (("run", "hash"), "abc", "run.hash: got 'abc': string should match pattern"),
        (("seed",), "0", "seed: got '0': input should be a valid integer"),
        (("results",), [], "results: got .*: tuple should have at least 1 item"),
        (("results", 1, "profile", "name"), "raspberry-pi-4", "expected each once"),
        (("results", 0, "limits", "macs"), 839.0, "macs is 840, expected at most 839.0"),
        (("results", 0, "limits", "watts"), 2.0, "limits: got .*, expected "),
        (("results", 0, "limits", "energy_mj"), 2.0, r"not_checked: got \[\], expected \['energy_mj'\]"),
        (("results", 0, "not_checked"), ["macs"], r"not_checked: got \['macs'\], expected \[\]"),
        (("results", 0, "num_evaluated"), 3, "certified: expected everything feasible evaluated"),
        (("results", 0, "num_evaluated"), 1, "num_evaluated: got 1, expected 2 candidates"),
        (("results", 0, "num_measured"), 1, "num_measured: got 1, expected 2, as of the candidates"),
        (("results", 0, "num_feasible"), 3, "certified: expected everything feasible evaluated"),
        (("results", 0, "certified"), False, "certified_relative_to: expected a text if certified"),
        (("results", 0, "front"), [], "front and pick: got"),
        (("results", 0, "pick"), "a00000000000", "front and pick: got pick a00000000000 and 2 on the front, expected"),
        ((*FIRST, "accuracy"), 1.5, "accuracy: got 1.5: input should be less than or equal to 1"),
        ((*FIRST, "accuracy"), 0.75, "accuracy_interval: got .* expected .* that of 0.75 of 100 images"),
        ((*FIRST, "accuracy"), 0.755, "got 0.755, which is no share of 100 images"),
        ((*FIRST, "num_images"), None, "num_images: got none, expected those of accuracy_interval"),
        (("results", 0, "most_accurate"), "a00000000000", "front and pick"),
        (
            ("results", 0, "within_noise", "cheapest"),
            "a00000000000",
            "within_noise.cheapest: got a0.*, expected None",
        ),
        (("results", 0, "prefer"), "fastest", "results.0.prefer: got 'fastest'"),
        ((*FIRST, "latency_ms_predicted"), float("nan"), "latency_ms_predicted"),
        ((*FIRST, "architecture", "stem_width"), 4, "architecture: got that of a.*, expected that of a"),
        ((*FIRST, "architecture", "stem_width"), float("nan"), "stem_width is nan, expected int"),
        (("seed",), 10**400, r"got 10{19}\.\.\., expected an integer of at most 300 digits"),
        ((*FIRST, "architecture", "stem_width"), "2", "stem_width is '2', expected int"),
    ],
)
def test_a_damaged_or_altered_file_is_refused_in_one_line(
    document: dict[str, Any], tmp_path: Path, path: tuple[Any, ...], value: Any, expected: str
) -> None:
    file = tmp_path / "search.json"
    file.write_text(json.dumps(changed(document, *path, to=value)), encoding="utf-8")
    with pytest.raises(ArtifactError, match=expected) as caught:
        load_result(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith("; search again")
    assert "\n" not in str(caught.value)


def test_a_candidate_listed_twice_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    candidates = document["results"][0]["candidates"]
    file = tmp_path / "search.json"
    file.write_text(json.dumps(changed(document, "results", 0, "candidates", to=candidates * 2)), encoding="utf-8")
    with pytest.raises(ArtifactError, match="candidates: got one twice"):
        load_result(file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "search again$"),
        ("{", "search again$"),
        ("\x00\xff", "search again$"),
        # Nothing of a search is in these: they were none before.
        ("[]", r"holds no search; expected a search\.json, as search writes it$"),
        ("null", "holds no search"),
        ('{"schema": 1}', "holds no search"),
        ('{"command": []}', "holds no search"),
    ],
)
def test_what_is_no_search_result_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "search.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ArtifactError, match=expected) as caught:
        load_result(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot read .*nothing\.json: no such file or directory"):
        load_result(tmp_path / "nothing.json")
