"""`MODEL_CARD.md`: a bundle's manifest for people. It adds no figure and no judgement of its own."""

import json
from collections.abc import Iterator
from typing import Final

from fedsup_deploy.artifact.manifest import DeviceRecord, Manifest, RefinementRecord
from fedsup_deploy.artifact.markdown import text_of as _text
from fedsup_deploy.artifact.measured import MeasuredLatency, PercentileRecord
from fedsup_deploy.artifact.measures import Interval, MeasuresRecord
from fedsup_deploy.artifact.variants import THIS_PROGRAM, Int8Gate, ParityGate, PredictedLatency, VariantRecord
from fedsup_deploy.measures import as_typed
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.preprocessing import PIXEL_DTYPE, SOURCE
from fedsup_deploy.variant import MAIN, MAIN_INT8

CARD: Final = "MODEL_CARD.md"

#: What is to be said of images that are not the server's, by the split of a manifest's accuracy.
_OF_CLIENTS: Final = {
    "tested": "- It was evaluated on test images of the clients' own, which no subnet is chosen by.",
    "held-out": "- Subnets are chosen by these images, which clients hold out: on others it may be worse.",
}
_USE = """\
```python
import json, numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
images = np.load("vectors.npz")["inputs"]  # preprocessed as below, float32, any number of them
logits = {logits}
print([json.load(open("manifest.json", encoding="utf-8"))["classes"][i] for i in logits.argmax(axis=1)])
```"""


def render_model_card(manifest: Manifest) -> str:
    """Return the card as Markdown.

    Args:
        manifest: What the bundle says about itself.
    """
    kind = "Subnet" if manifest.refinement is None else "Refined subnet"
    return "\n".join(
        [
            f"# {kind} {manifest.arch_id} for {_text(manifest.profile.name)}",
            "",
            *_over_limits(manifest),
            *_summary(manifest),
            "",
            *([] if manifest.refinement is None else _refinement(manifest, manifest.refinement)),
            "## Use",
            "",
            _USE.format(file=_file(manifest), logits=_logits(manifest)),
            "",
            "`python run.py` checks every file, compares the outputs with `vectors.npz` and times the model on this "
            f"machine. It needs Python 3.6+, numpy and onnxruntime 1.8+. {_classify(manifest)}",
            "",
            "`python install.py FOLDER --to PLACE` checks as much and lets it run at PLACE/current in place of what "
            "does; `--rollback` goes back.",
            "",
            *([] if manifest.device is None else _device(manifest.device, _text(manifest.profile.name))),
            "## Figures",
            "",
            *_figures(manifest),
            "",
            *([] if manifest.accuracy.measures is None else _classes(manifest.accuracy.measures)),
            "## Gates",
            "",
            *_gates(manifest),
            "",
            "## Preprocessing",
            "",
            "In the order of `order`. `padding` is how many rows and columns of `value` are added on each side after",
            f"the division: {_padding(manifest)}. Nothing is resized where the sizes agree; `mean` and `std` are per "
            "channel.",
            "",
            "```json",
            json.dumps(manifest.preprocessing, indent=2, ensure_ascii=False),
            "```",
            "",
            "## Limits",
            "",
            *_limits(manifest),
            "",
        ]
    )


def _classify(manifest: Manifest) -> str:
    """Return how images are classified: pictures, or arrays where no picture has such pixels."""
    if PIXEL_DTYPE not in manifest.preprocessing:
        does = "`python run.py --classify photo.png` says what the model takes image files for"
        have = "of any size: they are made square as `source_resize` below says"
        if SOURCE not in manifest.preprocessing:
            have = "which have the `native_size` below"
        return f"{does}, {have}; it needs Pillow 8.1+ as well."
    dtype = _text(str(manifest.preprocessing[PIXEL_DTYPE]))
    does = "`python run.py --classify image.npy` says what the model takes an image for"
    return f"{does}: an array (height, width, channels) of {dtype} that `numpy.save` wrote, of the `native_size` below."


def _padding(manifest: Manifest) -> str:
    return "of each channel its mean" if manifest.preprocessing.get(PIXEL_DTYPE) == "float32" else "0 is black"


def _file(manifest: Manifest) -> str:
    """Return the ONNX file that the bundle is for: of the precision that the profile's latencies are of."""
    int8 = manifest.models.get(MAIN_INT8.name)
    is_int8 = int8 is not None and int8.latency.predicted is not None
    return bundle_files.INT8_MODEL if is_int8 else bundle_files.MODEL


