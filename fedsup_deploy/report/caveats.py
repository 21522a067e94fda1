"""What a page does not know, refuses, and how far the rest may be trusted, in lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.report import bundle_facts, naming, off_by, words
from fedsup_deploy.report.bundle_facts import LATENCY, BundleMaterial
from fedsup_deploy.report.search_facts import Searched

_LITTLE: Final = ": little is known"


def not_measured(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    """Yield for which devices nobody has timed anything, by where their predictions come from."""
    timed = {each.manifest.profile.name for each in bundles if any(bundle_facts.timed_on_device(each))}
    profiles = [each.profile for searched in searches for each in searched.result.results]
    profiles += [each.manifest.profile for each in bundles]
    by_source: dict[str, list[str]] = {}
    for profile in profiles:
        if profile.name not in timed:
            by_source.setdefault(" and ".join(profile.provenance), []).append(profile.name)
    return (
        f"latency on {naming.named(names)}: predicted, from {source} figures" for source, names in by_source.items()
    )


def refused(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    """Yield which bundles and variants there are not, and why, and what is over its limit."""
    reasons: Mapping[str, str] = {name: why for searched in searches for name, why in searched.no_bundle.items()}
    yield from (f"{name}: no bundle can be made: {why}" for name, why in reasons.items())
    for each in bundles:
        yield from (f"{each.name}: {variant} is left out: {why}" for variant, why in each.manifest.left_out.items())
        yield from (f"{each.name}: exceeds its limit {name}" for name in each.manifest.exceeded_limits)
    for searched in searches:
        for device in searched.result.results:
            latency, limit = searched.result.chosen_for(device.profile.name).latency_ms_held, device.limits.get(LATENCY)
            if limit is None or device.risk is not None or latency > limit:
                continue
            known = off_by.bounds(latency, None, device.profile)
            if known is not None and known[1] > limit:
                yield (
                    f"{naming.called(device.profile.name, searched, searches)}: may be over its limit of "
                    f"{words.number(limit, 'ms')}: predicted is {words.number(latency, 'ms')}, "
                    f"{off_by.in_words(latency, None, device.profile)}"
                )


def trusted(searches: Sequence[Searched], bundles: Sequence[BundleMaterial]) -> Iterator[str]:
    """Yield what outputs, accuracies and latencies of the page are of, and how far they may be trusted."""
    gates = [record.gate for each in bundles for record in each.manifest.models.values()]
    parity = [gate for gate in gates if isinstance(gate, ParityGate)]
    if parity:
        yield (
            f"Outputs: {words.counted(len(parity), 'fp32 file')} passed the gate: all compute what the supernet "
            f"computes, within {max(gate.max_scaled_diff for gate in parity):.1e} of {parity[0].tolerance:g} allowed."
        )
    tested: dict[str, list[str]] = {}
    for each in bundles:
        found = each.manifest.accuracy
        of = f"{words.counted(found.num_samples, 'image')} of {found.dataset} ({found.split})"
        tested.setdefault(of, []).append(each.manifest.profile.name)
    for of, names in tested.items():
        yield f"Accuracies of {words.counted(len(names), 'bundle')}: of {of}; nothing is known of others."
    made = {(each.manifest.profile.name, each.manifest.arch_id) for each in bundles}
    chosen = [
        naming.called(device.profile.name, each, searches)
        for each in searches
        for device in each.result.results
        if (device.profile.name, each.result.chosen_for(device.profile.name).arch_id) not in made
    ]
    if chosen:
        yield f"Accuracies of {naming.named(chosen)}: of the images they were chosen by alone, so probably too high."
    profiles = {each.profile.name: each.profile for searched in searches for each in searched.result.results}
    profiles |= {each.manifest.profile.name: each.manifest.profile for each in bundles}
    unknown = [name for name, profile in profiles.items() if profile.error == "none"]
    if unknown:
        on = naming.named(unknown)
        yield f"Latencies on {on}: nobody knows how far predictions are off; measure before you promise."
    errors = [
        f"{words.percent(profile.error.mape)} on {name} "
        f"({words.counted(profile.error.num_heldout, 'network')}{_LITTLE if profile.error.num_heldout == 1 else ''})"
        for name, profile in profiles.items()
        if profile.error != "none"
    ]
    if errors:
        yield f"Latencies: predictions were off by {', '.join(errors)}."
    if bundles:
        yield "Whether files are unaltered is for fedsup-deploy verify to find out."
