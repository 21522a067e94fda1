"""`fedsup-deploy watch`."""

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.signals import advising
from fedsup_deploy.ondevice.printable import printable

if TYPE_CHECKING:
    from fedsup_deploy.commands.watch import RunView

#: How often a run is looked at; where reading it takes long, less often.
_EVERY_S: Final = 1.0
_MOST_SHARE_OF_READING: Final = 0.1
#: What stands below a view, and the lines that a shell needs below the last one.
_BELOW: Final = ("", "Ctrl-C ends this view, not the run.")
_BELOW_THE_LAST: Final = 2


@click.command("watch", cls=Command)
@click.argument("run", metavar="RUN", type=options.NEW_PATH)
@click.option("--once", is_flag=True, help="Print what there is to see now, and end.")
@click.pass_obj
def command(output: Output, run: Path, once: bool) -> None:
    """Watch a run while it trains: how far, how long still, what it learns, who fails.

    On a terminal the view follows the run, also before it has begun and while it is stopped, until it has ended or
    Ctrl-C is pressed, which does not disturb the run. In a pipe, with --once and with --json it is printed once.
    """
    from fedsup_deploy.cli import watch_page
    from fedsup_deploy.commands.watch import watch

    is_live = sys.stdout.isatty() and not (once or output.as_json)
    view = _follow(run) if is_live else watch(run, time.time())
    braille = watch_page.can_draw(sys.stdout.encoding)
    room = shutil.get_terminal_size().lines - _BELOW_THE_LAST if is_live else None
    output.emit(view, lambda seen: watch_page.page(seen, braille=braille, most_lines=room))


def _follow(folder: Path) -> "RunView":
    """Show a run until it has ended, and return the last view."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from fedsup_deploy.cli import watch_page
    from fedsup_deploy.commands.watch import watch

    console = Console(highlight=False)
    braille = watch_page.can_draw(console.encoding)
    with advising(lambda: "the run itself goes on"), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            started = time.monotonic()
            if folder.exists():
                view = watch(folder, time.time())
                if view.state == "ended":
                    return view
                room = max(1, console.height - len(_BELOW))
                lines = list(watch_page.page(view, braille=braille, most_lines=room)(console.width))
            else:
                lines = [printable(f"waiting for a run at {folder}")]
            shown = Text("\n".join([*lines, *_BELOW]), no_wrap=True, overflow="crop")
            shown.highlight_regex(r"(?m)^(warning|fallen).*$", "bold red")
            live.update(shown, refresh=True)
            time.sleep(max(_EVERY_S, (time.monotonic() - started) / _MOST_SHARE_OF_READING))
