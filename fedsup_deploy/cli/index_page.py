"""How the index of a folder of bundles is shown."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedsup_deploy.cli import options

if TYPE_CHECKING:
    from fedsup_deploy.artifact.index import IndexedBundle
    from fedsup_deploy.cli.tables import Page, Row
    from fedsup_deploy.commands.inspect import ExportsFacts


def line(index: Path) -> "Page":
    """Return where it stands, for people, what each device class has."""
    from fedsup_deploy.artifact.index_table import TABLE
    from fedsup_deploy.cli import tables

    return tables.whole(index.with_name(TABLE), "index:")


def page(head: "Page", about: "ExportsFacts") -> "Page":
    """Return what each device class has, why, and what was refused, below a head."""
    from fedsup_deploy.cli import tables

    refused = (f"refused: {each.profile}, {each.arch_id}: {each.reason}" for each in about.refused)
    rows = tables.rows([_row(bundle) for bundle in about.bundles])
    return tables.titled(tables.stacked(head, tables.text(""), rows), *_why(about), *refused)


def _row(bundle: "IndexedBundle") -> "Row":
    return {
        "profile": bundle.profile,
        "arch": bundle.arch_id,
        "accuracy": options.share(bundle.accuracy, bundle.accuracy_interval),
        "KiB": ", ".join(f"{name} {each.num_bytes / 1024:.0f}" for name, each in bundle.variants.items()),
    }


def _why(about: "ExportsFacts") -> Iterator[str]:
    """Yield for each bundle its limits, why the class has this network, and which variants it lacks."""
    from fedsup_deploy.artifact.index_table import choice_words, limits_words

    for bundle in about.bundles:
        yield f"{bundle.profile}: limits: {limits_words(bundle)}"
        yield f"{bundle.profile}: {choice_words(bundle)}"
        yield from (f"{bundle.profile}: no {name}: {reason}" for name, reason in bundle.left_out.items())
