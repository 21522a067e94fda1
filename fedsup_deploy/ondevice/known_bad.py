"""Releases of a runtime that are known to crash or to compute wrongly on a device, as its bundles list them.

Knows no runtime and runs none: some of these releases end a process that only imports them.
"""

import operator
import re
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.manifest_records import KnownBadRelease

Numbers = Tuple[int, ...]
Comparison = Tuple[Callable[[Numbers, Numbers], bool], Numbers]

_OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = re.compile(r"(==|!=|<=|>=|<|>) *(\d{1,9}(?:\.\d{1,9})*)")


def comparisons_of(versions: str) -> List[Comparison]:
    """Return what a version has to be to be one of `versions`: comparisons, all of which hold.

    Args:
        versions: Such as `==1.21.0`, or `>=1.23, <1.24`.

    Raises:
        ValueError: It is something else.
    """
    found = []  # type: List[Comparison]
    for text in versions.split(","):
        comparison = _COMPARISON.fullmatch(text.strip())
        if comparison is None:
            raise ValueError("expected comparisons with a version, such as ==1.21.0 or >=1.23,<1.24")
        found.append((_OPERATORS[comparison.group(1)], _numbers(comparison.group(2))))
    return found


def is_among(version: str, versions: str) -> bool:
    """Return whether a release is one of `versions`.

    Zeros at the end say nothing: 1.21 is 1.21.0. Neither does what follows the numbers: a build of somebody's own
    (1.21.0+jetson) and what came before a release (1.21.0rc1) are taken for it, faults and all.

    Raises:
        ValueError: `versions` is none.
    """
    comparisons = comparisons_of(versions)
    release = re.match(r"\d+(?:\.\d+)*", version)
    return release is not None and all(holds(_numbers(release.group()), other) for holds, other in comparisons)


def why_known_bad(runtime: str, version: str, listed: "Sequence[KnownBadRelease]") -> Optional[str]:
    """Return on one line why a release must not run a bundle, what helps and who says so; None where nothing is known.

    Args:
        runtime: Such as `onnxruntime`.
        version: That would run it.
        listed: What the bundle says of its device.

    Raises:
        ValueError: What is listed is no such list.
    """
    for each in listed:
        if each["runtime"] == runtime and is_among(version, each["versions"]):
            what = f"{runtime} {version} is known to be bad on this device: {each['symptom']}"
            return f"{what}; {each['cure']} (source: {each['source']})"
    return None


def _numbers(release: str) -> Numbers:
    numbers = [int(part) for part in release.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
