"""What bundles say of themselves."""

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from fedsup_deploy.answers import count_answers
from fedsup_deploy.artifact.engine import MeasuredEngine
from fedsup_deploy.artifact.measured import MeasuredDocument, Stability
from fedsup_deploy.artifact.measures import MeasuresRecord
from fedsup_deploy.report import bundle_facts, bundle_figures, int8
from fedsup_deploy.report.bundle_facts import BundleMaterial

MakeBundle = Callable[..., BundleMaterial]


def with_classes(material: BundleMaterial, number: int) -> BundleMaterial:
    """Return the bundle as one of so many classes: half of the images of each are taken for the next."""
    labels = np.repeat(np.arange(number), 8)
    answered = (labels + np.arange(len(labels)) % 2) % number
    answers = count_answers(10 * np.eye(number, dtype=np.float32)[answered], labels)
    record = MeasuresRecord.of(answers, [f"class {at}" for at in range(number)])
    accuracy = material.manifest.accuracy.model_copy(update={"measures": record})
    return BundleMaterial(material.manifest.model_copy(update={"accuracy": accuracy}), material.measured)


def test_a_variant_tells_size_accuracy_latency_and_gate(bundle_of: MakeBundle) -> None:
    [row] = bundle_facts.variants(bundle_of()).rows
    assert row[:6] == ("onnx-fp32", "model.onnx", "1000 bytes", "90.0 %", "1.5 ms", "no")
    assert row[6] == "passed: largest difference 1.0e-06 of 1e-05 allowed, 16 images, the same class for 100 %"


def test_answers_by_class_are_of_a_precision_that_the_device_need_not_have(bundle_of: MakeBundle) -> None:
    assert bundle_facts.drawn_of(bundle_of().manifest) == (
        "Answers that are drawn or told by class are of fp32, as the device has it."
    )
    other = with_int8(bundle_of)
    assert bundle_facts.of_device(other.manifest).precision == "int8"
    assert bundle_facts.drawn_of(other.manifest) == (
        "Answers that are drawn or told by class are of fp32; "
        "of int8, which the device has, the accuracy above alone is known."
    )


def test_what_is_not_known_is_said(bundle_of: MakeBundle) -> None:
    told = " ".join(bundle_facts.trust(bundle_of(left_out={"onnx-int8": "it is slower"})))
    assert "Nobody has measured how far" in told
    assert "onnx-int8 was asked for and is not here: it is slower." in told
    assert "450 images of digits (test)" in told


def test_a_limit_that_is_exceeded_is_said_twice(bundle_of: MakeBundle) -> None:
    limit = {"limit": 1.0, "cost": 1.5, "is_exceeded": True}
    material = bundle_of(limits={"latency_ms": limit})
    assert bundle_facts.limits(material.manifest).rows == (
        ("latency_ms", "1 ms", "1.5 ms", "150 %", "EXCEEDED", "of fp32"),
    )
    assert "The limit latency_ms is exceeded, as was asked for." in bundle_facts.trust(material)


def with_int8(bundle_of: MakeBundle, *, speed: dict[str, Any] | None = None, **changes: Any) -> BundleMaterial:
    """Return a bundle with a file of 250 bytes in int8, which the device's latency is predicted of."""
    models = {"onnx-fp32": bundle_of().manifest.main.model_dump(mode="json")}
    record = copy.deepcopy(models["onnx-fp32"])
    record |= {"precision": "int8", "files": {"model.int8.onnx": 250}, "accuracy": 0.88}
    record["gate"] = {
        "kind": "int8",
        "scheme": {"activations": "u8", "is_symmetric": True, "per_channel": True, "reduce_range": False},
        "split": "validation",
        "num_images": 200,
        "accuracy_drop": 0.005,
        "accuracy_drop_interval": [-0.01, 0.02],
        "max_accuracy_drop": 0.01,
        "num_float_convolutions": 0,
        "tolerance": 0.01,
        "max_scaled_diff": 0.01,
        "class_agreement": 1.0,
        "speed": speed,
    }
    models["onnx-fp32"]["latency"] |= {"predicted": None}
    return bundle_of(models={**models, "onnx-int8": record}, **changes)


SIZE = {"storage_mib": {"limit": 500 / 2**20, "cost": 250 / 2**20, "is_exceeded": False}}


def test_int8_is_worth_it_or_not_or_that_is_not_known_yet(bundle_of: MakeBundle) -> None:
    assert int8.is_it_worth_it(bundle_of()) is None
    left_out = int8.is_it_worth_it(bundle_of(left_out={"onnx-int8": "it loses 9 points"}))
    assert left_out == "no: onnx-int8 is left out: it loses 9 points"
    told = int8.is_it_worth_it(with_int8(bundle_of))
    assert told == (
        "not known yet: what is known of the device is of int8, and nobody has timed fp32 there. onnx-int8 is 75 % "
        "smaller; accuracy -0.50 points (-2.00 to +1.00) against fp32 on 200 images; a loss of up to 1 is allowed"
    )
    fast = {"times_as_fast": 2.0, "noise": 0.01, "faster_above": 1.02, "verdict": "stable"}
    told = int8.is_it_worth_it(with_int8(bundle_of, speed=fast))
    assert told is not None
    assert told.startswith(
        "not known yet: 2 times as fast as fp32 (stable), not on the device, but on the machine that"
    )
    told = int8.is_it_worth_it(with_int8(bundle_of, limits=SIZE))
    assert told is not None
    assert told.startswith("yes: it alone keeps the limit on size, ")


