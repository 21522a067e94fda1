"""What the best networks of a page cost on devices that they were not tried for. Torch-free."""

import dataclasses
from collections.abc import Sequence

from fedsup_deploy.artifact.manifest import ProfileRecord
from fedsup_deploy.commands.search import target_of
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import FedsupError
from fedsup_deploy.report.more_time import best_tried
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.pricing import price_network
from fedsup_deploy.searchers.result import DeviceResult
from fedsup_deploy.space.search_space import SearchSpace


def priced_beyond(searches: Sequence[Searched], runs: Sequence[RunMaterial]) -> list[Searched]:
    """Return searches with what the best network that was tried costs on those of their devices that get another.

    That takes the run, whose space the network is of, and the profile as it was searched; without them nothing is said.
    """
    found = []
    for searched in searches:
        run = next((each.run for each in runs if each.run.fingerprint == searched.result.run.hash), None)
        others = [each for each in searches if each is not searched]
        priced = {}
        for device in searched.result.results if run is not None else ():
            chosen = searched.result.chosen_for(device.profile.name)
            best = best_tried(chosen, device, searched, others)
            if run is not None and best is not None:
                costs = _costs(best.candidate, device, run.space)
                priced[device.profile.name] = {} if costs is None else {best.candidate.arch_id: costs}
        found.append(dataclasses.replace(searched, priced=priced))
    return found


def _costs(candidate: Candidate, device: DeviceResult, space: SearchSpace) -> dict[str, float] | None:
    """Return what a network costs on a device, by the name of the limit; None where nobody can know that."""
    profile = profile_as_searched(device.profile)
    if profile is None:
        return None
    try:
        target = target_of(profile, device)
        prices = price_network(space.plan(candidate.to_architecture()), target)
    except FedsupError:
        return None
    return {name: float(values[0]) for name, values in prices.by_limit().items()}


def profile_as_searched(record: ProfileRecord) -> DeviceProfile | None:
    """Return the profile of a device; None where it is not at hand as it was searched."""
    try:
        profile = load_profile(record.name)
    except FedsupError:
        return None
    return profile if profile.profile_hash == record.hash else None
