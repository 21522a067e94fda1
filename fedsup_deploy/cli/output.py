"""Where results and progress go: results to stdout, as a short table or one JSON document; all else to stderr."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from fedsup_deploy.events import Listener
from fedsup_deploy.ondevice.printable import printable

if TYPE_CHECKING:
    from pydantic import JsonValue

    from fedsup_deploy.cli.tables import Page


class Documented(Protocol):
    """What a command returns."""

    def to_dict(self) -> "dict[str, JsonValue]":
        """Return the JSON document."""


#: The result of one command: typed, or a document that has no type of its own.
R = TypeVar("R", bound="Documented | Mapping[str, JsonValue]")


@dataclasses.dataclass(frozen=True)
class Output:
    """What the user wants to see.

    Args:
        args: The command line, without the program's name.
        as_json: Print results as one JSON document.
        is_quiet: Show no progress; notes and warnings only.
        is_debug: Show the traceback of errors.
    """

    args: tuple[str, ...] = ()
    as_json: bool = False
    is_quiet: bool = False
    is_debug: bool = False

    @classmethod
    def from_args(cls, args: Sequence[str]) -> "Output":
        """Return what the global flags among the arguments say, wherever they stand (but not after `--`)."""
        flags = args[: args.index("--")] if "--" in args else args
        return cls(tuple(args), "--json" in flags, "--quiet" in flags, "--debug" in flags)

    @property
    def command(self) -> list[str]:
        """The whole command line, to be recorded beside what it made."""
        return ["fedsup-deploy", *self.args]

    def emit(self, result: R, render: "Callable[[R], str | Page] | None" = None) -> None:
        """Print the result of a command. To be called once.

        Args:
            result: What the command returned.
            render: Makes of it what a person reads; None gives all fields, then a table of each list.
        """
        if self.as_json:
            click.echo(json.dumps(_document(result), indent=2, allow_nan=False))
            return
        from fedsup_deploy.cli.tables import width_of

        # Not `click.echo`, which writes UTF-8 to what says that it knows ASCII only.
        sys.stdout.write("\n".join(page_of(result, render)(width_of(sys.stdout))) + "\n")

    @contextlib.contextmanager
    def progress(self) -> Iterator[tuple[Listener, ...]]:
        """Yield listeners for the events of a command; around its work.

        Side effects: Until it ends, what a library prints goes to stderr; stdout is for the result.
        """
        from fedsup_deploy.cli import progress

        with contextlib.redirect_stdout(sys.stderr):
            if self.is_quiet:
                yield (progress.remarks_into(_to_stderr),)
            elif sys.stderr.isatty():
                with progress.bars() as listener:
                    yield (listener,)
            else:
                yield (progress.Lines(_to_stderr),)


def _to_stderr(line: str) -> None:
    click.echo(printable(line), err=True)


def page_of(result: R, render: "Callable[[R], str | Page] | None" = None) -> "Page":
    """Return what a person reads of a result; arguments as of `Output.emit`."""
    from fedsup_deploy.cli import tables

    page = tables.overview(_document(result)) if render is None else render(result)
    return (lambda _: iter(page.split("\n"))) if isinstance(page, str) else page


def _document(result: "Documented | Mapping[str, JsonValue]") -> "Mapping[str, JsonValue]":
    return result if isinstance(result, Mapping) else result.to_dict()
