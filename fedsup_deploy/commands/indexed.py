"""What an index says of a bundle that was made: taken from its manifest on disk, and from the search that picked it."""

from pathlib import Path

from fedsup_deploy.artifact.index import Choice, IndexedBundle, IndexedLimit, IndexedVariant
from fedsup_deploy.artifact.indexing import sums_of
from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.artifact.variants import VariantRecord
from fedsup_deploy.searchers.result import DeviceResult


def indexed(out: Path, folder: Path, found: DeviceResult | None) -> IndexedBundle:
    """Return the line of a bundle in the index of the folder that it is in.

    Args:
        out: That folder.
        folder: The bundle.
        found: What a search found for its device; None where its network was named.
    """
    manifest = load_manifest(folder)
    accuracy, refined = manifest.accuracy, manifest.refinement
    held = next(each.latency for each in manifest.models.values() if each.latency.predicted is not None)
    limit = None if held.measured is None else held.measured.limit
    return IndexedBundle(
        profile=manifest.profile.name,
        folder=folder.relative_to(out).as_posix(),
        sums=sums_of(folder),
        arch_id=manifest.arch_id,
        trimmed_from=None if refined is None else refined.source_arch_id,
        accuracy=accuracy.recalibrated,
        accuracy_interval=accuracy.recalibrated_interval,
        split=accuracy.split,
        num_images=accuracy.num_samples,
        search=manifest.lineage.search,
        choice=None if found is None else _choice(found),
        limits={
            name: IndexedLimit(**dict(record), left=1 - record.cost / record.limit)
            for name, record in manifest.limits.items()
        },
        latency_limit=None if limit is None else limit.verdict,
        variants={name: _variant(record) for name, record in manifest.models.items()},
        left_out=manifest.left_out,
    )


def _choice(found: DeviceResult) -> Choice:
    names = Choice.model_fields.keys()
    return Choice(**{name: value for name, value in found if name in names})


def _variant(record: VariantRecord) -> IndexedVariant:
    predicted, measured = record.latency.predicted, record.latency.measured
    return IndexedVariant(
        num_bytes=record.num_bytes,
        accuracy=record.accuracy,
        latency_ms_predicted=None if predicted is None else predicted.value_ms,
        latency_ms_measured_here=None if measured is None else measured.statistics.p50_ms,
    )
