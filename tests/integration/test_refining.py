"""`export --refine` on a real, if briefly trained, run: what is trimmed, what is written, and what is not."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_runs

from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.inspect import inspect
from fedsup_deploy.commands.refining import DEFAULT_QUANTUM, MOST_OVER, NUM_SOURCES, channel_quantum, sources_near
from fedsup_deploy.commands.search import SearchRequest, search, target_for
from fedsup_deploy.device.latency import FittedLatency, TableLatency
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.runs.run import STATISTICS, open_run
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.cost import OP_KINDS
from fedsup_deploy.space.parts import part_names
from fedsup_deploy.space.search_space import SearchSpace

DEVICE = "raspberry-pi-4"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.trained(small_runs.SUPERNET, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def space(trained: Path) -> SearchSpace:
    return open_run(trained).space


def search_for(run: Path, max_macs: float, profile: str | DeviceProfile = DEVICE, latency_ms: float = 1000.0) -> Path:
    """Search with one evaluation: the pick is whatever it is, so that something better can be near."""
    out = run / f"search-{max_macs:.0f}-{latency_ms:.3f}.json"
    limits = {"macs": max_macs, "latency_ms": latency_ms}
    search(SearchRequest([profile], run, limits, "random", evaluations=1, accuracy="measured", out=out))
    return out


def request_of(search_file: Path, out: Path, **changes: Any) -> ExportRequest:
    request = ExportRequest(None, None, search_file, (), ("onnx",), ("fp32",), out, refine=True)
    return dataclasses.replace(request, **changes)


@pytest.fixture(scope="module")
def refined(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path, dict[str, Any]]]:
    """For several limits the search, the folder of its bundles and what `export` returned."""
    made = []
    for max_macs in (230_000, 330_000, 430_000):
        found, out = search_for(trained, max_macs), tmp_path_factory.mktemp("exports")
        made.append((found, out, export(request_of(found, out)).to_dict()))
    return made


def second_bundles(refined: list[tuple[Path, Path, dict[str, Any]]]) -> list[tuple[Path, dict[str, Any]]]:
    """The search and the refinement of those that have a second bundle; some have."""
    found = [(search_file, document["refinements"][0]) for search_file, _, document in refined]
    with_bundle = [each for each in found if each[1]["bundle"] is not None]
    assert with_bundle
    return with_bundle


# What is trimmed


@pytest.mark.parametrize("max_macs", [230_000, 330_000, 600_000])
def test_what_is_trimmed_is_one_choice_larger_and_a_little_too_much(space: SearchSpace, max_macs: int) -> None:
    """Against every neighbour, one by one; the largest subnet has none."""
    target = target_for(load_profile(DEVICE), {"macs": max_macs, "latency_ms": 1000.0})
    pick = max(
        map(space.decode, space.enumerate_genes()),
        key=lambda each: (num_macs(space, each) <= max_macs, num_macs(space, each)),
    )
    expected = []
    for gene, count in enumerate(space.num_choices):
        genes = space.encode(pick)
        genes[gene] += 1
        if genes[gene] < count:
            expected.append(space.decode(genes))
    expected = [each for each in expected if 0 < num_macs(space, each) / max_macs - 1 <= MOST_OVER]
    expected.sort(key=lambda each: num_macs(space, each))
    found = sources_near(space, pick, target)
    assert found == expected[:NUM_SOURCES] != []
    assert sources_near(space, space.largest, target) == []


def num_macs(space: SearchSpace, architecture: Architecture) -> int:
    return cost.costs_of(space, [architecture]).row(0)["num_macs"]


def test_choices_of_inactive_blocks_lead_nowhere() -> None:
    """Of a smallest subnet of one block, four genes are not of an active block."""
    stage = {"name": "a", "widths": [8, 16], "depths": [1, 2], "kernel_sizes": [3, 5]}
    document = {"schema": 1, "name": "two", "family": "mobilenet", "resolutions": [8], "choices": "per-block"}
    space = SearchSpace.model_validate({**document, "stem": {"widths": [8]}, "stages": [stage]})
    smallest = num_macs(space, space.smallest)
    target = target_for(load_profile(DEVICE), {"macs": smallest, "latency_ms": 1000.0})
    found = sources_near(space, space.smallest, target)
    assert space.smallest not in found
    assert all(smallest < num_macs(space, each) <= smallest * (1 + MOST_OVER) for each in found)


def test_the_quantum_is_the_block_of_channels_that_was_measured() -> None:
    assert channel_quantum(load_profile(DEVICE)) == DEFAULT_QUANTUM
    assert channel_quantum(fitted_profile(16)) == 16
    assert channel_quantum(fitted_profile(1)) == DEFAULT_QUANTUM


def fitted_profile(channel_block: int) -> DeviceProfile:
    """A device on which every operation takes 1 ms per 10^6 multiply-accumulates and 1 us per 1,000 elements."""
    linear = {"us_per_mmac": 1000.0, "us_per_kelement": 1.0, "us_per_layer": 0.0}
    document = {"kind": "fitted", "dtype": "float32", "bytes_per_element": 4, "network_overhead_us": 0.0}
    latency = FittedLatency.model_validate(
        {**document, "ops": dict.fromkeys(OP_KINDS, linear), "channel_block": channel_block, "num_networks": 10}
    )
    return load_profile(DEVICE).model_copy(update={"name": "fitted", "latency": latency})


@pytest.mark.parametrize(
    ("profile", "latency_ms"), [(load_profile(DEVICE), 0.87), (fitted_profile(4), 0.45), (fitted_profile(1), 0.45)]
)
def test_a_limit_on_latency_is_met_whatever_the_model_is(
    trained: Path, tmp_path: Path, profile: DeviceProfile, latency_ms: float
) -> None:
    found = search_for(trained, 1e9, profile, latency_ms)
    [refinement] = export(request_of(found, tmp_path, profiles=[profile])).to_dict()["refinements"]
    assert refinement["networks"], "there is something to look at"
    for network in refinement["networks"]:
        assert network["latency_ms_predicted"] <= latency_ms


def test_what_cannot_be_trimmed_is_told_why_once_and_nobody_is_asked_about_it(
    trained: Path, space: SearchSpace, tmp_path: Path
) -> None:
    """A limit that the smallest subnet just keeps, and channels of which 64 go together, or none."""
    profile = fitted_profile(64)
    [least_ms] = predictor_for(profile).predict(cost.costs_of(space, [space.smallest]).layers)
    latency_ms = float(1.0001 * least_ms)
    events: list[dict[str, Any]] = []
    request = request_of(search_for(trained, 1e9, profile, latency_ms), tmp_path, profiles=[profile])
    [refinement] = export(request, (events.append,)).to_dict()["refinements"]
    assert (refinement["pick"], refinement["networks"], refinement["bundle"]) == (space.smallest.arch_id, [], None)
    assert len(refinement["not_trimmed"]) == refinement["num_tried"] > 0
    assert not [note for event in events if event["event"] == "refinement" for note in event.get("notes", ())]
    for each in refinement["not_trimmed"]:
        assert each["reason"].startswith("as narrow as may be, latency_ms is 0.")
        assert each["reason"].endswith(f", the limit {latency_ms:g}")
        assert not list((trained / STATISTICS).glob(f"{each['arch_id']}*")), "no client was asked about it"
    assert not [event for event in events if event["event"] == "refinement" and "done" in event]


def test_what_ends_short_of_the_limits_is_told_so(refined) -> None:
    for _, _, document in refined:
        [refinement] = document["refinements"]
        named = [each["arch_id"] for each in refinement["not_trimmed"]]
        assert len(named) + len(refinement["networks"]) == refinement["num_tried"]
        assert not set(named) & {network["trimmed_from"] for network in refinement["networks"]}


# What is written


def test_a_second_bundle_is_made_where_it_is_more_accurate_and_only_there(refined, trained: Path) -> None:
    for search_file, out, document in refined:
        [pick], [refinement] = document["bundles"], document["refinements"]
        found = json.loads(search_file.read_text(encoding="utf-8"))["results"][0]
        assert pick["arch_id"] == refinement["pick"] == found["pick"]
        expected = evaluate(trained, _file(trained, found), split="validation").accuracy
        assert refinement["accuracy_of_pick"] == expected
        best = max((network["accuracy"] for network in refinement["networks"]), default=0.0)
        assert (refinement["bundle"] is not None) == (best > refinement["accuracy_of_pick"])
        folders = {path.name for path in (out / DEVICE).iterdir()}
        second = set() if refinement["bundle"] is None else {refinement["networks"][0]["arch_id"]}
        assert folders == {pick["arch_id"]} | second


def _file(run: Path, found: dict[str, Any]) -> str:
    [candidate] = found["candidates"]
    path = run / f"{candidate['arch_id']}.json"
    path.write_text(json.dumps(candidate["architecture"]), encoding="utf-8")
    return str(path)


def test_the_second_bundle_is_within_the_limits_and_says_where_it_is_from(refined, space: SearchSpace) -> None:
    for search_file, refinement in second_bundles(refined):
        limits = json.loads(search_file.read_text(encoding="utf-8"))["results"][0]["limits"]
        manifest = load_manifest(Path(refinement["bundle"]["folder"]))
        how = manifest.refinement
        assert how is not None
        assert manifest.arch_id.startswith(f"{how.source_arch_id}-refined-")
        assert how.limits == limits
        assert manifest.costs.num_macs <= limits["macs"] < how.source_costs.num_macs
        source = Architecture.from_dict(manifest.arch["trimmed_from"])
        assert source.arch_id == how.source_arch_id == refinement["networks"][0]["trimmed_from"]
        assert how.source_costs.num_macs == num_macs(space, source)
        assert (how.accuracy, how.pick_accuracy) == (
            refinement["networks"][0]["accuracy"],
            refinement["accuracy_of_pick"],
        )
        assert manifest.accuracy.split == "test"
        assert manifest.main.gate.max_scaled_diff <= 1e-5


def test_the_model_file_has_the_channels_that_the_manifest_says(refined) -> None:
    """Read off the weights in the ONNX file: outputs of each convolution, and the sum of all numbers."""
    for _, refinement in second_bundles(refined):
        folder = Path(refinement["bundle"]["folder"])
        manifest = load_manifest(folder)
        assert manifest.refinement is not None
        weights = [list(tensor.dims) for tensor in onnx.load(folder / "model.onnx").graph.initializer]
        written = sorted(dims[0] for dims in weights if len(dims) == 4)
        channels = manifest.arch["channels"]
        assert written == sorted(count for name, count in channels.items() if name != "head")
        params = sum(int(np.prod(dims)) for dims in weights if len(dims) in {1, 2, 4} and dims != [1])
        assert abs(params - manifest.costs.num_params) <= 4, "constants of a mean aside"
        for name, layer in manifest.refinement.layers.items():
            assert channels[name] % manifest.refinement.channel_quantum == 0
            assert channels[name] == layer.num_channels - len(numbers(layer.removed))


def numbers(ranges: str) -> list[int]:
    pairs = [text.split("-") for text in ranges.split(", ")]
    return [number for pair in pairs for number in range(int(pair[0]), int(pair[-1]) + 1)]


def test_inspect_tells_how_a_bundle_was_refined(refined) -> None:
    """And of the pick's bundle that it was not."""
    [(_, refinement), *_] = second_bundles(refined)
    told = inspect(Path(refinement["bundle"]["folder"])).to_dict()
    assert (
        told["refinement"]
        == json.loads((Path(refinement["bundle"]["folder"]) / "manifest.json").read_text(encoding="utf-8"))[
            "refinement"
        ]
    )
    assert told["refinement"]["source_arch_id"] == refinement["networks"][0]["trimmed_from"]
    for _, _, document in refined:
        assert inspect(Path(document["bundles"][0]["folder"])).to_dict()["refinement"] is None


