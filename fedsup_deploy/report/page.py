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
    blocks,
    bundle_figures,
    embedding,
    glance,
    glossary,
    library,
    look,
    search_facts,
    search_figures,
    sections,
    words,
)
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.client_figures import EvaluationMaterial
from fedsup_deploy.report.figure import Figure
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.report.sections import BundleSection, EvaluationSection, RunSection, SearchSection
from fedsup_deploy.searchers import objective
from fedsup_deploy.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES: Final = Path(__file__).parent / "templates"


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
            [sections.run(f"run-{number}", each) for number, each in enumerate(self.runs, start=1)],
            [
                sections.search(f"search-{number}", each, self.searches, self.bundles, self.runs)
                for number, each in enumerate(self.searches, start=1)
            ],
            [
                sections.bundle(f"bundle-{number}", each, self.bundles)
                for number, each in enumerate(self.bundles, start=1)
            ],
        )

    def evaluated(self) -> list[EvaluationSection]:
        """Return what clients have said of subnets."""
        return [sections.evaluation(f"clients-{number}", each) for number, each in enumerate(self.evaluations, start=1)]

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
            glossary=glossary.WORDS,
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
    """Return what the page is about: the runs that everything on it comes from, or its first bundle; its searches."""
    names = [each.result.run.name for each in report.searches] + [each.run.path.name for each in report.runs]
    names += [Path(each.evaluation.run).name for each in report.evaluations]
    # Of a run that is the folder one is in nobody knows the name.
    others = [each.name for each in report.bundles] + [each.name for each in report.evaluations]
    about = ", ".join(filter(None, dict.fromkeys(names))) or others[0]
    devices = {device.profile.name for each in report.searches for device in each.result.results}
    devices |= {each.manifest.profile.name for each in report.bundles}
    return f"{about}: {words.counted(len(devices), 'device')}" if devices else about


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
        "devices": [[name, name] for name in dict.fromkeys(device.profile.name for device in devices)],
        "prices": [
            [name, search_facts.PRICES.get(name, name.replace("_", " "))]
            for name in dict.fromkeys(name for device in devices for name in search_facts.prices_of(device))
        ],
        "objectives": [
            [name, objective.TABLE[name].column]
            for name in dict.fromkeys(name for device in devices for name in search_facts.objectives_of(device))
        ],
    }


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
