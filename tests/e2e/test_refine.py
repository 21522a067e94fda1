"""`export --refine` as a user types it: what is trimmed is compared, and kept only if it is better."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest


@pytest.fixture(scope="module")
def refined(own_workshop) -> list[tuple[str, Any]]:
    """For limit after limit the search's file and the document of its export, until one has a second bundle.

    A search may try one subnet only, so that a better one can be near.
    """
    made: list[tuple[str, Any]] = []
    for max_macs in ("280000", "230000", "330000", "430000", "500000"):
        found = f"search-{max_macs}.json"
        words = ["--method", "random", "--evaluations", "1", "--max-macs", max_macs, "--out", found]
        own_workshop.json("search", "--profile", "raspberry-pi-4", *words)
        made.append((found, own_workshop.json("export", "--search", found, "--refine", "--out", f"out-{max_macs}")))
        if made[-1][1]["refinements"][0]["bundle"] is not None:
            return made
    pytest.fail("no refined network was better than its pick")


def manifest_of(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_pick_always_has_its_bundle_and_a_better_network_has_one_beside_it(own_workshop, refined) -> None:
    for _, document in refined:
        [pick], [refinement] = document["bundles"], document["refinements"]
        folder = own_workshop.folder / pick["folder"]
        assert manifest_of(folder)["refinement"] is None
        assert refinement["pick"] == pick["arch_id"]
        best = max((network["accuracy"] for network in refinement["networks"]), default=0)
        is_better = best > refinement["accuracy_of_pick"]
        assert len(list(folder.parent.iterdir())) == 1 + is_better
        assert (refinement["bundle"] is not None) == is_better


@pytest.mark.slow
def test_a_refined_bundle_is_checked_like_any_other(own_workshop, refined) -> None:
    """By `verify`, and in ONNX Runtime with nothing of ours: the vectors are those of the trimmed network."""
    made = refined[-1][1]["refinements"][0]["bundle"]
    folder = own_workshop.folder / made["folder"]
    assert own_workshop.json("verify", made["folder"])["arch_id"] == made["arch_id"]
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    with np.load(folder / "vectors.npz") as vectors:
        logits = session.run(None, {"input": vectors["inputs"]})[0]
        np.testing.assert_allclose(logits, vectors["outputs"], rtol=1e-5, atol=1e-5)
    manifest = manifest_of(folder)
    assert manifest["costs"]["num_macs"] <= manifest["refinement"]["limits"]["macs"]
    assert manifest["arch_id"] == folder.name
    assert folder.name.startswith(f"{manifest['refinement']['source_arch_id']}-refined-")


@pytest.mark.slow
def test_a_person_is_told_what_came_of_it(own_workshop, refined) -> None:
    found, document = refined[-1]
    ended = own_workshop.run("export", "--search", found, "--refine", "--out", "again")
    assert ended.exit_code == 0, ended.err
    [refinement] = document["refinements"]
    said, arch_id = ended.out.partition("Refined:")[2].strip(), refinement["bundle"]["arch_id"]
    assert said.startswith(f"raspberry-pi-4: a second bundle, {arch_id}: accuracy")
    assert f"again/raspberry-pi-4/{arch_id}" in said.splitlines()[1]
    assert f"the pick's is {refinement['accuracy_of_pick']:.1%}".replace("%", " %") in said
    assert "refinement" in ended.err, "progress is shown"


def test_refining_needs_the_limits_of_a_search(own_workshop) -> None:
    words = ["runs/digits", "--arch", "smallest", "--profile", "raspberry-pi-4", "--refine", "--out", "never"]
    ended = own_workshop.run("export", *words)
    assert ended.exit_code == 2
    assert len(ended.errors) == 1
    assert "--refine goes with --search" in ended.errors[0]
    assert not (own_workshop.folder / "never").exists()
