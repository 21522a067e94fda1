"""Predicting accuracy from the accuracies of others. Every registered kind has to do what the tests of kinds say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fedsup_deploy import registry, rng
from fedsup_deploy.cli.options import warning_about
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.scoring import predictor as accuracy
from fedsup_deploy.searchers.scoring.predictor import ListedAccuracy, compare_kinds, fit, guessed_tau, judge, one_hot
from fedsup_deploy.space.search_space import SearchSpace

KINDS = registry.names("accuracy")


def drawn(space: SearchSpace, count: int) -> Any:
    """Genes of so many different architectures in random order."""
    return rng.generator(0).permutation(space.enumerate_genes())[:count]


def sum_of_choices(genes_NG: Any) -> Any:
    """An accuracy to which each choice adds its own share: 0.002, 0.004, ... per step of a gene."""
    return 0.5 + genes_NG @ (0.002 * np.arange(1, genes_NG.shape[1] + 1))


@pytest.fixture(scope="module")
def measured(digits_space: SearchSpace) -> tuple[Any, Any]:
    """60 of 128 architectures and what they are worth."""
    genes_TG = drawn(digits_space, 60)
    return genes_TG, sum_of_choices(genes_TG)


def test_one_hot_has_one_column_per_choice_of_an_elastic_gene(toy_space: SearchSpace) -> None:
    """Only the width can be chosen."""
    assert toy_space.num_choices == (1, 1, 1, 2, 1, 1, 1)
    assert one_hot(toy_space, toy_space.enumerate_genes()).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_one_hot_tells_all_architectures_apart(digits_space: SearchSpace) -> None:
    genes_NG = digits_space.enumerate_genes()
    encoded_NF = one_hot(digits_space, genes_NG)
    elastic = [count for count in digits_space.num_choices if count > 1]
    assert encoded_NF.shape == (128, sum(elastic))
    assert (encoded_NF.sum(axis=1) == len(elastic)).all()
    assert len(np.unique(encoded_NF, axis=0)) == 128


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_predicts_what_it_was_not_fitted_to(
    kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]
) -> None:
    """From a smooth function: the ranks nearly all right, and far closer than the mean would be."""
    genes_NG = digits_space.enumerate_genes()
    others_NG = genes_NG[~(genes_NG[:, None] == measured[0]).all(axis=2).any(axis=1)]
    assert len(others_NG) == 68
    expected_N = sum_of_choices(others_NG)
    predicted_N = fit(digits_space, *measured, kind, 0).predict(others_NG)
    judged = judge(predicted_N, expected_N)
    assert judged.kendall_tau > 0.8
    assert judged.mae < 0.3 * np.abs(expected_N - measured[1].mean()).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_predicts_shares(kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]) -> None:
    """Whatever it is fitted to: here a slope that leaves [0, 1] on both sides of what was measured."""
    genes_TG, accuracy_T = measured
    order_T = np.argsort(accuracy_T)[15:-15]
    steep_T = (accuracy_T[order_T] - accuracy_T[order_T].min()) / np.ptp(accuracy_T[order_T])
    predictor = fit(digits_space, genes_TG[order_T], steep_T, kind, 0)
    predicted_N = predictor.predict(digits_space.enumerate_genes())
    assert predicted_N.shape == (128,)
    assert predicted_N.min() >= 0.0
    assert predicted_N.max() <= 1.0
    assert predictor.predict(genes_TG[:0]).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_fitted_where_all_are_equally_accurate(kind: str, digits_space: SearchSpace) -> None:
    """Evolution may meet this in its first turn."""
    genes_TG = drawn(digits_space, 20)
    predicted_N = fit(digits_space, genes_TG, np.full(20, 0.25), kind, 0).predict(digits_space.enumerate_genes())
    np.testing.assert_allclose(predicted_N, 0.25, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides_every_kind_whatever_threads_there_are(
    kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]
) -> None:
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            predictor = fit(digits_space, *measured, kind, 7)
        found.append(predictor.predict(digits_space.enumerate_genes()).tobytes())
    assert found == found[:1] * 3


def test_a_fit_takes_one_thread_whatever_is_allowed(
    digits_space: SearchSpace, measured: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several would add up in another order; on small tables nobody would notice."""
    seen: list[int] = []

    class Watching:
        def fit(self, *_: Any) -> None:
            seen.extend(library["num_threads"] for library in threadpool_info())

    monkeypatch.setattr(accuracy, "ridge", lambda _seed: Watching())
    with threadpool_limits(2):
        fit(digits_space, *measured, "ridge", 0)
    assert set(seen) == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_does_not_depend_on_what_was_fitted_before(
    kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]
) -> None:
    first = fit(digits_space, *measured, kind, 3).predict(measured[0])
    fit(digits_space, measured[0][:30], 1 - measured[1][:30], kind, 4)
    assert fit(digits_space, *measured, kind, 3).predict(measured[0]).tobytes() == first.tobytes()


