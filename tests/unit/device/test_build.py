"""What is timed for a profile, how an interrupted build goes on, and what becomes of the times."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fedsup_deploy import resources
from fedsup_deploy.config.device import Int8Scheme, System
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.device.building.assemble import About, assemble, device_facts
from fedsup_deploy.device.building.bench import BenchFacts, Here
from fedsup_deploy.device.building.plan import FILLER, BuildPlan, covering_architectures, plan_build
from fedsup_deploy.device.building.times import Times
from fedsup_deploy.device.building.times import times_of as times_with_advice
from fedsup_deploy.device.building.workplace import MIN_ROUNDS, Workplace
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.ondevice import machine
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.parts import name_of, part_names, parts_of
from fedsup_deploy.space.search_space import SearchSpace

SpaceOf = Callable[..., SearchSpace]


def shipped(name: str) -> SearchSpace:
    return validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace)


def names_of(space: SearchSpace) -> set[str]:
    """All names of parts in a space, by going through all of its architectures."""
    genes_NG = space.enumerate_genes()
    return {name for part in part_names(space.plan_many(genes_NG), len(genes_NG)) for name in part.names}


@pytest.fixture
def varied_space(space_of: SpaceOf) -> SearchSpace:
    """A space that chooses per block, with everything elastic: 2 x 2 x (16 + 16 x 16) x 4 architectures."""
    has_se = {"squeeze_excite": [False, True]}
    return space_of(
        {
            "widths": [4, 8],
            "depths": [1, 2],
            "kernel_sizes": [3, 5],
            "expand_ratios": [1, 2],
            **has_se,
        },
        {"widths": [8, 12], "depths": [2], "kernel_sizes": [3], "stride": 2},
        resolutions=[6, 7],
        stem={"widths": [4, 6]},
        choices="per-block",
    )


@pytest.mark.parametrize("name", ["digits", "elastic-resnet", "fedsup-mobilenet"])
def test_every_part_of_a_shipped_space_is_covered(name: str) -> None:
    space = shipped(name)
    covered = {name_of(part) for one in covering_architectures(space) for part in parts_of(space.plan(one))}
    assert covered == names_of(space)


def test_every_part_is_covered_where_blocks_choose_for_themselves(varied_space: SearchSpace) -> None:
    architectures = list(covering_architectures(varied_space))
    assert all(varied_space.contains(one) for one in architectures)
    covered = {name_of(part) for one in architectures for part in parts_of(varied_space.plan(one))}
    assert covered == names_of(varied_space)
    assert len(architectures) < varied_space.num_architectures / 10


def test_the_papers_space_takes_75_measurements() -> None:
    plan = plan_build(shipped("fedsup-mobilenet"))
    assert (plan.kind, len(plan.parts), len(plan.calibration), len(plan.heldout)) == ("table", 63, 12, 40)
    assert len(plan.graphs()) == 63 + 12 + 40 + 1


def test_a_space_of_too_many_parts_is_timed_in_whole_networks() -> None:
    plan = plan_build(shipped("elastic-resnet"))
    assert (plan.kind, len(plan.parts), len(plan.calibration), len(plan.heldout)) == ("fitted", 0, 75, 40)


def test_networks_are_distinct_of_every_size_and_decided_by_the_seed() -> None:
    space = shipped("fedsup-mobilenet")
    plan, other = plan_build(space, seed=1), plan_build(space, seed=2)
    networks = [*plan.calibration, *plan.heldout]
    assert len({network.arch_id for network in networks}) == 52
    assert plan == plan_build(space, seed=1)
    assert set(plan.calibration).isdisjoint(other.calibration) or plan.calibration != other.calibration
    sizes_mib = costs_of(space, plan.calibration).layers.working_set_elements_N
    assert sizes_mib is not None
    assert sorted(sizes_mib) == list(sizes_mib)
    assert sizes_mib[-1] > 5 * sizes_mib[0], "from less than 1 MiB to more than 5"


def test_a_small_space_is_divided_evenly(space_of: SpaceOf) -> None:
    space = space_of({"widths": [4, 8], "depths": [1], "kernel_sizes": [3, 5]}, stem={"widths": [4, 6]})
    assert space.num_architectures == 8
    plan = plan_build(space)
    assert (len(plan.calibration), len(plan.heldout)) == (4, 4)
    assert set(plan.calibration).isdisjoint(plan.heldout)


def test_a_space_without_enough_architectures_is_refused(detour_space: SearchSpace) -> None:
    with pytest.raises(ConfigError, match="space tiny: got 2 architectures, expected at least 8"):
        plan_build(detour_space)


# Workplace


@pytest.fixture(scope="module")
def small_plan(tiny_space: SearchSpace) -> BuildPlan:
    return plan_build(tiny_space, num_networks=2, num_heldout=3)


@pytest.fixture(scope="module")
def timed(small_plan: BuildPlan, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A build whose models are written, and that was timed for the least number of rounds."""
    workplace = Workplace(tmp_path_factory.mktemp("timed") / ".host.build", small_plan, 1, "fp32")
    workplace.begin(ignored)
    workplace.time_models(1e-6, ignored)
    return workplace