def test_nothing_of_the_pick_changes(refined, tmp_path: Path) -> None:
    search_file, out, document = refined[0]
    plain = export(request_of(search_file, tmp_path, refine=False)).to_dict()
    assert plain.keys() == {"bundles", "index"}
    [pick] = document["bundles"]
    before = load_manifest(tmp_path / DEVICE / pick["arch_id"])
    after = load_manifest(out / DEVICE / pick["arch_id"])
    assert before.refinement is after.refinement is None
    for name in (*before.model_files, "vectors.npz"):
        assert (tmp_path / DEVICE / pick["arch_id"] / name).read_bytes() == (
            out / DEVICE / pick["arch_id"] / name
        ).read_bytes()
    assert before.model_dump(exclude={"models"}) == after.model_dump(exclude={"models"})
    assert [record.gate for record in before.models.values()] == [record.gate for record in after.models.values()]
    assert [path.name for path in (tmp_path / DEVICE).iterdir()] == [pick["arch_id"]]


def test_the_same_search_is_refined_the_same_way_again(refined, tmp_path: Path) -> None:
    search_file, _, first = refined[0]
    again = export(request_of(search_file, tmp_path)).to_dict()

    def told(document: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in document["refinements"][0].items() if key != "bundle"}

    assert told(again) == told(first)


