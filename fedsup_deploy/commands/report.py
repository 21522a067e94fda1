"""`fedsup-deploy report`: runs, searches and bundles as one page to look at, and its plots as pictures. Torch-free."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedsup_deploy import files, places
from fedsup_deploy.artifact import manifest as manifests
from fedsup_deploy.artifact import weights
from fedsup_deploy.artifact.indexing import bundles_in
from fedsup_deploy.artifact.store import load_manifest, load_measured
from fedsup_deploy.commands.mistakes import mistakes_of
from fedsup_deploy.commands.priced_beyond import priced_beyond, profile_as_searched
from fedsup_deploy.errors import ArtifactError, ConfigError, OutputError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.export.wanted import why_none
from fedsup_deploy.report import library
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.client_figures import EvaluationMaterial, is_evaluation, load_evaluation
from fedsup_deploy.report.page import PageMaterial, render
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.report.sections import in_order
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.history import read_history
from fedsup_deploy.searchers.result import load_result

SUFFIX: Final = ".html"
#: On one page; more are several pages.
MOST_BUNDLES: Final = 30
MOST_SEARCHES: Final = 4
MOST_RUNS: Final = 4


@dataclasses.dataclass(frozen=True)
class Reported(Result):
    """A page that was written.

    Args:
        out: The file.
        num_bytes: Of it.
        runs: The runs on it.
        searches: The searches on it.
        bundles: The bundles on it.
        evaluations: What clients have said of subnets, on it; None where there is nothing of the kind.
        plots: The pictures, where they were asked for.
    """

    out: Path
    num_bytes: int
    runs: tuple[Path, ...]
    searches: tuple[Path, ...]
    bundles: tuple[Path, ...]
    evaluations: tuple[Path, ...] | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    plots: tuple[Path, ...] | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


def report(
    paths: Sequence[Path],
    out: Path,
    plots: Path | None = None,
    listeners: tuple[Listener, ...] = (),
    *,
    mistakes: bool = False,
) -> Reported:
    """Write a page about runs, searches and bundles.

    Args:
        paths: Runs, searches, bundles, and folders of bundles, which stand for those of their index.
        out: The page.
        plots: A folder for every plot as SVG and as PNG; None writes none.
        listeners: Called with progress events.
        mistakes: Whether images are shown that bundles answer wrongly; see `commands.mistakes`.

    Raises:
        DependencyError: A library is not installed.
        ArtifactError: A path is nothing of ours, or damaged.
        ConfigError: There are more of one kind than a page can show; or no run, and so no images.
        DataError: The images of a run are missing, or are others.
        OutputError: The page cannot be written there.
    """
    library.require()
    check_out(out)
    if plots is not None:
        places.check_writable(plots)
    found = _sorted(paths)
    with places.hold(out, advice=places.CHOOSE_OUT):
        log = EventLog(None, listeners)
        made = _read(found)
        if mistakes:
            made = _with_mistakes(made, found, log)
        content = render(made).encode()
        pictures = None if plots is None else _write_pictures(made, plots, log)
        files.write_bytes(out, content)
    shown = (tuple(found.runs), tuple(found.searches), tuple(found.bundles), tuple(found.evaluations) or None)
    return Reported(out, len(content), *shown, pictures)


@dataclasses.dataclass(frozen=True)
class _Found:
    """Paths by what they are, each once, in the order in which they were named."""

    runs: list[Path]
    searches: list[Path]
    bundles: list[Path]
    evaluations: list[Path]


def _sorted(paths: Sequence[Path]) -> _Found:
    found = _Found([], [], [], [])
    for path in paths:
        if path.is_dir() and os.path.lexists(path / manifests.FILENAME):
            found.bundles.append(path)
        elif path.is_dir() and (path / runs.CONFIG).is_file():
            found.runs.append(path)
        elif path.is_dir():
            inside = bundles_in(path)
            if not inside:
                raise ArtifactError(f"{path}: neither a run (no {runs.CONFIG}), nor a bundle, nor a folder of bundles")
            found.bundles.extend(inside)
        elif path.name == manifests.FILENAME:
            found.bundles.append(path.parent)
        elif path.suffix == ".json":
            (found.evaluations if is_evaluation(path) else found.searches).append(path)
        else:
            raise ArtifactError(f"{path}: expected a run, a search.json, a bundle or a folder of bundles")
    once = _Found(*(list(dict.fromkeys(each)) for each in vars(found).values()))
    for what, some, most in (
        ("runs", once.runs, MOST_RUNS),
        ("searches", once.searches, MOST_SEARCHES),
        ("bundles", once.bundles, MOST_BUNDLES),
        ("evaluations", once.evaluations, MOST_SEARCHES),
    ):
        if len(some) > most:
            raise ConfigError(f"got {len(some)} {what}, expected at most {most} on one page; make several")
    return once


def _named_folder(path: Path) -> str:
    """Return where a bundle is as a page may name it: from the folder one is in, or as EXPORTS/PROFILE/ARCH_ID."""
    if not path.is_absolute():
        return path.as_posix()
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else Path("EXPORTS", *path.parts[-2:])).as_posix()


def _read(found: _Found) -> PageMaterial:
    names = _names(found.searches)
    made_runs = tuple(map(_run, found.runs))
    searches = [_searched(name, path) for name, path in zip(names, found.searches, strict=True)]
    bundles = tuple(
        BundleMaterial(load_manifest(path), load_measured(path), folder=_named_folder(path)) for path in found.bundles
    )
    return PageMaterial(
        runs=made_runs,
        searches=in_order(priced_beyond(searches, made_runs), bundles),
        bundles=bundles,
        evaluations=tuple(
            EvaluationMaterial(name, load_evaluation(path))
            for name, path in zip(_names(found.evaluations), found.evaluations, strict=True)
        ),
    )


def _with_mistakes(made: PageMaterial, found: _Found, log: EventLog) -> PageMaterial:
    manifests_of = {path: each.manifest for path, each in zip(found.bundles, made.bundles, strict=True)}
    known = mistakes_of(manifests_of, [each.run for each in made.runs], log)
    bundles = (
        dataclasses.replace(each, mistakes=known[path]) for path, each in zip(found.bundles, made.bundles, strict=True)
    )
    return dataclasses.replace(made, bundles=tuple(bundles))


def _run(path: Path) -> RunMaterial:
    run, supernet = runs.open_run(path), path / runs.SUPERNET
    kept_after = weights.checked(supernet, weights.read_document(supernet), weights.SupernetRecord).rounds
    return RunMaterial(run, read_history(path), runs.read_image_facts(path), kept_after)


def _searched(name: str, path: Path) -> Searched:
    result = load_result(path)
    profiles = [known for device in result.results if (known := profile_as_searched(device.profile)) is not None]
    reasons = {each.name: why_none(each) for each in profiles}
    return Searched(
        name,
        result,
        {each: why.removeprefix(f"profile {each}: ") for each, why in reasons.items() if why is not None},
        {each.name: each.precision for each in profiles},
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Return what files are called: by their names, with the folder or a number where that is not enough."""
    plain = [path.name for path in paths]
    longer = [
        name if plain.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(plain, paths, strict=True)
    ]
    seen: Counter[str] = Counter()
    named = []
    for name in longer:
        seen[name] += 1
        named.append(name if longer.count(name) == 1 else f"{name} ({seen[name]})")
    return named


def _write_pictures(made: PageMaterial, folder: Path, log: EventLog) -> tuple[Path, ...]:
    figures = made.pictures()
    written = []
    for done, figure in enumerate(figures, start=1):
        for suffix, content in (("svg", library.svg(figure).encode()), ("png", library.png(figure))):
            written.append(folder / f"{figure.name}.{suffix}")
            files.write_bytes(written[-1], content)
        log.emit("plot", done=done, total=len(figures))
    return tuple(written)


def check_out(path: Path) -> None:
    """Fail now if a page cannot be written there.

    Raises:
        OutputError: The name has another ending, by which no browser would know what it is, or a folder is there.
    """
    if path.suffix != SUFFIX:
        raise OutputError(f"cannot write {path}: expected a name that ends in {SUFFIX}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: a folder is there; give --out another name")
