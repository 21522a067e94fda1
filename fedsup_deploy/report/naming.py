"""What devices are called where several searches of a page have them, and lists of them."""

from collections.abc import Sequence
from typing import Final

from fedsup_deploy.report import words
from fedsup_deploy.report.bundle_facts import LATENCY
from fedsup_deploy.report.search_facts import Searched

#: Devices that are named in a line.
_MOST_NAMED: Final = 12


def called(device: str, searched: Searched, searches: Sequence[Searched]) -> str:
    """Return what a device is called: where there are several searches, with the one that is meant, and its limit."""
    if len(searches) == 1:
        return device
    limit = searched.result.for_profile(device).limits.get(LATENCY)
    told = "" if limit is None else f", at most {words.number(limit, 'ms')}"
    return f"{device}{told} ({words.short(searched.name)})"


def named(names: Sequence[str]) -> str:
    """Return names, each once, and how many more there are."""
    once = [*dict.fromkeys(names)]
    more = f" and {len(once) - _MOST_NAMED} more" if len(once) > _MOST_NAMED else ""
    return ", ".join(once[:_MOST_NAMED]) + more
