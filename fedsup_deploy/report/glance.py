"""The first screen of a page: what each device gets, and short answers to what everybody asks.

All of it stands below as well, with how it is known; here it is found in seconds.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.report import bundle_facts, client_figures, search_facts, words
from fedsup_deploy.report.bundle_facts import LATENCY, BundleMaterial
from fedsup_deploy.report.client_figures import EvaluationMaterial
from fedsup_deploy.report.figure import Table
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched

#: Lines of an answer.
_MOST_LINES: Final = 10
#: Devices that are named in a line.
_MOST_NAMED: Final = 12


@dataclasses.dataclass(frozen=True)
class Answered:
    """What somebody asks, and what the page knows of it.

    Args:
        question: In words.
        lines: The answer.
    """

    question: str
    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Glance:
    """The first screen.

    Args:
        devices: What each device gets; None without a search or a bundle.
        answers: To what everybody asks.
    """

    devices: Table | None
    answers: tuple[Answered, ...]


def glance(
    runs: Sequence[RunMaterial],
    searches: Sequence[Searched],
    bundles: Sequence[BundleMaterial],
    evaluations: Sequence[EvaluationMaterial] = (),
) -> Glance:
    """Return the first screen of a page."""
    answers = [
        ("Is training healthy?", map(_health, runs), "not known: no run is on this page"),
        (
            "For which clients is it worst?",
            (*client_figures.worst_in_words(evaluations), *_worst_clients(searches)),
            "not known here: put on this page what fedsup-deploy evaluate RUN --arch ARCH --per-client --json has told",
        ),
    ]
    if searches:
        answers.append(("What would more time bring?", _more_time(searches), ""))
    if searches or bundles:
        answers += [
            ("What was not measured on its device?", _not_measured(searches, bundles), "nothing"),
            ("What is refused, left out or over its limit?", _refused(searches, bundles), "nothing"),
        ]
    if bundles:
        answers += [
            ("Is int8 worth it?", _int8(bundles), "no bundle here has an int8 file"),
            ("What may be trusted?", _trusted(bundles), ""),
        ]
    answered = (Answered(question, _lines(found) or (otherwise,)) for question, found, otherwise in answers)
    return Glance(_devices(searches, bundles), tuple(answered))


def _lines(found: Iterable[str]) -> tuple[str, ...]:
    """Return lines, each once, and how many there is no room for."""
    once = tuple(dict.fromkeys(found))
    more = len(once) - _MOST_LINES
    return once if more <= 0 else (*once[:_MOST_LINES], f"and {more} more, below")


def _devices(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Table | None:
    made = {(each.manifest.profile.name, each.manifest.arch_id): each for each in bundles}
    shown: set[tuple[str, str]] = set()
    table = []
    for searched in searches:
        for device in searched.result.results:
            name = device.profile.name
            chosen = searched.result.chosen_for(name)
            bundle = made.get((name, chosen.arch_id))
            shown.add((name, chosen.arch_id))
            is_possible = name not in searched.no_bundle
            known = search_facts.worth(chosen, device.objective, device, searched.result.accuracy_model)
            worth = words.share(known.value, known.bounds)
            if chosen.is_predicted(device.objective):
                worth += ", predicted"
            elif chosen.num_images is not None:
                worth += f" of {chosen.num_images:,} images it was chosen by"
            predicted = chosen.latency_ms_held
            limit = device.limits.get(LATENCY)
            table.append(
                (
                    _called(name, searched, searches),
                    chosen.arch_id,
                    worth if bundle is None else _accuracy(bundle.manifest),
                    words.number(predicted, "ms"),
                    _share(predicted, limit),
                    _timed(bundle),
                    "made" if bundle is not None else "not on this page" if is_possible else "none can be made",
                )
            )
    for (name, arch_id), material in made.items():
        if (name, arch_id) not in shown:
            table.append((name, arch_id, _accuracy(material.manifest), *_costs(material), _timed(material), "made"))
    heads = ("device", "gets", "accuracy", "latency, predicted", "of its limit", "timed on the device", "bundle")
    return Table.of(heads, table) if table else None


def _called(device: str, searched: Searched, searches: Sequence[Searched]) -> str:
    """Return what a device is called: where there are several searches, with the one that is meant."""
    return device if len(searches) == 1 else f"{device} ({words.short(searched.name)})"


def _accuracy(manifest: Manifest) -> str:
    found = manifest.accuracy
    told = words.share(found.recalibrated, found.recalibrated_interval)
    return f"{told} of {words.counted(found.num_samples, f'{found.split} image')}"


def _costs(material: BundleMaterial) -> tuple[str, str]:
    limit, predicted = material.manifest.limits.get(LATENCY), material.manifest.main.latency.predicted
    if limit is not None:
        return words.number(limit.cost, "ms"), _share(limit.cost, limit.limit)
    return words.number(None if predicted is None else predicted.value_ms, "ms"), _share(0.0, None)


def _share(value: float, limit: float | None) -> str:
    return "no limit" if limit is None else f"{value / limit:.0%} of {words.number(limit, 'ms')}"


def _timed(material: BundleMaterial | None) -> str:
    """Return what a clock said that may have been the device's."""
    if material is None:
        return "no"
    found = list(bundle_facts.timed_on_device(material))
    return "; ".join(found) or "no"


