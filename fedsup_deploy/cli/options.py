"""Arguments and options that several commands take."""

import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fedsup_deploy import places, registry
from fedsup_deploy.cli import engine_page
from fedsup_deploy.device import limits
from fedsup_deploy.ondevice.latency_statistics import PERCENTILES

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page, Row
    from fedsup_deploy.commands.exported_bundle import ExportedBundle
    from fedsup_deploy.searchers.result import Fleet, FleetOption, SearchedRun

#: A command, before or after an option was added to it.
Function = Callable[..., object]
Decorator = Callable[[Function], Function]


class UserPath(click.Path):
    """A path as a user writes it: `~` is a home folder also where no shell saw to that, as in `--out=~/x`."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path, checked as `click.Path` does.

        Raises:
            BadParameter: It is not what it must be, or there is no such home folder.
        """
        try:
            expanded = places.expanded(os.fspath(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return super().convert(expanded, param, ctx)


NEW_PATH: Final = UserPath(path_type=Path)
OLD_FILE: Final = UserPath(exists=True, dir_okay=False, path_type=Path)
OLD_FILE_OR_STDIN: Final = UserPath(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
OLD_FOLDER: Final = UserPath(exists=True, file_okay=False, path_type=Path)
OLD_PATH: Final = UserPath(exists=True, path_type=Path)
_CORNERS: Final = ("largest", "smallest")
_ARCH_ID: Final = re.compile(r"a[0-9a-f]{11}")
SCHEDULES: Final = click.Choice(["one-shot", "layer-wise"])


def positive(context: click.Context, parameter: click.Parameter, number: float | None) -> float | None:
    """Let only finite numbers above 0 pass: the callback of an option (`click.FloatRange` lets NaN pass).

    Raises:
        BadParameter: It is another number.
    """
    if number is not None and not (math.isfinite(number) and number > 0):
        raise click.BadParameter(f"got {number}, expected a number above 0", context, parameter)
    return number


def percentage_points(context: click.Context, parameter: click.Parameter, number: float) -> float:
    """Let percentage points pass: the callback of an option.

    Raises:
        BadParameter: It is another number.
    """
    if not 0 <= number <= 100:  # written so that NaN fails
        raise click.BadParameter(f"got {number}, expected 0 to 100 points", context, parameter)
    return number


def probability(context: click.Context, parameter: click.Parameter, number: float | None) -> float | None:
    """Let only numbers between 0 and 1 pass: the callback of an option.

    Raises:
        BadParameter: It is another number.
    """
    if number is not None and not 0 < number < 1:
        raise click.BadParameter(f"got {number}, expected a probability between 0 and 1", context, parameter)
    return number


def _may_name_a_subnet(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Let only what can name a subnet pass, before anything is loaded: whether there is such a one the run knows.

    Raises:
        BadParameter: It is a word, and none of ours.
    """
    is_one = name is None or name in _CORNERS or _ARCH_ID.fullmatch(name) or name.endswith((".json", ".yaml", ".yml"))
    if not is_one:
        expected = "largest, smallest, an arch_id ('a' and 11 hexadecimal digits) or a JSON / YAML file"
        raise click.BadParameter(f"got {name!r}, expected {expected}", context, parameter)
    return name


def run_argument(*, required: bool = True) -> Decorator:
    """Return the decorator that adds RUN, the folder of a run."""
    return click.argument("run", metavar="RUN" if required else "[RUN]", type=OLD_FOLDER, required=required)


def arch_option(*, required: bool = True) -> Decorator:
    """Return the decorator that adds --arch."""
    meaning = "The subnet: largest, smallest, an arch_id, or a JSON or YAML file."
    return click.option(
        "--arch", "architecture", metavar="ARCH", required=required, callback=_may_name_a_subnet, help=meaning
    )


def schedule_option() -> Decorator:
    """Return the decorator that adds --schedule, by default that of the run."""
    meaning = "How client statistics are taken: in one exchange, or exactly, layer by layer.  [default: as configured]"
    return click.option("--schedule", type=SCHEDULES, help=meaning)


def engine_option() -> Decorator:
    """Return the decorator that adds --engine, by default that of the run."""
    meaning = "What runs the clients; the result does not depend on it.  [default: as trained]"
    return click.option("--engine", type=click.Choice(registry.names("engine")), help=meaning)


def seed_option(default: int | None, meaning: str) -> Decorator:
    """Return the decorator that adds --seed."""
    number = click.IntRange(min=0)
    return click.option(
        "--seed", type=number, metavar="N", default=default, show_default=default is not None, help=meaning
    )


_PROFILES: Final = "A device; may be repeated."
_METHOD: Final = "auto is exact where the best can be proven with the evaluations there are, else evolution."
_ACCURACY: Final = (
    "measured on the server's validation images, by the clients on images they hold out, or predicted; "
    "predicted takes what was measured before as it is; auto is that where the run has a predictor (fit-accuracy), "
    "else measured, or by the clients where the server has no images."
)
_PREFER: Final = (
    "What is picked: accurate is the most accurate subnet within the limits, cheaper the one with the fewest MACs that "
    "is as accurate within noise, and no slower."
)
_EVALUATIONS: Final = "Subnets to find the accuracy of, at most, per profile.  [default: 200; exact: all that fit]"
# Three of five pairs in the right order.
_USEFUL_TAU: Final = 0.2
_RISK: Final = "Probability with which the measured latency is to be within its limit.  [default: the prediction is]"
_PERCENTILE: Final = "Which percentile of latency a limit on it means.  [default: the profile's, else p50]"
#: `searchers.objective.goals()`, which needs numpy, as they are typed.
OBJECTIVES: Final = ("accuracy", "worst-decile", "balanced-accuracy", "macro-f1", "auc", "calibration-error")
_OBJECTIVE: Final = (
    "What is maximised: accuracy; of the worst tenth of the clients (worst-decile, with --accuracy clients); the mean "
    "recall of the classes (balanced-accuracy); their mean F1; of two classes the AUC; or the lowest calibration error."
)
_FORMAT: Final = "A file format; may be repeated.  [default: the profile's]"
_PRECISION: Final = "A number format; repeat it for both.  [default: the profile's]"
_ARTIFACTS: Final = "The most different subnets for all profiles together.  [default: one for each profile]"


def _underscored(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Return a name as it is in Python."""
    del context, parameter
    return name.replace("-", "_")


def limit_options(function: Function) -> Function:
    """Add an option for each limit of a search."""
    return amount_options({row.option: (name, row.meaning) for name, row in limits.TABLE.items()})(function)


def amount_options(options: Mapping[str, tuple[str, str]]) -> Decorator:
    """Return the decorator that adds options for numbers above 0.

    Args:
        options: By option its name in Python and its help, in the order of the help page.
    """

    def add(function: Function) -> Function:
        for option, (name, meaning) in reversed(list(options.items())):
            function = click.option(option, name, type=float, callback=positive, metavar="X", help=meaning)(function)
        return function

    return add


def search_options(function: Function) -> Function:
    """Add what every search takes: profiles, run, limits, where accuracy comes from, and how hard to try."""
    accuracy = click.Choice(["auto", "measured", "clients", "predicted"])
    method = click.Choice(["auto", *registry.names("searcher")])
    preference = click.Choice(["accurate", "cheaper"])
    decorators = (
        click.option("--profile", "profiles", multiple=True, required=True, metavar="NAME|FILE", help=_PROFILES),
        click.option("--run", type=OLD_FOLDER, metavar="RUN", help="A trained run.  [default: the newest below runs/]"),
        limit_options,
        click.option("--method", type=method, default="auto", show_default=True, help=_METHOD),
        click.option("--accuracy", type=accuracy, default="auto", show_default=True, help=_ACCURACY),
        click.option("--evaluations", type=click.IntRange(min=1), metavar="N", help=_EVALUATIONS),
        click.option("--risk", type=float, callback=probability, metavar="P", help=_RISK),
        click.option("--percentile", type=click.Choice(list(PERCENTILES)), help=_PERCENTILE),
        click.option(
            "--objective",
            type=click.Choice(OBJECTIVES),
            default="accuracy",
            show_default=True,
            callback=_underscored,
            help=_OBJECTIVE,
        ),
        click.option("--prefer", type=preference, default="accurate", show_default=True, help=_PREFER),
        click.option("--max-artifacts", type=click.IntRange(min=1), metavar="K", help=_ARTIFACTS),
    )
    return _decorated(function, decorators)


def variant_options(function: Function) -> Function:
    """Add --format and --precision, which replace what profiles say. Only a precision with a gate can be exported."""
    formats, precisions = (click.Choice(registry.names(kind)) for kind in ("exporter", "gate"))
    decorators = (
        click.option("--format", "formats", multiple=True, type=formats, help=_FORMAT),
        click.option("--precision", "precisions", multiple=True, type=precisions, help=_PRECISION),
    )
    return _decorated(function, decorators)


def _decorated(function: Function, decorators: Sequence[Decorator]) -> Function:
    """Return a command with options in the order of the help page."""
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def take_limits(given: dict[str, Any]) -> dict[str, float]:
    """Return the limits that were given.

    Side effects: Removes all limits from `given`.
    """
    found = {name: given.pop(name, None) for name in limits.TABLE}
    return {name: limit for name, limit in found.items() if limit is not None}


def run_line(path: str, rounds: int | None) -> str:
    """Return which run a result is about, and how long it was trained: it may be the newest, which nobody named."""
    return f"run: {path}" + ("" if rounds is None else f" ({rounds} {'round' if rounds == 1 else 'rounds'})")


def searched_run_line(run: "SearchedRun", search: Path) -> str:
    """Return the same of the run of a search.

    Args:
        run: As the search has it.
        search: The file of the search.
    """
    folder = search.resolve().parent if search.is_symlink() else search.parent
    path = run.name if run.path is None else os.path.normpath(folder / run.path)
    return run_line(path, run.rounds)


def limits_words(limits: Mapping[str, float]) -> str:
    """Return the limits of a search in words."""
    return ", ".join(f"{name} <= {limit:g}" for name, limit in limits.items()) or "none"


def share(accuracy: float, interval: tuple[float, float] | None) -> str:
    """Return an accuracy with its 95 % interval, where it has one: `95.8 % (93.2-97.5)`."""
    return f"{accuracy:.1%}".replace("%", " %") + (
        "" if interval is None else f" ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"
    )


def points(difference: float, interval: tuple[float, float]) -> str:
    """Return a difference of shares with its 95 % interval: `0.50 points (-0.31 to 1.27)`."""
    low, high = (100 * end for end in interval)
    return f"{100 * difference:.2f} points ({low:.2f} to {high:.2f})"


def bundle_table(bundles: "Sequence[ExportedBundle]", found: "Sequence[Row]" = ()) -> "Page":
    """Return bundles as a table, with their folders and what to do next below it.

    Args:
        bundles: What was made.
        found: For each further columns: what a search says of it.
    """
    from fedsup_deploy.cli import tables
    from fedsup_deploy.searchers.prices import rounded_up

    rows = [
        {
            "profile": made.profile,
            "arch": made.arch_id,
            "accuracy": share(made.accuracy, made.accuracy_interval),
            **not_recalibrated(made),
            "ms predicted": rounded_up(made.latency_ms_predicted),
            "percentile": str(made.percentile),
            "ms measured here": made.latency_ms_measured_here,
            **({} if made.latency_limit is None else {"limit here": made.latency_limit}),
            **({"OVER LIMIT": ", ".join(made.exceeded_limits)} if made.exceeded_limits else {}),
            **more,
            **({} if made.int8_accuracy is None else {"int8": share(made.int8_accuracy, None)}),
            **_int8_here(made),
            "KiB": ", ".join(f"{name} {size / 1024:.0f}" for name, size in made.bytes.items()),
        }
        for made, more in zip(bundles, found or [{}] * len(bundles), strict=True)
    ]
    folders = [made.folder for made in bundles]
    return tables.titled(
        tables.rows(rows),
        about_shares(bundles),
        *(line for made in bundles for line in _int8_drop(made)),
        *about_devices(bundles),
        *(f"{made.profile}: no {name}: {why}" for made in bundles for name, why in made.left_out.items()),
        "Bundles:",
        *(tables.whole(f"  {name}") for name in folders),
        tables.whole(shlex.join(["python", f"{folders[0]}/run.py"]), "next:"),
        *about_engines(bundles),
    )


def _int8_drop(made: "ExportedBundle") -> Iterator[str]:
    if made.int8_drop is not None:
        drop = made.int8_drop
        lost = points(drop.share, drop.interval)
        yield f"{made.profile}: int8 loses {lost} against fp32 on {drop.num_images:,} {drop.split} images."


def _int8_here(made: "ExportedBundle") -> "Row":
    """Return the columns of what the int8 file takes here; none where this machine is not the device."""
    if made.int8_latency_ms_measured_here is None or made.int8_times_as_fast is None:
        return {}
    return {"int8 ms here": made.int8_latency_ms_measured_here, "int8 times as fast": made.int8_times_as_fast}


def not_recalibrated(made: "ExportedBundle") -> "Row":
    """Return the column of the accuracy before recalibration; an empty cell where there is none."""
    before = made.accuracy_not_recalibrated
    return {"not recalibrated": None if before is None else share(before, made.accuracy_not_recalibrated_interval)}


def about_devices(bundles: "Sequence[ExportedBundle]") -> Iterator[str]:
    """Yield for each device what it has, and which releases fail there, as far as its profile knows."""
    for profile, made in {made.profile: made for made in bundles}.items():
        bad = ", ".join(map(str, made.known_bad))
        known = [str(made.system), f"known bad there: {bad}" if bad else ""]
        if any(known):
            yield f"{profile}: {'; '.join(filter(None, known))}"


def about_engines(bundles: "Sequence[ExportedBundle]") -> "Iterator[str | Page]":
    """Yield for each device the command that makes an engine of a bundle there, where its profile names one."""
    for profile, command in {made.profile: made.build_on_device for made in bundles}.items():
        if command is not None:
            yield from engine_page.about_making(profile, command)


def about_shares(bundles: "Sequence[ExportedBundle]") -> str:
    """Return what accuracies of bundles of one run are shares of."""
    chosen_by = ", which subnets are chosen by" if bundles[0].split == "held-out" else ""
    return f"Accuracy: of {bundles[0].num_images:,} {bundles[0].split} images{chosen_by}, with its 95 % interval."


def fleet_table(fleet: "Fleet", objective: str) -> "Page":
    """Return what few subnets for many devices cost, one row for each number of subnets.

    Args:
        fleet: What can be assigned.
        objective: What the search was for.
    """
    from fedsup_deploy.cli import tables
    from fedsup_deploy.measures import as_typed

    return tables.rows([_option_row(fleet, option, as_typed(objective)) for option in fleet.options])


def held_out_words(kendall_tau: float, mae: float, num_held_out: int | None) -> str:
    """Return how good predictions are, and on how many subnets they were found to be so; None where nobody counted."""
    on = "subnets" if num_held_out is None else f"{num_held_out:,} subnets"
    return f"on {on} that took no part in it: Kendall tau {kendall_tau:.3f}, mean absolute error {mae:.4f}"


def warning_about(kendall_tau: float, num_held_out: int | None) -> Iterator[str]:
    """Yield a warning if predictions with this rank correlation on so many subnets are of little use."""
    from fedsup_deploy.searchers.scoring.predictor import guessed_tau

    advice = "measure more: fedsup-deploy fit-accuracy --evaluations N"
    if kendall_tau < _USEFUL_TAU:
        yield f"warning: that is little better than guessing; {advice}"
    elif num_held_out is not None and kendall_tau <= (guessed := guessed_tau(num_held_out)):
        yield f"warning: on {num_held_out} subnets guesses come to a tau of up to {guessed:.2f}; {advice}"


def _option_row(fleet: "Fleet", option: "FleetOption", objective: str) -> "Row":
    lost = option.lost
    worst = max(lost, key=lambda name: lost[name])
    return {
        "subnets": option.num_artifacts,
        f"{objective} lost on average": sum(lost.values()) / len(lost),
        "at most": lost[worst],
        "by": worst if lost[worst] else "none",
        "chosen": option.num_artifacts == fleet.chosen,
    }