# What is refused


def test_there_is_nothing_to_meet_without_a_search(trained: Path, tmp_path: Path) -> None:
    request = ExportRequest(trained, "smallest", None, (DEVICE,), ("onnx",), ("fp32",), tmp_path / "out", refine=True)
    with pytest.raises(ConfigError, match=r"--refine: got a run and an architecture, expected a search"):
        export(request)
    assert not (tmp_path / "out").exists()


def test_a_table_of_parts_knows_no_trimmed_network(trained: Path, space: SearchSpace, tmp_path: Path) -> None:
    genes = space.enumerate_genes()
    names = {name for part in part_names(space.plan_many(genes), len(genes)) for name in part.names}
    calibration = {"scale": 1.0, "cached_overhead_us": 0.0, "uncached_overhead_us": 0.0, "network_overhead_us": 0.0}
    latency = TableLatency.model_validate(
        {
            "kind": "table",
            "dtype": "float32",
            "bytes_per_element": 4,
            "space": space.name,
            "parts": {name: {"cached_us": 10.0, "uncached_us": 20.0} for name in names},
            "calibration": {**calibration, "fits_mib": 1.0, "misses_mib": 2.0, "num_networks": 12},
        }
    )
    profile = load_profile(DEVICE).model_copy(update={"name": "timed", "latency": latency})
    run = Path(shutil.copytree(trained, tmp_path / "brief"))
    found = search_for(run, 230_000, profile)
    with pytest.raises(ConfigError, match=r"--refine: profile timed has a table latency model"):
        export(request_of(found, tmp_path / "out", profiles=[profile]))
    assert not (tmp_path / "out").exists()
