"""The first screen: what each device gets, and short answers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fedsup_deploy.artifact.engine import MeasuredEngine
from fedsup_deploy.artifact.measured import MeasuredDocument
from fedsup_deploy.report import search_figures
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.glance import glance
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.run_events import HealthWarning

KNOWN = [(80, 1.0), (90, 2.0)]


def answers(runs: Any = (), searches: Any = (), bundles: Any = ()) -> dict[str, tuple[str, ...]]:
    return {each.question: each.lines for each in glance(runs, searches, bundles).answers}


@pytest.fixture
def searched(search_of: Callable[..., Searched]) -> Searched:
    return search_of({"raspberry-pi-4": KNOWN, "coral-edge-tpu": KNOWN})


def of_search(bundle_of: Callable[..., BundleMaterial], searched: Searched, **changes: Any) -> BundleMaterial:
    """Return a bundle of what the first device of a search gets."""
    document = bundle_of().manifest.model_dump(mode="json", by_alias=True)
    name = searched.result.results[0].profile.name
    profile = {**document["profile"], "name": name}
    return bundle_of(arch_id=searched.result.chosen_for(name).arch_id, profile=profile, **changes)


def test_each_device_has_a_row_and_a_bundle_that_is_its_own(
    searched: Searched, bundle_of: Callable[..., BundleMaterial]
) -> None:
    """Its accuracy is then that of the test images; that of a search is of those it chose by."""
    refused = dataclasses.replace(
        searched, no_bundle={"coral-edge-tpu": "no NHWC"}, precisions={"coral-edge-tpu": "int8"}
    )
    pick = searched.result.results[0].pick
    found = glance((), (refused,), (of_search(bundle_of, searched), bundle_of()))
    assert found.devices is not None
    pi, coral, alone = found.devices.rows
    sure = "cannot be told apart from the only other one tried; 18 that fit were never tried"
    assert pi == (
        "raspberry-pi-4",
        f"{pick}, fp32",
        "90.0 % (86.9 to 92.4) of 450 test images, fp32",
        "90.0 % (82.6 to 94.5) of 100",
        "3 ms, 75 % of 4 ms: nobody knows the error",
        sure,
        "no",
        "made",
    )
    assert coral[1:4] == (f"{pick}, int8", "not known", "90.0 % (82.6 to 94.5) of 100")
    assert coral[-1] == "none can be made"
    assert alone[1] == f"{bundle_of().manifest.arch_id}, fp32"
    assert found.links == (
        ("search-1-device-1", "bundle-1"),
        ("search-1-device-2", None),
        (None, "bundle-2"),
    )
    assert glance((), (searched,), ()).devices.rows[0][-1] == "not here"  # type: ignore[union-attr]
    assert glance((), (), ()).devices is None


def test_what_is_refused_left_out_or_exceeded_is_said_with_its_reason(
    searched: Searched, bundle_of: Callable[..., BundleMaterial]
) -> None:
    refused = dataclasses.replace(searched, no_bundle={"coral-edge-tpu": "no NHWC"})
    limit = {"limit": 1.0, "cost": 1.5, "is_exceeded": True}
    bundle = bundle_of(left_out={"onnx-int8": "it loses 9 points"}, limits={"latency_ms": limit})
    found = answers((), (refused,), (bundle,))["What is refused, left out or over its limit?"]
    assert found == (
        "coral-edge-tpu: no bundle can be made: no NHWC",
        f"{bundle.name}: onnx-int8 is left out: it loses 9 points",
        f"{bundle.name}: exceeds its limit latency_ms",
    )
    assert answers((), (searched,))["What is refused, left out or over its limit?"] == ("nothing",)


def test_the_health_of_a_run_is_said_in_a_line(run_of: Callable[..., RunMaterial]) -> None:
    healthy = run_of([([0, 1], {}), ([0, 1], {"1": "late"})])
    first, sizes = answers((healthy,))["Is training healthy?"]
    assert first == (
        "digits: nothing was warned of in 2 rounds; 3 of 4 updates came, none rejected; never asked: 6 of 8 clients"
    )
    assert sizes.startswith("digits: the largest and the smallest subnet can be told apart")
    whole = run_of([([0, 1], {})], num_clients=2)
    assert answers((whole,))["Is training healthy?"][0].endswith("in 1 round; 2 of 2 updates came, none rejected")
    warned = (
        HealthWarning(round=0, kind="tier-starved", subject="1", words="a", figures={}),
        HealthWarning(round=1, kind="tier-starved", subject="1", words="tier 1: starved", figures={}),
    )
    ill = dataclasses.replace(healthy, history=dataclasses.replace(healthy.history, health=warned))
    assert answers((ill,))["Is training healthy?"][0].startswith(
        "digits: 2 warnings in 2 rounds, the last in round 2: tier 1: starved;"
    )
    assert answers()["Is training healthy?"] == ("not known: no run is on this page",)


def test_a_limit_that_predictions_may_miss_is_not_called_kept(search_of: Callable[..., Searched]) -> None:
    """By how far they were off; nothing of it where nobody knows that."""
    plain = search_of({"raspberry-pi-4": KNOWN})
    question = "What is refused, left out or over its limit?"
    assert answers((), (plain,))[question] == ("nothing",)
    [device] = plain.result.results
    error = {"acc5": 0.5, "acc10": 0.5, "spearman": None, "mape": 0.5, "num_heldout": 4, "method": "published"}
    profile = device.profile.model_validate(device.profile.model_dump() | {"error": error})
    known = device.model_copy(update={"profile": profile})
    searched = dataclasses.replace(plain, result=plain.result.model_copy(update={"results": (known,)}))
    assert answers((), (searched,))[question] == (
        "raspberry-pi-4: may be over its limit of 4 ms: predicted is 3 ms, "
        "by the profile's error of 50.0 % between 1.5 and 4.5 ms",
    )


def test_devices_that_lose_the_same_are_counted_and_not_one_of_them_named(search_of: Callable[..., Searched]) -> None:
    """Nor are their marks upon each other: one has their number."""
    devices = {"a": [(80, 1.0), (90, 2.0)], "b": [(80, 1.0), (90, 2.0)], "c": [(80, 1.0)]}
    plain = search_of(devices)
    low, best = (plain.result.results[0].candidates[at].arch_id for at in (0, 1))
    options = [
        {"num_artifacts": 1, "assigned": dict.fromkeys(devices, low), "lost": {"a": 0.1, "b": 0.1, "c": 0.0}},
        {
            "num_artifacts": 2,
            "assigned": {"a": best, "b": best, "c": low},
            "lost": {"a": 0.0, "b": 0.0, "c": 0.0},
        },
    ]
    fleet = search_of(devices, fleet={"max_artifacts": 2, "options": options, "chosen": 2})
    [line] = answers((), (fleet,))["What would fewer architectures cost?"]
    assert line.endswith("-10.0 points at worst (a and 1 more), cannot be told apart")
    assert fleet.result.fleet is not None
    figure = search_figures.fleet(fleet.result.fleet, "fleet")
    marks = figure.spec["data"]["values"]  # type: ignore[index,call-overload]
    assert [(each["artifacts"], each["points"], each["told"]) for each in marks] == [
        (1, 0.0, "1 device"),
        (1, -10.0, "2 devices"),
        (2, 0.0, "3 devices"),
    ]


def test_whether_more_rounds_would_help_and_what_a_client_moves_is_said(run_of: Callable[..., RunMaterial]) -> None:
    """Also where accuracy has not risen for certain."""
    once = run_of([([0, 1], {})])
    assert answers((once,))["Would more rounds help?"] == ("not known: accuracy was measured once",)
    [last] = once.history.evaluations
    twice = dataclasses.replace(once.history, evaluations=(last.model_copy(update={"accuracy_largest": 0.49}), last))
    [line] = answers((dataclasses.replace(once, history=twice),))["Would more rounds help?"]
    assert "the largest +1.0 points" in line
    assert line.endswith("whether more rounds would help, these images cannot tell")
    assert answers((once,))["How many bytes does a client move?"][0].startswith("digits: each time it is asked it is")
    assert answers()["How many bytes does a client move?"] == ("not known: no run is on this page",)


def test_what_was_timed_on_a_device_is_not_among_what_was_not(
    searched: Searched, bundle_of: Callable[..., BundleMaterial], engine: MeasuredEngine
) -> None:
    bundle = of_search(bundle_of, searched)
    question = "What was not measured on its device?"
    assert answers((), (searched,), (bundle,))[question] == (
        "latency on raspberry-pi-4, coral-edge-tpu: predicted, from published figures",
        "latency on raspberry-pi-4: predicted, from datasheet and published figures",
    )
    timed = dataclasses.replace(bundle, measured=MeasuredDocument(schema=1, latency=None, engine=engine))
    assert answers((), (searched,), (timed,))[question] == (
        "latency on coral-edge-tpu: predicted, from published figures",
    )
    table = glance((), (searched,), (timed,)).devices
    assert table is not None
    assert table.rows[0][6] == "0.8 ms on Orin, TensorRT 8.5.2, fp16"


def test_long_answers_are_cut_and_say_so(bundle_of: Callable[..., BundleMaterial]) -> None:
    left_out = {f"variant-{number}": "because" for number in range(12)}
    found = answers((), (), (bundle_of(left_out=left_out),))["What is refused, left out or over its limit?"]
    assert (len(found), found[-1]) == (11, "and 2 more, below")


def test_how_many_architectures_there_are_and_what_one_less_costs_is_a_sentence(
    search_of: Callable[..., Searched], bundle_of: Callable[..., BundleMaterial]
) -> None:
    question, devices = "What would fewer architectures cost?", {"a": [(90, 1.0)], "b": [(80, 1.0), (90, 2.0)]}
    plain = search_of(devices)
    first, second = (plain.result.chosen_for(name).arch_id for name in devices)
    told = "search.json: 2 architectures for 2 devices"
    asked = ", of those that were tried on each of the devices: fedsup-deploy search --max-artifacts N looks for it"
    assert answers((), (plain,))[question] == (
        f"{told}; with 1 architecture ({first}) -10.0 points at worst (b), cannot be told apart{asked}",
    ), "also where nobody has asked the search"
    options = [
        {"num_artifacts": 1, "assigned": {"a": first, "b": first}, "lost": {"a": 0.0, "b": 0.1}},
        {"num_artifacts": 2, "assigned": {"a": first, "b": second}, "lost": {"a": 0.0, "b": 0.0}},
    ]
    fleet = search_of(devices, fleet={"max_artifacts": 2, "options": options, "chosen": 2})
    bundle = of_search(bundle_of, fleet)
    assert answers((), (fleet,), (bundle,))[question] == (
        f"{told}, in 1 variant of bundles on this page; with 1 architecture ({first}) -10.0 points at worst (b), "
        "cannot be told apart",
    )
    assert answers((), (search_of({"a": [(90, 1.0)]}),))[question][0].endswith("; fewer there cannot be")


def test_updates_that_were_rejected_are_counted_apart_from_those_that_did_not_come(
    run_of: Callable[..., RunMaterial],
) -> None:
    material = run_of([([0, 1, 2], {"1": "late", "2": "too far"})], num_clients=3)
    rounds = tuple(each.model_copy(update={"rejected": [2]}) for each in material.history.rounds)
    found = dataclasses.replace(material, history=dataclasses.replace(material.history, rounds=rounds))
    assert answers((found,))["Is training healthy?"][0].endswith("; 2 of 3 updates came, 1 rejected")