def _health(material: RunMaterial) -> str:
    history, name = material.history, material.run.config.name
    warned, rounds = history.health, words.counted(len(history.rounds), "round")
    missing = sum(len(each.clients) - len(each.answered) for each in history.rounds)
    asked = sum(len(each.clients) for each in history.rounds)
    absent = f"{missing:,} of {asked:,} answers of clients are missing" if missing else "no client was absent"
    if not warned:
        return f"{name}: nothing was warned of in {rounds}; {absent}"
    last = f"the last in round {warned[-1].round + 1}: {warned[-1].words}"
    return f"{name}: {words.counted(len(warned), 'warning')} in {rounds}, {last}; {absent}"


def _worst_clients(searches: Sequence[Searched]) -> Iterator[str]:
    for searched in searches:
        for device in searched.result.results:
            worst = searched.result.chosen_for(device.profile.name).worst_decile
            if worst is not None:
                yield f"{device.profile.name}: {words.share(worst)} in the mean of the worst tenth of the clients"


def _more_time(searches: Sequence[Searched]) -> Iterator[str]:
    answers: dict[str, list[str]] = {}
    for searched in searches:
        for device in searched.result.results:
            others = [each for each in searches if each is not searched]
            told = search_facts.answer(device, searched, others).more
            answers.setdefault(told, []).append(_called(device.profile.name, searched, searches))
    devices = sum(map(len, answers.values()))
    return (
        f"{'each device' if 1 < devices == len(names) else _named(names)}: {told}" for told, names in answers.items()
    )


def _not_measured(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    timed = {each.manifest.profile.name for each in bundles if any(bundle_facts.timed_on_device(each))}
    profiles = [each.profile for searched in searches for each in searched.result.results]
    profiles += [each.manifest.profile for each in bundles]
    by_source: dict[str, list[str]] = {}
    for profile in profiles:
        if profile.name not in timed:
            by_source.setdefault(" and ".join(profile.provenance), []).append(profile.name)
    return (f"latency on {_named(names)}: predicted, from {source} figures" for source, names in by_source.items())


def _refused(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    reasons: Mapping[str, str] = {name: why for searched in searches for name, why in searched.no_bundle.items()}
    yield from (f"{name}: no bundle can be made: {why}" for name, why in reasons.items())
    for each in bundles:
        yield from (f"{each.name}: {variant} is left out: {why}" for variant, why in each.manifest.left_out.items())
        yield from (f"{each.name}: exceeds its limit {name}" for name in each.manifest.exceeded_limits)


def _int8(bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    for each in bundles:
        if (told := bundle_facts.is_int8_worth_it(each)) is not None:
            yield f"{each.name}: {told}"


def _trusted(bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    gates = [record.gate for each in bundles for record in each.manifest.models.values()]
    parity = [gate for gate in gates if isinstance(gate, ParityGate)]
    worst = max(gate.max_scaled_diff for gate in parity)
    yield (
        f"Outputs: {words.counted(len(parity), 'fp32 file')} passed the gate: all compute what the supernet computes, "
        f"within {worst:.1e} of {parity[0].tolerance:g} allowed."
    )
    for each in bundles:
        found = each.manifest.accuracy
        images = words.counted(found.num_samples, "image")
        yield f"Accuracies: of {images} of {found.dataset} ({found.split}); nothing is known of others."
    unknown = [each.manifest.profile.name for each in bundles if each.manifest.profile.error == "none"]
    if unknown:
        yield f"Latencies on {_named(unknown)}: nobody knows how far predictions are off; measure before you promise."
    known = {each.manifest.profile.name: each.manifest.profile.error for each in bundles}
    errors = [
        f"{error.mape:.1%} on {name} ({words.counted(error.num_heldout, 'network')})"
        for name, error in known.items()
        if error != "none"
    ]
    if errors:
        yield f"Latencies: predictions were off by {', '.join(errors)}."
    yield "Whether files are unaltered is for fedsup-deploy verify to find out."


def _named(names: Sequence[str]) -> str:
    once = [*dict.fromkeys(names)]
    more = f" and {len(once) - _MOST_NAMED} more" if len(once) > _MOST_NAMED else ""
    return ", ".join(once[:_MOST_NAMED]) + more