def _logits(manifest: Manifest) -> str:
    """Return the Python that gives the logits of `images`."""
    run = f'session.run(["{manifest.outputs[0].name}"], {{"{manifest.inputs[0].name}": %s}})[0]'
    if not manifest.is_static:
        return run % "images"
    return f"np.concatenate([{run % 'image[None]'} for image in images])  # it takes one at a time"


def _over_limits(manifest: Manifest) -> Iterator[str]:
    if manifest.exceeded_limits:
        records = ((name, manifest.limits[name]) for name in manifest.exceeded_limits)
        costs = ", ".join(f"{name} is {record.cost:.10g}, limit {record.limit:g}" for name, record in records)
        over = f"**Over the limits of {_text(manifest.profile.name)}:** {costs}."
        yield f"{over} It was exported all the same, as asked for."
        yield ""


def _summary(manifest: Manifest) -> Iterator[str]:
    shape = " x ".join(str(size) for size in manifest.inputs[0].shape)
    one = "; ONNX files take one image at a time" if manifest.is_static else ""
    yield f"An image classifier with {len(manifest.classes)} classes, cut from a supernet that was trained by federated"
    yield f"learning on {_text(manifest.accuracy.dataset)}. Norms are folded into the convolutions."
    yield ""
    yield f"- Files: {', '.join(f'`{_text(name)}`' for name in manifest.model_files)}"
    yield f"- Input: `{_text(manifest.inputs[0].name)}`, {manifest.inputs[0].dtype}, {shape}{one}"
    yield f"- Output: `{_text(manifest.outputs[0].name)}`, {manifest.outputs[0].dtype}, one logit per class"
    yield f"- Classes: {', '.join(map(_text, manifest.classes))}"
    if manifest.objective is not None:
        yield f"- Searched for: {_text(as_typed(manifest.objective))}, within the limits"


def _refinement(manifest: Manifest, how: RefinementRecord) -> Iterator[str]:
    before, after = how.source_costs, manifest.costs
    limits = ", ".join(f"{name} <= {limit:g}" for name, limit in how.limits.items())
    predicted, latency = manifest.main.latency.predicted, ""
    if predicted is not None:
        latency = f", latency, PREDICTED, from {how.source_latency_ms_predicted:.3g} to {predicted.value_ms:.3g} ms"
    yield "## Refinement"
    yield ""
    yield f"This is no subnet of the search space: it is subnet {how.source_arch_id} with channels taken from"
    yield f"{len(how.layers)} layers, down to multiples of {how.channel_quantum}, until it was within {limits}. The"
    yield f"manifest lists them. MACs went from {before.num_macs:,} to {after.num_macs:,}, parameters from"
    yield f"{before.num_params:,} to {after.num_params:,}{latency}. On the same"
    yield f"{how.num_samples:,} {how.split} images it classifies {_share(how.accuracy, how.accuracy_interval)}"
    yield f"correctly, and the pick of the search, {how.pick_arch_id},"
    yield f"{_share(how.pick_accuracy, how.pick_accuracy_interval)}; it was kept because that is more."
    yield ""


def _device(device: DeviceRecord, profile: str) -> Iterator[str]:
    """Yield what is known of the device but its figures; nothing where nothing is."""
    system = _text(str(device.system))
    if not (system or device.known_bad or device.build_on_device):
        return
    yield "## Device"
    yield ""
    if system:
        yield f"- System of {profile}: {system}."
    for each in device.known_bad:
        yield f"- **Known bad there: {_text(str(each))}**: {_text(each.symptom)}. {_text(each.cure)}."
        yield f"  Source: {_text(each.source)}. `run.py` runs nothing with it."
    if device.build_on_device is not None:
        yield f"- An engine is made there: {_text(device.build_on_device)}. We have never run that command on a device."
    yield ""