@pytest.fixture
def begun(timed: Workplace, tmp_path: Path) -> Workplace:
    """A copy of it, to be changed."""
    folder = shutil.copytree(timed.folder, tmp_path / ".host.build")
    return Workplace(folder, timed.plan, 1, "fp32")


def ignored(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def again(workplace: Workplace, **changes: Any) -> Workplace:
    settings = {"plan": workplace.plan, "threads": 1, "precision": "fp32", **changes}
    return Workplace(workplace.folder, **settings)


def test_a_build_makes_the_least_number_of_rounds_however_short(begun: Workplace) -> None:
    assert begun.rounds == MIN_ROUNDS
    assert begun.seconds > 0
    visits = [event for event in begun.events if event["event"] == "visit"]
    num_models, num_parts = len(begun.plan.graphs()) - 1, len(begun.plan.parts)
    assert len(visits) == MIN_ROUNDS * (num_models + num_parts)
    assert sum(visit["state"] == "uncached" for visit in visits) == MIN_ROUNDS * num_parts


def test_a_build_goes_on_after_the_last_whole_round(begun: Workplace) -> None:
    """Two rounds are whole; a third was cut within a line."""
    journal = begun.folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    ends = [index for index, line in enumerate(lines) if json.loads(line)["event"] == "round"]
    journal.write_text("".join([*lines[: ends[1] + 3], lines[ends[1] + 3][:40]]))
    resumed = again(begun)
    assert resumed.resume()
    assert resumed.rounds == 2
    before = resumed.seconds
    kept = resumed.events
    resumed.time_models(1e-6, ignored)
    assert resumed.rounds == MIN_ROUNDS
    assert resumed.seconds > before, "the time of both parts counts"
    assert resumed.events[: len(kept)] == kept
    rounds = [event["round"] for event in resumed.events if event["event"] == "visit"]
    assert sorted(set(rounds)) == list(range(MIN_ROUNDS))
    assert len(set(np.bincount(rounds))) == 1, "each round was made once"


def test_a_build_that_is_over_is_not_timed_again(begun: Workplace) -> None:
    before = begun.events
    resumed = again(begun)
    assert resumed.resume()
    resumed.time_models(1e-6, ignored)
    assert resumed.events == before


def test_without_a_whole_set_of_models_there_is_nothing_to_resume(begun: Workplace) -> None:
    assert not Workplace(begun.folder.with_name("other"), begun.plan, 1, "fp32").resume()
    (begun.folder / "plan.json").unlink()
    assert not again(begun).resume()


def test_beginning_anew_forgets_what_was_there(begun: Workplace) -> None:
    begun.begin(ignored)
    assert (begun.rounds, begun.seconds, begun.events) == (0, 0.0, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": 2}, "threads is 2, the build was begun with 1"),
        ({"precision": "int8"}, "precision is int8, the build was begun with fp32"),
    ],
)
def test_times_under_other_conditions_are_not_put_together(
    begun: Workplace, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=f"cannot resume .*: {words}; begin anew without --resume"):
        again(begun, **changes).resume()


