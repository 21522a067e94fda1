"""The page: everything that was read, as one HTML file that needs nothing else. Equal values give equal bytes.

Its own program and the library's are let run by their hashes, nothing else is, and nothing is fetched: the page's
Content-Security-Policy says so. Texts of others come in through `embedding` only.
"""

import base64
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.report import (
    absences,
    blocks,
    bundle_facts,
    bundle_figures,
    client_figures,
    embedding,
    glance,
    library,
    look,
    run_figures,
    search_facts,
    search_figures,
    words,
)
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.client_figures import EvaluationMaterial
from fedsup_deploy.report.figure import Figure, Table
from fedsup_deploy.report.mistakes import Mistake
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Answer, Searched
from fedsup_deploy.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class RunSection:
    """A run on the page."""

    id: str
    name: str
    facts: Table
    figures: tuple[Figure, ...]
    warnings: Table | None
    is_anybody_absent: bool
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DeviceSection:
    """What a search found for one device."""

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
    """A bundle on the page."""

    id: str
    name: str
    facts: Table
    variants: Table
    limits: Table
    int8: str | None
    trust: tuple[str, ...]
    engine: Table | None
    measures: Table | None
    figures: tuple[Figure, ...]
    mistakes: MistakesSection | None
    lineage: Table


@dataclasses.dataclass(frozen=True)
class EvaluationSection:
    """What clients have said of a subnet."""

    id: str
    name: str
    facts: Table
    figure: Figure


@dataclasses.dataclass(frozen=True)
class PageMaterial:
    """All that a page shows.

    Args:
        runs: Training runs.
        searches: Searches, each with what it is called.
        bundles: Bundles.
        evaluations: What clients have said of subnets.
    """

    runs: tuple[RunMaterial, ...]
    searches: tuple[Searched, ...]
    bundles: tuple[BundleMaterial, ...]
    evaluations: tuple[EvaluationMaterial, ...] = ()

    def sections(self) -> tuple[list[RunSection], list[SearchSection], list[BundleSection]]:
        """Return what stands on the page."""
        return (
            [_run(f"run-{number}", each) for number, each in enumerate(self.runs, start=1)],
            [_search(f"search-{number}", each, self.searches) for number, each in enumerate(self.searches, start=1)],
            [_bundle(f"bundle-{number}", each, self.bundles) for number, each in enumerate(self.bundles, start=1)],
        )

    def evaluated(self) -> list[EvaluationSection]:
        """Return what clients have said of subnets."""
        return [_evaluation(f"clients-{number}", each) for number, each in enumerate(self.evaluations, start=1)]

    def overview(self) -> list[Figure]:
        """Return the figures of all bundles together."""
        return (
            [make([*self.bundles]) for make in (bundle_figures.latencies, bundle_figures.sizes)] if self.bundles else []
        )

    def pictures(self) -> list[Figure]:
        """Return every plot: those of the page, and for each device of a search the one that the page draws."""
        runs, searches, bundles = self.sections()
        of_sections = [figure for section in _all(searches, bundles, runs) for figure in section.figures]
        of_clients = [each.figure for each in self.evaluated()]
        return [*search_figures.figures([*self.searches]), *self.overview(), *of_sections, *of_clients]


def render(report: PageMaterial) -> str:
    """Return the page.

    Args:
        report: What it shows; something.
    """
    runs, searches, bundles = report.sections()
    overview = report.overview()
    evaluated = report.evaluated()
    of_clients = [each.figure for each in evaluated]
    drawn = [
        *overview,
        *of_clients,
        *(figure for section in _all(searches, bundles, runs) for figure in section.figures),
    ]
    assert len({figure.name for figure in drawn}) == len(drawn), "a figure is found by its name"
    style = _environment().get_template("style.css").render(light=look.LIGHT, dark=look.DARK)
    scripts = [f"(()=>{{{library.program()}}})();", (_TEMPLATES / "page.js").read_text(encoding="utf-8")]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=words.short(_title(report)),
            runs=runs,
            searches=searches,
            bundles=bundles,
            overview=overview,
            has_images=any(each.mistakes is not None and each.mistakes.shown for each in bundles),
            evaluated=evaluated,
            glance=glance.glance(report.runs, report.searches, report.bundles, report.evaluations),
            comparison=search_figures.comparison([*report.searches]),
            explorer=_explorer(report.searches),
            documents={name: embedding.embedded(document) for name, document in _documents(report, drawn).items()},
            style=style,
            scripts=scripts,
            style_hash=_hash(style),
            script_hashes=[_hash(script) for script in scripts],
            made_by=f"fedsup-deploy {__version__}; drawn by {library.versions()}",
        )
    )


def _all(
    searches: Sequence[SearchSection], bundles: Sequence[BundleSection], runs: Sequence[RunSection]
) -> list[SearchSection | BundleSection | RunSection]:
    """Return all sections in their order."""
    return [*searches, *bundles, *runs]


def _title(report: PageMaterial) -> str:
    """Return what the page is about: the runs that everything on it comes from, or its first bundle."""
    names = [each.result.run.name for each in report.searches] + [each.run.path.name for each in report.runs]
    names += [Path(each.evaluation.run).name for each in report.evaluations]
    # Of a run that is the folder one is in nobody knows the name.
    others = [each.name for each in report.bundles] + [each.name for each in report.evaluations]
    return ", ".join(filter(None, dict.fromkeys(names))) or others[0]


