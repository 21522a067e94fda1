"""`fedsup-deploy deploy`: search and export for a whole fleet in one call. Imports torch."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedsup_deploy import places
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.exported_bundle import ExportedBundle
from fedsup_deploy.commands.search import RESULT, SearchRequest, search
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.device.several_profiles import load_profiles
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.events import Listener
from fedsup_deploy.export.wanted import wanted_variants
from fedsup_deploy.results import Result
from fedsup_deploy.runs.run import newest_run
from fedsup_deploy.searchers.result import DeviceResult, Fleet, SearchedRun
from fedsup_deploy.variant import Precision


@dataclasses.dataclass(frozen=True)
class DeployedBundle(ExportedBundle):
    """The bundle of one device, and what its search says of it.

    Args:
        objective: What it is the best in, of all within the limits that were evaluated.
        limits: In force in the search, by name.
        certified: Whether it is proven that nothing within them is more accurate.
        certified_relative_to: What that takes for granted; None without a proof.
    """

    objective: str
    limits: dict[str, float]
    certified: bool
    certified_relative_to: str | None


@dataclasses.dataclass(frozen=True)
class Deployed(Result):
    """What was picked and made for a fleet.

    Args:
        search: The file of the search.
        run: The run that was searched.
        fleet: What few subnets for many devices cost, where that was asked for.
        bundles: One for each device.
        index: The file that says what each device class has in the folder of the bundles.
    """

    search: Path
    run: SearchedRun
    fleet: Fleet | None
    bundles: tuple[DeployedBundle, ...]
    index: Path


def deploy(
    request: SearchRequest,
    out: Path,
    formats: Sequence[str] = (),
    precisions: Sequence[Precision] = (),
    listeners: tuple[Listener, ...] = (),
) -> Deployed:
    """Pick a subnet for each device profile and make its bundle.

    Args:
        request: What to search, for which profiles.
        out: Folder of the bundles.
        formats: As of `ExportRequest`.
        precisions: As of `ExportRequest`.
        listeners: Called with all events.

    Raises:
        ConfigError: For one of the devices nothing can be exported; nothing was searched. Else as of `search`.
        FedsupError: As of `search` and `export`.
    """
    _check_can_be_exported(request.profiles, formats, precisions)
    places.check_writable(out, places.CHOOSE_OUT)
    run = newest_run() if request.run is None else request.run
    result = _place_of_search(run, out) if request.out is None else request.out
    # Until the end, so that what is exported is what was searched here.
    with places.hold(result):
        found = search(dataclasses.replace(request, run=run, out=result), listeners)
        wanted = ExportRequest(None, None, result, request.profiles, formats, precisions, out, engine=request.engine)
        made = export(wanted, listeners)
    of_device = {result.profile.name: result for result in found.results}
    bundles = tuple(_deployed(bundle, of_device[bundle.profile]) for bundle in made.bundles)
    return Deployed(found.out, found.run, found.fleet, bundles, made.index)


def _place_of_search(run: Path, out: Path) -> Path:
    """Return where search.json goes: into the run, or beside the bundles where nobody may write there."""
    return (out if run.is_dir() and places.read_only(run) else run) / RESULT


def _deployed(bundle: ExportedBundle, found: DeviceResult) -> DeployedBundle:
    """Return a bundle with what the search for its device says."""
    return DeployedBundle(
        **vars(bundle),
        objective=found.objective,
        limits=found.limits,
        certified=found.certified,
        certified_relative_to=found.certified_relative_to,
    )


def _check_can_be_exported(
    profiles: Sequence[str | DeviceProfile], formats: Sequence[str], precisions: Sequence[Precision]
) -> None:
    """Fail if one of the devices cannot have what is asked for: before a search, which may take long."""
    refusals = {}
    for profile in load_profiles(profiles):
        try:
            wanted_variants(profile, formats, precisions)
        except ConfigError as error:
            refusals[profile.name] = error
    if not refusals:
        return
    others = len(profiles) - len(refusals)
    reasons = "; ".join(dict.fromkeys(str(error) for error in refusals.values()))
    advice = f"; without {', '.join(refusals)} the other {others} can be deployed" if others else ""
    raise ConfigError(f"{reasons}{advice}")