def test_networks_are_timed_in_the_form_that_export_writes_for_the_profile(
    begun: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the scheme that the profile will state, whatever processor this is; and a build goes on with no other."""
    for vnni, most in ((True, 127), (False, 64)):
        told = {**machine.environment(1), "machine": "x86_64", "vnni": vnni}
        monkeypatch.setattr(machine, "environment", lambda _, told=told: told)
        workplace = Workplace(tmp_path / f"{most}", begun.plan, 1, "int8")
        workplace.begin(ignored)
        assert workplace.resume()
        tensors = onnx.load(workplace.folder / "heldout-000.onnx").graph.initializer
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in tensors}
        weights = [array for name, array in arrays.items() if name.endswith("weight_quantized")]
        assert max(np.abs(array.astype(int)).max() for array in weights) == most
        assert {array.dtype.name for name, array in arrays.items() if name == "input_zero_point"} == {"uint8"}
        assert not {name for name in arrays if name.startswith("logits")}, (
            "logits come out of the last layer as float32"
        )
    with pytest.raises(ConfigError, match=r"int8 is .*, the build was begun with .*; begin anew without --resume"):
        Workplace(tmp_path / "127", begun.plan, 1, "int8").resume()


def test_what_a_profile_says_of_its_device_is_said_there_and_not_here(begun: Workplace) -> None:
    """Its memory, too, which no event of a session tells."""

    class Elsewhere(Here):
        name = "elsewhere"

        def facts(self, threads: int) -> BenchFacts:
            return BenchFacts({**super().facts(threads).environment, "machine": "aarch64", "cpu": "other"}, 123)

    there = Workplace(begun.folder, begun.plan, 1, "int8", Elsewhere())
    there.begin(ignored)
    tensors = onnx.load(there.folder / "heldout-000.onnx").graph.initializer
    zero_points = {onnx.numpy_helper.to_array(each).dtype.name for each in tensors if each.name == "input_zero_point"}
    assert zero_points == {"int8"}, "as 64-bit ARM wants it, whatever this machine is"
    assert device_facts(*there.facts).memory_mib == 123
    assert device_facts(*there.facts).cpu == "other"
    assert device_facts(machine.environment(1)).memory_mib == machine.memory_mib()


def test_times_of_other_networks_are_not_put_together(begun: Workplace, tiny_space: SearchSpace) -> None:
    other = plan_build(tiny_space, num_networks=2, num_heldout=3, seed=1)
    with pytest.raises(ConfigError, match="seed is 1, the build was begun with 0"):
        again(begun, plan=other).resume()


def test_an_altered_model_is_not_timed(begun: Workplace) -> None:
    shutil.copy(begun.folder / f"{FILLER}.onnx", begun.folder / "part-000.onnx")
    with pytest.raises(ArtifactError, match=r"part-000\.onnx: missing or altered"):
        again(begun).resume()


def test_a_damaged_visit_is_refused(begun: Workplace) -> None:
    journal = begun.folder / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    number = next(index for index, line in enumerate(lines) if json.loads(line)["event"] == "visit")
    lines[number] = json.dumps({**json.loads(lines[number]), "p10_ms": "soon"}) + "\n"
    journal.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"journal\.jsonl:{number + 1}: damaged: p10_ms; begin anew"):
        begun.resume()


def test_a_build_that_an_earlier_version_began_is_refused_as_such(begun: Workplace) -> None:
    """It noted less of the machine; nothing is damaged."""
    journal = begun.folder / "journal.jsonl"
    first, *others = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    older = {key: value for key, value in json.loads(first).items() if key != "vnni"}
    journal.write_text(json.dumps(older) + "\n" + "".join(others), encoding="utf-8")
    expected = r"journal\.jsonl:1: has no vnni: an earlier version began this build; begin anew without --resume$"
    with pytest.raises(ArtifactError, match=expected):
        again(begun).resume()


def test_a_damaged_plan_is_refused(begun: Workplace) -> None:
    (begun.folder / "plan.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"plan\.json: damaged"):
        again(begun).resume()


# From times to a profile


def events_of(plan: BuildPlan, us_of: Callable[[str, str], float], rounds: int = 4) -> list[dict[str, Any]]:
    """The events of a quiet session in which each model took `us_of(model, state)`."""
    environment = {
        "device": None,
        "cpu": "Toy",
        "cores": 2,
        "governor": "fixed",
        "onnxruntime": "1.10.0",
        "threads": 1,
        "machine": "riscv64",
        "python": "3.12.1",
        "glibc": None,
    }
    events: list[dict[str, Any]] = [{"event": "environment", "provider": "CPUExecutionProvider", **environment}]
    for index in range(rounds):
        for model in plan.graphs():
            for state in ("cached", "uncached") if model.startswith("part") else ("cached",):
                ms = us_of(model, state) / 1e3
                figures = dict.fromkeys(("min_ms", "p10_ms", "p50_ms", "p90_ms", "mean_ms"), ms)
                visit = {"round": index, "model": model, "state": state, "num_runs": 9, "ruler_ms": None}
                events += [{"event": "visit", **visit, **figures}] * (model != FILLER)
        events.append({"event": "round", "done": index + 1, "total": rounds, "seconds": index + 1.0})
    return events


def times_of(events: list[dict[str, Any]], networks: list[str]) -> Times:
    return times_with_advice(events, networks, "measure longer")


def us_of_toy(plan: BuildPlan) -> Callable[[str, str], float]:
    """A device on which each part takes 10 us, and a network as long as its parts, less 1 us for each."""

    def us_of(model: str, state: str) -> float:
        if model.startswith("part"):
            return 10.0 if state == "cached" else 25.0
        return 9.0 * len(plan.graphs()[model])

    return us_of


def test_a_profile_says_what_was_measured_and_predicts_it(small_plan: BuildPlan, tmp_path: Path) -> None:
    times = times_of(events_of(small_plan, us_of_toy(small_plan)), small_plan.heldout_models)
    profile = assemble(small_plan, times, About("toy", limits={"latency_ms": 2.0})).profile
    path = tmp_path / "toy.yaml"
    path.write_text(dump(profile))
    assert load_profile(path) == profile
    assert profile.is_measured
    assert profile.limits.latency_ms == 2.0
    assert profile.runtime.power_mode == "fixed"
    assert profile.device.soc == "Toy"
    assert profile.accepts == Accepts(onnx_opset=15, onnx_ir=8)
    assert profile.system == System(python="3.12", arch="riscv64")
    assert {profile.provenance[name].kind for name in ("accepts", "system")} == {"measured"}
    assert "accepts.int8" not in profile.provenance, "nobody knows what such a processor is fast with"
    assert profile.error != "none"
    assert (profile.error.method, profile.error.num_heldout, profile.error.acc5) == ("held-out", 3, 1.0)
    assert profile.error.macs_only is not None
    assert profile.percentiles is not None
    assert profile.percentiles.by_name() == {"p50": 1.0, "p90": 1.0}, "every run took the same"
    assert profile.percentiles.p90.ratios == profile.error.ratios
    assert "even and odd rounds differ: p50 by 0.0%" in profile.provenance["percentiles"].model_dump()["protocol"]
    assert "4 rounds" in profile.provenance["latency"].model_dump()["protocol"]


def test_a_profile_states_how_int8_is_written_for_the_machine(small_plan: BuildPlan, tmp_path: Path) -> None:
    events = events_of(small_plan, us_of_toy(small_plan))
    events[0] |= {"machine": "x86_64", "vnni": False}
    times = times_of(events, small_plan.heldout_models)
    profile = assemble(small_plan, times, About("toy", "int8")).profile
    assert profile.accepts.int8 == Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=True)
    told = profile.provenance["accepts.int8"].model_dump()
    assert told["kind"] == "measured"
    assert "its processor says that it is x86_64, without VNNI. " in told["protocol"]
    (tmp_path / "toy.yaml").write_text(dump(profile))
    assert load_profile(tmp_path / "toy.yaml") == profile


def test_parts_are_written_as_they_were_timed(small_plan: BuildPlan) -> None:
    times = times_of(events_of(small_plan, us_of_toy(small_plan)), small_plan.heldout_models)
    latency = assemble(small_plan, times, About("toy")).profile.latency
    assert latency.kind == "table"
    assert {(part.cached_us, part.uncached_us) for part in latency.parts.values()} == {(10.0, 25.0)}
    assert set(latency.parts) == set(small_plan.parts)


def test_a_table_that_predicts_worse_than_the_macs_gives_way_to_their_line(
    small_plan: BuildPlan, tmp_path: Path
) -> None:
    """A device on which networks take 3 us and 20 us per 10^6 MACs, and parts alone whatever they like."""
    networks = dict(zip(small_plan.calibration_models, small_plan.calibration, strict=True))
    networks |= dict(zip(small_plan.heldout_models, small_plan.heldout, strict=True))
    macs = dict(zip(networks, costs_of(small_plan.space, list(networks.values())).num_macs.tolist(), strict=True))

    def us_of(model: str, state: str) -> float:
        if model.startswith("part"):
            return 1.0 + 40 * (int(model[-3:]) % 2) + (state == "uncached")
        return 3.0 + 20e-6 * macs.get(model, 0)

    times = times_of(events_of(small_plan, us_of), small_plan.heldout_models)
    profile, left_out = assemble(small_plan, times, About("toy"))
    assert profile.error != "none"
    assert left_out is not None
    assert left_out.mape > profile.error.mape == 0
    assert profile.error.macs_only is not None
    assert profile.error.macs_only.mape == 0
    assert profile.latency.kind == "fitted"
    assert profile.description.endswith(
        f"line through the MACs of networks of space {small_plan.space.name}, timed there."
    )
    (tmp_path / "toy.yaml").write_text(dump(profile))
    predicted_ms = predictor_for(load_profile(tmp_path / "toy.yaml")).predict(
        costs_of(small_plan.space, small_plan.heldout).layers
    )
    assert predicted_ms.tolist() == pytest.approx([us_of(model, "cached") / 1e3 for model in small_plan.heldout_models])
    kept = assemble(
        small_plan, times_of(events_of(small_plan, us_of_toy(small_plan)), small_plan.heldout_models), About("toy")
    )
    assert kept.left_out is None


def test_the_int8_profile_exports_what_there_is(small_plan: BuildPlan) -> None:
    times: Times = times_of(events_of(small_plan, us_of_toy(small_plan)), small_plan.heldout_models)
    profile = assemble(small_plan, times, About("toy", "int8")).profile
    assert (profile.formats, profile.precisions, profile.runtime.dtype) == (("onnx",), ("int8",), "int8")
