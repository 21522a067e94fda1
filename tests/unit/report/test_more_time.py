"""What networks that were tried for other devices cost on a device, computed from its profile and the run's space."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fedsup_deploy import files
from fedsup_deploy.commands.priced_beyond import priced_beyond
from fedsup_deploy.commands.search import target_for
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.report.answers import answer
from fedsup_deploy.searchers.pricing import price_network
from fedsup_deploy.space.search_space import SearchSpace


def test_it_is_the_price_that_a_search_would_have_found(
    search_of: Callable[..., Any], run_of: Callable[..., Any], tiny_space: SearchSpace
) -> None:
    """With the run and the profile as it was searched; else nothing is said."""
    plain = run_of([([0], {})])
    plain.run.path.mkdir()
    (plain.run.path / "supernet.safetensors").write_bytes(b"weights")
    run = dataclasses.replace(plain, run=dataclasses.replace(plain.run, space=tiny_space))
    known = {"jetson-nano": [(80, 0.01)], "x86-laptop": [(70, 0.01), (90, 0.01)]}
    of = {"name": "a-run", "hash": files.sha256(run.run.path / "supernet.safetensors"), "rounds": 1}
    searched = search_of(known, run=of)
    first, second = searched.result.results
    profile = load_profile("jetson-nano")
    as_searched = first.profile.model_copy(update={"hash": profile.profile_hash})
    limited = first.model_copy(update={"profile": as_searched, "limits": {"latency_ms": 0.001}, "percentile": None})
    result = searched.result.model_copy(update={"results": (limited, second)})
    searched = dataclasses.replace(searched, result=result)
    [found] = priced_beyond([searched], [run])
    best = second.candidates[1]
    prices = price_network(tiny_space.plan(best.to_architecture()), target_for(profile, {"latency_ms": 0.001}))
    [(arch_id, costs)] = found.priced["jetson-nano"].items()
    assert arch_id == best.arch_id
    assert costs["latency_ms"] == pytest.approx(float(prices.latency_ms[0]))
    told = answer(limited, found).best
    assert told is not None
    assert told.endswith(", over the limit of 0.001 ms")
    assert priced_beyond([searched], [])[0].priced == {}
    other = search_of(known, run={**of, "hash": "0" * 64})
    assert priced_beyond([other], [run])[0].priced == {}
    unknown = dataclasses.replace(searched, result=result.model_copy(update={"results": (first, second)}))
    assert priced_beyond([unknown], [run])[0].priced == {"jetson-nano": {}}
    renamed = limited.model_copy(
        update={"profile": first.profile, "candidates": (_priced(first, tiny_space, profile),)}
    )
    same = dataclasses.replace(searched, result=result.model_copy(update={"results": (renamed, second)}))
    [found] = priced_beyond([same], [run])
    assert found.priced["jetson-nano"][arch_id] == costs, "a profile that has changed, and predicts as it did"


def _priced(device: Any, space: SearchSpace, profile: Any) -> Any:
    """Return the only candidate of a device with the prices that its profile predicts."""
    [candidate] = device.candidates
    known = price_network(space.plan(candidate.to_architecture()), target_for(profile, {"latency_ms": 1.0})).by_limit()
    costs = {name: float(values[0]) for name, values in known.items()}
    return candidate.model_copy(
        update={
            "latency_ms_predicted": costs["latency_ms"],
            "latency_percentile_ms": costs["latency_ms"],
            "num_macs": int(costs["macs"]),
            "num_params": int(costs["params"]),
            "memory_mib": costs["memory_mib"],
            "storage_mib": costs["storage_mib"],
        }
    )
