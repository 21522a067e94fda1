"""What `inspect --resolution` takes and prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page, Row
    from fedsup_deploy.commands.resolution import DeviceCost, ResolutionCost, ResolutionCosts

_BEYOND: Final = " *"


def sides(context: click.Context, parameter: click.Parameter, given: str | None) -> tuple[int, ...] | None:
    """Return the sides in pixels that a list names, none of an empty one; None where there is no list.

    Raises:
        BadParameter: It is no list of whole numbers.
    """
    if not given:
        return None if given is None else ()
    words = given.split(",")
    if not all(word.isdecimal() and word.isascii() and len(word) < 10 for word in words):
        problem = f"got {given!r}, expected sides in pixels, such as 96,128,224, or none, with the space before it"
        raise click.BadParameter(problem, context, parameter)
    return tuple(map(int, words))


def page(result: "ResolutionCosts") -> "Page":
    """Return a row per resolution and corner, and what to do with it."""
    from fedsup_deploy.cli import tables

    about = f"space {result.space}, images of {result.in_channels} channels, {result.num_classes:,} classes"
    table = tables.rows([_row(subnet) for subnet in result.subnets])
    return tables.stacked(tables.text(about), tables.text(""), tables.titled(table, *_notes(result)))


def _row(subnet: "ResolutionCost") -> "Row":
    return {
        "pixels": subnet.resolution,
        "subnet": subnet.subnet,
        "million MACs": subnet.num_macs / 1e6,
        "activations, KiB": subnet.peak_activation_bytes / 1024,
        "last map": f"{subnet.last_map}x{subnet.last_map}",
        **{f"{device.profile}, ms": _latency(device) for device in subnet.devices},
    }


def _latency(device: "DeviceCost") -> str:
    from fedsup_deploy.cli.tables import cell

    bounds = device.latency_interval_ms
    interval = "" if bounds is None else f" ({cell(bounds[0])}-{cell(bounds[1])})"
    return f"{cell(device.latency_ms_predicted)}{interval}{'' if device.is_allowed else _BEYOND}"


def _notes(result: "ResolutionCosts") -> Iterator[str]:
    devices = [device for subnet in result.subnets for device in subnet.devices]
    if devices:
        percentiles = dict.fromkeys(
            f"{device.percentile}{', assumed,' if device.is_percentile_assumed else ''} on {device.profile}"
            for device in devices
        )
        yield f"ms: predicted, nobody timed it: {'; '.join(percentiles)}"
    else:
        yield "--profile NAME adds the latency that is predicted for a device"
    if any(device.latency_interval_ms for device in devices):
        yield "in brackets: the 95 % interval for networks like those that the profile was checked with"
    if not all(device.is_allowed for device in devices):
        yield "*: beyond a limit of the profile, or with layers that its runtime cannot run; --json says which"
    yield "activations: the most alive at once, in float32"
    yield "a config's data.image_size is best the largest resolution: smaller images get black borders"