def test_an_unknown_kind_is_refused(digits_space: SearchSpace, measured: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="unknown accuracy 'rigde'; did you mean 'ridge'"):
        fit(digits_space, *measured, "rigde", 0)


def test_ridge_is_the_sum_that_it_says_it_is(digits_space: SearchSpace, measured: tuple[Any, Any]) -> None:
    predictor, genes_NG = fit(digits_space, *measured, "ridge", 0), digits_space.enumerate_genes()
    additive = predictor.additive()
    assert additive is not None
    assert [len(values) for values in additive.values] == list(digits_space.num_choices)
    expected_N = additive.intercept + sum(values[genes_NG[:, gene]] for gene, values in enumerate(additive.values))
    np.testing.assert_allclose(predictor.predict(genes_NG), expected_N, rtol=0, atol=1e-9)
    np.testing.assert_allclose(additive.of(genes_NG), expected_N, rtol=0, atol=1e-12)
    assert np.ptp(expected_N) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_can_be_asked_for(kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]) -> None:
    _, judged, _ = compare_kinds(digits_space, *measured, 0)
    taken, judged_again, held_out = compare_kinds(digits_space, *measured, 0, kind)
    assert (taken, judged_again) == (kind, judged)
    genes_TG, accuracy_T = measured
    unseen = len(genes_TG) // 5
    predicted = fit(digits_space, genes_TG[:-unseen], accuracy_T[:-unseen], kind, 0).predict(genes_TG[-unseen:])
    assert held_out == judge(predicted, accuracy_T[-unseen:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_does_not_depend_on_how_many_are_made(
    kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]
) -> None:
    predictor, genes_NG = fit(digits_space, *measured, kind, 0), digits_space.enumerate_genes()
    alone = [float(predictor.predict(genes_NG[index : index + 1])[0]) for index in range(0, len(genes_NG), 9)]
    assert predictor.predict(genes_NG)[::9].tolist() == alone


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ridge"])
def test_what_is_no_sum_does_not_claim_to_be_one(
    kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]
) -> None:
    assert fit(digits_space, *measured, kind, 0).additive() is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_predictions_is_the_fit(kind: str, digits_space: SearchSpace, measured: tuple[Any, Any]) -> None:
    """For any rows, in any order."""
    predictor, genes_NG = fit(digits_space, *measured, kind, 0), digits_space.enumerate_genes()
    predicted_N = predictor.predict(genes_NG)
    listed = ListedAccuracy(digits_space, predicted_N)
    order_N = rng.generator(1).permutation(128)
    assert listed.predict(genes_NG[order_N]).tobytes() == predicted_N[order_N].tobytes()
    assert listed.predict(genes_NG[[5]]).tolist() == [predicted_N[5]]


def test_many_rows_are_predicted_in_pieces(
    digits_space: SearchSpace, measured: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, genes_NG = fit(digits_space, *measured, "boosting", 0), digits_space.enumerate_genes()
    whole_N = predictor.predict(genes_NG)
    monkeypatch.setattr(accuracy, "_ROWS", 50)
    assert predictor.predict(genes_NG).tolist() == whole_N.tolist()


def test_how_well_predictions_agree_counted_by_hand() -> None:
    """Of six pairs one is the wrong way round: (5 - 1) / 6. Off by 0.1, 0.1, 0, 0."""
    judged = judge(np.array([0.2, 0.1, 0.5, 0.75]), np.array([0.1, 0.2, 0.5, 0.75]))
    assert (judged.kendall_tau, judged.mae) == (0.6667, 0.05)


@pytest.mark.parametrize("constant", [0, 1])
def test_equal_values_have_no_rank_correlation(constant: int) -> None:
    values = [np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3])]
    values[constant] = np.full(3, 0.2)
    assert judge(*values).kendall_tau == 0.0


