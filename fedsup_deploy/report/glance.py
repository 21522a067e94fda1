"""The first screen of a page: what each device gets, and short answers to what everybody asks.

All of it stands below as well, with how it is known; here it is found in seconds.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from fedsup_deploy.artifact.manifest import ProfileRecord
from fedsup_deploy.report import (
    answers,
    bundle_facts,
    caveats,
    client_figures,
    fewer,
    int8,
    naming,
    progress,
    search_facts,
    standing,
    verdict,
    words,
)
from fedsup_deploy.report.bundle_facts import LATENCY, BundleMaterial
from fedsup_deploy.report.client_figures import EvaluationMaterial
from fedsup_deploy.report.figure import Table
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.run_events import CORNERS
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.result import DeviceResult

#: Lines of an answer.
_MOST_LINES: Final = 10
_NO_RUN: Final = "not known: no run is on this page"


@dataclasses.dataclass(frozen=True)
class Answered:
    """What somebody asks, and what the page knows of it.

    Args:
        question: In words.
        lines: The answer.
    """

    question: str
    lines: tuple[str, ...]


class Links(NamedTuple):
    """Where a row leads.

    Args:
        card: Name of the device's card; None where there is none.
        bundle: Name of the bundle; None where there is none.
    """

    card: str | None
    bundle: str | None


@dataclasses.dataclass(frozen=True)
class Glance:
    """The first screen.

    Args:
        devices: What each device gets; None without a search or a bundle.
        links: Where each of its rows leads.
        answers: To what everybody asks.
    """

    devices: Table | None
    links: tuple[Links, ...]
    answers: tuple[Answered, ...]


def glance(
    runs: Sequence[RunMaterial],
    searches: Sequence[Searched],
    bundles: Sequence[BundleMaterial],
    evaluations: Sequence[EvaluationMaterial] = (),
) -> Glance:
    """Return the first screen of a page."""
    asked = [
        (
            "Is training healthy?",
            (line for run in runs for line in progress.in_words(run)),
            _NO_RUN,
        ),
        (
            "Would more rounds help?",
            (f"{run.run.config.name}: {line}" for run in runs for line in progress.rising(run)),
            _NO_RUN if not runs else "not known: accuracy was measured once",
        ),
        (
            "How many bytes does a client move?",
            (f"{run.run.config.name}: {line}" for run in runs for line in progress.traffic(run)),
            _NO_RUN,
        ),
        (
            "For which clients is it worst?",
            (*_worst(runs, searches, evaluations), *_worst_clients(searches)),
            "not known here: put on this page what fedsup-deploy evaluate RUN --arch ARCH --per-client --json has told",
        ),
    ]
    if searches:
        asked += [
            (
                "Is a much cheaper network as good?",
                _cheaper(searches, bundles),
                "not known: nobody can tell which of those tried are as good",
            ),
            ("What would fewer architectures cost?", fewer.in_words(searches, bundles), ""),
            ("What would more time bring?", _more_time(searches, runs), ""),
        ]
    if searches or bundles:
        asked += [
            ("What was not measured on its device?", caveats.not_measured(searches, bundles), "nothing"),
            ("What is refused, left out or over its limit?", caveats.refused(searches, bundles), "nothing"),
        ]
    if bundles:
        asked.append(("Is int8 worth it?", _int8(bundles), "no bundle here has an int8 file"))
    if searches or bundles:
        asked.append(("What may be trusted?", caveats.trusted(searches, bundles), ""))
    answered = (Answered(question, _lines(found) or (otherwise,)) for question, found, otherwise in asked)
    devices, links = _devices(searches, bundles)
    return Glance(devices, tuple(links), tuple(answered))


def _lines(found: Iterable[str]) -> tuple[str, ...]:
    """Return lines, each once, and how many there is no room for."""
    once = tuple(dict.fromkeys(found))
    more = len(once) - _MOST_LINES
    return once if more <= 0 else (*once[:_MOST_LINES], f"and {more} more, below")


def _devices(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> tuple[Table | None, list[Links]]:
    """Return a row for each device of each search, and for each bundle of no search; and where they lead."""
    made = {(each.manifest.profile.name, each.manifest.arch_id): number for number, each in enumerate(bundles, start=1)}
    shown: set[int] = set()
    table: list[tuple[str, ...]] = []
    links: list[Links] = []
    for number, searched in enumerate(searches, start=1):
        for at, device in enumerate(searched.result.results, start=1):
            name = device.profile.name
            chosen = searched.result.chosen_for(name)
            place = made.get((name, chosen.arch_id))
            bundle = None if place is None else bundles[place - 1]
            shown |= set() if place is None else {place}
            table.append(
                (
                    naming.called(name, searched, searches),
                    _gets(chosen.arch_id, answers.precision_of(device, searched, bundle)),
                    "not known" if bundle is None else bundle_facts.accuracy(bundle.manifest),
                    _chosen_by(chosen, device, searched),
                    _latency(chosen.latency_ms_held, device.limits.get(LATENCY), device.profile, device.risk),
                    standing.how_sure(chosen, device),
                    _timed(bundle),
                    "made" if bundle is not None else "none can be made" if name in searched.no_bundle else "not here",
                )
            )
            links.append(Links(card_id(f"search-{number}", at), None if place is None else f"bundle-{place}"))
    for number, material in enumerate(bundles, start=1):
        if number not in shown:
            table.append(_alone(material))
            links.append(Links(None, f"bundle-{number}"))
    heads = (
        "device",
        "gets",
        "accuracy, test images",
        "accuracy it was chosen by",
        "latency, predicted",
        "how sure is it the best?",
        "timed on the device",
        "bundle",
    )
    return (Table.of(heads, table) if table else None), links


def card_id(search: str, number: int) -> str:
    """Return the name of the card of a device: the place among those of its search counts, from 1."""
    return f"{search}-device-{number}"


def _alone(material: BundleMaterial) -> tuple[str, ...]:
    """Return the row of a bundle whose search is not on the page."""
    manifest = material.manifest
    limit, variant = manifest.limits.get(LATENCY), bundle_facts.of_device(manifest)
    predicted = variant.latency.predicted
    latency = "not known"
    if limit is not None:
        latency = _latency(limit.cost, limit.limit, manifest.profile, limit.risk)
    elif predicted is not None:
        latency = words.number(predicted.value_ms, "ms")
    return (
        manifest.profile.name,
        _gets(manifest.arch_id, bundle_facts.limits_precision(manifest)),
        bundle_facts.accuracy(manifest),
        *("its search is not here", latency, "its search is not here"),
        _timed(material),
        "made",
    )


def _gets(arch_id: str, precision: str | None) -> str:
    return arch_id if precision is None else f"{arch_id}, {precision}"


def _chosen_by(chosen: Candidate, device: DeviceResult, searched: Searched) -> str:
    known = search_facts.worth(chosen, device.objective, device, searched.result.accuracy_model)
    told = words.share(known.value, known.bounds)
    if chosen.is_predicted(device.objective):
        return f"{told}, predicted"
    return told if chosen.num_images is None else f"{told} of {chosen.num_images:,}"


def _latency(value: float, limit: float | None, profile: ProfileRecord, risk: float | None) -> str:
    if limit is None:
        return f"{words.number(value, 'ms')}, no limit"
    short = verdict.of(LATENCY, value, limit, profile, is_bound=risk is not None).short
    told = f"{words.number(value, 'ms')}, {words.rounded(value / limit)} of {words.number(limit, 'ms')}"
    return f"{told}: {short}" if short else told


def _timed(material: BundleMaterial | None) -> str:
    """Return what a clock said that may have been the device's."""
    if material is None:
        return "no"
    found = list(bundle_facts.timed_on_device(material))
    return "; ".join(found) or "no"


