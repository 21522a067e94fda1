"""The card says what the manifest says, in words, and keeps predicted and measured apart."""

import json

from fedsup_deploy.artifact.manifest import Manifest, ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.model_card import render_model_card

FORMATS = ("model.onnx", "model.pt2")


def test_card_holds_the_figures_of_the_manifest(draft, manifest):
    card = render_model_card(draft, manifest.parity, FORMATS)

    for line in (
        "# Subnet afd02a30afb7 for raspberry-pi-4",
        "- Files: `model.onnx`, `model.pt2`",
        "- Input: `input`, float32, batch x 1 x 8 x 8",
        "- Classes: T-shirt/top, Trouser, Pullover",
        "| accuracy | 90.00% | digits test, 450 images, fp32 |",
        "| accuracy before recalibration | 50.00% | the same images |",
        "| MACs | 192 | counted, one image |",
        "Allowed, scaled: 1e-05; alone against inside a batch: 1e-05.",
        "| format | max difference | scaled | same class | alone against in a batch | scaled |",
        "| onnx | 4.0e-06 | 1.0e-06 | 100% | 2.0e-06 | 5.0e-07 |",
        "- Nobody has measured how far predictions for raspberry-pi-4 are off.",
    ):
        assert line in card.splitlines()


def test_card_of_a_refined_subnet_says_what_it_was_and_against_what(draft_document, manifest, refinement):
    draft_document |= {"arch_id": "aba987654321-refined-01234567", "refinement": refinement}
    draft = ManifestDraft.model_validate_json(json.dumps(draft_document))

    card = render_model_card(draft, manifest.parity, FORMATS)

    assert card.startswith("# Refined subnet aba987654321-refined-01234567 for raspberry-pi-4\n")
    text = " ".join(card.partition("## Refinement")[2].partition("##")[0].split())
    for words in (
        "no subnet of the search space: it is subnet aba987654321 with channels taken from 1 layers",
        "multiples of 8, until it was within latency_ms <= 1.5.",
        "MACs went from 23,456 to 192, parameters from 789 to 195, latency, PREDICTED, from 1.75 to 1.5 ms",
        "On the same 202 validation images it classifies 87.50% correctly",
        "and the pick of the search, afd02a30afb7, 75.00%",
    ):
        assert words in text


def test_card_of_a_subnet_knows_no_refinement(draft, manifest):
    assert "efine" not in render_model_card(draft, manifest.parity, FORMATS)


def test_unmeasured_latency_is_called_predicted_and_not_measured(draft, manifest):
    card = render_model_card(draft, manifest.parity, FORMATS)

    rows = [line for line in card.splitlines() if line.startswith("| latency")]
    predicted = "roofline model of raspberry-pi-4, costs datasheet and published; no interval is claimed"
    assert rows == [f"| latency, PREDICTED | 1.5 ms | {predicted} |", "| latency, MEASURED | not measured | |"]


def test_interval_of_a_profile_with_a_known_error_is_shown(document):
    error = {"acc5": 0.5, "acc10": 0.9, "spearman": 0.9, "mape": 0.06, "num_heldout": 10}
    document["profile"]["error"] = error
    document["latency_predicted"]["interval_ms"] = [1.25, 1.75]
    document["accuracy"]["int8"] = 0.875
    manifest = Manifest.from_json(json.dumps(document))

    card = render_model_card(manifest, manifest.parity, FORMATS)

    known = "roofline model of raspberry-pi-4, costs datasheet and published; interval 1.25 to 1.75 ms"
    assert f"| latency, PREDICTED | 1.5 ms | {known} |" in card.splitlines()
    assert "| accuracy in int8 | 87.50% | the same images |" in card.splitlines()
    assert "Nobody has measured" not in card


def test_measured_latency_names_its_machine_and_its_noise(draft, manifest, latency):
    measured = draft.model_copy(update={"latency_measured": MeasuredLatency.model_validate(latency)})

    card = render_model_card(measured, manifest.parity, FORMATS)

    expected = "| latency, MEASURED | p10 0.75 ms, p50 1 ms, p90 2 ms | Cortex-A72, threads 1; 200 runs, stable |"
    assert expected in card.splitlines()


def test_code_in_the_card_has_five_lines(draft, manifest):
    """That it runs is tested in a real bundle."""
    card = render_model_card(draft, manifest.parity, FORMATS)

    code = card.partition("```python\n")[2].partition("\n```")[0]
    assert len(code.splitlines()) == 5