def test_the_kind_with_the_smallest_error_is_taken(digits_space: SearchSpace, measured: tuple[Any, Any]) -> None:
    """A sum of choices is what ridge is made for."""
    told: list[tuple[int, int]] = []
    best, judged, held_out = compare_kinds(
        digits_space, *measured, 0, on_fit=lambda done, total: told.append((done, total))
    )
    assert list(judged) == KINDS
    assert judged[best].mae == min(each.mae for each in judged.values())
    assert best != "boosting"
    assert held_out.kendall_tau > 0.8
    assert told == [(done, len(KINDS)) for done in range(1, len(KINDS) + 1)]


def test_what_is_held_out_takes_no_part_in_the_choice(digits_space: SearchSpace, measured: tuple[Any, Any]) -> None:
    """The last 12 of 60 may have any accuracy: only the judgement of them changes."""
    genes_TG, accuracy_T = measured
    other_T = np.concatenate([accuracy_T[:-12], 1 - accuracy_T[-12:]])
    best, judged, held_out = compare_kinds(digits_space, genes_TG, accuracy_T, 0)
    *choice, held_out_other = compare_kinds(digits_space, genes_TG, other_T, 0)
    assert choice == [best, judged]
    predicted_T = fit(digits_space, genes_TG[:-12], accuracy_T[:-12], best, 0).predict(genes_TG[-12:])
    assert judge(predicted_T, accuracy_T[-12:]) == held_out
    assert judge(predicted_T, other_T[-12:]) == held_out_other != held_out
    last = compare_kinds(digits_space, genes_TG, np.concatenate([1 - accuracy_T[:1], accuracy_T[1:]]), 0)
    assert last[1] != judged, "the others do take part"


@pytest.mark.parametrize(
    ("count", "change", "expected"),
    [
        (19, lambda accuracy_T: accuracy_T, "got 19 architectures with 19 different accuracies, expected at least 20"),
        (40, np.zeros_like, "got 40 architectures with 1 different accuracies, expected at least 20 that differ"),
        (0, lambda accuracy_T: accuracy_T, "got 0 architectures with 0 different accuracies"),
    ],
)
def test_too_few_or_equal_ones_are_refused(
    digits_space: SearchSpace, count: int, change: Callable[[Any], Any], expected: str
) -> None:
    genes_TG = drawn(digits_space, count)
    accuracy_T = change(0.5 + np.arange(count) / 100)
    with pytest.raises(ConfigError, match=expected) as caught:
        compare_kinds(digits_space, genes_TG, accuracy_T, 0)
    assert str(caught.value).endswith("; measure more with --evaluations")


@pytest.mark.parametrize("count", [4, 12, 60])
def test_guesses_seldom_reach_the_tau_that_is_warned_of(count: int) -> None:
    """Of 2,000 rankings by chance about one in forty; of four subnets no order says anything, 1 in 24 is right."""
    random = rng.generator(0, "guesses")
    reached = [judge(random.random(count), random.random(count)).kendall_tau > guessed_tau(count) for _ in range(2000)]
    assert np.mean(reached) < 0.045
    assert (guessed_tau(4), guessed_tau(60)) == (1.0, pytest.approx(0.174, abs=1e-3))


@pytest.mark.parametrize(
    ("kendall_tau", "num_held_out", "expected"),
    [
        (0.1, 60, "warning: that is little better than guessing; measure more"),
        (0.1, None, "warning: that is little better than guessing; measure more"),
        (1.0, 4, "warning: on 4 subnets guesses come to a tau of up to 1.00; measure more"),
        (0.4, 12, "warning: on 12 subnets guesses come to a tau of up to 0.43; measure more"),
        (0.6, 60, None),
        (0.6, None, None),
    ],
)
def test_predictions_that_say_little_are_warned_of(
    kendall_tau: float, num_held_out: int | None, expected: str | None
) -> None:
    lines = list(warning_about(kendall_tau, num_held_out))
    assert [line[: len(expected or "")] for line in lines] == ([] if expected is None else [expected])


def test_a_judgement_says_on_how_many_it_was_made() -> None:
    assert judge(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.1, 0.3])).num_architectures == 3
