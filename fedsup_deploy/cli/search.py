"""`fedsup-deploy search`."""

import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.signals import advising

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page, Row
    from fedsup_deploy.commands.search import WrittenSearch
    from fedsup_deploy.searchers.candidate import Candidate
    from fedsup_deploy.searchers.result import DeviceResult


@click.command("search", cls=Command)
@options.search_options
@options.seed_option(0, "Decides every random choice of the search.")
@options.engine_option()
@click.option(
    "--out", type=options.NEW_PATH, metavar="FILE", help="Where to write it.  [default: search.json in the run]"
)
@click.option("--resume", is_flag=True, help="Go on with the same search where it was stopped.")
@click.pass_obj
def command(output: Output, /, profiles: tuple[str, ...], **given: Any) -> None:
    """Find the best subnet within the limits of each device profile.

    The best is the most accurate one, or as --objective says. A limit given here replaces that of the profiles.
    """
    from fedsup_deploy.commands.search import SearchRequest, search

    request = SearchRequest(profiles=list(profiles), limits=options.take_limits(given), **given)
    with (
        advising(lambda: "the same command with --resume goes on where it was stopped"),
        output.progress() as listeners,
    ):
        result = search(request, listeners)
    output.emit(result, functools.partial(_table, profiles=profiles))


def _table(result: "WrittenSearch", profiles: Sequence[str]) -> "Page":
    from fedsup_deploy.cli import tables

    fleet = result.fleet
    chosen = {} if fleet is None else fleet.option.assigned
    picks = tables.rows([_row(found, chosen) for found in result.results])
    choices = [] if fleet is None else [options.fleet_table(fleet, result.results[0].objective)]
    wrote = tables.whole(result.out, "wrote")
    run = tables.whole(options.searched_run_line(result.run, result.out))
    noise = [line for found in result.results for line in _about_noise(found, chosen)]
    below: list[str | Page] = [*_about_objective(result), *noise, run, *_about_accuracy(result), wrote]
    return tables.titled(tables.stacked(picks, *choices), *below, *_about_export(result, profiles))


def _about_export(result: "WrittenSearch", profiles: Sequence[str]) -> "Iterator[str | Page]":
    """Yield the command that makes the bundles, and why some devices can have none."""
    from fedsup_deploy import resources
    from fedsup_deploy.cli import tables

    yield from (f"no bundle can be made: {why}" for why in result.not_exportable.values())
    # In the order of what was asked for.
    of_device = zip(profiles, (found.profile.name for found in result.results), strict=True)
    can = [profile for profile, name in of_device if name not in result.not_exportable]
    # A profile of the user's own is found by its file alone, and then all that are wanted have to be named.
    is_whole = len(can) == len(profiles) and set(profiles) <= set(resources.shipped_names("profiles"))
    named = [] if is_whole else [word for profile in can for word in ("--profile", profile)]
    if can:
        yield tables.whole(shlex.join(["fedsup-deploy", "export", "--search", str(result.out), *named]), "next:")


def _row(found: "DeviceResult", chosen: Mapping[str, str]) -> "Row":
    """Return what one device gets."""
    from fedsup_deploy.searchers.prices import rounded_up

    arch_id = chosen.get(found.profile.name, found.pick)
    got = found.candidate(arch_id)
    row = {
        "profile": found.profile.name,
        "assigned" if chosen else "pick": arch_id,
        **_worth(got),
        "ms at percentile": None if got.latency_percentile_ms is None else rounded_up(got.latency_percentile_ms),
        "percentile": None if found.percentile is None else str(found.percentile),
        "ms bound": None if got.latency_upper_ms is None else rounded_up(got.latency_upper_ms),
        "limits": options.limits_words(found.limits),
        "MMACs": got.num_macs / 1e6,
        "accuracy known of": _share_known(found),
        "measured": found.num_measured,
        "certified best": _certified(found),
        "costs are": "measured" if found.profile.provenance == ("measured",) else "not measured",
    }
    return {name: value for name, value in row.items() if value is not None}


def _worth(got: "Candidate") -> "Row":
    """Return what a candidate is worth: first what evaluations tell, then what is known without."""
    from fedsup_deploy.searchers.objective import TABLE
    from fedsup_deploy.searchers.prices import rounded_up

    worth: dict[str, float | str | None] = {}
    for row in sorted(TABLE.values(), key=lambda row: (row.score is None, not row.is_for_goal)):
        value = got.worth(row.name)
        if row.predicted_as is not None and got.is_predicted(row.name):
            worth[f"{row.column} predicted"] = value
        elif row.recorded_as == "accuracy" and value is not None and got.accuracy_interval is not None:
            worth[row.column] = options.share(value, got.accuracy_interval)
        elif row.is_for_goal and value is not None:
            worth[row.column] = options.share(value, got.objective_interval)
        else:
            worth[row.column] = value if value is None or row.is_maximised else rounded_up(value)
    return worth


def _certified(found: "DeviceResult") -> str:
    """Return whether the best is certified, and on how many images it was found, where it was."""
    images = [candidate.num_images for candidate in found.candidates if candidate.num_images is not None]
    if not found.certified:
        return "no"
    if not images:
        return "yes"
    return f"yes, on {max(images):,} images"


def _about_noise(found: "DeviceResult", chosen: Mapping[str, str]) -> Iterator[str]:
    """Yield what is as accurate as the best, and cheaper, as far as anybody can tell."""
    noise, best = found.within_noise, found.most_accurate
    if noise is None or noise.cheapest is None or best is None or chosen:
        return
    fewer = 1 - found.candidate(noise.cheapest).num_macs / found.candidate(best).num_macs
    if found.prefer == "cheaper":
        certified = f"; certified is the accuracy of {best}" if found.certified else ""
        yield f"{found.profile.name}: picked as accurate within noise as {best}, with {fewer:.0%} fewer MACs{certified}"
    else:
        yield (
            f"{found.profile.name}: as accurate within noise: {noise.cheapest}, {fewer:.0%} fewer MACs; "
            "--prefer cheaper picks it"
        )


def _about_objective(result: "WrittenSearch") -> Iterator[str]:
    """Yield what the pick is the best in, where that is not the accuracy."""
    from fedsup_deploy.measures import ACCURACY
    from fedsup_deploy.searchers.objective import TABLE

    goal = TABLE[result.results[0].objective]
    if goal.name != ACCURACY:
        yield f"{'maximised' if goal.is_maximised else 'minimised'}: {goal.column} (in search.json `objective`)"


def _share_known(found: "DeviceResult") -> str:
    if found.num_priced == found.num_architectures:
        return f"{found.num_evaluated:,} of {found.num_feasible:,} that fit"
    return f"{found.num_evaluated:,} of {found.num_architectures:,}"


def _about_accuracy(result: "WrittenSearch") -> Iterator[str]:
    """Yield how far predicted accuracies can be trusted."""
    model = result.accuracy_model
    if model.mae is not None and model.kendall_tau is not None:
        mixed = any(found.num_measured for found in result.results)
        yield (
            f"accuracy {'of what was not measured ' if mixed else ''}is predicted ({model.predictor}, from "
            f"{model.num_measured:,} measured subnets; "
            f"{options.held_out_words(model.kendall_tau, model.mae, model.num_held_out)}); export measures it"
        )
        if mixed:
            yield "the best of many measured ones owes some of its lead to noise; predictions are drawn to the mean"
        yield from options.warning_about(model.kendall_tau, model.num_held_out)
    if any(candidate.accuracy_interval for found in result.results for candidate in found.candidates):
        yield "in brackets: the 95 % interval, of the images that subnets were chosen by; export measures on others"
