"""`accuracy.safetensors`: read back as it was written, or refused in one line that says what to do."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import files, rng
from fedsup_deploy.artifact import weights
from fedsup_deploy.commands.accuracy_file import Findings, StoredPredictor, load_predictor, save_predictor
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.searchers.scoring.predictor import FittedAccuracy, ListedAccuracy, fit
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

SUPERNET, CALIBRATION = "5" * 64, {"samples_per_client": 16, "draw": "random"}
Arrays = dict[str, Any]


def stored_for(space: SearchSpace, genes_TG: Any, kind: str) -> StoredPredictor:
    """A predictor of accuracies that are a sum of the genes, written as `fit-accuracy` does."""
    accuracy_T = 0.5 + genes_TG.sum(axis=1) / 100
    judged = {"kendall_tau": 0.75, "mae": 0.01}
    findings = Findings.model_validate(
        {
            "supernet": SUPERNET,
            "space": files.sha256_of(space.to_dict()),
            "measured_by": "measured",
            "subject": {"supernet": SUPERNET, **CALIBRATION},
            "seed": 3,
            "num_measured": len(genes_TG),
            "predictor": kind,
            "cross_validation": {kind: judged},
            "held_out": judged,
        }
    )
    listed_N = fit(space, genes_TG, accuracy_T, kind, 3).predict(space.enumerate_genes()) if space.is_listable else None
    return StoredPredictor(space, findings, genes_TG, accuracy_T, np.full(len(genes_TG), 100), listed_N)


@pytest.fixture(scope="module")
def stored(tiny_space: SearchSpace) -> StoredPredictor:
    """24 of 64 architectures, in no order."""
    return stored_for(tiny_space, rng.generator(0).permutation(tiny_space.enumerate_genes())[:24], "boosting")


@pytest.fixture
def path(stored: StoredPredictor, tmp_path: Path) -> Path:
    """The file of that predictor."""
    save_predictor(tmp_path / "accuracy.safetensors", stored)
    return tmp_path / "accuracy.safetensors"


def test_what_is_written_is_read_back(stored: StoredPredictor, path: Path, tiny_space: SearchSpace) -> None:
    again = load_predictor(path, tiny_space, SUPERNET, CALIBRATION)
    assert again.findings == stored.findings
    for name in ("genes_TG", "accuracy_T", "num_images_T", "listed_N"):
        before, after = getattr(stored, name), getattr(again, name)
        assert (before.dtype, before.tolist()) == (after.dtype, after.tolist())


def test_equal_predictors_are_equal_bytes(stored: StoredPredictor, path: Path, tmp_path: Path) -> None:
    save_predictor(tmp_path / "again.safetensors", stored)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_listed_space_needs_no_fit_and_the_fit_repeated_is_the_list(path: Path, tiny_space: SearchSpace) -> None:
    again = load_predictor(path, tiny_space, SUPERNET, CALIBRATION)
    predictor, genes_NG = again.predictor(), tiny_space.enumerate_genes()
    assert isinstance(predictor, ListedAccuracy)
    assert predictor.predict(genes_NG).tobytes() == again.fitted().predict(genes_NG).tobytes()
    assert len(np.unique(predictor.predict(genes_NG))) > 10


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_a_space_too_large_to_list_is_fitted_again_to_the_same(
    kind: str, space_of: Callable[..., SearchSpace], tmp_path: Path
) -> None:
    stage = {"widths": [4, 8, 12], "depths": [3, 4], "kernel_sizes": [3, 5, 7], "expand_ratios": [1, 2]}
    space = space_of(stage, stage, choices="per-block")
    assert not space.is_listable
    genes_TG = np.unique(random_genes(space, rng.generator(0), 40), axis=0)
    stored = stored_for(space, genes_TG, kind)
    assert stored.listed_N is None
    save_predictor(tmp_path / "accuracy.safetensors", stored)
    predictor = load_predictor(tmp_path / "accuracy.safetensors", space, SUPERNET, CALIBRATION).predictor()
    assert isinstance(predictor, FittedAccuracy)
    others_NG = random_genes(space, rng.generator(1), 50)
    assert predictor.predict(others_NG).tobytes() == stored.fitted().predict(others_NG).tobytes()


def changed(**change: Callable[[Any], Any]) -> Callable[[Arrays, Arrays], None]:
    """Change arrays by name; None takes one out."""

    def apply(arrays: Arrays, _findings: Arrays) -> None:
        for name, to in change.items():
            value = to(arrays[name])
            if value is None:
                del arrays[name]
            else:
                arrays[name] = value

    return apply


def found(**change: Any) -> Callable[[Arrays, Arrays], None]:
    """Change findings by name; None takes one out."""

    def apply(_arrays: Arrays, findings: Arrays) -> None:
        for name, value in change.items():
            findings[name] = value
            if value is None:
                del findings[name]

    return apply


OTHER = "fitted to another supernet; fit it again"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (found(supernet="6" * 64), OTHER),
        (found(space="6" * 64), OTHER),
        (found(predictor="forest"), "damaged: unknown predictor 'forest'"),
        (found(predictor=None), "damaged: 1 validation error for Findings"),
        (found(num_measured=19), "damaged: 1 validation error for Findings"),
        (found(num_measured=25), r"damaged: genes of shape \(24, 12\)"),
        (found(held_out={"kendall_tau": 0.5, "mae": -0.1}), "damaged: 1 validation error for Findings"),
        (found(surplus=1), "damaged: 1 validation error for Findings"),
        (changed(genes=lambda _: None), "damaged: no 'genes'"),
        (changed(accuracy=lambda _: None), "damaged: no 'accuracy'"),
        (changed(genes=lambda genes_TG: genes_TG[:-1]), r"damaged: genes of shape \(23, 12\)"),
        (changed(genes=lambda genes_TG: genes_TG[:, :-1]), r"damaged: genes of shape \(24, 11\)"),
        (changed(genes=lambda genes_TG: genes_TG + 1), "damaged: genes outside the space"),
        (changed(genes=lambda genes_TG: genes_TG - 1), "damaged: genes outside the space"),
        (
            changed(genes=lambda genes_TG: genes_TG.astype(float)),
            r"damaged: genes of shape \(24, 12\) and type float64",
        ),
        (changed(accuracy=lambda accuracy_T: accuracy_T[1:]), "damaged: accuracy: expected 24 shares"),
        (changed(accuracy=lambda accuracy_T: accuracy_T + 1), "damaged: accuracy: expected 24 shares"),
        (changed(accuracy=lambda accuracy_T: accuracy_T * np.nan), "damaged: accuracy: expected 24 shares"),
        (changed(listed=lambda listed_N: listed_N[1:]), "damaged: listed: expected 64 shares"),
        (changed(listed=lambda listed_N: listed_N - 1), "damaged: listed: expected 64 shares"),
        (changed(listed=lambda listed_N: np.full(len(listed_N), np.nan)), "damaged: listed: expected 64 shares"),
    ],
)
def test_what_is_damaged_or_about_something_else_is_refused_in_one_line(
    stored: StoredPredictor, path: Path, change: Callable[[Arrays, Arrays], None], expected: str
) -> None:
    arrays, document = weights.read_arrays(path, "accuracy")
    change(arrays, document["findings"])
    weights.write_arrays(path, "accuracy", arrays, {"findings": document["findings"]})
    check_refused(stored, path, f"^{path}: {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda content: content[: len(content) // 2], "not a whole safetensors file"),
        (lambda _: b"", "not a whole safetensors file"),
        (lambda _: b"\x80\x04K\x01.", "not a whole safetensors file"),
    ],
)
def test_what_is_no_predictor_is_refused_in_one_line(
    stored: StoredPredictor, path: Path, content: Callable[[bytes], bytes], expected: str
) -> None:
    path.write_bytes(content(path.read_bytes()))
    check_refused(stored, path, expected)


def test_another_kind_of_file_is_refused(stored: StoredPredictor, tmp_path: Path) -> None:
    path = tmp_path / "accuracy.safetensors"
    weights.write_arrays(path, "statistics", {"genes": np.zeros(1)}, {})
    check_refused(stored, path, "is a statistics, expected a accuracy")


def test_a_file_without_findings_is_refused(stored: StoredPredictor, path: Path) -> None:
    arrays, _ = weights.read_arrays(path, "accuracy")
    weights.write_arrays(path, "accuracy", arrays, {})
    check_refused(stored, path, "damaged: 1 validation error for Findings")


def test_accuracies_after_recalibration_on_other_images_are_refused(stored: StoredPredictor, path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r": fitted to accuracies after recalibration on other images; fit it again"
    ):
        load_predictor(path, stored.space, SUPERNET, {**CALIBRATION, "draw": "the first"})


def check_refused(stored: StoredPredictor, path: Path, expected: str) -> None:
    with pytest.raises(ArtifactError, match=expected) as caught:
        load_predictor(path, stored.space, SUPERNET, CALIBRATION)
    assert "\n" not in str(caught.value)


def test_another_space_than_that_of_the_run_is_refused(
    stored: StoredPredictor, path: Path, space_of: Callable[..., SearchSpace]
) -> None:
    """Even with as many architectures."""
    wider = stored.space.model_copy(update={"resolutions": (6, 10)})
    assert wider.num_architectures == stored.space.num_architectures
    check_refused(dataclasses.replace(stored, space=wider), path, OTHER)
