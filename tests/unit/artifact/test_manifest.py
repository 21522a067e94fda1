"""The manifest is strict, says what is wrong with a damaged one, and survives being written and read."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact.manifest import Manifest, ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.model_card import render_model_card
from fedsup_deploy.errors import ArtifactError


def changed(document: dict[str, Any], path: str, value: Any) -> str:
    """Return the JSON text of a document in which one value was replaced or added."""
    *parents, last = path.split(".")
    node = document
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[int(last) if isinstance(node, list) else last] = value
    return json.dumps(document)


def test_reading_what_was_written_gives_the_same_value(manifest):
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_text_holds_the_document_in_the_order_of_the_schema(manifest, document):
    written = json.loads(manifest.to_json())

    assert written == document
    assert list(written) == list(document)
    assert manifest.to_json().endswith("}\n")


MAIN = "models.onnx-fp32"
LAST = "batch_invariance_max_scaled_diff"
PREDICTED, MEASURED = f"{MAIN}.latency.predicted", f"{MAIN}.latency.measured"
ERROR = {"acc5": 0.5, "acc10": 0.9, "spearman": 0.9, "mape": 0.06, "num_heldout": 10}


def test_interval_needs_a_profile_whose_error_is_known_and_its_lower_end_first(document):
    document["profile"]["error"] = ERROR
    text = changed(document, PREDICTED + ".interval_ms", [1.0, 2.0])
    predicted = Manifest.from_json(text).main.latency.predicted
    assert predicted is not None
    assert predicted.interval_ms == (1.0, 2.0)

    text = changed(document, PREDICTED + ".interval_ms", [2.0, 1.0])
    with pytest.raises(ArtifactError, match=r"predicted.interval_ms: .*expected the lower end first"):
        Manifest.from_json(text)


def test_manifest_cannot_be_changed(manifest):
    with pytest.raises(ValidationError, match="frozen"):
        manifest.arch_id = "other"


def test_measured_latency_is_taken_as_the_measurement_returns_it(document, latency):
    found = Manifest.from_json(changed(document, MEASURED, latency)).main.latency

    assert found.measured == MeasuredLatency.model_validate(latency)
    assert found.predicted is not None
    assert found.predicted.value_ms == 1.5


def test_measurement_of_an_older_version_is_read(document, latency):
    """It had no bound, drift, flags, ruler or energy."""
    del latency["statistics"]["p90_bound_ms"], latency["stability"]["drift"]
    for name in ("is_min_runs_met", "is_min_duration_met", "ruler", "energy"):
        del latency[name]

    measured = Manifest.from_json(changed(document, MEASURED, latency)).main.latency.measured

    assert measured is not None
    assert (measured.statistics.p90_bound_ms, measured.stability.drift, measured.energy) == (None, None, None)
    assert (measured.is_min_runs_met, measured.is_min_duration_met, measured.ruler) == (None, None, None)


def test_bundle_of_an_older_version_knows_nothing_of_its_device(document):
    del document["device"]
    assert Manifest.from_json(json.dumps(document)).device is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"system": {"python": 3}}, "device.system.python: got 3"),
        ({"build_on_device": ""}, "device.build_on_device: got "),
        ({"known_bad": [{"runtime": "onnxruntime"}]}, "device.known_bad.0.versions: missing key"),
        (
            {"known_bad": [{"runtime": "a", "versions": "1.2", "symptom": "b", "cure": "c", "source": "d"}]},
            "device.known_bad.0.versions: got '1.2': expected comparisons with a version",
        ),
    ],
)
def test_what_is_said_of_a_device_is_checked(document, change, expected):
    document["device"] |= change
    with pytest.raises(ArtifactError, match=expected):
        Manifest.from_json(json.dumps(document))


def test_a_place_on_the_device_is_none_of_the_machine_that_exports(document):
    document["device"]["build_on_device"] = "/usr/src/tensorrt/bin/trtexec --onnx=model.onnx"
    manifest = Manifest.from_json(json.dumps(document))
    assert manifest.device is not None
    assert manifest.device.build_on_device == document["device"]["build_on_device"]


def test_bundle_of_an_older_version_is_no_refined_one(document):
    del document["refinement"]

    assert Manifest.from_json(json.dumps(document)).refinement is None


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("pick_accuracy", 0.875, "refinement.pick_accuracy: got 0.875: expected less than accuracy"),
        ("layers", {}, "refinement.layers: got {}: dictionary should have at least 1 item"),
        ("layers.stem.removed", "3,4", "refinement.layers.stem.removed: got '3,4': string should match pattern"),
        ("layers.stem.removed", "", "refinement.layers.stem.removed: got '': string should match pattern"),
        ("channel_quantum", 0, "refinement.channel_quantum: got 0: input should be greater than or equal to 1"),
        ("pick_arch_id", "", "refinement.pick_arch_id: got '': string should have at least 1 character"),
    ],
)
def test_wrong_refinement_is_refused(document, refinement, path, value, what):
    text = changed({**document, "refinement": refinement}, f"refinement.{path}", value)

    with pytest.raises(ArtifactError) as caught:
        Manifest.from_json(text)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("costs.num_macs", "12345", "costs.num_macs: got '12345': input should be a valid integer"),
        ("costs.num_macs", 1.5, "costs.num_macs: got 1.5: input should be a valid integer"),
        ("costs.num_macs", -1, "costs.num_macs: got -1: input should be greater than or equal to 0"),
        ("costs.num_macs", True, "costs.num_macs: got true: input should be a valid integer"),
        ("costs.flops", 1, "costs.flops: unknown key"),
        ("accuracy.recalibrated", 90.0, "accuracy.recalibrated: got 90.0: input should be less than or equal to 1"),
        (f"{MAIN}.precision", "int4", f"{MAIN}.precision: got 'int4': input should be 'fp32', 'fp16' or 'int8'"),
        (f"{MAIN}.precision", "int8", f"{MAIN}.gate: got the gate parity, expected that of int8"),
        (f"{MAIN}.precision", "fp16", f"{MAIN}: got the variant onnx-fp16, expected it by its name"),
        ("profile.provenance", ["guessed"], "profile.provenance.0: got 'guessed': input should be"),
        ("lineage.run", "abc", "lineage.run: got 'abc': string should match pattern"),
        ("lineage.profile", "7" * 64, "lineage.profile: differs from profile.hash"),
        ("outputs.0.shape", ["batch", 4], "outputs: got 4 logits, expected one for each of 3 classes"),
        (f"{PREDICTED}.interval_ms", [1.0, 2.0], f"{PREDICTED}.interval_ms: expected null"),
        (f"{MAIN}.gate", {}, f"{MAIN}.gate: got {{}}: unable to extract tag using discriminator 'kind'"),
        (f"{MAIN}.gate", {"kind": "parity"}, f"{MAIN}.gate.tolerance: missing key (and 8 more)"),
        (f"{MAIN}.gate", {"kind": "none"}, f"{MAIN}.gate: got {{"),
        (f"{MAIN}.gate.max_scaled_diff", -1e-6, f"{MAIN}.gate.max_scaled_diff: got -1e-06: input should"),
        (
            f"{MAIN}.gate.tolerance",
            1e9,
            f"{MAIN}.gate: got a tolerance of",
        ),
        (f"{MAIN}.gate.batch_tolerance", 2e-5, f"{MAIN}.gate: got a batch_tol"),
        (f"{MAIN}.gate.batches", [1, 3], f"{MAIN}.gate: got the batches [1, 3]"),
        (f"{MAIN}.gate.argmax_agreement", 0.99, f"{MAIN}.gate.{LAST}: got 5e-07: this would not have"),
        (f"{MAIN}.gate.max_scaled_diff", 2e-5, f"{MAIN}.gate.{LAST}: got 5e-07: this would not have"),
        (f"{MAIN}.gate.{LAST}", 2e-5, f"{MAIN}.gate.{LAST}: got 2e-05: this would not have passed"),
        (f"{MAIN}.files", {}, f"{MAIN}.files: got {{}}: dictionary should have at least 1 item"),
        (f"{MAIN}.files", {"model.onnx": 0}, f"{MAIN}.files.model.onnx: got 0: input should be greater than or equal"),
        (f"{MAIN}.files", {"other.onnx": 9}, f"{MAIN}: expected the file model.onnx, which every bundle has"),
        ("models", {}, f"{MAIN}: expected the file model.onnx, which every bundle has"),
    ],
)
def test_wrong_value_is_named_with_its_key(document, path, value, what):
    text = changed(document, path, value)

    with pytest.raises(ArtifactError, match=f"^there/manifest.json: {re.escape(what)}"):
        Manifest.from_json(text, "there/manifest.json")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "recalibrated_interval",
            [0.8, 0.95],
            "recalibrated_interval: got .*, expected .0.868807, 0.924422.",
        ),
        ("recalibrated", 0.91, "got 0.91, which is no share of 450 images"),
        ("not_recalibrated", None, "not_recalibrated_interval: got .*, expected None"),
    ],
)
def test_an_interval_is_that_of_the_share_it_stands_beside(document, key, value, expected):
    document["accuracy"][key] = value
    with pytest.raises(ArtifactError, match=expected):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("key", ["arch", "models", "accuracy", "lineage", "versions"])
def test_missing_key_is_named(document, key):
    del document[key]

    with pytest.raises(ArtifactError, match=rf"^manifest.json: {key}: missing key; copy or export the bundle again$"):
        Manifest.from_json(json.dumps(document))


def test_more_problems_are_counted(document):
    document["costs"] = {}

    with pytest.raises(ArtifactError, match=r"costs.num_macs: missing key \(and 3 more\)"):
        Manifest.from_json(json.dumps(document))


def test_message_stays_on_one_line_whatever_a_key_holds(document):
    document["one\ntwo"] = 1

    with pytest.raises(ArtifactError, match=r"^manifest.json: one\\ntwo: unknown key; [^\n]*$"):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("version", [1, 2, 0, "3", None])
def test_another_schema_version_is_refused_before_anything_else(version):
    with pytest.raises(ArtifactError, match=r"^manifest.json: schema: got \S+, expected 3; export the bundle again$"):
        Manifest.from_json(json.dumps({"schema": version}))


def test_a_manifest_of_a_later_version_asks_for_that():
    with pytest.raises(ArtifactError, match=r"^manifest.json: schema: got 4, which a later version of .*: update it$"):
        Manifest.from_json('{"schema": 4}')


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "damaged: Expecting value"),
        ('{"schema": 3, ', "damaged: Expecting property name"),
        ("[]", "schema: got null, expected 3"),
        ('{"schema": 3, "schema": 3}', "damaged: the key 'schema' stands twice"),
        ('{"schema": NaN}', "damaged: got NaN, expected a finite number"),
        ("[" * 100_000, "damaged: "),
    ],
)
def test_text_that_is_no_manifest_is_refused(text, what):
    with pytest.raises(ArtifactError, match=f"^manifest.json: {re.escape(what)}"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../b", "a//b", "a/", "a/.b", "", ".hidden", "a\\b", "model.onnx"]
)
def test_model_outside_the_bundle_or_in_the_place_of_another_is_refused(document, name):
    main = document["models"]["onnx-fp32"]
    document["models"]["pt2-fp32"] = {**main, "format": "pt2", "files": {name: 1}}

    with pytest.raises(ArtifactError, match=r"^manifest.json: models"):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    [
        "/home/ann/run",
        "/tmp",
        'File "/opt/x/net.py"',
        "run in /srv/jobs/7",
        "root=/srv/jobs/7",
        "~/runs/digits",
        "~ann/runs",
        "C:\\Users\\ann",
        "d:/runs",
        "\\\\server\\share",
        "file:///srv",
    ],
)
@pytest.mark.parametrize("place", ["value", "key"])
def test_path_of_a_machine_is_refused_and_named(document, text, place):
    document["versions"] = {"torch": text} if place == "value" else {text: "2.13.0"}

    with pytest.raises(
        ArtifactError, match=r"^manifest.json: versions(.torch)?: got .*, expected no path of a machine"
    ):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    ["T-shirt/top", "12 GMAC/s", "5 /s", "a / b", "https://example.org/a/b", "and/or", "~5 ms", "1:2", "a//b", "x: /"],
)
def test_other_text_is_no_path(document, text):
    assert Manifest.from_json(changed(document, "classes.0", text)).classes[0] == text


profile_names = st.from_regex(r"[a-z0-9]{1,4}(-[a-z0-9]{1,4}){0,3}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\~:"), min_size=1, max_size=12)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
counts = st.integers(0, 2**53)
shares = st.floats(0, 1)
times = st.floats(0, 1e9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, json_values, max_size=4)
kinds = st.lists(st.sampled_from(["datasheet", "measured", "published"]), min_size=1, max_size=3)
tolerances = st.floats(1e-7, 1e-5)


def nullable(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


statistics = st.fixed_dictionaries(
    {
        "num_runs": st.integers(1, 10**6),
        **dict.fromkeys(("min_ms", "p10_ms", "p50_ms", "p90_ms", "mean_ms"), times),
        "p90_bound_ms": nullable(times),
    }
)
measured = st.fixed_dictionaries(
    {
        "protocol": objects,
        "statistics": statistics,
        "stability": st.fixed_dictionaries(
            {
                "statistic": words,
                "disagreement": times,
                "drift": nullable(times),
                "spread": nullable(times),
                "spread_within": nullable(times),
                "stable_within": times,
                "verdict": st.sampled_from(["stable", "unstable"]),
            }
        ),
        "noise": nullable(st.fixed_dictionaries(dict.fromkeys(("p10", "p50", "p90"), times))),
        "load_ms": times,
        "first_run_ms": times,
        "peak_rss_mib": nullable(times),
        "environment": objects,
        "is_min_runs_met": nullable(st.booleans()),
        "is_min_duration_met": nullable(st.booleans()),
        "ruler": nullable(objects),
        "energy": nullable(
            st.fixed_dictionaries(
                {
                    **dict.fromkeys(("energy_mj", "idle_power_w", "seconds"), times),
                    "net_energy_mj": st.floats(-1e6, 1e6),
                    "num_runs": st.integers(1, 10**6),
                    **dict.fromkeys(("covers", "source"), words),
                }
            )
        ),
        "limit": nullable(
            st.fixed_dictionaries(
                {
                    "limit_ms": st.floats(1e-3, 1e3),
                    "percentile": st.sampled_from(["p10", "p50", "p90"]),
                    "measured_ms": times,
                    "verdict": st.sampled_from(["met", "not met", "undecided"]),
                }
            )
        ),
    }
)
predictor_errors = st.fixed_dictionaries(
    {
        "acc5": shares,
        "acc10": shares,
        "spearman": nullable(st.floats(-1, 1)),
        "mape": times,
        "num_heldout": st.integers(1, 10**6),
        "method": nullable(words),
    }
)
found = st.fixed_dictionaries(
    {
        "max_abs_diff": times,
        "max_scaled_diff": st.floats(0, 1e-7),
        "argmax_agreement": st.just(1.0),
        "batch_invariance_max_abs_diff": times,
        "batch_invariance_max_scaled_diff": st.floats(0, 1e-7),
    }
)


costs = st.fixed_dictionaries(dict.fromkeys(("num_macs", "num_params", "peak_activation_bytes", "moved_bytes"), counts))
trimmed_layers = st.fixed_dictionaries(
    {"num_channels": st.integers(1, 4096), "removed": st.sampled_from(["0", "3-5", "1, 3-5, 20"])}
)
refinements = st.fixed_dictionaries(
    {
        **dict.fromkeys(("source_arch_id", "pick_arch_id", "split"), words),
        "source_costs": costs,
        "source_latency_ms_predicted": times,
        "limits": st.dictionaries(words, times, max_size=3),
        "channel_quantum": st.integers(1, 64),
        "layers": st.dictionaries(words, trimmed_layers, min_size=1, max_size=3),
        "num_samples": st.integers(1, 10**6),
        "accuracy": st.floats(0.5, 1),
        "accuracy_interval": st.none(),
        "pick_accuracy": st.floats(0, 0.49),
        "pick_accuracy_interval": st.none(),
    }
)


@st.composite
def accuracies(draw: st.DrawFn) -> dict[str, Any]:
    """Return accuracies with their images and intervals; those of older files have none."""
    num_samples = draw(st.integers(1, 10**6))
    after, before = (CountedAccuracy(draw(st.integers(0, num_samples)), num_samples) for _ in range(2))
    is_old, has_before = draw(st.booleans()), draw(st.booleans())
    return {
        "num_samples": num_samples,
        "recalibrated": after.share,
        "recalibrated_interval": None if is_old else list(after.interval),
        "not_recalibrated": before.share if has_before else None,
        "not_recalibrated_interval": list(before.interval) if has_before and not is_old else None,
        "measures": None,
    }


def limit_records():
    costs = st.tuples(st.floats(1e-6, 1e9), st.floats(0, 1e9))
    percentiles = st.fixed_dictionaries(
        {"name": st.sampled_from(["p10", "p50", "p90"]), "ratio": st.floats(1, 10), "is_assumed": st.booleans()}
    )
    risks = st.floats(0, 1, exclude_min=True, exclude_max=True)
    return st.tuples(costs, nullable(percentiles), nullable(risks)).map(
        lambda drawn: {
            "limit": drawn[0][0],
            "cost": drawn[0][1],
            "is_exceeded": drawn[0][1] > drawn[0][0],
            "percentile": drawn[1],
            "risk": drawn[2],
        }
    )


@st.composite
def variants(draw: st.DrawFn, name: str, files: list[str], interval: list[float] | None) -> dict[str, Any]:
    """Return any valid record of a variant."""
    format_name, _, precision = name.rpartition("-")
    predicted = {"value_ms": draw(times), "interval_ms": interval, "kind": draw(words), "provenance": draw(kinds)}
    return {
        "format": format_name,
        "precision": precision,
        "files": {file: draw(st.integers(1, 2**53)) for file in files},
        "accuracy": draw(nullable(shares)),
        "gate": {
            "kind": "parity",
            "tolerance": draw(tolerances),
            "batch_tolerance": draw(tolerances),
            "batches": [1, 3, 8, *draw(st.lists(st.integers(1, 1024), max_size=2))],
            "num_inputs": draw(st.integers(1, 10**6)),
            **draw(found),
        },
        "latency": {
            "predicted": draw(st.sampled_from([predicted, None])),
            "measured": draw(nullable(measured)),
        },
        "ran_by": draw(nullable(st.fixed_dictionaries({"name": words, "version": words}))),
        "layout": draw(st.sampled_from(["nchw", "nhwc"])),
        "counted": draw(st.dictionaries(words, st.integers(0, 10**6), max_size=2)),
    }


releases = st.builds("{}{}".format, st.sampled_from(["==", "<", ">=1.2,!="]), st.sampled_from(["1.21.0", "2", "0.9"]))
numbers = nullable(st.sampled_from(["3.6", "2.27"]))
devices = st.fixed_dictionaries(
    {
        "runtime": words,
        "system": st.fixed_dictionaries({"python": numbers, "glibc": numbers, "arch": nullable(st.just("aarch64"))}),
        "known_bad": st.lists(
            st.fixed_dictionaries(
                {"versions": releases, **dict.fromkeys(("runtime", "symptom", "cure", "source"), words)}
            ).map(lambda each: {name: each[name] for name in ("runtime", "versions", "symptom", "cure", "source")}),
            max_size=2,
        ),
        "build_on_device": nullable(words),
    }
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return any valid manifest."""
    classes = draw(st.lists(words, min_size=1, max_size=5))
    profile_hash = draw(hashes)
    error = draw(st.just("none") | predictor_errors)
    interval = sorted(draw(st.tuples(times, times))) if error != "none" and draw(st.booleans()) else None
    sizes = draw(st.lists(st.integers(1, 4096), min_size=1, max_size=3))
    more = draw(st.sampled_from([{}, {"ts-fp16": ["model.ts.pt"]}, {"a b-fp16": ["0", "d/e"], "c-fp32": ["A_b-1."]}]))
    files_of = {"onnx-fp32": ["model.onnx"], **more}
    return {
        "schema": 3,
        "arch_id": draw(words),
        "arch": draw(objects),
        "profile": {"name": draw(profile_names), "hash": profile_hash, "provenance": draw(kinds), "error": error},
        "device": draw(nullable(devices)),
        "classes": classes,
        "preprocessing": draw(objects),
        "inputs": [{"name": draw(words), "shape": ["batch", *sizes], "dtype": draw(words)}],
        "outputs": [{"name": draw(words), "shape": ["batch", len(classes)], "dtype": draw(words)}],
        "accuracy": {
            "dataset": draw(words),
            "split": draw(words),
            **draw(accuracies()),
        },
        "costs": draw(costs),
        "objective": draw(nullable(words)),
        "refinement": draw(nullable(refinements)),
        "limits": draw(st.dictionaries(words, limit_records(), max_size=3)),
        "left_out": draw(st.dictionaries(words, words, max_size=2)),
        "lineage": {
            **{name: draw(hashes) for name in ("run", "space", "statistics")},
            "profile": profile_hash,
            "search": draw(nullable(hashes)),
        },
        "versions": draw(st.dictionaries(words, words, max_size=3)),
        "processor": draw(nullable(words)),
        "models": {name: draw(variants(name, files, interval)) for name, files in files_of.items()},
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"is_exceeded": True}, "limits.latency_ms.is_exceeded: got true: expected true where cost is above limit"),
        ({"cost": 2.6}, "limits.latency_ms.is_exceeded: got false: expected true where cost is above limit"),
        ({"limit": 0.0}, "limits.latency_ms.limit: got 0"),
        ({"cost": -1.0}, "limits.latency_ms.cost: got -1"),
    ],
)
def test_a_limit_says_truly_whether_it_is_exceeded(document, change, expected):
    document["limits"]["latency_ms"] |= change
    with pytest.raises(ArtifactError, match=expected):
        Manifest.from_json(json.dumps(document))