def test_what_a_device_runs_in_int8_has_the_figures_of_int8(bundle_of: MakeBundle) -> None:
    """Its accuracy, its latency and its sizes are of one precision, and that is said."""
    material = with_int8(bundle_of, limits=SIZE)
    assert bundle_facts.accuracy(material.manifest) == "88.0 % (84.7 to 90.7) of 450 test images, int8"
    assert bundle_facts.limits(material.manifest).rows[0][4:] == ("keeps it", "of int8")
    assert bundle_facts.accuracy(bundle_of().manifest).endswith(", fp32")
    assert bundle_facts.variants(material).rows[0][4] == "not of fp32"


def test_a_limit_closer_than_predictions_are_exact_may_be_exceeded(bundle_of: MakeBundle) -> None:
    error = {"acc5": 0.5, "acc10": 0.5, "spearman": None, "mape": 0.2, "num_heldout": 4, "method": "published"}
    document = bundle_of().manifest.model_dump(mode="json", by_alias=True)
    profile = document["profile"] | {"error": error}
    close = {"latency_ms": {"limit": 1.7, "cost": 1.5, "is_exceeded": False}}
    for limits, told in (
        (close, "predicted to keep it; predictions were off by 20.0 %, so it may exceed it: measure"),
        ({"latency_ms": {**close["latency_ms"], "limit": 3.0}}, "also if it is off by the profile's error of 20.0 %"),
        ({"latency_ms": {**close["latency_ms"], "risk": 0.9}}, "keeps it, also by the bound of the risk"),
    ):
        [row] = bundle_facts.limits(bundle_of(profile=profile, limits=limits).manifest).rows
        assert told in row[4]
    [row] = bundle_facts.limits(bundle_of(limits=close).manifest).rows
    assert row[4] == "predicted to keep it; nobody has measured how far off predictions are: measure"
    [told] = [each for each in bundle_facts.trust(bundle_of(profile=profile)) if each.startswith("Latency on")]
    assert "on 4 networks that they were not made from, predictions were off by" in told


def test_what_is_unstable_says_by_what() -> None:
    found = Stability(
        statistic="p10",
        disagreement=0.0002,
        drift=0.0,
        spread=0.34,
        spread_within=0.1,
        stable_within=0.05,
        verdict="unstable",
    )
    assert bundle_facts.stability(found) == "unstable: single visits lie apart by 34.0 %, where up to 10.0 % is stable"


def latency(machine: str) -> dict[str, Any]:
    """Return what a clock said on a machine, as `measured.json` has it."""
    statistics = {"num_runs": 9, "min_ms": 0.5, "p10_ms": 0.75, "p50_ms": 1.0, "p90_ms": 2.0, "mean_ms": 1.25}
    stability = {"statistic": "p10", "disagreement": 0.01, "stable_within": 0.05, "verdict": "stable"}
    return {
        "protocol": {},
        "statistics": statistics,
        "stability": stability,
        "load_ms": 1.0,
        "first_run_ms": 1.0,
        "peak_rss_mib": None,
        "environment": {"cpu": "a processor", "threads": 1, "machine": machine},
    }


def test_what_was_timed_elsewhere_says_nothing_of_the_device(bundle_of: MakeBundle) -> None:
    """The draft's device is a riscv64."""
    step = {"statistics": latency("")["statistics"], "stability": latency("")["stability"]}
    size = {"width": 640, "height": 480}
    found = {"num_pictures": 2, "num_found": 2, "smallest": size, "largest": size, "pillow": "13", "decode": step}
    for machine, told in (("riscv64", "need not be the device"), ("x86_64", "which is not taken for the device")):
        measured = {"schema": 1, "latency": {**latency(machine), "pictures": {**found, "prepare": step}}}
        document = MeasuredDocument.model_validate_json(json.dumps(measured))
        material = BundleMaterial(bundle_of().manifest, document)
        [line] = [line for line in bundle_facts.trust(material) if "was timed since on " in line]
        assert told in line
        assert "a processor, threads: 1" in line
        timed = bundle_facts.variants(material).rows[0][5]
        drawn = {each["how"] for each in bundle_figures.latencies([material]).spec["data"]["values"]}
        if machine == "riscv64":
            assert timed == "1 ms since, stable, on a processor, threads: 1"
            assert drawn == {"predicted", "timed since on a processor, threads: 1"}
        else:
            assert timed == "no"
            assert drawn == {"predicted"}
        said = bundle_facts.pictures(material)
        assert said == "decode 1 ms, prepare 1 ms in the median, of 2 pictures of 640x480"


