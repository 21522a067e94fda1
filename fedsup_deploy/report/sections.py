"""The sections of a page: what stands of each run, search, bundle and evaluation, in the order it is read."""

import dataclasses
from collections.abc import Sequence

from fedsup_deploy.report import (
    absences,
    answers,
    bundle_facts,
    bundle_figures,
    client_figures,
    glance,
    int8,
    progress,
    run_figures,
    search_figures,
    words,
)
from fedsup_deploy.report.answers import Answer
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.client_figures import EvaluationMaterial
from fedsup_deploy.report.figure import Figure, Table
from fedsup_deploy.report.mistakes import Mistake
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched


@dataclasses.dataclass(frozen=True)
class RunSection:
    """A run on the page."""

    id: str
    name: str
    facts: Table
    figures: tuple[Figure, ...]
    warnings: Table | None
    took_part: str
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DeviceSection:
    """What a search found for one device.

    Args:
        id: Of its card.
        bundle: Name of the bundle's section; None where none is on the page.
        answer: In words.
        front: Of its candidates.
    """

    id: str
    bundle: str | None
    answer: Answer
    front: Table


@dataclasses.dataclass(frozen=True)
class SearchSection:
    """A search on the page."""

    id: str
    name: str
    facts: Table
    devices: tuple[DeviceSection, ...]
    figures: tuple[Figure, ...]


@dataclasses.dataclass(frozen=True)
class MistakesSection:
    """What a bundle answers wrongly, or why that is not shown.

    Args:
        says: In words.
        shown: Images; none where another bundle has the same file, and shows them.
    """

    says: str
    shown: tuple[Mistake, ...]


@dataclasses.dataclass(frozen=True)
class BundleSection:
    """A bundle on the page.

    Args:
        id: Of the section.
        name: What it is called.
        same: The section, with its name, that shows the figures of this one, too: their networks are one; None where
            this one shows them.
        drawn_of: Which precision its answers are drawn of.
    """

    id: str
    name: str
    facts: Table
    variants: Table
    commands: Table | None
    limits: Table
    int8: str | None
    trust: tuple[str, ...]
    engine: Table | None
    measures: Table | None
    figures: tuple[Figure, ...]
    same: tuple[str, str] | None
    drawn_of: str
    mistakes: MistakesSection | None
    lineage: Table


@dataclasses.dataclass(frozen=True)
class EvaluationSection:
    """What clients have said of a subnet."""

    id: str
    name: str
    facts: Table
    figure: Figure


def run(section: str, material: RunMaterial) -> RunSection:
    """Return the section of a run."""
    config, history, space = material.run.config, material.history, material.run.space
    last = material.kept
    told = [
        ("trained on", config.data.dataset),
        ("by", config.strategy.name),
        ("space", f"{space.name}: {space.num_architectures:,} subnets"),
        ("rounds", f"{len(history.rounds)} of {config.training.rounds}"),
        ("clients", _clients(material)),
    ]
    if material.kept_after is not None:
        told.append(("result", f"the supernet after {words.counted(material.kept_after, 'round')}, which was the best"))
    if last is not None:
        for corner in ("largest", "smallest"):
            value = words.share(last.accuracy(corner), last.interval(corner))
            told.append(
                (f"{corner} subnet", value if last.num_images is None else f"{value}, {last.num_images:,} images")
            )
    if history.rounds:
        sent = sum(each.bytes_down + each.bytes_up for each in history.asked)
        told.append(("time", words.seconds(sum(each.seconds for each in history.asked))))
        told.append(("bytes, both ways", words.size(sent)))
        told += [("a client", line) for line in [progress.bytes_of_a_client(history.asked)] if line is not None]
    told += [("accuracy at the end", line) for line in progress.rising(material)]
    told += [("by size", line) for line in [progress.sizes(material)] if line is not None]
    absent = absences.figure(material)
    return RunSection(
        section,
        config.name,
        Table.of(("", ""), told),
        _named(section, [*run_figures.figures(material), *([] if absent is None else [absent])]),
        run_figures.warnings(material),
        progress.who_took_part(material),
        history.notes,
    )


def _clients(material: RunMaterial) -> str:
    told = words.counted(material.num_clients, "client")
    if material.history.num_images is not None:
        told += f" with {words.counted(material.history.num_images, 'image')}"
    unseen = () if material.facts is None or material.facts.clients is None else material.facts.clients.unseen
    return told if not unseen else f"{told}; {len(unseen)} more take no part"


def evaluation(section: str, material: EvaluationMaterial) -> EvaluationSection:
    """Return the section of what clients have said of a subnet."""
    found = material.evaluation
    figure = client_figures.figure(found, f"{section}-accuracy")
    return EvaluationSection(section, material.name, client_figures.facts(found), figure)