def test_the_limits_that_are_exceeded_are_known_by_name(document):
    document["limits"]["macs"] = {"limit": 1.0, "cost": 2.0, "is_exceeded": True}
    assert Manifest.from_json(json.dumps(document)).exceeded_limits == ("macs",)
    del document["limits"]
    assert Manifest.from_json(json.dumps(document)).exceeded_limits == ()


@given(documents())
def test_any_manifest_survives_the_round_trip(document):
    manifest = Manifest.from_json(json.dumps(document))

    assert json.loads(manifest.to_json()) == document
    assert Manifest.from_json(manifest.to_json()) == manifest


@given(documents())
def test_any_draft_of_a_manifest_survives_the_round_trip(document):
    del document["models"]

    draft = ManifestDraft.model_validate_json(json.dumps(document))

    assert draft.model_dump(mode="json", by_alias=True) == document


@given(documents(), st.data())
def test_damage_is_an_artifact_error_or_harmless(document, data):
    """Whatever stands in the file, reading it ends in a manifest or in one kind of error."""
    text = json.dumps(document)
    start = data.draw(st.integers(0, len(text)))
    damaged = text[:start] + data.draw(st.text(max_size=3)) + text[start + data.draw(st.integers(0, 3)) :]

    manifest, refusal = read(damaged)

    if manifest is None:
        assert refusal.startswith("manifest.json: ")
        assert "\n" not in refusal
    else:
        assert Manifest.from_json(manifest.to_json()) == manifest