def _worst(
    runs: Sequence[RunMaterial], searches: Sequence[Searched], evaluations: Sequence[EvaluationMaterial]
) -> Iterator[str]:
    """Yield for which clients subnets are worst, and which subnets these are."""
    for each in evaluations:
        arch_id = each.evaluation.arch_id
        corners = [
            f"the {corner} subnet"
            for corner in CORNERS
            if any(getattr(run.run.space, corner).arch_id == arch_id for run in runs)
        ]
        owners = [
            naming.called(device.profile.name, searched, searches)
            for searched in searches
            for device in searched.result.results
            if searched.result.chosen_for(device.profile.name).arch_id == arch_id
        ]
        gets = (
            [f"that {naming.named(owners)} get" if owners else "that no device on this page gets"] if searches else []
        )
        yield f"{arch_id}{', '.join(['', *corners, *gets])}: {client_figures.worst_in_words(each)}"
    yield from _not_asked(searches, evaluations)


def _not_asked(searches: Sequence[Searched], evaluations: Sequence[EvaluationMaterial]) -> Iterator[str]:
    """Yield how clients are asked about what devices get and nobody has asked about."""
    asked = {each.evaluation.arch_id for each in evaluations}
    owners: dict[str, list[str]] = {}
    for searched in searches:
        for device in searched.result.results:
            chosen = searched.result.chosen_for(device.profile.name)
            if chosen.arch_id not in asked and chosen.worst_decile is None:
                owners.setdefault(chosen.arch_id, []).append(device.profile.name)
    if owners and evaluations:
        named = "; ".join(f"{arch_id} of {naming.named(names)}" for arch_id, names in owners.items())
        first = next(iter(owners))
        yield (
            f"nobody has asked clients about what devices get: {named}; "
            f"fedsup-deploy evaluate RUN --arch {first} --per-client --json does"
        )


