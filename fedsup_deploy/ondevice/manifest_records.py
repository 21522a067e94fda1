"""What programs on a device read of a manifest, as types of JSON objects. No device has this module."""

from typing import Any, Dict, List, Optional, Union

from typing_extensions import TypedDict


class Tolerances(TypedDict):
    """What a manifest allows a difference to be."""

    tolerance: float
    batch_tolerance: float


class PredictedRecord(TypedDict):
    """What the checks need of a variant's latency in a manifest: of which precision a profile's predictions are."""

    predicted: Optional[object]


class VariantGate(TypedDict):
    """What the checks need of a variant in a manifest."""

    gate: Tolerances
    latency: PredictedRecord


class TensorRecord(TypedDict):
    """An input or output in a manifest; the first size is the batch, `batch` where it is open."""

    shape: List[Union[int, str]]


class KnownBadRelease(TypedDict):
    """Releases of a runtime that fail on a bundle's device, in a manifest."""

    runtime: str
    versions: str
    symptom: str
    cure: str
    source: str


class SystemOfDevice(TypedDict):
    """What the checks need of a device's system in a manifest."""

    arch: Optional[str]


class DeviceOfBundle(TypedDict):
    """What the checks need of a bundle's device in a manifest."""

    system: SystemOfDevice
    known_bad: List[KnownBadRelease]


class _EveryManifestRecord(TypedDict):
    arch_id: str
    classes: List[str]
    preprocessing: Dict[str, Any]  # which `preprocessing.steps_of` reads
    models: Dict[str, VariantGate]
    inputs: List[TensorRecord]
    outputs: List[TensorRecord]


class ManifestRecord(_EveryManifestRecord, total=False):
    """What the checks on a device need of a manifest; older ones lack the device."""

    device: Optional[DeviceOfBundle]