def test_what_export_timed_is_of_the_machine_that_exported(bundle_of: MakeBundle) -> None:
    """It is taken for the device only where the profile was measured on a machine, of the same instructions."""
    document = bundle_of().manifest.model_dump(mode="json", by_alias=True)
    models = document["models"]
    models["onnx-fp32"]["latency"]["measured"] = latency("riscv64")
    for provenance, arch, may_be in (
        (["measured"], "riscv64", True),
        (["published"], "riscv64", False),
        (["measured"], "x86_64", False),
        (["measured"], None, False),
    ):
        device = document["device"] | {"system": document["device"]["system"] | {"arch": arch}}
        material = bundle_of(models=models, profile=document["profile"] | {"provenance": provenance}, device=device)
        [line] = [line for line in bundle_facts.trust(material) if " was timed " in line]
        assert ("the machine that exported it (a processor, threads: 1), which is not taken" in line) != may_be
        figure = bundle_figures.latencies([material])
        assert [row["how"] for row in figure.spec["data"]["values"]][1:] == (
            ["timed when it was made on a processor, threads: 1"] if may_be else []
        )
        assert ("1 measurement on other machines" in figure.says) != may_be
        assert (bundle_facts.variants(material).rows[0][5] == "no") != may_be


def test_a_bundle_says_what_to_type_and_which_variant_to_take(bundle_of: MakeBundle) -> None:
    assert bundle_facts.commands(bundle_of()) is None
    material = dataclasses.replace(with_int8(bundle_of), folder="exports/a device/a1")
    found = bundle_facts.commands(material)
    assert found is not None
    told = dict(found.rows)
    assert told["prefer"].startswith("onnx-int8 (model.int8.onnx): ")
    assert told["is it unaltered?"] == "fedsup-deploy verify 'exports/a device/a1'"
    assert told["time it there from here"].endswith("--on ssh://USER@DEVICE")


def test_an_engine_is_told_with_its_limit_and_what_trtexec_warns_of(
    bundle_of: MakeBundle, engine: MeasuredEngine
) -> None:
    limit = {"limit": 1.0, "cost": 0.5, "is_exceeded": False}
    plain = bundle_of(limits={"latency_ms": limit})
    assert bundle_facts.engine(plain) is None
    assert list(bundle_facts.timed_on_device(plain)) == []
    material = dataclasses.replace(plain, measured=MeasuredDocument(schema=1, latency=None, engine=engine))
    found = bundle_facts.engine(material)
    assert found is not None
    told = dict(found.rows)
    assert told["ran on"] == "Orin, TensorRT 8.5.2, fp16"
    assert told["latency, p50"] == "0.8 ms"
    assert told["latency beyond"] == "p90 1.1 ms, p99 1.5 ms, longest 2 ms"
    assert told["limit"] == "1 ms, p50: met"
    assert told["trtexec warns"].startswith("GPU compute time is unstable")
    assert bundle_facts.variants(material).rows[0][5] == "0.8 ms on Orin, TensorRT 8.5.2, fp16"
    assert list(bundle_facts.timed_on_device(material)) == ["0.8 ms on Orin, TensorRT 8.5.2, fp16"]
    assert any("which it calls unstable" in line for line in bundle_facts.trust(material))
    points = bundle_figures.latencies([material]).spec["data"]["values"]
    assert [(each["how"], each["ms"], each["low"], each["high"]) for each in points][1:] == [
        ("TensorRT engine, by trtexec", 0.8, 0.7, 1.1)
    ]


def test_an_unstable_engine_beyond_its_limit_is_undecided(engine: MeasuredEngine) -> None:
    assert engine.verdict(1.0, "p50") == "met"
    assert engine.verdict(1.0, "p90") == "undecided"
    assert engine.model_copy(update={"warnings": ()}).verdict(1.0, "p90") == "not met"


def test_few_classes_have_numbers_in_their_cells_and_many_are_the_worst_alone(bundle_of: MakeBundle) -> None:
    def confusion(number: int) -> Any:
        return bundle_figures.figures(with_classes(bundle_of(), number), "bundle")[-1]

    few, more, many = confusion(5), confusion(30), confusion(90)
    assert [len(figure.spec["layer"]) for figure in (few, more, many)] == [2, 1, 1]
    assert [len(figure.spec["data"]["values"]) for figure in (few, more)] == [10, 60]  # those that are not empty
    assert [len(figure.spec["encoding"]["x"]["scale"]["domain"]) for figure in (few, more)] == [5, 30]
    assert 1 < len(many.spec["encoding"]["x"]["scale"]["domain"]) <= bundle_figures.MOST_CLASSES_DRAWN
    assert "Of 90 classes those with the most mistakes" in many.says
    assert few.table.rows[0] == ("class 0", "class 1", "4")


def test_a_refined_network_is_drawn_as_what_it_was_made_from(bundle_of: MakeBundle) -> None:
    arch = bundle_of().manifest.arch
    names = [each.name for each in bundle_figures.figures(bundle_of(arch={"trimmed_from": arch, "channels": {}}), "b")]
    assert names == ["b-network"]
    assert bundle_figures.figures(bundle_of(arch={"other": 1}), "b") == []
