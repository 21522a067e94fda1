"""How many architectures a search has for its devices, and what one less would cost."""

from collections.abc import Iterator, Sequence

import numpy as np

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.measures import ACCURACY
from fedsup_deploy.report import apart, search_figures, words
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.search_facts import Searched, worth
from fedsup_deploy.searchers.fleet import choose_artifacts
from fedsup_deploy.searchers.result import FleetOption, SearchResult


def in_words(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    """Yield how many architectures each search has for its devices, and what one less would cost."""
    for searched in searches:
        result = searched.result
        devices = [device.profile.name for device in result.results]
        chosen = {result.chosen_for(name).arch_id for name in devices}
        files = sum(len(each.manifest.models) for each in bundles if each.manifest.arch_id in chosen)
        told = f"{words.counted(len(chosen), 'architecture')} for {words.counted(len(devices), 'device')}"
        told += f", in {words.counted(files, 'variant')} of bundles on this page" if files else ""
        yield f"{words.short(searched.name)}: {told}; {_one_less(result, len(chosen))}"


def _one_less(result: SearchResult, number: int) -> str:
    if number == 1:
        return "fewer there cannot be"
    fewer = [each for each in options(result) if each.num_artifacts < number]
    if not fewer:
        return f"with fewer, none of those tried serves all devices: {_ASK}"
    option = fewer[-1]
    named = ", ".join(sorted(set(option.assigned.values())))
    told = f"with {words.counted(option.num_artifacts, 'architecture')} ({named}) {search_figures.at_worst(option)}"
    told += "" if (noise := _noise(result, option)) is None else f", {noise}"
    return told if result.fleet is not None else f"{told}, of those that were tried on each of the devices: {_ASK}"


_ASK = "fedsup-deploy search --max-artifacts N looks for it"


def options(result: SearchResult) -> tuple[FleetOption, ...]:
    """Return the best for each number of architectures: as searched, or of the candidates that each device has.

    None where devices have other objectives than accuracy, or are too many.
    """
    if result.fleet is not None:
        return result.fleet.options
    if any(device.objective != ACCURACY for device in result.results):
        return ()
    accuracies = {each.arch_id: each.best_known_accuracy for device in result.results for each in device.candidates}
    names = sorted(accuracies)
    latencies = [{each.arch_id: each.latency_ms_held for each in device.candidates} for device in result.results]
    try:
        choices = choose_artifacts(
            np.array([accuracies[name] for name in names]),
            np.array([[name in known for name in names] for known in latencies]),
            np.array([[known.get(name, 0.0) for name in names] for known in latencies]),
            None,
        )
    except ConfigError:
        return ()
    devices = [device.profile.name for device in result.results]
    return tuple(
        FleetOption(
            num_artifacts=choice.num_artifacts,
            assigned={device: names[row] for device, row in zip(devices, choice.rows_P, strict=True)},
            lost=dict(zip(devices, choice.loss_P, strict=True)),
        )
        for choice in choices
    )


def _noise(result: SearchResult, option: FleetOption) -> str | None:
    """Return whether what the worst off gets can be told from its own best; None where nothing is lost."""
    worst = max(option.lost, key=lambda device: (option.lost[device], device))
    if not option.lost[worst]:
        return None
    device = result.for_profile(worst)
    best = device.candidate(device.most_accurate or device.pick)
    one, other = (
        worth(each, device.objective, device, result.accuracy_model).bounds
        for each in (device.candidate(option.assigned[worst]), best)
    )
    return apart.in_words(one, other)
