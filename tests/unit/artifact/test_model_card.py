"""The card says what the manifest says, in words, and keeps predicted and measured apart."""

import json

import pytest

from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.model_card import render_model_card
from fedsup_deploy.ondevice.source_resize import SourceResize, document_of_resize


@pytest.fixture
def with_two(document):
    """A manifest with another variant, of several files."""
    main = document["models"]["onnx-fp32"]
    files = {"model.plain/layers.json": 10, "model.plain/weights.bin": 20}
    document["models"]["plain-fp16"] = {
        **main,
        "format": "plain",
        "precision": "fp16",
        "files": files,
        "latency": {"predicted": None, "measured": None},
    }
    return document


def card_of(document) -> str:
    return render_model_card(Manifest.from_json(json.dumps(document)))


def test_card_holds_the_figures_of_the_manifest(with_two):
    card = card_of(with_two)

    for line in (
        "# Subnet afd02a30afb7 for raspberry-pi-4",
        "- Files: `model.onnx`, `model.plain/layers.json`, `model.plain/weights.bin`",
        "- Input: `input`, float32, batch x 1 x 8 x 8",
        "- Classes: T-shirt/top, Trouser, Pullover",
        "| accuracy | 90.00%, 95 % interval 86.9 to 92.4 % | digits test, 450 images, fp32 |",
        "| accuracy before recalibration | 50.00%, 95 % interval 45.4 to 54.6 % | the same images |",
        "| MACs | 192 | counted, one image |",
        "Allowed, scaled: 1e-05; alone against inside a batch: 1e-05.",
        "| variant | run by | max difference | scaled | same class | alone against in a batch | scaled |",
        "| onnx-fp32 |  | 4.0e-06 | 1.0e-06 | 100% | 2.0e-06 | 5.0e-07 |",
        "| plain-fp16 |  | 4.0e-06 | 1.0e-06 | 100% | 2.0e-06 | 5.0e-07 |",
        "- Nobody has measured how far predictions for raspberry-pi-4 are off.",
    ):
        assert line in card.splitlines()


def test_card_says_of_a_variant_that_no_runtime_of_its_format_has_run_it(document):
    said = "onnx-fp32 was read back and computed by this program: no runtime of its format has run it."
    record = document["models"]["onnx-fp32"]
    for name, is_said in (("onnxruntime", False), ("fedsup_deploy", True)):
        record["ran_by"] = {"name": name, "version": "0.1.0"}
        assert (said in card_of(document).splitlines()) == is_said


def test_card_says_where_subnets_are_chosen_by_the_images_of_its_figures(document):
    chosen, tested = "Subnets are chosen by these images", "test images of the clients' own"
    assert chosen not in card_of(document)
    document["accuracy"]["split"] = "held-out"
    assert chosen in card_of(document)
    document["accuracy"]["split"] = "tested"
    assert chosen not in card_of(document)
    assert tested in card_of(document)


def test_card_says_of_which_size_image_files_may_be(document):
    native, any_size = (
        "which have the `native_size` below",
        "of any size: they are made square as `source_resize` below",
    )
    assert native in card_of(document)
    assert any_size not in card_of(document)
    document["preprocessing"]["source_resize"] = document_of_resize(SourceResize(8, "crop"))
    assert native not in card_of(document)
    assert any_size in card_of(document)


def test_card_says_what_the_device_has_what_fails_there_and_what_nobody_ran(document):
    assert "## Device" not in card_of({**document, "device": None}), "an older manifest knows of no device"
    nothing = {"python": None, "glibc": None, "arch": None}
    device = {"runtime": "onnxruntime", "system": nothing, "known_bad": [], "build_on_device": None}
    assert "## Device" not in card_of({**document, "device": device})
    bad = {
        "runtime": "onnxruntime",
        "versions": "==1.21.0",
        "symptom": "it <dies>",
        "cure": "take 1.20",
        "source": "a#1",
    }
    device |= {
        "system": {"python": "3.6", "glibc": None, "arch": "aarch64"},
        "known_bad": [bad],
        "build_on_device": "/usr/src/tensorrt/bin/trtexec --onnx=model.onnx",
    }
    card = card_of({**document, "device": device})
    expected = """
- System of raspberry-pi-4: Python 3.6, aarch64.
- **Known bad there: onnxruntime ==1.21.0**: it &#60;dies>. take 1.20.
  Source: a#1. `run.py` runs nothing with it.
- An engine is made there: /usr/src/tensorrt/bin/trtexec --onnx=model.onnx. We have never run that command on a device.
"""
    assert card.partition("## Device\n")[2].partition("\n## ")[0] == expected