def read(text: str) -> tuple[Manifest | None, str]:
    try:
        return Manifest.from_json(text), ""
    except ArtifactError as error:
        return None, str(error)


INT8_GATE = {
    "kind": "int8",
    "scheme": {"activations": "u8", "is_symmetric": False, "per_channel": True, "reduce_range": False},
    "split": "validation",
    "num_images": 1000,
    "accuracy_drop": 0.004,
    "accuracy_drop_interval": [-0.002, 0.01],
    "max_accuracy_drop": 0.01,
    "num_float_convolutions": 0,
    "tolerance": 0.1,
    "max_scaled_diff": 0.05,
    "class_agreement": 0.97,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"accuracy_drop": -0.01}, ""),
        ({"speed": None}, ""),
        ({"speed": {"times_as_fast": 1.5, "noise": 0.25, "faster_above": 1.25, "verdict": "unstable"}}, ""),
        (
            {"speed": {"times_as_fast": 1.25, "noise": 0.25, "faster_above": 1.25, "verdict": "unstable"}},
            "gate.speed: this would not have passed the gate",
        ),
        (
            {"speed": {"times_as_fast": 1.5, "noise": 0.25, "faster_above": 1.0, "verdict": "stable"}},
            "gate.speed.faster_above: got 1.0: expected 1 + noise, or more",
        ),
        ({"accuracy_drop": 0.02}, "gate.max_accuracy_drop: got 0.01: this would not have passed the gate"),
        ({"num_float_convolutions": 1}, "gate.num_float_convolutions: got 1: input should be 0"),
        ({"tolerance": 0.2}, "gate: got a tolerance of 0.2, expected at most 0.1"),
        ({"kind": "parity"}, "gate.batch_tolerance: missing key"),
        ({"scheme": {"activations": "u4"}}, "gate.scheme.activations: got 'u4': input should be 'u8' or 's8'"),
    ],
)
def test_what_has_passed_the_gate_of_int8_is_read_and_nothing_else(document, change, reason):
    record = document["models"]["onnx-fp32"]
    gate = {**INT8_GATE, **change}
    latency = {**record["latency"], "predicted": None}
    int8 = {**record, "precision": "int8", "files": {"model.int8.onnx": 300}, "gate": gate, "latency": latency}
    document["models"]["onnx-int8"] = int8
    if reason:
        with pytest.raises(ArtifactError, match=rf"models\.onnx-int8\.{re.escape(reason)}"):
            Manifest.from_json(json.dumps(document))
    else:
        found = Manifest.from_json(json.dumps(document))
        assert found.models["onnx-int8"].gate.kind == "int8"
        assert found.parity == found.main.gate
        assert f"{100 * gate['accuracy_drop']:+.2f} points" in render_model_card(found)


