"""`manifest.json`, schema 3: everything a bundle says about itself when it is made. It is never changed afterwards.

Owns the fields, their units and what makes them valid. It reads and writes text, never files, and it never computes a
figure. No field holds a path of a machine, and none a hash of a file: those stand in SHA256SUMS. What it says of each
variant is in `variants`.
"""

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact import document
from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.artifact.measured import PercentileRecord
from fedsup_deploy.artifact.measures import Interval, MeasuresRecord
from fedsup_deploy.artifact.variants import ParityGate, Share, VariantRecord, is_for_one_image
from fedsup_deploy.config.device import KnownBad, System
from fedsup_deploy.config.document import dotted, show
from fedsup_deploy.config.section import Name, NotNegative, Section, Text
from fedsup_deploy.ondevice import bundle_files, bundle_outputs
from fedsup_deploy.variant import MAIN

FILENAME: Final = bundle_files.MANIFEST
SCHEMA: Final = 3

# An absolute path: at the start of the text with any name after the slash, or further inside with two names, so that
# `T-shirt/top`, `GMAC /s` and https://... remain text. Also a home folder, and a drive or share of Windows.
_MACHINE_PATH = re.compile(
    r"^/\w|(?<![\w.:/)\]-])/[\w.+-]+/[\w.+-]|(?<!\w)~(?:[A-Za-z_]\w*)?/|(?<!\w)[A-Za-z]:[\\/]|\\\\\w|file://"
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
ChannelRanges = Annotated[str, Field(pattern=r"^\d+(-\d+)?(, \d+(-\d+)?)*$")]


def check_interval(name: str, share: float | None, num_images: int, interval: Interval | None) -> None:
    """Fail if an interval is not that of the share it stands beside; None is what older files have.

    Raises:
        ValueError: It is another one, or no number of right answers among so many images is that share.
    """
    if interval is None:
        return
    expected = None if share is None else CountedAccuracy.of_share(share, num_images).interval
    if interval != expected:
        raise ValueError(
            f"{name}_interval: got {interval}, expected {expected}, that of {share} of {num_images} images"
        )


class PredictorError(Section):
    """How far the profile's latency model was off on networks measured on the device."""

    acc5: Share
    """Share of networks predicted within 5 %."""
    acc10: Share
    """Share of networks predicted within 10 %."""
    spearman: float | None = Field(ge=-1, le=1)
    """Rank correlation of predicted and measured; null where there are fewer than three networks."""
    mape: NotNegative
    """Mean of |predicted - measured| / measured; 0.05 is 5 %."""
    num_heldout: int = Field(ge=1)
    """Number of those networks."""
    method: Text | None = None
    """How they were held out; null in older files."""


class ProfileRecord(Section):
    """The device profile the subnet was picked for."""

    name: Name
    """Name of the profile."""
    hash: Sha256
    """SHA-256 of its content."""
    provenance: tuple[Literal["datasheet", "measured", "published"], ...] = Field(min_length=1)
    """How its costs are known."""
    error: Literal["none"] | PredictorError
    """How far its predictions were off on the device; `none` where nobody measured."""


class DeviceRecord(Section):
    """What the profile says of the device that runs the bundle."""

    runtime: Text
    """What runs it there, such as `onnxruntime`."""
    system: System
    """What the device has beside it."""
    known_bad: tuple[KnownBad, ...]
    """Releases of runtimes that crash or compute wrongly there: `run.py` runs nothing with one of them."""
    build_on_device: Text | None
    """A command that makes an engine of `model.onnx` there; null where none is made. We have run none on a device."""


class TensorSpec(Section):
    """An input or output of the model."""

    name: Text
    """Its name in `model.onnx`."""
    shape: tuple[Literal["batch"] | Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Its dimensions; the first is `batch`, any number of images, or 1: the ONNX files take one image at a time."""
    dtype: Text
    """Element type, such as `float32`."""


class AccuracyRecord(Section):
    """Share of images classified correctly, in [0, 1], and of each share its 95 % interval."""

    dataset: Text
    """Name of the data set."""
    split: Text
    """Which part of it: `test`, `tested` for test images of clients' own, or `held-out` by clients, who chose by it."""
    num_samples: int = Field(ge=1)
    """Number of images."""
    recalibrated: Share
    """Of the network in this bundle in fp32: norms folded with client statistics."""
    recalibrated_interval: Interval | None = None
    """Of that; null in older files."""
    not_recalibrated: Share | None
    """Of the same subnet with the supernet's own statistics; null where there are none."""
    not_recalibrated_interval: Interval | None = None
    """Of that; null in older files, too."""
    measures: MeasuresRecord | None = None
    """What the same answers are worth otherwise: balanced accuracy, recalls and so on; null in older files."""

    @model_validator(mode="after")
    def _has_the_intervals_of_its_shares(self) -> "AccuracyRecord":
        check_interval("recalibrated", self.recalibrated, self.num_samples, self.recalibrated_interval)
        check_interval("not_recalibrated", self.not_recalibrated, self.num_samples, self.not_recalibrated_interval)
        if self.measures is not None and self.measures.num_images != self.num_samples:
            raise ValueError(f"measures: got {self.measures.num_images} images, expected {self.num_samples}")
        return self


class CostsRecord(Section):
    """What one inference costs, counted from the architecture: one image, float32."""

    num_macs: Count
    """Multiply-accumulates of convolutions and linear layers."""
    num_params: Count
    """Parameters of the exported model."""
    peak_activation_bytes: Count
    """Most bytes of activations alive at one time."""
    moved_bytes: Count
    """Bytes of inputs, outputs and weights read and written, summed over the layers."""


class TrimmedLayer(Section):
    """A layer that writes fewer channels than in the subnet."""

    num_channels: int = Field(ge=1)
    """Channels it wrote there."""
    removed: ChannelRanges
    """Which of them are gone, counted from 0, such as `3, 8-15`."""


class RefinementRecord(Section):
    """How a subnet that costs too much became this network, which is none of the search space."""

    source_arch_id: Text
    """The subnet: one choice larger than the pick, and beyond the limits."""
    source_costs: CostsRecord
    """What it costs."""
    source_latency_ms_predicted: NotNegative
    """Its latency by the profile's latency model, in ms."""
    limits: dict[Text, NotNegative]
    """The limits of the search that could be checked, by name; this network is within them."""
    channel_quantum: int = Field(ge=1)
    """Each layer that lost channels writes a multiple of so many."""
    layers: dict[Text, TrimmedLayer] = Field(min_length=1)
    """The layers that lost channels, by name."""
    pick_arch_id: Text
    """The subnet that the search picked within the same limits."""
    split: Text
    """Images of the data set on which this network and the pick were compared."""
    num_samples: int = Field(ge=1)
    """Number of these."""
    accuracy: Share
    """Share of these images that this network classifies correctly."""
    accuracy_interval: Interval | None = None
    """Its 95 % interval; null in older files."""
    pick_accuracy: Share
    """Share of the same images that the pick classifies correctly."""
    pick_accuracy_interval: Interval | None = None
    """Its 95 % interval; null in older files."""

    @model_validator(mode="after")
    def _has_the_intervals_of_its_shares(self) -> "RefinementRecord":
        check_interval("accuracy", self.accuracy, self.num_samples, self.accuracy_interval)
        check_interval("pick_accuracy", self.pick_accuracy, self.num_samples, self.pick_accuracy_interval)
        return self

    @field_validator("pick_accuracy")
    @classmethod
    def _is_lower(cls, pick_accuracy: float, info: ValidationInfo) -> float:
        if pick_accuracy >= info.data.get("accuracy", math.inf):
            raise ValueError("expected less than accuracy: no other refined network is kept")
        return pick_accuracy


class LimitRecord(Section):
    """A limit of the device and what the network costs there: predicted or counted, never measured."""

    limit: Annotated[float, Field(gt=0)]
    """The most it may cost, in the unit that the limit's name says."""
    cost: NotNegative
    """What it costs, in the same unit."""
    is_exceeded: bool
    """Whether that is more. Such a bundle is made only if asked for."""
    percentile: PercentileRecord | None = None
    """Which percentile a limit on latency means; null of other limits and in older files."""
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    """With which probability a new network costs no more than `cost` on the device, which is a bound then; null where
    it is what is predicted, and in older files."""

    @field_validator("is_exceeded")
    @classmethod
    def _follows_from_both(cls, is_exceeded: bool, info: ValidationInfo) -> bool:
        if is_exceeded != (info.data.get("cost", 0) > info.data.get("limit", math.inf)):
            raise ValueError("expected true where cost is above limit, else false")
        return is_exceeded


class Lineage(Section):
    """SHA-256 of what the bundle was made from."""

    run: Sha256
    """The training run's resolved config and seed."""
    space: Sha256
    """The search space."""
    statistics: Sha256
    """The client statistics that the norms were folded with."""
    profile: Sha256
    """The device profile."""
    search: Sha256 | None
    """The search that picked the architecture; null when it was named by the user."""


class ManifestDraft(Section):
    """A manifest before its files were written and compared."""

    schema_version: Literal[3] = Field(SCHEMA, alias="schema")
    """Version of this file format."""
    arch_id: Text
    """Name of the architecture, from its content alone; of a refined network from what was removed as well."""
    arch: JsonObject
    """The architecture; of a refined network the one it was trimmed from, under `trimmed_from`, and its channels."""
    profile: ProfileRecord
    """The device profile it was picked for."""
    device: DeviceRecord | None = None
    """The device that runs it; null in older files."""
    classes: tuple[str, ...] = Field(min_length=1)
    """Names of the classes, in the order of the logits."""
    preprocessing: JsonObject
    """From pixels to the input, complete: sizes, padding, interpolation, mean, std, layout, and in which order."""
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    """What the model takes."""
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    """What it returns: logits."""
    accuracy: AccuracyRecord
    """How often it is right."""
    costs: CostsRecord
    """What it costs, counted."""
    limits: dict[Text, LimitRecord] = Field(default_factory=dict)
    """The limits that could be checked, by name: of the profile, or of the search."""
    left_out: dict[Text, Text] = Field(default_factory=dict)
    """Variants that were asked for and have not passed their gate, by name, with the reason. They are not here."""
    objective: Text | None = None
    """What the search that picked it maximised, such as `balanced_accuracy`; null without a search, and in older
    files."""
    refinement: RefinementRecord | None = None
    """How the network was trimmed; null where it is a subnet of the search space."""
    lineage: Lineage
    """What it was made from."""
    versions: dict[str, str]
    """Versions of the packages that made it."""
    processor: Text | None = None
    """Kind of the processor that made it, such as `x86_64 AVX2`: on another one the last digits of weights may differ.
    Null in older files."""

    @property
    def batches(self) -> tuple[int, ...]:
        """How many images at once its ONNX files are checked with: one alone where they take no more."""
        return bundle_outputs.batches_of(self.inputs[0].shape)

    @property
    def instruction_set(self) -> str | None:
        """Of the device; None where nobody knows it."""
        return None if self.device is None else self.device.system.arch

    @property
    def is_static(self) -> bool:
        """Whether its ONNX files take one image at a time."""
        return self.batches == (1,)

    @property
    def exceeded_limits(self) -> tuple[str, ...]:
        """The names of the limits that the network exceeds."""
        return tuple(name for name, record in self.limits.items() if record.is_exceeded)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "ManifestDraft":
        num_logits = self.outputs[0].shape[-1]
        if num_logits != len(self.classes):
            raise ValueError(f"outputs: got {num_logits} logits, expected one for each of {len(self.classes)} classes")
        of_input, of_output = self.inputs[0].shape[0], self.outputs[0].shape[0]
        if of_input not in {"batch", 1} or of_output != of_input:
            raise ValueError(f"inputs, outputs: got batches {of_input} and {of_output}, expected `batch` or 1 for both")
        measures = self.accuracy.measures
        if measures is not None and tuple(each.name for each in measures.classes) != self.classes:
            raise ValueError("accuracy.measures.classes: got other names than those of classes")
        if self.profile.hash != self.lineage.profile:
            raise ValueError("lineage.profile: differs from profile.hash, expected the same hash")
        return self

    @model_validator(mode="after")
    def _names_no_machine(self) -> "ManifestDraft":
        # What a profile says of its device may name places there: they are no places of whoever exports.
        for key, text in _texts(self.model_dump(mode="json", by_alias=True, exclude={"device"}), ()):
            if _MACHINE_PATH.search(text):
                raise ValueError(f"{dotted(key)}: got {show(text)}, expected no path of a machine")
        return self


class Manifest(ManifestDraft):
    """A whole bundle's manifest."""

    models: dict[str, VariantRecord]
    """Its variants, by name."""

    @model_validator(mode="after")
    def _has_the_main_variant(self) -> "Manifest":
        for name, record in self.models.items():
            if name != record.variant.name:
                raise ValueError(f"models.{name}: got the variant {record.variant.name}, expected it by its name")
            batches = (1,) if is_for_one_image(record.format) else self.batches
            if isinstance(record.gate, ParityGate) and not set(batches) <= set(record.gate.batches):
                got, expected = list(record.gate.batches), f"{', '.join(map(str, batches))} among them"
                raise ValueError(f"models.{name}.gate: got the batches {got}, expected {expected}")
            predicted = record.latency.predicted
            if self.profile.error == "none" and predicted is not None and predicted.interval_ms is not None:
                key = f"models.{name}.latency.predicted.interval_ms"
                raise ValueError(f"{key}: expected null, as the profile's error is none")
        if MAIN.name not in self.models or tuple(self.main.files) != (bundle_files.MODEL,):
            raise ValueError(f"models.{MAIN.name}: expected the file {bundle_files.MODEL}, which every bundle has")
        if len(self.model_files) < sum(len(record.files) for record in self.models.values()):
            raise ValueError("models: got one file for two variants, expected one for each")
        return self

    @property
    def main(self) -> VariantRecord:
        """The variant that every bundle has."""
        return self.models[MAIN.name]

    @property
    def parity(self) -> ParityGate:
        """What the gate has found of it."""
        gate = self.main.gate
        assert isinstance(gate, ParityGate), "a record of fp32 has it"
        return gate

    @property
    def model_files(self) -> dict[str, int]:
        """Names of the model files, sorted, and their sizes."""
        return dict(sorted(file for record in self.models.values() for file in record.files.items()))

    def to_json(self) -> str:
        """Return the file's text."""
        return document.to_text(self)

    @classmethod
    def from_json(cls, text: str, where: str = FILENAME) -> "Manifest":
        """Return the manifest of a file's text.

        Args:
            text: The text.
            where: Name of the file, for messages.

        Raises:
            ArtifactError: It is no JSON object, of another schema version, or a key is missing, unknown or wrong.
        """
        return document.from_text(cls, text, SCHEMA, where, "export the bundle again")


def _texts(value: Any, key: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield every text inside a JSON value, keys of mappings included, with where it stands."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield key, name
            yield from _texts(entry, (*key, name))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _texts(entry, (*key, index))