def test_card_of_a_refined_subnet_says_what_it_was_and_against_what(document, refinement):
    document |= {"arch_id": "aba987654321-refined-01234567", "refinement": refinement}

    card = card_of(document)

    assert card.startswith("# Refined subnet aba987654321-refined-01234567 for raspberry-pi-4\n")
    text = " ".join(card.partition("## Refinement")[2].partition("##")[0].split())
    for words in (
        "no subnet of the search space: it is subnet aba987654321 with channels taken from 1 layers",
        "multiples of 8, until it was within latency_ms <= 1.5.",
        "MACs went from 23,456 to 192, parameters from 789 to 195, latency, PREDICTED, from 1.75 to 1.5 ms",
        "On the same 200 validation images it classifies 87.50%, 95 % interval 82.2 to 91.4 % correctly",
        "and the pick of the search, afd02a30afb7, 75.00%, 95 % interval 68.6 to 80.5 %;",
    ):
        assert words in text


def test_card_of_an_older_bundle_has_no_interval(document):
    for name in ("recalibrated_interval", "not_recalibrated_interval"):
        del document["accuracy"][name]
    assert "| accuracy | 90.00% | digits test, 450 images, fp32 |" in card_of(document).splitlines()


def test_card_of_a_subnet_knows_no_refinement(manifest):
    assert "efine" not in render_model_card(manifest)


def test_unmeasured_latency_is_called_predicted_and_not_measured(with_two):
    """Of a variant that nobody timed or predicted nothing is said."""
    rows = [line for line in card_of(with_two).splitlines() if line.startswith("| latency")]

    predicted = "roofline model of raspberry-pi-4, costs datasheet and published; no interval is claimed"
    assert rows == [
        f"| latency of onnx-fp32, PREDICTED | 1.5 ms | {predicted} |",
        "| latency of onnx-fp32, MEASURED | not measured | |",
    ]


def test_interval_of_a_profile_with_a_known_error_is_shown(document):
    error = {"acc5": 0.5, "acc10": 0.9, "spearman": 0.9, "mape": 0.06, "num_heldout": 10}
    document["profile"]["error"] = error
    document["models"]["onnx-fp32"]["latency"]["predicted"]["interval_ms"] = [1.25, 1.75]

    card = card_of(document)

    known = "roofline model of raspberry-pi-4, costs datasheet and published; interval 1.25 to 1.75 ms"
    assert f"| latency of onnx-fp32, PREDICTED | 1.5 ms | {known} |" in card.splitlines()
    assert "Nobody has measured" not in card


def test_measured_latency_names_its_machine_and_its_noise(document, latency):
    document["models"]["onnx-fp32"]["latency"]["measured"] = latency

    value = "p10 0.75 ms, p50 1 ms, p90 2 ms"
    expected = f"| latency of onnx-fp32, MEASURED | {value} | Cortex-A72, threads 1; 200 runs, stable |"
    assert expected in card_of(document).splitlines()


def test_code_in_the_card_has_five_lines(manifest):
    """That it runs is tested in a real bundle."""
    code = render_model_card(manifest).partition("```python\n")[2].partition("\n```")[0]
    assert len(code.splitlines()) == 5


@pytest.mark.parametrize(
    ("is_assumed", "expected"),
    [
        (False, "- The limit on latency means p50, by what the profile measured 1.25 times the prediction."),
        (True, "- The limit on latency means p50; that predictions are of it is assumed, nobody measured percentiles."),
    ],
)
def test_the_percentile_that_a_limit_means_is_named(document, is_assumed, expected):
    document["limits"]["latency_ms"]["percentile"]["is_assumed"] = is_assumed
    assert expected in card_of(document).splitlines()


def test_texts_of_others_are_shown_and_not_obeyed(with_two):
    """Names of classes come from the folders of a data set."""
    with_two["classes"] = ["<img onerror=1>", "a\n# b", "[c](javascript:\x1b]0;d)"]
    with_two["accuracy"]["dataset"] = "x | y"

    card = card_of(with_two)

    assert "- Classes: &#60;img onerror=1>, a\\n# b, &#91;c&#93;(javascript:\\x1b&#93;0;d)\n" in card
    assert " | x &#124; y test, 450 images, fp32 |" in card


def test_no_class_is_left_out(with_two):
    with_two["classes"] = [letter * 1000 for letter in "abc"]

    assert "- Classes: " + ", ".join(with_two["classes"]) + "\n" in card_of(with_two)