def test_what_is_left_out_is_told_on_the_card(document):
    document["left_out"] = {"onnx-int8": "int8: its share of right answers is 3.00 points lower"}
    card = render_model_card(Manifest.from_json(json.dumps(document)))
    assert "onnx-int8 was asked for and is not here: int8: its share of right answers is 3.00 points lower." in card


@pytest.mark.parametrize("is_what_it_is_for", [False, True])
def test_the_card_runs_the_file_that_the_bundle_is_for(document, is_what_it_is_for):
    """As `run.py --classify` does."""
    record = document["models"]["onnx-fp32"]
    predicted, measured = record["latency"]["predicted"], record["latency"]["measured"]
    files = {"model.int8.onnx": 300}
    int8 = {**record, "precision": "int8", "files": files, "gate": INT8_GATE}
    int8["latency"] = {"predicted": predicted if is_what_it_is_for else None, "measured": None}
    record["latency"] = {"predicted": None if is_what_it_is_for else predicted, "measured": measured}
    document["models"]["onnx-int8"] = int8
    card = render_model_card(Manifest.from_json(json.dumps(document)))
    expected = "model.int8.onnx" if is_what_it_is_for else "model.onnx"
    assert f'InferenceSession("{expected}", ' in card


@pytest.mark.parametrize(
    ("name", "tolerance", "batches", "refused"),
    [
        ("ncnn", 1e-4, [1], None),
        ("ncnn", 2e-4, [1], "got a tolerance of 0.0002, expected at most 0.0001"),
        ("openvino", 1e-4, [1, 3, 8], "got a tolerance of 0.0001, expected at most 1e-05"),
        ("openvino", 1e-5, [1], r"got the batches \[1\], expected 1, 3, 8 among them"),
        ("no-format-of-ours", 1e-4, [1, 3, 8], "expected at most 1e-05"),
    ],
)
def test_a_gate_is_as_kind_as_its_format_needs_and_no_kinder(document, name, tolerance, batches, refused):
    record = json.loads(json.dumps(document["models"]["onnx-fp32"]))
    record |= {"format": name, "files": {"other": 4}}
    record["gate"] |= {"tolerance": tolerance, "batch_tolerance": 1e-5, "batches": batches}
    document["models"][f"{name}-fp32"] = record
    if refused is None:
        assert Manifest.from_json(json.dumps(document)).models[f"{name}-fp32"].gate.batches == (1,)
    else:
        with pytest.raises(ArtifactError, match=refused):
            Manifest.from_json(json.dumps(document))