def _figures(manifest: Manifest) -> Iterator[str]:
    accuracy, costs = manifest.accuracy, manifest.costs
    tested = f"{_text(accuracy.dataset)} {_text(accuracy.split)}, {accuracy.num_samples:,} images, fp32"
    yield "| figure | value | how it is known |"
    yield "| --- | --- | --- |"
    yield f"| accuracy | {_share(accuracy.recalibrated, accuracy.recalibrated_interval)} | {tested} |"
    if accuracy.not_recalibrated is not None:
        before = _share(accuracy.not_recalibrated, accuracy.not_recalibrated_interval)
        yield f"| accuracy before recalibration | {before} | the same images |"
    if accuracy.measures is not None:
        yield from _measures(accuracy.measures)
    yield f"| MACs | {costs.num_macs:,} | counted, one image |"
    yield f"| parameters | {costs.num_params:,} | counted |"
    yield f"| peak activation memory | {costs.peak_activation_bytes:,} bytes | counted, one image |"
    yield f"| memory traffic | {costs.moved_bytes:,} bytes | counted, one image |"
    for name, record in manifest.models.items():
        yield from _latency(name, record, _text(manifest.profile.name))


def _measures(record: MeasuresRecord) -> Iterator[str]:
    classes = f"{record.num_judged_classes} of {len(record.classes)} classes"
    yield f"| balanced accuracy | {_share(record.balanced_accuracy, record.balanced_accuracy_interval)} | {classes} |"
    yield f"| macro-F1 | {_share(record.macro_f1, record.macro_f1_interval)} | {classes} |"
    if record.auc is not None:
        yield f"| AUC | {_share(record.auc, record.auc_interval)} | of the second class against the first |"
    error = _share(record.calibration_error, record.calibration_error_interval)
    yield f"| calibration error | {error} | 15 bins of confidence |"


def _classes(record: MeasuresRecord) -> Iterator[str]:
    yield "## Classes"
    yield ""
    yield "Recall: the share of the images of a class that it gets right."
    yield ""
    yield "| class | images | recall | answered |"
    yield "| --- | --- | --- | --- |"
    for each in record.classes:
        recall = "no images" if each.recall is None else _share(each.recall, each.recall_interval)
        yield f"| {_text(each.name)} | {each.images:,} | {recall} | {each.answered:,} |"
    yield ""


def _share(share: float, interval: Interval | None) -> str:
    if interval is None:
        return f"{share:.2%}"
    return f"{share:.2%}, 95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def _latency(variant: str, record: VariantRecord, profile: str) -> Iterator[str]:
    """Yield what is known; of another variant than the one that is timed mostly nothing is."""
    if record.latency.predicted is not None:
        yield _predicted(variant, record.latency.predicted, profile)
    if record.variant == MAIN or record.latency.measured is not None:
        yield _measured(variant, record.latency.measured)


def _predicted(variant: str, latency: PredictedLatency, profile: str) -> str:
    interval = "no interval is claimed"
    if latency.interval_ms is not None:
        interval = f"interval {latency.interval_ms[0]:.3g} to {latency.interval_ms[1]:.3g} ms"
    known = f"{latency.kind} model of {profile}, costs {' and '.join(latency.provenance)}; {interval}"
    return f"| latency of {variant}, PREDICTED | {latency.value_ms:.3g} ms | {known} |"


def _measured(variant: str, latency: MeasuredLatency | None) -> str:
    if latency is None:
        return f"| latency of {variant}, MEASURED | not measured | |"
    statistics, where = latency.statistics, latency.environment
    value = f"p10 {statistics.p10_ms:.3g} ms, p50 {statistics.p50_ms:.3g} ms, p90 {statistics.p90_ms:.3g} ms"
    known = _text(f"{where.get('cpu', 'processor unknown')}, threads {where.get('threads', 'unknown')}")
    noise = f"{statistics.num_runs} runs, {latency.stability.verdict}"
    return f"| latency of {variant}, MEASURED | {value} | {known}; {noise} |"


def _gates(manifest: Manifest) -> Iterator[str]:
    gate = manifest.parity
    yield f"Each variant was compared with the network it was made from: {gate.num_inputs} inputs {_batches(manifest)}."
    yield "A scaled difference is divided by the largest absolute logit of its image, or by 1 where that is smaller."
    yield f"Allowed, scaled: {gate.tolerance:g}; alone against inside a batch: {gate.batch_tolerance:g}."
    yield from _kinder(manifest)
    for name, record in manifest.models.items():
        if record.ran_by is not None and record.ran_by.name == THIS_PROGRAM:
            yield f"{name} was read back and computed by this program: no runtime of its format has run it."
    yield ""
    yield "| variant | run by | max difference | scaled | same class | alone against in a batch | scaled |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, record in manifest.models.items():
        found = record.gate
        if not isinstance(found, ParityGate):
            continue
        reference = f"{found.max_abs_diff:.1e} | {found.max_scaled_diff:.1e}"
        alone = f"{found.batch_invariance_max_abs_diff:.1e} | {found.batch_invariance_max_scaled_diff:.1e}"
        yield f"| {name} | {_ran_by(record)} | {reference} | {found.argmax_agreement:.0%} | {alone} |"
    for name, record in manifest.models.items():
        if isinstance(record.gate, Int8Gate):
            yield ""
            yield from _int8_gate(name, record.gate, _ran_by(record))
    yield from _counted(manifest)
    for name, reason in manifest.left_out.items():
        yield ""
        yield f"{name} was asked for and is not here: {_text(reason)}."


