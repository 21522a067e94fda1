"""`index.md`: the index of a folder of bundles for people. It adds no figure and no judgement of its own."""

from collections.abc import Iterator
from typing import Final

from fedsup_deploy.artifact.index import Choice, Index, IndexedBundle, IndexedLimit, IndexedVariant
from fedsup_deploy.artifact.markdown import text_of
from fedsup_deploy.measures import as_typed

TABLE: Final = "index.md"


def render_table(index: Index) -> str:
    """Return the index as Markdown: a table of device classes, one of variants, and what was refused."""
    return "\n".join(
        [
            "# What each device class has",
            "",
            "| class | bundle | accuracy | limits: cost of limit | why this network |",
            "| --- | --- | --- | --- | --- |",
            *(_row(bundle) for bundle in index.bundles),
            "",
            "Costs are predicted for the device, or counted; what was measured of a bundle since stands in its "
            "`measured.json`.",
            "",
            "## Variants",
            "",
            "| class | variant | KiB | accuracy | ms predicted | ms measured on the machine that made it |",
            "| --- | --- | --- | --- | --- | --- |",
            *(row for bundle in index.bundles for row in _variants(bundle)),
            "",
            *_refused(index),
        ]
    )


def choice_words(bundle: IndexedBundle) -> str:
    """Return why a device class has this network."""
    if bundle.choice is None:
        return "named by whoever exported it"
    if bundle.trimmed_from is not None:
        return f"trimmed from {bundle.trimmed_from}; more accurate than {bundle.choice.pick}, which the search picked"
    best = _best(bundle.choice)
    if bundle.choice.pick == bundle.arch_id:
        return best
    return f"shared with other classes; its own pick is {bundle.choice.pick}: {best}"


def limit_words(name: str, limit: IndexedLimit) -> str:
    """Return a limit, what the network costs, and by how much it is within: `latency_ms 1.2 of 2 (p50, 40 % left)`."""
    percentile = "" if limit.percentile is None else f"{limit.percentile}, "
    left = f"{100 * limit.left:.0f} % left" if not limit.is_exceeded else f"EXCEEDED by {-100 * limit.left:.1f} %"
    return f"{name} {limit.cost:.6g} of {limit.limit:g} ({percentile}{left})"


def limits_words(bundle: IndexedBundle) -> str:
    """Return all limits of a bundle in words, those among them that nobody could check."""
    said = [limit_words(name, limit) for name, limit in bundle.limits.items()]
    if bundle.choice is not None:
        said += [f"{name} not checked" for name in bundle.choice.not_checked]
    if bundle.latency_limit is not None:
        said.append(f"measured here: {bundle.latency_limit}")
    return "; ".join(said) or "none"


def _best(choice: Choice) -> str:
    feasible, objective = f"{choice.num_feasible:,} within the limits", as_typed(choice.objective)
    if choice.certified:
        return f"certified best in {objective} of {feasible}, relative to {choice.certified_relative_to}"
    known = "" if choice.num_measured is None else f", {choice.num_measured:,} of them measured"
    return f"best in {objective} of {choice.num_evaluated:,} evaluated{known}, of {feasible}; not certified"


def _share(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.1f} %"


def _row(bundle: IndexedBundle) -> str:
    images = f"{_share(bundle.accuracy)} of {bundle.num_images:,} {text_of(bundle.split)}"
    if bundle.accuracy_interval is not None:
        low, high = bundle.accuracy_interval
        images += f" ({100 * low:.1f}-{100 * high:.1f})"
    cells = (bundle.profile, f"[{text_of(bundle.arch_id)}]({bundle.folder})", images)
    return f"| {' | '.join((*cells, text_of(limits_words(bundle)), text_of(choice_words(bundle))))} |"


def _variants(bundle: IndexedBundle) -> Iterator[str]:
    for name, variant in bundle.variants.items():
        yield f"| {bundle.profile} | {text_of(name)} | {' | '.join(_figures(variant))} |"
    for name, reason in bundle.left_out.items():
        yield f"| {bundle.profile} | no {text_of(name)} | {text_of(reason)} | | | |"


def _figures(variant: IndexedVariant) -> Iterator[str]:
    yield f"{variant.num_bytes / 1024:.0f}"
    yield _share(variant.accuracy)
    for latency_ms in (variant.latency_ms_predicted, variant.latency_ms_measured_here):
        yield "" if latency_ms is None else f"{latency_ms:.4g}"


def _refused(index: Index) -> Iterator[str]:
    yield "## Refused"
    yield ""
    yield from (f"- {each.profile}, {text_of(each.arch_id)}: {text_of(each.reason)}" for each in index.refused)
    if not index.refused:
        yield "No bundle was refused."
    yield ""
