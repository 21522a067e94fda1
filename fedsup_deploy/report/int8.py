"""Whether the int8 file of a bundle is worth it: yes, no, or what decides."""

from fedsup_deploy.artifact.measured import MeasuredSpeed
from fedsup_deploy.artifact.variants import Int8Gate, VariantRecord
from fedsup_deploy.report import words
from fedsup_deploy.report.bundle_facts import BEFORE, SINCE, BundleMaterial, gate, machine, of_device

_STORAGE = "storage_mib"


def is_it_worth_it(material: BundleMaterial) -> str | None:
    """Return whether int8 is worth it, as far as anybody knows; None where the bundle has none.

    It is where it alone keeps the limit on size, or is faster on what may be the device. What passes its gate loses no
    more accuracy than is allowed.
    """
    manifest = material.manifest
    for name, record in manifest.models.items():
        if not isinstance(record.gate, Int8Gate):
            continue
        less = 1 - record.num_bytes / manifest.main.num_bytes
        answer, why = _answer(material, record, record.gate)
        return f"{answer}: {why}. {name} is {words.rounded(less)} smaller; accuracy {gate(record)}"
    reasons = [f"no: {name} is left out: {reason}" for name, reason in manifest.left_out.items() if "int8" in name]
    return reasons[0] if reasons else None


def _answer(material: BundleMaterial, record: VariantRecord, found: Int8Gate) -> tuple[str, str]:
    manifest, decides = material.manifest, "a measurement on the device decides (fedsup-deploy measure)"
    limit = manifest.limits.get(_STORAGE)
    if limit is not None and record.num_bytes <= limit.limit * 2**20 < manifest.main.num_bytes:
        sizes = f"{words.size(record.num_bytes)}, fp32 {words.size(manifest.main.num_bytes)}"
        return "yes", f"it alone keeps the limit on size, {words.number(limit.limit, 'MiB')}: it has {sizes}"
    later = None if material.measured.latency is None else material.measured.latency.int8
    speed: MeasuredSpeed | None = found.speed if later is None else later.speed
    if speed is None and of_device(manifest) is record:
        return "not known yet", "what is known of the device is of int8, and nobody has timed fp32 there"
    if speed is None:
        return "not known yet", f"nobody has timed it on the device; {decides}"
    when, timed = (BEFORE, manifest.main.latency.measured) if later is None else (SINCE, later)
    can_be = timed is not None and material.may_be_device(when, timed)
    where = "the machine that exported it" if timed is None else machine(timed)
    told = f"{speed.words(may_be_device=can_be)}, {'' if can_be else 'but '}on {where}"
    if not can_be:
        return "not known yet", f"{told}; {decides}"
    if speed.is_faster:
        return "yes", told
    return ("no", f"{told}; it is worth its size alone") if speed.verdict == "stable" else ("not known yet", told)
