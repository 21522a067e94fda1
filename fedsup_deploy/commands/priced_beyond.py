"""What the best networks of a page cost on devices that they were not tried for. Torch-free."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

from fedsup_deploy.artifact.manifest import ProfileRecord
from fedsup_deploy.commands.search import target_of
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import FedsupError
from fedsup_deploy.report.more_time import better_tried
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.pricing import Target, price_network
from fedsup_deploy.searchers.result import DeviceResult
from fedsup_deploy.space.search_space import SearchSpace

#: Networks that are priced for a device, the best first.
_MOST_PRICED: Final = 50


def priced_beyond(searches: Sequence[Searched], runs: Sequence[RunMaterial]) -> list[Searched]:
    """Return searches with what better networks that were tried cost on those of their devices that get another.

    That takes the run, whose space the networks are of, and a profile that predicts what the search did; without the
    run nothing is said of a device, and without the profile that it has no prices.
    """
    found = []
    for searched in searches:
        run = next((each.run for each in runs if each.run.fingerprint == searched.result.run.hash), None)
        others = [each for each in searches if each is not searched]
        priced: dict[str, dict[str, dict[str, float]]] = {}
        for device in searched.result.results if run is not None else ():
            chosen = searched.result.chosen_for(device.profile.name)
            better = [each.candidate for each in better_tried(chosen, device, searched, others)[:_MOST_PRICED]]
            if run is not None and better:
                priced[device.profile.name] = _costs(better, device, run.space)
        found.append(dataclasses.replace(searched, priced=priced))
    return found


def _costs(candidates: Sequence[Candidate], device: DeviceResult, space: SearchSpace) -> dict[str, dict[str, float]]:
    """Return what networks cost on a device, by arch_id and the name of the limit; none where nobody can know that.

    A profile may have changed since the search, in its error or its words; it counts where it prices the whole front as
    the search has.
    """
    try:
        profile = load_profile(device.profile.name)
        target = target_of(profile, device)
        if profile.profile_hash != device.profile.hash:
            front = map(device.candidate, device.front)
            if not all(_are_of(each, _prices(each, target, space)) for each in front):
                return {}
        return {each.arch_id: _prices(each, target, space) for each in candidates}
    except FedsupError:
        return {}


def _prices(candidate: Candidate, target: Target, space: SearchSpace) -> dict[str, float]:
    prices = price_network(space.plan(candidate.to_architecture()), target)
    return {name: float(values[0]) for name, values in prices.by_limit().items()}


def _are_of(candidate: Candidate, prices: dict[str, float]) -> bool:
    """Return whether prices are those that a search has recorded of a candidate."""
    known = {name: candidate.price(name) for name in prices}
    return all(value is None or math.isclose(value, prices[name], rel_tol=1e-6) for name, value in known.items())


def profile_as_searched(record: ProfileRecord) -> DeviceProfile | None:
    """Return the profile of a device; None where it is not at hand as it was searched."""
    try:
        profile = load_profile(record.name)
    except FedsupError:
        return None
    return profile if profile.profile_hash == record.hash else None
