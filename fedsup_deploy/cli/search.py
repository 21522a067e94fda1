"""`fedsup-deploy search`."""

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.signals import advising

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedsup_deploy.cli.tables import Row
    from fedsup_deploy.commands.search import WrittenSearch
    from fedsup_deploy.searchers.result import Candidate, DeviceResult


@click.command("search", cls=Command)
@options.search_options
@options.seed_option(0, "Decides every random choice of the search.")
@click.option(
    "--out", type=options.NEW_PATH, metavar="FILE", help="Where to write it.  [default: search.json in the run]"
)
@click.option("--resume", is_flag=True, help="Go on with the same search where it was stopped.")
@click.pass_obj
def command(output: Output, /, profiles: tuple[str, ...], **given: Any) -> None:
    """Find the most accurate subnet within the limits of each device profile.

    A limit given here replaces that of the profiles.
    """
    from fedsup_deploy.commands.search import SearchRequest, search

    request = SearchRequest(profiles=list(profiles), limits=options.take_limits(given), **given)
    with advising("the same command with --resume goes on where it was stopped"), output.progress() as listeners:
        result = search(request, listeners)
    output.emit(result, _table)


def _table(result: "WrittenSearch") -> "RenderableType":
    from fedsup_deploy.cli import tables

    fleet = result.fleet
    chosen = {} if fleet is None else fleet.option.assigned
    picks = tables.rows([_row(found, chosen) for found in result.results])
    choices = [] if fleet is None else [options.fleet_table(fleet)]
    end = f"wrote {result.out}; next: fedsup-deploy export --search {shlex.quote(str(result.out))}"
    run = options.searched_run_line(result.run, result.out)
    return tables.titled(tables.stacked(picks, *choices), run, *_about_accuracy(result), end)


def _row(found: "DeviceResult", chosen: Mapping[str, str]) -> "Row":
    """Return what one device gets."""
    from fedsup_deploy.searchers.prices import rounded_up

    arch_id = chosen.get(found.profile.name, found.pick)
    got = next(candidate for candidate in found.candidates if candidate.arch_id == arch_id)
    row = {
        "profile": found.profile.name,
        "assigned" if chosen else "pick": arch_id,
        **_worth(got),
        "ms at percentile": None if got.latency_percentile_ms is None else rounded_up(got.latency_percentile_ms),
        "percentile": None if found.percentile is None else str(found.percentile),
        "ms bound": None if got.latency_upper_ms is None else rounded_up(got.latency_upper_ms),
        "limits": ", ".join(f"{name} <= {limit:g}" for name, limit in found.limits.items()) or "none",
        "MMACs": got.num_macs / 1e6,
        "accuracy known of": _share_known(found),
        "measured": found.num_measured,
        "certified best": found.certified,
        "costs are": "measured" if found.profile.provenance == ("measured",) else "not measured",
    }
    return {name: value for name, value in row.items() if value is not None}


def _worth(got: "Candidate") -> "Row":
    """Return what a candidate is worth: first what evaluations tell, then what is known without."""
    from fedsup_deploy.searchers.objective import TABLE
    from fedsup_deploy.searchers.prices import rounded_up

    worth: dict[str, float | None] = {}
    for row in sorted(TABLE.values(), key=lambda row: row.score is None):
        value = got.worth(row.name)
        if row.predicted_as is not None and got.is_predicted(row.name):
            worth[f"{row.column} predicted"] = value
        else:
            worth[row.column] = value if value is None or row.is_maximised else rounded_up(value)
    return worth


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
            f"{model.num_measured:,} measured subnets; on others: mean absolute error {model.mae:.4f}, "
            f"Kendall tau {model.kendall_tau:.2f}); export measures it"
        )
        if mixed:
            yield "the best of many measured ones owes some of its lead to noise; predictions are drawn to the mean"
        yield from options.warning_about(model.kendall_tau)
