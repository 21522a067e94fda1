"""A variant: a network in one file format at one precision. A bundle has one or several, and a device loads one."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

#: Number format of weights and activations.
Precision = Literal["fp32", "fp16", "int8"]
Dtype = Literal["float32", "float16", "int8"]
#: Element type of each precision, as runtimes call it.
DTYPES: Final[Mapping[Precision, Dtype]] = MappingProxyType({"fp32": "float32", "fp16": "float16", "int8": "int8"})
#: The precision of each element type.
PRECISIONS: Final[Mapping[Dtype, Precision]] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})


@dataclasses.dataclass(frozen=True)
class Variant:
    """One format at one precision.

    Args:
        format: A registered exporter.
        precision: Number format of weights and activations.
    """

    format: str
    precision: Precision

    @property
    def name(self) -> str:
        """In a manifest and in messages, such as `onnx-fp32`."""
        return f"{self.format}-{self.precision}"


#: What every bundle has: `run.py` checks and times it.
MAIN: Final = Variant("onnx", "fp32")
#: The file in int8 that `run.py` checks and times beside it, where a bundle has one.
MAIN_INT8: Final = Variant("onnx", "int8")
