"""Which variants a device gets, and why one cannot be made: all that is known before any work begins."""

from collections.abc import Mapping, Sequence
from typing import Final

from fedsup_deploy import registry
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError, DependencyError
from fedsup_deploy.export.exporter import Exporter, exporter_for
from fedsup_deploy.variant import MAIN, Precision, Variant

_SEARCH_ONLY: Final = "; subnets for it can be searched all the same"


def wanted_variants(
    profile: DeviceProfile, formats: Sequence[str] = (), precisions: Sequence[Precision] = ()
) -> dict[Variant, Exporter]:
    """Return the variants that a device gets, and what writes each. The one that every bundle has comes first.

    Args:
        profile: Of the device.
        formats: Registered exporters; none means those of the profile.
        precisions: Number formats; none means those of the profile.

    Raises:
        ConfigError: A format is unknown or has none of the precisions, a precision cannot be written or is not what the
            profile's latencies are about, or its runtime does not accept a format.
        DependencyError: A library that a format needs is not installed.
    """
    for name, given in (("formats", formats), ("precisions", precisions)):
        if isinstance(given, str):
            raise ConfigError(f"{name}: got {given!r}, expected a list of names")
    _check_precisions(profile, precisions)
    names = dict.fromkeys((MAIN.format, *(formats or profile.formats)))
    exporters = {name: exporter_for(name) for name in names}
    for name, exporter in exporters.items():
        refusal = exporter.refusal(profile.accepts)
        if refusal is not None:
            raise ConfigError(f"profile {profile.name}: format {name}: {refusal}{_SEARCH_ONLY}")
    _check_formats({name: exporters[name] for name in formats if name != MAIN.format}, precisions or profile.precisions)
    # What is of another precision is compared with fp32, so that comes with it.
    return {
        Variant(name, precision): exporter
        for precision in dict.fromkeys((MAIN.precision, *(precisions or profile.precisions)))
        for name, exporter in exporters.items()
        if precision in exporter.precisions and (precision in (precisions or profile.precisions) or name == MAIN.format)
    }


def why_none(profile: DeviceProfile) -> str | None:
    """Return why a device cannot have the variants of its profile, in words; None if it can."""
    try:
        wanted_variants(profile)
    except (ConfigError, DependencyError) as error:
        return str(error).removesuffix(_SEARCH_ONLY)
    return None


def _check_formats(asked: Mapping[str, Exporter], wanted: Sequence[Precision]) -> None:
    """Fail where a format that was asked for would be left out, as it has none of the precisions."""
    for name, exporter in asked.items():
        if not set(wanted).intersection(exporter.precisions):
            advice = " ".join(f"--precision {each}" for each in (*wanted, exporter.precisions[0]))
            raise ConfigError(
                f"format {name}: it is written in {', '.join(exporter.precisions)}, and not in {', '.join(wanted)}; "
                f"ask for both: {advice}"
            )


def _check_precisions(profile: DeviceProfile, asked: Sequence[Precision]) -> None:
    can = registry.names("gate")
    wanted = asked or profile.precisions
    some = [name for name in wanted if name in can]
    advice = f"; ask for what can be: --precision {some[0]}" if some else _SEARCH_ONLY
    source, advice = ("precision", "") if asked else (f"profile {profile.name}: precisions", advice)
    for precision in wanted:
        if precision not in can:
            raise ConfigError(
                f"{source}: got {precision}, which cannot be exported yet, expected {', '.join(can)}{advice}"
            )
    if profile.precision not in wanted:
        raise ConfigError(
            f"profile {profile.name}: its latencies are of {profile.precision}, so an export of {', '.join(wanted)} "
            f"would not be what was searched; ask for both: --precision {profile.precision} --precision {wanted[0]}"
        )