def _documents(report: PageMaterial, drawn: Sequence[Figure]) -> JsonObject:
    """Return what the page's program reads, by the name of the element."""
    found: JsonObject = {
        "config": look.config(look.OF_PAGE),
        "figures": {figure.name: figure.spec for figure in drawn},
    }
    if report.searches:
        is_one = len(report.searches) == 1
        found["explorer"] = {
            "plot": search_figures.explorer_spec("X_TITLE", "Y_TITLE", [], None, is_one=is_one),
            "network": blocks.spec([]),
            "step": blocks.STEP,
            "far": search_figures.FAR,
            **search_facts.document([*report.searches]),
        }
    return found


def _explorer(searches: Sequence[Searched]) -> JsonObject | None:
    """Return what can be chosen; None without a search."""
    if not searches:
        return None
    devices = [device for searched in searches for device in searched.result.results]
    return {
        "devices": [*dict.fromkeys(device.profile.name for device in devices)],
        "prices": [*dict.fromkeys(name for device in devices for name in search_facts.prices_of(device))],
        "objectives": [*dict.fromkeys(name for device in devices for name in search_facts.objectives_of(device))],
    }


def _run(section: str, material: RunMaterial) -> RunSection:
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
        told.append(("kept", f"the supernet after {words.counted(material.kept_after, 'round')}, which was the best"))
    if last is not None:
        for corner in ("largest", "smallest"):
            value = words.share(last.accuracy(corner), last.interval(corner))
            told.append(
                (f"{corner} subnet", value if last.num_images is None else f"{value}, {last.num_images:,} images")
            )
    if history.rounds:
        sent = sum(each.bytes_down + each.bytes_up for each in history.rounds)
        told.append(
            ("time, bytes", f"{words.seconds(sum(each.seconds for each in history.rounds))}, {words.size(sent)}")
        )
    absent = absences.figure(material)
    return RunSection(
        section,
        config.name,
        Table.of(("", ""), told),
        _named(section, [*run_figures.figures(material), *([] if absent is None else [absent])]),
        run_figures.warnings(material),
        absent is not None,
        history.notes,
    )


def _clients(material: RunMaterial) -> str:
    told = words.counted(material.num_clients, "client")
    if material.history.num_images is not None:
        told += f" with {words.counted(material.history.num_images, 'image')}"
    unseen = () if material.facts is None or material.facts.clients is None else material.facts.clients.unseen
    return told if not unseen else f"{told}; {len(unseen)} more take no part"


def _evaluation(section: str, material: EvaluationMaterial) -> EvaluationSection:
    found = material.evaluation
    figure = client_figures.figure(found, f"{section}-accuracy")
    return EvaluationSection(section, material.name, client_figures.facts(found), figure)


def _search(section: str, searched: Searched, searches: Sequence[Searched]) -> SearchSection:
    result = searched.result
    others = [each for each in searches if each is not searched]
    model = result.accuracy_model
    how = {"measured": "measured on validation images", "clients": "measured by clients", "predicted": "predicted"}
    accuracies = how[model.kind]
    if model.kendall_tau is not None:
        accuracies += f" from {model.num_measured or 0:,} measured; rank correlation {model.kendall_tau:.2f}"
    rounds = "" if result.run.rounds is None else f", {result.run.rounds} rounds"
    told = [
        ("run", f"{result.run.name}{rounds}, {result.run.hash[:12]}"),
        ("space", result.space.name),
        ("accuracies", accuracies),
        ("seed, time", f"{result.seed}, {words.seconds(result.seconds)}"),
        ("found on", result.processor or "not known"),
    ]
    devices = tuple(
        DeviceSection(search_facts.answer(device, searched, others), search_figures.front_table(searched, device))
        for device in result.results
    )
    fleet = [] if result.fleet is None else [search_figures.fleet(result.fleet, "fleet")]
    return SearchSection(section, searched.name, Table.of(("", ""), told), devices, _named(section, fleet))


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


def _bundle(section: str, material: BundleMaterial, bundles: Sequence[BundleMaterial]) -> BundleSection:
    manifest = material.manifest
    accuracy, costs = manifest.accuracy, manifest.costs
    told = [
        ("for", manifest.profile.name),
        (
            "accuracy",
            f"{words.share(accuracy.recalibrated, accuracy.recalibrated_interval)}, of "
            f"{words.counted(accuracy.num_samples, 'image')} of {accuracy.dataset} ({accuracy.split})",
        ),
        ("before recalibration", words.share(accuracy.not_recalibrated, accuracy.not_recalibrated_interval)),
        (
            "costs",
            f"{costs.num_macs / 1e6:.3g} M multiply-accumulates, {costs.num_params:,} parameters, "
            f"{words.size(costs.peak_activation_bytes)} of activations",
        ),
        ("picked for", manifest.objective or "not known"),
    ]
    if (before := bundle_facts.pictures(material)) is not None:
        told.append(("before the network", before))
    if manifest.refinement is not None:
        told.append(("trimmed from", f"{manifest.refinement.source_arch_id}, which exceeds the limits"))
    return BundleSection(
        section,
        material.name,
        Table.of(("", ""), told),
        bundle_facts.variants(material),
        bundle_facts.limits(manifest),
        bundle_facts.is_int8_worth_it(material),
        tuple(bundle_facts.trust(material)),
        bundle_facts.engine(material),
        None if accuracy.measures is None else bundle_facts.measures(accuracy.measures),
        tuple(bundle_figures.figures(material, section)),
        _mistakes(material, bundles),
        bundle_facts.lineage(manifest),
    )


def _named(section: str, figures: Sequence[Figure]) -> tuple[Figure, ...]:
    return tuple(dataclasses.replace(figure, name=f"{section}-{figure.name}") for figure in figures)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=embedding.shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
