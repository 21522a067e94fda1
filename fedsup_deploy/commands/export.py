"""`fedsup-deploy export`: one verified bundle of model files per device profile. Imports torch."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsup_deploy import files, places
from fedsup_deploy.artifact.index import RefusedBundle
from fedsup_deploy.artifact.indexing import add_to_index, drop_from_index
from fedsup_deploy.artifact.store import check_replaceable
from fedsup_deploy.commands import limits
from fedsup_deploy.commands.bundling import BundleMaker, BundleOrder, DevicePick, Wanted, bundle_folder
from fedsup_deploy.commands.exported_bundle import ExportedBundle
from fedsup_deploy.commands.indexed import indexed
from fedsup_deploy.commands.preparing import prepare, prepare_trimmed
from fedsup_deploy.commands.quantizing import MAX_ACCURACY_DROP, Quantizer
from fedsup_deploy.commands.refining import Refinement, RefinementFacts, check_refinable, refine
from fedsup_deploy.commands.search import target_for, target_of
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.device.several_profiles import load_profiles
from fedsup_deploy.errors import ArtifactError, ConfigError, GateError, InfeasibleError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.export.wanted import wanted_variants
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.measures import ACCURACY, as_typed
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.federation import load_supernet, open_run_federation
from fedsup_deploy.runs.run import Run, open_run
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.result import DeviceResult, SearchedRun, load_result
from fedsup_deploy.space import cost
from fedsup_deploy.supernet.model import Supernet
from fedsup_deploy.variant import Precision


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """What a user wants exported: the picks of a search, or one architecture of a run.

    Args:
        run: A finished run; with `search` where that run is now, None if it is where the search says.
        architecture: `largest`, `smallest`, an arch_id or a file; None with `search`.
        search: A search.json; None with `run` and `architecture`.
        profiles: Shipped names or files of device profiles, or profiles; none with `search` means all it holds.
        formats: Registered exporters; none means those of each profile.
        precisions: Number formats; none means those of each profile.
        out: Folder of the bundles.
        refine: Whether to trim larger subnets to the limits as well, with `search`, and make a second bundle for a
            device where one of them is more accurate than its pick.
        over_limit: Whether to export a subnet that exceeds limits of a profile, too; its manifest says so.
        max_accuracy_drop: Share of right answers that int8 may lose, in [0, 1].
        engine: What runs the clients; None as the run's config says.
    """

    run: Path | None
    architecture: str | None
    search: Path | None
    profiles: Sequence[str | DeviceProfile]
    formats: Sequence[str]
    precisions: Sequence[Precision]
    out: Path
    refine: bool = False
    over_limit: bool = False
    max_accuracy_drop: float = MAX_ACCURACY_DROP
    engine: str | None = None


@dataclasses.dataclass(frozen=True)
class ExportedRefinement(RefinementFacts):
    """What was tried to refine the pick of one device.

    Args:
        bundle: Its second bundle; None where no network was more accurate than the pick.
    """

    bundle: ExportedBundle | None


@dataclasses.dataclass(frozen=True)
class Exported(Result):
    """The bundles that were made.

    Args:
        bundles: One for each device.
        index: The file that says what each device class has in the folder of the bundles.
        refinements: For each device what was tried, where that was asked for.
    """

    bundles: tuple[ExportedBundle, ...]
    index: Path
    refinements: tuple[ExportedRefinement, ...] | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


def export(request: ExportRequest, listeners: tuple[Listener, ...] = ()) -> Exported:
    """Make the bundles.

    Args:
        request: What to export.
        listeners: Called with `calibration` and `export` events.

    Raises:
        ConfigError: A profile, format or architecture is unknown, two profiles have one name, a variant cannot be made
            or is none that a profile is about, or nothing can be refined for a profile.
        DependencyError: A library that a format needs is not installed.
        ArtifactError: The run or search is missing, damaged, or they do not belong together.
        InfeasibleError: A subnet exceeds a limit of a profile, and `over_limit` is not asked for.
        GateError: A file of a bundle has not passed its gate. That bundle is not written, those of other devices are,
            and the message names them.
        OutputError: The folder cannot be written, or another process is writing one of the bundles.
    """
    run, picks = _picks(request)
    wanted = {pick.profile.name: wanted_variants(pick.profile, request.formats, request.precisions) for pick in picks}
    for pick in picks:
        if request.refine:
            check_refinable(pick.profile)
            _check_objective(pick)
        if not request.over_limit:
            limits.check(run.space, pick.architecture, pick.target)
    with contextlib.ExitStack() as stack:
        # In one order, so that of two commands for the same devices one gets all.
        for folder in sorted({bundle_folder(request.out, pick.profile, pick.architecture.arch_id) for pick in picks}):
            stack.enter_context(places.hold(folder, advice=places.CHOOSE_OUT))
            check_replaceable(folder)
        return _export(request, run, picks, wanted, EventLog(None, listeners))


def _export(
    request: ExportRequest, run: Run, picks: Sequence[DevicePick], wanted: Mapping[str, Wanted], log: EventLog
) -> Exported:
    """Make the bundles, whose places are held."""
    supernet = load_supernet(run)
    distinct = {pick.architecture.arch_id: pick.architecture for pick in picks}
    orders = [BundleOrder(pick, pick.architecture.arch_id) for pick in picks]
    with open_run_federation(run, log) as federation:
        prepared = {
            arch_id: prepare(run, architecture, supernet, federation, log) for arch_id, architecture in distinct.items()
        }
        refinements = [_refine(run, pick, supernet, federation, log) for pick in picks] if request.refine else []
        for pick, refinement in zip(picks, refinements, strict=False):
            if (network := refinement.better) is not None:
                prepared[network.arch_id] = prepare_trimmed(run, network, federation)
                orders.append(BundleOrder(pick, network.arch_id, refinement.record(network)))
        quantizers = {
            arch_id: Quantizer(ready, federation, request.max_accuracy_drop) for arch_id, ready in prepared.items()
        }
        maker = BundleMaker(run, request.out, prepared, quantizers, over_limit=request.over_limit)
        made: list[ExportedBundle] = []
        errors: list[GateError | InfeasibleError] = []
        refused: list[RefusedBundle] = []
        drop_from_index(request.out, wanted)
        for done, order in enumerate(orders, start=1):
            try:
                made.append(bundle := maker.make(order, wanted[order.profile.name]))
                add_to_index(request.out, [indexed(request.out, bundle.folder, order.pick.found)])
            except (GateError, InfeasibleError) as error:  # of this device; the others get what they can have
                errors.append(error)
                refused.append(RefusedBundle(profile=order.profile.name, arch_id=order.arch_id, reason=str(error)))
            log.emit("export", done=done, total=len(orders), profile=order.profile.name)
        index = add_to_index(request.out, refused=refused)
    if errors:
        others = f"; made: {', '.join(str(bundle.folder) for bundle in made)}" if made else ""
        raise type(errors[0])(f"{'; '.join(map(str, errors))}{others}")
    assert index is not None, "something was made"
    if not request.refine:
        return Exported(tuple(made), index)
    second = {bundle.profile: bundle for bundle in made[len(picks) :]}
    tried = (
        ExportedRefinement(**vars(each.facts()), bundle=second.get(each.target.profile.name)) for each in refinements
    )
    return Exported(tuple(made[: len(picks)]), index, tuple(tried))


def _refine(run: Run, pick: DevicePick, supernet: Supernet, federation: Federation, log: EventLog) -> Refinement:
    assert pick.found is not None, "a refinement is asked for with a search"
    return refine(run, pick.profile, pick.found, pick.architecture, supernet, federation, log)


def _picks(request: ExportRequest) -> tuple[Run, list[DevicePick]]:
    profiles = load_profiles(request.profiles)
    if request.search is None:
        if request.run is None or request.architecture is None or not profiles:
            raise ConfigError("export: got neither a search nor a run with an architecture and a profile")
        run = open_run(request.run, request.engine)
        architecture = run.architecture(request.architecture)
        if request.refine:
            raise ConfigError("--refine: got a run and an architecture, expected a search, whose limits are to be met")
        return run, [DevicePick(target_for(profile, {}), architecture) for profile in profiles]
    found = load_result(request.search)
    run = _run_of(request.search, found.run, request.run, request.engine)
    by_name = {profile.name: profile for profile in profiles}
    picks = []
    for result in found.results:
        if profiles and result.profile.name not in by_name:
            continue
        named = by_name.get(result.profile.name) or _shipped(request.search, result.profile.name)
        profile = _as_searched(named, result)
        chosen = found.chosen_for(result.profile.name)
        _check_costs(request.search, run, profile, chosen)
        target = target_of(profile, result)
        picks.append(DevicePick(target, chosen.to_architecture(), files.sha256(request.search), result))
    missing = by_name.keys() - {pick.profile.name for pick in picks}
    if missing:
        held = ", ".join(result.profile.name for result in found.results)
        raise ConfigError(f"{request.search} holds no result for profile {', '.join(sorted(missing))}; it has {held}")
    return run, picks


def _check_objective(pick: DevicePick) -> None:
    """Fail where a refined network, which is held against the pick by its accuracy, was searched for another goal."""
    if pick.found is not None and pick.found.objective != ACCURACY:
        raise ConfigError(
            f"--refine: {pick.profile.name} was searched for {as_typed(pick.found.objective)}, expected accuracy, by "
            "which trimmed networks are compared; search again without --objective"
        )


def _as_searched(profile: DeviceProfile, result: DeviceResult) -> DeviceProfile:
    """Return the profile that was searched: the named one, or it with the limits that were in force, as in the demo.

    Raises:
        ArtifactError: It differs in more than limits.
    """
    limited = profile.model_copy(update={"limits": profile.limits.model_copy(update=result.limits)})
    for each in (profile, limited):
        if each.profile_hash == result.profile.hash:
            return each
    raise ArtifactError(
        f"profile {profile.name} is not as it was searched; search again, or name the file that was searched "
        "with --profile"
    )


def _shipped(search: Path, name: str) -> DeviceProfile:
    """Return a profile by the name that a search has of it."""
    try:
        return load_profile(name)
    except ConfigError as error:
        raise ConfigError(f"{search}: {error}; name the file of a profile of your own with --profile") from error


def _check_costs(search: Path, run: Run, profile: DeviceProfile, chosen: Candidate) -> None:
    """Fail if a candidate does not cost what the file of the search says: somebody changed it."""
    costs = cost.costs_of(run.space, [chosen.to_architecture()])
    latency_ms = float(predictor_for(profile).predict(costs.layers)[0])
    recorded = (chosen.num_macs, chosen.num_params, chosen.latency_ms_predicted)
    if recorded != (expected := (int(costs.num_macs[0]), int(costs.num_params[0]), latency_ms)):
        raise ArtifactError(
            f"{search}: {chosen.arch_id}: got MACs, parameters and ms {recorded}, expected {expected}; search again"
        )


def _run_of(search: Path, searched: SearchedRun, moved_to: Path | None, engine: str | None) -> Run:
    """Return the run a search was made in.

    Args:
        search: The file of the search.
        searched: The run, as the file has it.
        moved_to: Where it is now; None if it is where the file says.
        engine: As of `open_run`.

    Raises:
        ArtifactError: It is not there, or what is there is another one.
    """
    if moved_to is None and searched.path is None:
        raise ArtifactError(f"{search}: says not where its run {searched.name!r} is; name it with --run RUN")
    folder = Path(os.path.normpath(search.resolve().parent / (searched.path or "."))) if moved_to is None else moved_to
    if not (folder / runs.SUPERNET).is_file():
        raise ArtifactError(f"{search}: its run {searched.name!r} is not at {folder}; name it with --run RUN")
    run = open_run(folder, engine)
    if run.fingerprint != searched.hash:
        raise ArtifactError(
            f"{search}: got another supernet at {folder} than that of its run {searched.name!r}, which was trained "
            "again or lies elsewhere; search again, or name the run with --run RUN"
        )
    return run
