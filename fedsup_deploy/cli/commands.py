"""What all commands have in common: the global options, and groups that import a command when it is used."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

from fedsup_deploy.cli.output import Output
from fedsup_deploy.registry import nearest
from fedsup_deploy.version import __version__


class Command(click.Command):
    """A command that takes the global options, but one whose name it gives to an option of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = {flag for each in self.params for flag in each.opts}
        self.params += [each for each in _global_options() if own.isdisjoint(each.opts)]


class Group(click.Group):
    """A group that takes the global options and knows the name a user may have meant."""

    command_class = Command

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, invoke_without_command=True, callback=_without_command, **kwargs)
        self.params += _global_options()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command the first argument names."""
        if args[0] not in self.list_commands(ctx):
            ctx.fail(f"unknown command {args[0]!r}{nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """The group of all commands; each is `command` in a module of its own name, with _ for -.

    Args:
        name: The program's name.
        summaries: Of each command, in the order of the help page; so the page needs none of the modules.
        kwargs: As of `click.Group`.
    """

    def __init__(self, name: str, summaries: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.summaries = dict(summaries)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of a user's way."""
        return list(self.summaries)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None if there is no such command."""
        if cmd_name not in self.summaries:
            return None
        module = importlib.import_module(f"fedsup_deploy.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


@click.pass_context
def _without_command(context: click.Context) -> None:
    """Print the help when no command follows; where a document is expected that is an error."""
    if context.invoked_subcommand is not None:
        return
    if context.ensure_object(Output).as_json:
        context.fail("no command given")
    click.echo(context.get_help())


def _global_options() -> list[click.Parameter]:
    """Return options that may stand before and after a command's name.

    `Output.from_args` has read the flags from the arguments by then, since an error in the arguments must already
    obey them. They are declared to be accepted, and to be in the help.
    """
    flags = {
        "--json": "Print one JSON document on stdout, and nothing else there.",
        "--quiet": "Show no progress, only notes and warnings.",
        "--debug": "Show where an error comes from.",
    }
    options = [click.Option([flag], is_flag=True, expose_value=False, help=text) for flag, text in flags.items()]
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version.",
    )
    return [*options, version]


def _print_version(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        context.ensure_object(Output).emit(
            {"version": __version__}, lambda result: f"fedsup-deploy {result['version']}"
        )
        context.exit()