def _kinder(manifest: Manifest) -> Iterator[str]:
    """Yield which variants are allowed more, as their runtimes compute with fewer digits."""
    most = manifest.parity.tolerance
    for name, record in manifest.models.items():
        if isinstance(record.gate, ParityGate) and record.gate.tolerance > most:
            yield f"Of {name} {record.gate.tolerance:g} is allowed: its runtime adds up in another order."


def _counted(manifest: Manifest) -> Iterator[str]:
    """Yield what was counted in files."""
    for name, record in manifest.models.items():
        if record.counted:
            yield ""
            yield f"In {name}: {', '.join(f'{number:,} {_text(what)}' for what, number in record.counted.items())}."


def _ran_by(record: VariantRecord) -> str:
    """Return what ran a variant; nothing in older bundles."""
    return "" if record.ran_by is None else _text(f"{record.ran_by.name} {record.ran_by.version}")


def _batches(manifest: Manifest) -> str:
    """Return with how many images at once variants were compared, and of which if that differs."""
    names: dict[tuple[int, ...], list[str]] = {}
    for name, record in manifest.models.items():
        if isinstance(record.gate, ParityGate):
            names.setdefault(record.gate.batches, []).append(name)
    told = {f"at batch {', '.join(map(str, batches))}": of for batches, of in names.items()}
    return next(iter(told)) if len(told) == 1 else "; ".join(f"{', '.join(of)} {at}" for at, of in told.items())


def _int8_gate(name: str, gate: Int8Gate, ran_by: str) -> Iterator[str]:
    if name != MAIN_INT8.name:
        yield f"{name}, run by {ran_by}, computes what {MAIN_INT8.name} does, but for how it rounds: a logit may be"
        yield f"off by a scaled difference of {gate.tolerance:g}. Recorded inputs with fp32's class: "
        yield f"{gate.class_agreement:.0%}."
        return
    low, high = (100 * end for end in gate.accuracy_drop_interval)
    drop = f"{100 * gate.accuracy_drop:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
    images = f"{gate.num_images:,} {_text(gate.split)} images"
    yield f"{name} loses {drop} of accuracy against fp32 on {images}; allowed: {100 * gate.max_accuracy_drop:g}."
    yield f"All its convolutions are computed in 8 bits; recorded inputs with fp32's class: {gate.class_agreement:.0%}."
    if gate.speed is None:
        yield "Whether it is faster than fp32 was not measured: the machine that made it is not the device. `run.py` on"
        yield "the device says it."
    else:
        yield f"On the device it is {gate.speed.times_as_fast:.3g} times as fast as fp32, timed in turns"
        yield f"({gate.speed.verdict}); expected: more than {gate.speed.faster_above:.3g}."
    yield "Processors round differently: from its recorded outputs a logit may be off by a scaled difference of"
    yield f"{gate.tolerance:g}."


def _percentile(percentile: PercentileRecord) -> str:
    if percentile.is_assumed:
        return f"{percentile.name}; that predictions are of it is assumed, nobody measured percentiles"
    return f"{percentile.name}, by what the profile measured {percentile.ratio:.4g} times the prediction"


def _limits(manifest: Manifest) -> Iterator[str]:
    yield f"- Evaluated on {_text(manifest.accuracy.dataset)} only; nothing is known about other images."
    if manifest.accuracy.split in _OF_CLIENTS:
        yield _OF_CLIENTS[manifest.accuracy.split]
    yield "- Images must be preprocessed exactly as above."
    for record in manifest.limits.values():
        if record.percentile is not None:
            yield f"- The limit on latency means {_percentile(record.percentile)}."
        if record.risk is not None:
            yield f"- What is held to it is an upper bound, which holds with a probability of {record.risk:g}."
    if manifest.profile.error == "none":
        yield f"- Nobody has measured how far predictions for {_text(manifest.profile.name)} are off."