def _worst_clients(searches: Sequence[Searched]) -> Iterator[str]:
    for searched in searches:
        for device in searched.result.results:
            worst = searched.result.chosen_for(device.profile.name).worst_decile
            if worst is not None:
                yield f"{device.profile.name}: {words.share(worst)} in the mean of the worst tenth of the clients"


def _more_time(searches: Sequence[Searched], runs: Sequence[RunMaterial]) -> Iterator[str]:
    by_answer: dict[str, list[str]] = {}
    for searched in searches:
        for device in searched.result.results:
            others = [each for each in searches if each is not searched]
            answer = answers.answer(device, searched, others, runs=runs)
            told = answer.more
            if answer.best is not None and LATENCY in device.limits and answer.best.split()[0] not in told:
                told = f"the best tried is {answer.best}; {told}"
            by_answer.setdefault(told, []).append(naming.called(device.profile.name, searched, searches))
    devices = sum(map(len, by_answer.values()))
    return (
        f"{'each device' if 1 < devices == len(names) else naming.named(names)}: {told}"
        for told, names in by_answer.items()
    )


def _int8(bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    for each in bundles:
        if (told := int8.is_it_worth_it(each)) is not None:
            yield f"{each.name}: {told}"


def _cheaper(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    """Yield which much cheaper network cannot be told apart, once for all devices that get the same."""
    same: dict[tuple[str, str], list[tuple[str, Candidate, Candidate]]] = {}
    otherwise: dict[str, list[str]] = {}
    for searched in searches:
        for device in searched.result.results:
            chosen = searched.result.chosen_for(device.profile.name)
            called = naming.called(device.profile.name, searched, searches)
            if (cheaper := standing.much_cheaper(chosen, device)) is not None:
                same.setdefault((chosen.arch_id, cheaper.arch_id), []).append((called, chosen, cheaper))
            elif (told := standing.not_much_cheaper_in_words(chosen, device)) is not None:
                otherwise.setdefault(told, []).append(called)
    for devices in same.values():
        _, chosen, cheaper = devices[0]
        ratios = sorted(one.latency_ms_held / max(1e-12, other.latency_ms_held) for _, one, other in devices)
        ends = [*dict.fromkeys(f"{ratio:.2g}" for ratio in (ratios[0], ratios[-1]))]
        yield (
            f"{naming.named([name for name, *_ in devices])}: {chosen.arch_id} has {chosen.num_params:,} parameters, "
            f"{cheaper.arch_id} {cheaper.num_params:,} and {' to '.join(ends)} times less predicted latency: take it "
            f"where time or size counts; {standing.lost_in_words(cheaper, chosen, bundles)}"
        )
    yield from (f"{naming.named(names)}: {told}" for told, names in otherwise.items())
