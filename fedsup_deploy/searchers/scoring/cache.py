"""`ScoreCache`: the scores found in one run, kept from search to search. It changes a search's time, never its result.

Owns what a score looks like in a file. Never measures one, and never decides which numbers may be mixed: whoever opens
a cache says all that decides a score.

Shapes: K architectures, G genes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeGuard

import numpy as np
from pydantic import JsonValue

from fedsup_deploy import files
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.measures import Measure
from fedsup_deploy.searchers.scoring.journal import Journal
from fedsup_deploy.searchers.scoring.score import Score, Scores
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.search_space import SearchSpace

#: The kind of scores that clients have no part in.
MEASURED: Final = "measured"
_KEYS: Final = ("arch_id", "genes", "accuracy", "num_images", "worst_decile", "measures")


class ScoreCache:
    """Scores by architecture: those in the file when it is opened, and those added since.

    Args:
        folder: Where the files of all caches are: one for each `about`.
        kind: How the scores are found: `measured` or `clients`.
        about: All else that decides a score, but the architecture: a JSON mapping.
        space: The search space.

    Raises:
        ArtifactError: The file is damaged; names the line.
    """

    def __init__(self, folder: Path, kind: str, about: Mapping[str, JsonValue], space: SearchSpace) -> None:
        subject = {"kind": kind, **about}
        self._journal = Journal(folder / f"{kind}-{files.sha256_of(subject)[:12]}.jsonl", subject)
        self._space = space
        self._scores: dict[str, Score] = {}
        self._genes: dict[str, list[int]] = {}
        for where, entry in self._journal.read():
            if "num_images" not in entry:
                continue  # Of an older version, which kept no count of images: it is found anew.
            arch_id, genes, score = _read(where, entry, space.num_choices)
            if (score.worst_decile is None) != (kind == MEASURED):
                raise ArtifactError(f"{where}: damaged: got worst_decile {score.worst_decile} there; remove the line")
            # Two processes may have found the same at the same time; of what an older version found, more was found.
            if arch_id not in self._scores or (score.measures and not self._scores[arch_id].measures):
                self._scores[arch_id] = score
            self._genes.setdefault(arch_id, genes)

    @property
    def path(self) -> Path:
        """The file, which is there once it holds a score."""
        return self._journal.path

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, architecture: Architecture) -> Score | None:
        """Return the score of an architecture, or None."""
        return self._scores.get(architecture.arch_id)

    def add(self, architecture: Architecture, score: Score, *, is_kept: bool = True) -> None:
        """Add a score.

        Args:
            architecture: Whose.
            score: It.
            is_kept: Whether also in the file; else until the cache is gone.

        Side effects: Appends a line to the file at once.

        Raises:
            OutputError: The file cannot be written.
        """
        arch_id, genes = architecture.arch_id, self._space.encode(architecture).tolist()
        measures: dict[str, JsonValue] = {name: [one.value, *one.interval] for name, one in score.measures.items()}
        values = (arch_id, genes, score.accuracy, score.num_images, score.worst_decile, measures)
        if is_kept:
            self._journal.append(dict(zip(_KEYS, values, strict=True)))
        self._scores[arch_id], self._genes[arch_id] = score, genes

    def all_scores(self) -> dict[str, Score]:
        """Return all scores by arch_id, in the order in which they were found."""
        return dict(self._scores)

    def table(self) -> tuple[IntArray, Scores]:
        """Return the genes of all architectures with a score, shape (K, G), and their scores, in the same order."""
        genes_KG = np.array(list(self._genes.values()), np.int64).reshape(-1, len(self._space.num_choices))
        return genes_KG, Scores.of(list(self._scores.values()))


def _read(where: str, entry: dict[str, JsonValue], num_choices: tuple[int, ...]) -> tuple[str, list[int], Score]:
    arch_id, genes, accuracy, num_images, worst_decile, _ = (entry.get(key) for key in _KEYS)
    if not (
        isinstance(arch_id, str)
        and isinstance(genes, list)
        and len(genes) == len(num_choices)
        and all(type(gene) is int and 0 <= gene < count for gene, count in zip(genes, num_choices, strict=True))
    ):
        raise ArtifactError(f"{where}: damaged: got no arch_id with its genes; remove the line")
    if not _is_share(accuracy) or not (worst_decile is None or _is_share(worst_decile)):
        got = f"accuracy {accuracy}, worst_decile {worst_decile}"
        raise ArtifactError(f"{where}: damaged: got {got}, expected shares in [0, 1]; remove the line")
    if type(num_images) is not int or num_images < 1:
        raise ArtifactError(f"{where}: damaged: got num_images {num_images}, expected at least 1; remove the line")
    score = Score(accuracy, num_images, worst_decile, measures=_measures(where, entry.get("measures", {})))
    return arch_id, [gene for gene in genes if isinstance(gene, int)], score


def _measures(where: str, found: JsonValue) -> dict[str, Measure]:
    """Return the measures of a line; of one by an older version none."""
    measures = {}
    for name, numbers in found.items() if isinstance(found, dict) else [("measures", found)]:
        shares = [each for each in numbers if _is_share(each)] if isinstance(numbers, list) else []
        if len(shares) != 3 or numbers != shares or not shares[1] <= shares[0] <= shares[2]:
            got = f"{name} {numbers}, expected a value and its interval"
            raise ArtifactError(f"{where}: damaged: got {got}; remove the line")
        measures[name] = Measure(shares[0], (shares[1], shares[2]))
    return measures


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and 0.0 <= value <= 1.0
