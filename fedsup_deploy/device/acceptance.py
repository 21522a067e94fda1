"""What a class of devices accepts: which files its runtime loads.

Owns this section of a profile, and how it and the device's system follow from what a device says of itself. A value
that nobody knows is left out, and what is said has provenance.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from fedsup_deploy.config.device import Int8Scheme, System
from fedsup_deploy.config.section import Section
from fedsup_deploy.ondevice.model_versions import known_to


class Accepts(Section):
    """What the runtime loads. Nothing that is known stands as null."""

    onnx_opset: Annotated[int, Field(ge=1)] | None = None
    """Newest opset of ONNX."""
    onnx_ir: Annotated[int, Field(ge=1)] | None = None
    """Newest IR version of ONNX."""
    int8: Int8Scheme | None = None
    """The form of int8 that is right and fast there."""
    batch: Literal["dynamic", "static"] | None = None
    """Whether one file takes any number of images, or only the number that it was written for."""
    layout: Literal["nchw", "nhwc"] | None = None
    """The order of the dimensions of images that it runs without rearranging them."""


def accepted_by(onnxruntime: str) -> Accepts:
    """Return what a release of onnxruntime loads; nothing where nobody has tried one so old."""
    known = known_to(onnxruntime)
    return Accepts() if known is None else Accepts(onnx_opset=known.opset, onnx_ir=known.ir)


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
