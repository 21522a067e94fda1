"""What the index of a folder of bundles says after `deploy` and `export`, and who goes by it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import small_runs

from fedsup_deploy.artifact.index import Index
from fedsup_deploy.artifact.index_table import choice_words
from fedsup_deploy.artifact.indexing import bundles_in, load_index
from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.bundling import BundleMaker, BundleOrder, Wanted
from fedsup_deploy.commands.deploy import Deployed, deploy
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.exported_bundle import ExportedBundle
from fedsup_deploy.commands.inspect import ExportsFacts, inspect
from fedsup_deploy.commands.report import report
from fedsup_deploy.commands.search import SearchRequest
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.searchers.result import load_result

FLEET = ("raspberry-pi-4", "jetson-nano")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.trained(small_runs.SUPERNET, tmp_path_factory.mktemp("runs"))


def deployed(run: Path, out: Path, *profiles: str, **changes: Any) -> Deployed:
    request = SearchRequest(profiles, run, method="random", evaluations=3, **changes)
    return deploy(request, out, ("onnx",), ("fp32",))


@pytest.fixture(scope="module")
def fleet(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return deployed(run, tmp_path_factory.mktemp("fleet") / "exports", *FLEET)


@pytest.fixture
def exports(fleet: Deployed, tmp_path: Path) -> Path:
    """A copy of the folder, for one test alone."""
    return Path(shutil.copytree(fleet.index.parent, tmp_path / "exports"))


def classes(folder: Path) -> dict[str, str]:
    index = load_index(folder)
    return {} if index is None else {bundle.profile: bundle.arch_id for bundle in index.bundles}


def test_the_index_says_of_each_class_what_its_manifest_and_its_search_say(fleet):
    index = load_index(fleet.index.parent)
    found = load_result(fleet.search)
    assert [bundle.profile for bundle in index.bundles] == sorted(FLEET)
    for bundle in index.bundles:
        manifest = load_manifest(fleet.index.parent / bundle.folder)
        result = found.for_profile(bundle.profile)
        assert (bundle.arch_id, bundle.accuracy) == (manifest.arch_id, manifest.accuracy.recalibrated)
        assert bundle.choice.pick == bundle.arch_id == result.pick
        assert (bundle.choice.certified, bundle.choice.num_evaluated) == (False, 3) == (result.certified, 3)
        for name, limit in bundle.limits.items():
            assert limit.limit == result.limits[name]
            assert limit.left == 1 - manifest.limits[name].cost / result.limits[name] >= 0
        [(name, variant)] = bundle.variants.items()
        measured = manifest.main.latency.measured
        assert (name, variant.num_bytes) == ("onnx-fp32", manifest.main.num_bytes)
        assert variant.latency_ms_measured_here == measured.statistics.p50_ms
    assert index.refused == ()
    assert str(fleet.index.parent) not in fleet.index.read_text(encoding="utf-8"), "it names no machine"


def test_the_table_says_why_and_links_to_each_bundle(fleet):
    table = fleet.index.with_name("index.md").read_text(encoding="utf-8")
    for bundle in load_index(fleet.index.parent).bundles:
        assert f"| {bundle.profile} | [{bundle.arch_id}]({bundle.folder}) |" in table
        assert (fleet.index.parent / bundle.folder).is_dir()
    assert "best in accuracy of 3 evaluated, 3 of them measured, of " in table
    assert "latency_ms " in table
    assert " % left)" in table
    assert table.endswith("## Refused\n\nNo bundle was refused.\n")


def test_a_later_deployment_replaces_its_own_classes_alone(run, exports):
    before = classes(exports)
    later = deployed(run, exports, "jetson-nano", seed=1, limits={"macs": 200_000})
    [made] = later.bundles
    assert made.arch_id != before["jetson-nano"], "or this tells nothing"
    assert classes(exports) == {**before, "jetson-nano": made.arch_id}
    assert (exports / "jetson-nano" / before["jetson-nano"]).is_dir(), "it lies there, and is nobody's any more"
    assert f"jetson-nano/{before['jetson-nano']}" not in (exports / "index.md").read_text(encoding="utf-8")


def test_what_has_gone_or_was_altered_is_not_listed(exports):
    first, second = bundles_in(exports)
    (first / "SHA256SUMS").write_text("0" * 64 + "  model.onnx\n", encoding="utf-8")
    assert bundles_in(exports) == [second]
    shutil.rmtree(second)
    for reads in (inspect, load_index):
        with pytest.raises(ArtifactError, match="none of its bundles is there as it was made; export again"):
            reads(exports)


def test_a_measurement_and_a_signature_change_nothing(exports):
    before = classes(exports)
    for bundle in bundles_in(exports):
        (bundle / "model.sig").write_text("{}", encoding="utf-8")
        (bundle / "measured.json").write_text("{}", encoding="utf-8")
    assert classes(exports) == before


def test_who_is_refused_stands_there_with_the_reason_and_the_others_have_theirs(run, exports, monkeypatch):
    """And the bundle that the class had before is not listed for it any more."""
    right = BundleMaker.make

    def make(self: BundleMaker, order: BundleOrder, wanted: Wanted) -> ExportedBundle:
        if order.profile.name == "jetson-nano":
            raise GateError("logits | differ")
        return right(self, order, wanted)

    monkeypatch.setattr(BundleMaker, "make", make)
    with pytest.raises(GateError, match="logits"):
        deployed(run, exports, *FLEET)
    index = load_index(exports)
    assert [bundle.profile for bundle in index.bundles] == ["raspberry-pi-4"]
    assert [(each.profile, each.reason) for each in index.refused] == [("jetson-nano", "logits | differ")]
    assert "- jetson-nano, a" in (exports / "index.md").read_text(encoding="utf-8")
    assert "logits &#124; differ" in (exports / "index.md").read_text(encoding="utf-8")
    assert inspect(exports).about.refused == index.refused

    monkeypatch.setattr(BundleMaker, "make", right)
    deployed(run, exports, "jetson-nano")
    assert load_index(exports).refused == ()
    assert [*classes(exports)] == sorted(FLEET)


def test_nothing_made_leaves_no_index(run, tmp_path, monkeypatch):
    def make(self: BundleMaker, order: BundleOrder, wanted: Wanted) -> ExportedBundle:
        raise GateError("all wrong")

    monkeypatch.setattr(BundleMaker, "make", make)
    with pytest.raises(GateError, match="all wrong"):
        deployed(run, tmp_path / "exports", *FLEET)
    assert not (tmp_path / "exports").exists()


def test_a_deployment_that_is_cut_lists_what_was_made_until_then(run, exports, monkeypatch):
    """Of the classes that it is about: never a bundle of before, which it may have replaced."""
    right = BundleMaker.make

    def make(self: BundleMaker, order: BundleOrder, wanted: Wanted) -> ExportedBundle:
        if order.profile.name == "jetson-nano":
            raise KeyboardInterrupt
        return right(self, order, wanted)

    monkeypatch.setattr(BundleMaker, "make", make)
    with pytest.raises(KeyboardInterrupt):
        deployed(run, exports, *FLEET)
    assert [*classes(exports)] == ["raspberry-pi-4"]


def test_an_export_of_a_named_network_is_listed_without_a_search(run, exports):
    [made] = export(ExportRequest(run, "smallest", None, ("x86-laptop",), ("onnx",), ("fp32",), exports)).bundles
    [bundle] = [bundle for bundle in load_index(exports).bundles if bundle.profile == "x86-laptop"]
    assert (bundle.choice, bundle.search, bundle.arch_id) == (None, None, made.arch_id)
    assert "named by whoever exported it" in (exports / "index.md").read_text(encoding="utf-8")


def test_few_networks_for_many_classes_are_said_to_be_shared(run, tmp_path):
    deployed(run, tmp_path / "exports", *FLEET, max_artifacts=1)
    index = load_index(tmp_path / "exports")
    assert len({bundle.arch_id for bundle in index.bundles}) == 1
    table = (tmp_path / "exports" / "index.md").read_text(encoding="utf-8")
    own = [bundle for bundle in index.bundles if bundle.choice.pick != bundle.arch_id]
    assert table.count("shared with other classes; its own pick is") == len(own)


def test_inspect_and_report_go_by_the_index(run, exports, tmp_path, capsys):
    later = deployed(run, exports, "jetson-nano", seed=1, limits={"macs": 200_000})
    index = load_index(exports)
    for path in (exports, later.index):
        found = inspect(path)
        assert (found.kind, found.about) == ("bundles", ExportsFacts(index.bundles, index.refused))
    assert main(["inspect", str(exports)]) == 0
    said = capsys.readouterr().out
    for bundle in index.bundles:
        assert f"{bundle.profile}: limits: latency_ms" in said
        assert f"{bundle.profile}: {choice_words(bundle)}" in said
    made = report([exports], tmp_path / "report.html")
    assert list(made.bundles) == [exports / bundle.folder for bundle in index.bundles]
    (exports / "index.json").unlink()
    assert len(report([exports], tmp_path / "report.html").bundles) == 3, "without one it is all that lie there"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 2}, "which a later version of fedsup-deploy wrote"),
        ({"extra": 1}, "extra: unknown key"),
        ({"bundles": []}, "bundles"),
    ],
)
def test_a_damaged_index_is_refused_and_the_next_deployment_replaces_it(change, reason, run, exports):
    document = json.loads((exports / "index.json").read_text(encoding="utf-8"))
    (exports / "index.json").write_text(json.dumps({**document, **change}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=reason):
        inspect(exports)
    deployed(run, exports, "jetson-nano")
    assert [*classes(exports)] == ["jetson-nano"]


@pytest.mark.parametrize("folder", ["/etc", "../elsewhere", "a/../../b"])
def test_no_index_leads_out_of_its_folder(folder, exports):
    document = json.loads((exports / "index.json").read_text(encoding="utf-8"))
    document["bundles"][0]["folder"] = folder
    with pytest.raises(ValueError, match="folder"):
        Index.model_validate_json(json.dumps(document))
