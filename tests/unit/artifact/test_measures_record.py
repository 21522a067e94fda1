"""`MeasuresRecord`: what documents say of answers, and what they may not say."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedsup_deploy.answers import Answers, count_answers, from_confusion
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measures import MeasuresRecord
from fedsup_deploy.artifact.model_card import render_model_card
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.measures import measures_of

CONFUSION = [[135, 15, 0], [0, 135, 15], [15, 0, 135]]


def answers_of(confusion: list[list[int]]) -> Answers:
    """Return answers that all have the same margin."""
    matrix_KK = np.array(confusion)
    labels_N = np.repeat(np.arange(len(matrix_KK)), matrix_KK.sum(axis=1))
    answered_N = np.concatenate([np.repeat(np.arange(len(matrix_KK)), row_K) for row_K in matrix_KK])
    logits_NK = (np.eye(len(matrix_KK))[answered_N] * 3).astype(np.float32)
    return count_answers(logits_NK, labels_N)


@pytest.fixture
def record() -> dict[str, Any]:
    return json.loads(MeasuresRecord.of(answers_of(CONFUSION), ["cat", "dog", "<b>"]).model_dump_json())


def test_a_record_holds_what_measures_say(record: dict[str, Any]) -> None:
    answers = answers_of(CONFUSION)
    found = measures_of(answers)
    assert record["balanced_accuracy"] == found.balanced_accuracy.value
    assert tuple(record["macro_f1_interval"]) == found.macro_f1.interval
    assert found.calibration_error is not None
    assert record["calibration_error"] == found.calibration_error.value
    assert (record["auc"], record["auc_interval"], record["confusion"]) == (None, None, CONFUSION)
    assert [each["name"] for each in record["classes"]] == ["cat", "dog", "<b>"]
    assert MeasuresRecord.model_validate_json(json.dumps(record)).num_images == 450


def test_of_two_classes_there_is_an_auc_and_of_very_many_no_matrix() -> None:
    found = MeasuresRecord.of(answers_of([[8, 2], [1, 9]]), ["no", "yes"])
    assert found.auc is not None
    assert 0.5 < found.auc < 1
    labels_N = np.arange(101)
    many = MeasuresRecord.of(count_answers(np.eye(101, dtype=np.float32), labels_N), [str(each) for each in labels_N])
    assert (many.confusion, len(many.classes), many.balanced_accuracy) == (None, 101, 1.0)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("balanced_accuracy", 0.95, "balanced_accuracy: got 0.95, expected 0.9"),
        ("macro_f1_interval", [0.8, 0.95], "macro_f1_interval: got "),
        ("num_judged_classes", 2, "num_judged_classes: got 2, expected 3"),
        ("auc", 0.5, "auc_interval: expected one"),
        ("confusion", [[135, 15], [15, 135]], "confusion: expected 3 rows of 3 numbers"),
        ("confusion", [[0, 0, 0]] * 3, "confusion: got no image"),
        ("confusion", [[10**30, 0, 0], *CONFUSION[1:]], "less than or equal to 1000000000000"),
        ("confusion", [[150, 0, 0], *CONFUSION[1:]], "classes: got other numbers"),
        ("classes.0.recall", 0.95, "cat|no share"),
        ("classes.0.recall_interval", [0.8, 0.95], "cat: got another interval"),
        ("classes.1.recall", None, "dog: expected a recall"),
        ("classes.2.answered", 149, "classes: got other numbers"),
    ],
)
def test_what_does_not_follow_from_the_counts_is_refused(
    record: dict[str, Any], key: str, value: Any, expected: str
) -> None:
    *parents, last = key.split(".")
    node: Any = record
    for each in parents:
        node = node[int(each) if each.isdigit() else each]
    node[last] = value
    with pytest.raises(ValidationError, match=expected):
        MeasuresRecord.model_validate_json(json.dumps(record))


def test_a_manifest_holds_the_measures_of_its_own_images_and_classes(document: dict[str, Any]) -> None:
    names = document["classes"]
    record = json.loads(MeasuresRecord.of(answers_of(CONFUSION), names).model_dump_json())
    document["accuracy"]["measures"] = record
    manifest = Manifest.from_json(json.dumps(document))
    assert json.loads(manifest.to_json()) == document
    document["accuracy"]["measures"] = json.loads(
        MeasuresRecord.of(answers_of(CONFUSION), ["a", "b", "c"]).model_dump_json()
    )
    with pytest.raises(ArtifactError, match="classes: got other names"):
        Manifest.from_json(json.dumps(document))
    fewer = [[135, 0, 0], [0, 10, 0], [0, 0, 10]]
    document["accuracy"]["measures"] = json.loads(MeasuresRecord.of(answers_of(fewer), names).model_dump_json())
    with pytest.raises(ArtifactError, match="measures: got 155 images, expected 450"):
        Manifest.from_json(json.dumps(document))


def test_the_card_says_what_the_measures_are_and_how_right_each_class_is(document: dict[str, Any]) -> None:
    document |= {"classes": [*document["classes"][:2], "<b>"], "objective": "macro_f1"}
    without = render_model_card(Manifest.from_json(json.dumps(document)))
    assert "balanced" not in without
    record = MeasuresRecord.of(answers_of([[150, 0, 0], [0, 255, 45], [0, 0, 0]]), document["classes"])
    document["accuracy"]["measures"] = json.loads(record.model_dump_json())
    lines = render_model_card(Manifest.from_json(json.dumps(document))).split("\n")
    assert any(line.startswith("| balanced accuracy | 92.50%, 95 % interval ") for line in lines)
    assert any(line.startswith("| macro-F1 | ") and line.endswith(" | 2 of 3 classes |") for line in lines)
    assert any(
        line.startswith("| Trouser | 300 | 85.00%, 95 % interval ") and line.endswith(" | 255 |") for line in lines
    )
    assert "| &#60;b> | 0 | no images | 45 |" in lines
    assert "- Searched for: macro-f1, within the limits" in lines


def test_a_matrix_alone_knows_no_confidence() -> None:
    assert measures_of(from_confusion(CONFUSION)).calibration_error is None
