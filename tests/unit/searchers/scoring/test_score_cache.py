"""The scores of a run, kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.measures import Measure
from fedsup_deploy.searchers.scoring.cache import ScoreCache
from fedsup_deploy.searchers.scoring.score import Score
from fedsup_deploy.space.search_space import SearchSpace

ABOUT = {"supernet": "aa", "data": "bb"}


def open_in(folder: Path, space: SearchSpace, kind: str = "measured", **change: Any) -> ScoreCache:
    return ScoreCache(folder, kind, {**ABOUT, **change}, space)


def test_scores_are_there_when_it_is_opened_again(tmp_path: Path, toy_space: SearchSpace) -> None:
    """To the last digit."""
    cache, expected = open_in(tmp_path, toy_space, "clients"), Score(1 / 3, 12, 0.1)
    assert cache.get(toy_space.largest) is None
    cache.add(toy_space.largest, expected)
    for opened in (cache, open_in(tmp_path, toy_space, "clients")):
        assert opened.get(toy_space.largest) == expected
        assert opened.get(toy_space.smallest) is None
        assert opened.all_scores() == {toy_space.largest.arch_id: expected}
        assert len(opened) == 1


def test_a_table_to_fit_a_predictor_to(tmp_path: Path, toy_space: SearchSpace) -> None:
    """In the order of the file: `wide` is gene 1 of width, `narrow` gene 0."""
    cache = open_in(tmp_path, toy_space)
    cache.add(toy_space.largest, Score(0.75, 12))
    cache.add(toy_space.smallest, Score(0.5, 12))
    genes_KG, scores = open_in(tmp_path, toy_space).table()
    expected = np.stack([toy_space.encode(toy_space.largest), toy_space.encode(toy_space.smallest)])
    assert np.array_equal(genes_KG, expected)
    assert scores.accuracy_K.tolist() == [0.75, 0.5]
    assert scores.worst_decile_K is None


def test_an_empty_table_has_the_columns_of_the_space(tmp_path: Path, toy_space: SearchSpace) -> None:
    genes_KG, scores = open_in(tmp_path, toy_space).table()
    assert genes_KG.shape == (0, len(toy_space.num_choices))
    assert scores.accuracy_K.shape == (0,)
    assert list(tmp_path.iterdir()) == [], "nothing is written before there is a score"


@pytest.mark.parametrize("change", [{"supernet": "ab"}, {"data": "b"}, {"kind": "clients"}, {"batch_size": 8}])
def test_what_decides_a_score_keeps_scores_apart(
    tmp_path: Path, toy_space: SearchSpace, change: dict[str, Any]
) -> None:
    cache = open_in(tmp_path, toy_space)
    cache.add(toy_space.largest, Score(0.5, 12))
    other = open_in(tmp_path, toy_space, **change)
    assert other.path != cache.path
    assert len(other) == 0
    other.add(toy_space.largest, Score(0.25, 12))
    assert open_in(tmp_path, toy_space).get(toy_space.largest) == Score(0.5, 12)


def test_of_what_an_older_version_kept_the_measures_are_found_anew(tmp_path: Path, toy_space: SearchSpace) -> None:
    """Its accuracy stands until then; what is found later stands beside it in the file, and counts."""
    cache, better = open_in(tmp_path, toy_space), Score(0.5, 12, measures={"auc": Measure(0.75, (0.5, 0.875))})
    cache.add(toy_space.largest, Score(0.5, 12))
    header, line = cache.path.read_text(encoding="utf-8").splitlines()
    old = {name: value for name, value in json.loads(line).items() if name != "measures"}
    cache.path.write_text(f"{header}\n{json.dumps(old)}\n", encoding="utf-8")
    again = open_in(tmp_path, toy_space)
    assert again.get(toy_space.largest) == Score(0.5, 12)
    again.add(toy_space.largest, better)
    assert open_in(tmp_path, toy_space).all_scores() == {toy_space.largest.arch_id: better}


def test_two_that_are_open_at_once_both_keep_what_they_find(tmp_path: Path, toy_space: SearchSpace) -> None:
    """Also the same one: both found the same."""
    first, second = open_in(tmp_path, toy_space), open_in(tmp_path, toy_space)
    first.add(toy_space.largest, Score(0.5, 12))
    second.add(toy_space.smallest, Score(0.25, 12))
    second.add(toy_space.largest, Score(0.5, 12))
    expected = {toy_space.largest.arch_id: Score(0.5, 12), toy_space.smallest.arch_id: Score(0.25, 12)}
    assert open_in(tmp_path, toy_space).all_scores() == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"arch_id": 3}, "got no arch_id with its genes"),
        ({"genes": None}, "got no arch_id with its genes"),
        ({"genes": [0]}, "got no arch_id with its genes"),
        ({"genes": [0, 0, 0, 2, 0, 0, 0]}, "got no arch_id with its genes"),
        ({"genes": [0, 0, 0, -1, 0, 0, 0]}, "got no arch_id with its genes"),
        ({"genes": [0, 0, 0, 0.0, 0, 0, 0]}, "got no arch_id with its genes"),
        ({"accuracy": 1.5}, r"got accuracy 1.5, worst_decile None, expected shares in \[0, 1\]"),
        ({"num_images": 0}, "got num_images 0, expected at least 1"),
        ({"num_images": True}, "got num_images True, expected at least 1"),
        ({"accuracy": "1"}, "got accuracy 1, worst_decile None"),
        ({"worst_decile": -0.5}, "got accuracy 0.25, worst_decile -0.5"),
        ({"measures": 5}, "got measures 5, expected a value and its interval"),
        ({"measures": {"auc": [0.5, 0.6, 0.7]}}, r"got auc \[0.5, 0.6, 0.7\], expected a value and its interval"),
        ({"measures": {"auc": [0.5, 0.4]}}, r"got auc \[0.5, 0.4\], expected"),
        ({"measures": {"auc": [0.5, 0.4, 1.5]}}, r"got auc \[0.5, 0.4, 1.5\], expected"),
    ],
)
def test_a_damaged_score_is_named_with_its_line(
    tmp_path: Path, toy_space: SearchSpace, change: dict[str, Any], expected: str
) -> None:
    cache = open_in(tmp_path, toy_space)
    for architecture in (toy_space.largest, toy_space.smallest):
        cache.add(architecture, Score(0.25, 12))
    header, first, second = cache.path.read_text(encoding="utf-8").splitlines()
    changed = json.dumps({**json.loads(first), **change})
    cache.path.write_text(f"{header}\n{changed}\n{second}\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"^{cache.path}:2: damaged: {expected}.*; remove the line$"):
        open_in(tmp_path, toy_space)


def test_what_an_older_version_kept_without_its_images_is_found_anew(tmp_path: Path, toy_space: SearchSpace) -> None:
    cache = open_in(tmp_path, toy_space)
    cache.add(toy_space.largest, Score(0.5, 12))
    cache.add(toy_space.smallest, Score(0.25, 12))
    header, old, new = cache.path.read_text(encoding="utf-8").splitlines()
    entry = json.loads(old)
    del entry["num_images"]
    cache.path.write_text("\n".join([header, json.dumps(entry), new, ""]), encoding="utf-8")
    assert open_in(tmp_path, toy_space).all_scores() == {toy_space.smallest.arch_id: Score(0.25, 12)}
