"""`fedsup-deploy report`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.report import Reported


@click.command("report", cls=Command)
@click.argument(
    "paths", metavar="RUN|SEARCH|BUNDLE|EXPORTS|EVALUATION...", nargs=-1, required=True, type=options.OLD_PATH
)
@click.option(
    "--out",
    type=options.NEW_PATH,
    metavar="FILE",
    default=Path("report.html"),
    show_default=True,
    help="The page to write; one that is there is replaced.",
)
@click.option("--plots", type=options.NEW_PATH, metavar="DIR", help="A folder for every plot as SVG and as PNG, too.")
@click.option(
    "--mistakes",
    is_flag=True,
    help="Also show some test images that each bundle gets wrong. They are put into the page; name the run of the "
    "bundles, too, whose server has them. Images of clients are not shown.",
)
@click.pass_obj
def command(output: Output, paths: tuple[Path, ...], out: Path, plots: Path | None, *, mistakes: bool) -> None:
    """Show runs, searches and bundles as one page to look at.

    The page is one file that needs no network and holds no script from elsewhere. A folder such as exports stands for
    the bundles of its index; of several searches the first is compared with the others. EVALUATION is a file of what
    evaluate --per-client --json has printed.

    Needs the extra `report`.
    """
    from fedsup_deploy.commands.report import report

    with output.progress() as listeners:
        result = report(paths, out, plots, listeners, mistakes=mistakes)
    output.emit(result, _page)


def _page(result: "Reported") -> "Page":
    from fedsup_deploy.cli import tables

    shown = {
        "runs": result.runs,
        "searches": result.searches,
        "bundles": result.bundles,
        "evaluations": result.evaluations,
    }
    parts = [
        f"{len(paths)} {what if len(paths) != 1 else one}"
        for one, (what, paths) in zip(("run", "search", "bundle", "evaluation"), shown.items(), strict=True)
        if paths
    ]
    lines: list[Page] = [
        tables.whole(result.out, "wrote"),
        tables.text(f"{', '.join(parts)}; {result.num_bytes / 2**20:.1f} MiB; open it in a browser"),
    ]
    if result.plots:
        lines.append(tables.whole(result.plots[0].parent, f"{len(result.plots)} pictures in"))
    return tables.stacked(*lines)
