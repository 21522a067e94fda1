"""How sure it is that a device gets the best network, and which much cheaper one is as good.

Accuracies are of the images that candidates were chosen by, so the best of many is among the lucky ones.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from fedsup_deploy.artifact.manifest import AccuracyRecord
from fedsup_deploy.measures import ACCURACY
from fedsup_deploy.report import apart, words
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.noise import AccuracyNoise
from fedsup_deploy.searchers.result import DeviceResult, SearchResult
from fedsup_deploy.searchers.scoring.score import Scores

#: Much cheaper: at most this share of the parameters or of the latency, and no more of the other.
_MUCH: Final = 0.5
#: How candidates were found, by the name of the method.
_METHODS: Final = {
    "exact": "by exact search",
    "evolution": "by evolution",
    "random": "drawn at random",
}


def how_sure(chosen: Candidate, device: DeviceResult) -> str:
    """Return whether what a device gets can be told from all others, in a sentence."""
    others = device.num_evaluated - 1
    return f"{_told_apart(chosen, device, others)}; {_untried(device)}"


def _untried(device: DeviceResult) -> str:
    untried = device.num_feasible - device.num_evaluated
    if untried <= 0:
        return "these are all that fit"
    proof = ", which cannot be better: that is proved" if device.certified else ""
    verb = "was" if untried == 1 else "were"
    return f"{untried:,} that fit {verb} never tried{proof}"


def _told_apart(chosen: Candidate, device: DeviceResult, others: int) -> str:
    best = device.most_accurate or device.pick
    if others == 0:
        return "the only one tried"
    if chosen.arch_id != best:
        return _beside_the_best(chosen, device.candidate(best), device)
    if device.within_noise is None:
        return f"the best of {others + 1:,} tried; nobody knows whether it can be told apart from the others"
    alike = device.within_noise.num_candidates
    if alike == 0:
        return f"better than all {others:,} others tried: it can be told apart from each"
    if alike == others:
        return (
            "cannot be told apart from the only other one tried"
            if alike == 1
            else f"cannot be told apart from any of the {alike:,} others tried"
        )
    return f"cannot be told apart from {alike:,} of the {others:,} others tried"


def _beside_the_best(chosen: Candidate, best: Candidate, device: DeviceResult) -> str:
    here, there = chosen.worth(device.objective), best.worth(device.objective)
    assert here is not None, "of all candidates it is known how good they are in what was searched for"
    assert there is not None, "as above"
    alike = as_good(chosen, device)
    noise = "" if alike is None else f", {'cannot' if best in alike else 'can'} be told apart"
    return f"{words.points(here - there)} against the best tried for this device, {best.arch_id}{noise}"


def as_good(chosen: Candidate, device: DeviceResult) -> list[Candidate] | None:
    """Return the other candidates whose accuracy cannot be told apart from that of one; None where nobody knows."""
    if device.within_noise is None or device.objective != ACCURACY:
        return None
    scores = Scores(
        np.array([each.best_known_accuracy for each in device.candidates]),
        is_predicted_K=np.array([each.accuracy is None for each in device.candidates]),
        num_images_K=np.array([each.num_images or 0 for each in device.candidates]),
    )
    at = device.candidates.index(chosen)
    alike_K = AccuracyNoise(device.within_noise.mae).as_accurate(scores, at)
    return [each for index, each in enumerate(device.candidates) if alike_K[index] and index != at]


def much_cheaper(chosen: Candidate, device: DeviceResult) -> Candidate | None:
    """Return the most accurate of those that cannot be told apart and are much cheaper; None without any."""
    found = [each for each in as_good(chosen, device) or () if _is_much_cheaper(each, chosen)]
    return min(
        found,
        key=lambda each: (-each.best_known_accuracy, each.num_params, each.latency_ms_held, each.arch_id),
        default=None,
    )


def cheapest_alike(chosen: Candidate, device: DeviceResult) -> Candidate | None:
    """Return the cheapest of those that cannot be told apart: the smallest product of parameters and latency.

    It has no more of either, and less of one; None where there is none, or nobody knows.
    """
    alike = [each for each in as_good(chosen, device) or () if _is_cheaper(each, chosen)]
    return min(alike, key=lambda each: (each.num_params * each.latency_ms_held, each.arch_id), default=None)


def _is_cheaper(one: Candidate, other: Candidate) -> bool:
    costs = [(each.num_params, each.latency_ms_held) for each in (one, other)]
    return costs[0] != costs[1] and costs[0][0] <= costs[1][0] and costs[0][1] <= costs[1][1]


def not_much_cheaper_in_words(chosen: Candidate, device: DeviceResult) -> str | None:
    """Return what is the cheapest that is as good, where none is much cheaper; None where none is, or nobody knows."""
    if not as_good(chosen, device):
        return None
    found = cheapest_alike(chosen, device)
    half = f"none that cannot be told apart has {words.rounded(_MUCH)} of the parameters or of the latency"
    if found is None:
        return f"{half}, and none has less of either without more of the other"
    params, latency = (
        words.rounded(one / max(1e-12, other))
        for one, other in (
            (found.num_params, chosen.num_params),
            (found.latency_ms_held, chosen.latency_ms_held),
        )
    )
    costs = f"{found.num_params:,} parameters ({params}) and {words.number(found.latency_ms_held, 'ms')} ({latency})"
    return f"{half}; the cheapest of them is {found.arch_id}: {costs}, {Difference.of(found, chosen)}"


def _is_much_cheaper(one: Candidate, other: Candidate) -> bool:
    params, latency = one.num_params / max(1, other.num_params), one.latency_ms_held / max(1e-12, other.latency_ms_held)
    return max(params, latency) <= 1 and min(params, latency) <= _MUCH


def cheaper_in_words(one: Candidate, chosen: Candidate, bundles: Sequence[BundleMaterial] = ()) -> str:
    """Return how much cheaper a candidate is, and what it loses, with the figures of both, and what to do."""
    return (
        f"take {one.arch_id} where time or size counts: {one.num_params:,} parameters instead of "
        f"{chosen.num_params:,} and {words.number(one.latency_ms_held, 'ms')} instead of "
        f"{words.number(chosen.latency_ms_held, 'ms')}; {lost_in_words(one, chosen, bundles)}"
    )


def lost_in_words(one: Candidate, chosen: Candidate, bundles: Sequence[BundleMaterial]) -> str:
    """Return what a cheaper candidate loses, also on test images, as far as bundles on the page know that."""
    told = f"its accuracy is {Difference.of(one, chosen)} on the images they were chosen by, cannot be told apart"
    here, there = (_tested(each.arch_id, bundles) for each in (one, chosen))
    if here is None:
        return f"{told}; no bundle on this page knows it on test images"
    of = f"{words.counted(here.num_samples, f'{here.split} image')}, fp32"
    told += f"; on {of}, it has {words.share(here.recalibrated, here.recalibrated_interval)}"
    if there is None or (there.dataset, there.split, there.num_samples) != (here.dataset, here.split, here.num_samples):
        return told
    noise = apart.in_words(here.recalibrated_interval, there.recalibrated_interval)
    return f"{told}, {words.points(here.recalibrated - there.recalibrated)}, {noise}"


def _tested(arch_id: str, bundles: Sequence[BundleMaterial]) -> AccuracyRecord | None:
    """Return what is known of a network on test images, for whatever device its bundle was made."""
    return next((each.manifest.accuracy for each in bundles if each.manifest.arch_id == arch_id), None)


class Difference(NamedTuple):
    """How far two accuracies lie apart.

    Args:
        share: The first less the second.
        num_images: Both are of; None where that is not the same, or not known.
    """

    share: float
    num_images: int | None

    @classmethod
    def of(cls, one: Candidate, other: Candidate) -> "Difference":
        """Return that of two candidates."""
        are_measured = one.accuracy is not None and other.accuracy is not None
        is_same = are_measured and one.num_images == other.num_images
        return cls(one.best_known_accuracy - other.best_known_accuracy, one.num_images if is_same else None)

    def __str__(self) -> str:
        """Return it in points, and in images where both are of the same."""
        if self.num_images is None:
            return words.points(self.share)
        images = words.counted(round(abs(self.share) * self.num_images), "image")
        return f"{words.points(self.share)} ({images} of {self.num_images:,})"


def why(device: DeviceResult, result: SearchResult) -> str:
    """Return why a device gets what it gets."""
    best = objective.TABLE[device.objective].column
    if result.fleet is not None:
        lost = result.fleet.option.lost[device.profile.name]
        told = f"with {words.counted(result.fleet.chosen, 'architecture')} for the whole fleet"
        told += f"; its own best, {device.pick}, has {words.points(lost)}" if lost else ", and as good as its own best"
    elif device.prefer == "cheaper" and device.pick != device.most_accurate:
        told = f"the cheapest whose {best} cannot be told apart from the best"
    else:
        told = f"the best {best} of those tried"
    how = _METHODS.get(device.method, f"by {device.method}")
    return f"{told}; {device.num_evaluated:,} of {device.num_feasible:,} that keep the limits were tried, {how}"
