"""What a class of devices accepts: which files its runtime loads.

Owns this section of a profile, and how it and the device's system follow from what a device says of itself. A value
that nobody knows is left out, and what is said has provenance.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from fedsup_deploy.config.device import Int8Scheme, System
from fedsup_deploy.config.section import Section
from fedsup_deploy.ondevice.instruction_set import instruction_set
from fedsup_deploy.ondevice.model_versions import known_to

#: Where nobody knows what a runtime takes: right on every processor, those included that add products of 8 bits in 16,
#: and fused by onnxruntime on all.
ANY_PROCESSOR: Final = Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=True)


class Accepts(Section):
    """What the runtime loads. Nothing that is known stands as null."""

    onnx_opset: Annotated[int, Field(ge=1)] | None = None
    """Newest opset of ONNX."""
    onnx_ir: Annotated[int, Field(ge=1)] | None = None
    """Newest IR version of ONNX."""
    int8: Int8Scheme | None = None
    """The form of int8 that is right and fast there."""
    batch: Literal["dynamic", "static"] | None = None
    """Whether one file may take any number of images, or has to be written for one at a time: `static`."""
    layout: Literal["nchw", "nhwc"] | None = None
    """The order of the dimensions of images that it runs without rearranging them."""

    @property
    def is_static(self) -> bool:
        """Whether files for it are written for one image at a time, in formats that know such files."""
        return self.batch == "static"

    @property
    def int8_scheme(self) -> Int8Scheme:
        """How int8 files for it are written, those that are exported and those that are timed."""
        return self.int8 or ANY_PROCESSOR


def accepted_by(environment: Mapping[str, Any]) -> Accepts:
    """Return what onnxruntime accepts on a device, from what the device said of itself.

    Versions of ONNX are left out where nobody has tried a release so old, int8 where nobody knows such processors.
    """
    known = known_to(str(environment["onnxruntime"]))
    return Accepts(
        onnx_opset=None if known is None else known.opset,
        onnx_ir=None if known is None else known.ir,
        int8=_int8_scheme_of(environment),
    )


def _int8_scheme_of(environment: Mapping[str, Any]) -> Int8Scheme | None:
    """Return the scheme that is right and fast on a processor, None where that is not known.

    x86 computes with unsigned activations; without VNNI it adds pairs of products in 16 bits, which 8 bits overflow. On
    64-bit ARM signed ones are usual, and no sum overflows.
    """
    arch = instruction_set(str(environment.get("machine") or ""))
    if arch == "aarch64":
        return ANY_PROCESSOR.model_copy(update={"activations": "s8", "reduce_range": False})
    if arch == "x86_64":
        return ANY_PROCESSOR.model_copy(update={"reduce_range": not environment.get("vnni")})
    return None


def system_of(environment: Mapping[str, Any]) -> System:
    """Return the system of a device from what it said of itself; older measurements lack its C library."""

    def two_numbers(name: str) -> str | None:
        numbers = str(environment.get(name) or "").split(".")[:2]
        return ".".join(numbers) if len(numbers) == 2 and all(map(str.isdecimal, numbers)) else None

    arch = str(environment.get("machine") or "")
    return System(python=two_numbers("python"), glibc=two_numbers("glibc"), arch=arch or None)


def figures_of(name: str, section: Section) -> Iterator[str]:
    """Yield the path of every figure that a section states, such as `accepts.int8.per_channel`."""
    for key, value in section:
        if isinstance(value, Section):
            yield from figures_of(f"{name}.{key}", value)
        elif value is not None:
            yield f"{name}.{key}"