def search(
    section: str,
    searched: Searched,
    searches: Sequence[Searched],
    bundles: Sequence[BundleMaterial],
    runs: Sequence[RunMaterial],
) -> SearchSection:
    """Return the section of a search.

    Args:
        section: Its name.
        searched: The search.
        searches: All of the page.
        bundles: All of the page.
        runs: All of the page.
    """
    result = searched.result
    others = [each for each in searches if each is not searched]
    model = result.accuracy_model
    how = {"measured": "measured on validation images", "clients": "measured by clients", "predicted": "predicted"}
    accuracies = how[model.kind]
    if model.kendall_tau is not None:
        accuracies += f" from {model.num_measured or 0:,} measured; rank correlation {model.kendall_tau:.2f}"
    rounds = "" if result.run.rounds is None else f", {result.run.rounds} rounds"
    told = [
        *([("holds", _holds(searched, others, bundles))] if others else []),
        ("run", f"{result.run.name}{rounds}, {result.run.hash[:12]}"),
        ("space", result.space.name),
        ("accuracies", accuracies),
        ("seed", str(result.seed)),
        ("time", words.seconds(result.seconds)),
        ("found on", result.processor or "not known"),
    ]
    devices = []
    for number, device in enumerate(result.results, start=1):
        what = (device.profile.name, result.chosen_for(device.profile.name).arch_id)
        made = [
            (at, each)
            for at, each in enumerate(bundles, start=1)
            if (each.manifest.profile.name, each.manifest.arch_id) == what
        ]
        place, bundle = made[0] if made else (None, None)
        devices.append(
            DeviceSection(
                glance.card_id(section, number),
                None if place is None else f"bundle-{place}",
                answers.answer(device, searched, others, bundle, runs, bundles),
                search_figures.front_table(searched, device),
            )
        )
    fleet = [] if result.fleet is None else [search_figures.fleet(result.fleet, "fleet")]
    return SearchSection(section, searched.name, Table.of(("", ""), told), tuple(devices), _named(section, fleet))


def _holds(searched: Searched, others: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> str:
    """Return whether what a search found is what is deployed: whether there are bundles of it."""
    made, devices = num_made(searched, bundles), len(searched.result.results)
    if made:
        return f"bundles on this page are of it, for {made} of {words.counted(devices, 'device')}"
    best = max(others, key=lambda each: num_made(each, bundles))
    where = f": they are of {words.short(best.name)}" if num_made(best, bundles) else ""
    return f"no bundle on this page is of it{where}"


def num_made(searched: Searched, bundles: Sequence[BundleMaterial]) -> int:
    """Return for how many of its devices there is a bundle of what a search found."""
    made = {(each.manifest.profile.name, each.manifest.arch_id) for each in bundles}
    found = ((device.profile.name, searched.result) for device in searched.result.results)
    return sum((name, result.chosen_for(name).arch_id) in made for name, result in found)


def in_order(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> tuple[Searched, ...]:
    """Return searches, those first of which there are most bundles."""
    return tuple(sorted(searches, key=lambda each: -num_made(each, bundles)))


def _mistakes(material: BundleMaterial, bundles: Sequence[BundleMaterial]) -> MistakesSection | None:
    found = material.mistakes
    if found is None or isinstance(found, str):
        return None if found is None else MistakesSection(f"Not shown: {found}.", ())
    first = next(each for each in bundles if each.mistakes is found)
    if first is not material:
        return MistakesSection(f"Its file is that of {first.name}, where they are shown.", ())
    shown = f"the {len(found.shown)} it is surest of" if len(found.shown) < found.num_wrong else "all of them"
    says = f"{found.num_wrong:,} of {found.num_images:,} {found.of}"
    return MistakesSection(
        f"{says}; {shown}." if found.num_wrong else f"None of {found.num_images:,} {found.of}.", found.shown
    )


def bundle(section: str, material: BundleMaterial, bundles: Sequence[BundleMaterial]) -> BundleSection:
    """Return the section of a bundle; `bundles` are all of the page."""
    manifest = material.manifest
    accuracy, costs = manifest.accuracy, manifest.costs
    told = [
        ("for", manifest.profile.name),
        (
            "accuracy",
            f"{bundle_facts.accuracy(manifest)}, of {accuracy.dataset}",
        ),
        ("before recalibration, fp32", words.share(accuracy.not_recalibrated, accuracy.not_recalibrated_interval)),
        (
            "costs",
            f"{costs.num_macs / 1e6:.3g} M multiply-accumulates, {costs.num_params:,} parameters, "
            f"{words.size(costs.peak_activation_bytes)} of activations in fp32",
        ),
        ("picked for", manifest.objective or "not known"),
    ]
    if (before := bundle_facts.pictures(material)) is not None:
        told.append(("before the network", before))
    if manifest.refinement is not None:
        told.append(("trimmed from", f"{manifest.refinement.source_arch_id}, which exceeds the limits"))
    same = next(
        (
            (f"bundle-{number}", each.name)
            for number, each in enumerate(bundles, start=1)
            if (each.manifest.arch, each.manifest.accuracy) == (manifest.arch, accuracy)
        ),
        None,
    )
    same = None if same is None or same[0] == section else same
    return BundleSection(
        section,
        material.name,
        Table.of(("", ""), told),
        bundle_facts.variants(material),
        bundle_facts.commands(material),
        bundle_facts.limits(manifest),
        int8.is_it_worth_it(material),
        tuple(bundle_facts.trust(material)),
        bundle_facts.engine(material),
        None if accuracy.measures is None else bundle_facts.measures(accuracy.measures),
        () if same is not None else tuple(bundle_figures.figures(material, section)),
        same,
        bundle_facts.drawn_of(manifest),
        _mistakes(material, bundles),
        bundle_facts.lineage(manifest),
    )


def _named(section: str, figures: Sequence[Figure]) -> tuple[Figure, ...]:
    return tuple(dataclasses.replace(figure, name=f"{section}-{figure.name}") for figure in figures)
