"""`fedsup-deploy deploy`: search and export for a whole fleet in one call. Imports torch."""

import dataclasses
from pathlib import Path

from fedsup_deploy import places
from fedsup_deploy.commands.bundling import ExportedBundle
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.search import RESULT, SearchRequest, search
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.events import Listener
from fedsup_deploy.export.wanted import wanted_variants
from fedsup_deploy.results import Result
from fedsup_deploy.runs.run import newest_run
from fedsup_deploy.searchers.result import Fleet, SearchedRun


@dataclasses.dataclass(frozen=True)
class Deployed(Result):
    """What was picked and made for a fleet.

    Args:
        search: The file of the search.
        run: The run that was searched.
        fleet: What few subnets for many devices cost, where that was asked for.
        bundles: One for each device.
    """

    search: Path
    run: SearchedRun
    fleet: Fleet | None
    bundles: tuple[ExportedBundle, ...]


def deploy(request: SearchRequest, out: Path, listeners: tuple[Listener, ...] = ()) -> Deployed:
    """Pick a subnet for each device profile and make its bundle, in the formats of the profile.

    Args:
        request: What to search, for which profiles.
        out: Folder of the bundles.
        listeners: Called with all events.

    Raises:
        FedsupError: As of `search` and `export`.
    """
    for profile in request.profiles:
        # Before a search that may take long.
        wanted_variants(load_profile(profile) if isinstance(profile, str) else profile)
    places.check_writable(out, places.CHOOSE_OUT)
    run = newest_run() if request.run is None else request.run
    result = run / RESULT if request.out is None else request.out
    # Until the end, so that what is exported is what was searched here.
    with places.hold(result):
        found = search(dataclasses.replace(request, run=run, out=result), listeners)
        made = export(ExportRequest(None, None, result, request.profiles, (), (), out), listeners)
    return Deployed(found.out, found.run, found.fleet, made.bundles)
