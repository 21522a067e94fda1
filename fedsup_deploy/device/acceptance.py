"""What a class of devices accepts: which files its runtime loads, which system it has, which releases fail there.

Owns these sections of a profile. A value that nobody knows is left out, and what is said has provenance, but for
releases that fail, each of which names its own source.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fedsup_deploy.config.section import Section, Text
from fedsup_deploy.ondevice.known_bad import comparisons_of
from fedsup_deploy.ondevice.model_versions import known_to


def _are_comparisons(versions: str) -> str:
    comparisons_of(versions)
    return versions


_TwoNumbers = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}$")]


class Int8Scheme(Section):
    """How numbers of 8 bits stand for others there; weights are signed, with a zero point of 0."""

    activations: Literal["u8", "s8"]
    """Type of activations: `u8`, 0 to 255, or `s8`, -128 to 127."""
    is_symmetric: bool
    """Whether the zero point of activations is the middle of their type: 128 of `u8`, 0 of `s8`."""
    per_channel: bool
    """Whether each output channel of a weight has a scale of its own; false: one for the whole tensor."""
    reduce_range: bool
    """Whether weights have 7 bits: products of two numbers of 8 bits, added in pairs, do not fit into 16."""


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


class System(Section):
    """What a device has beside the runtime. Nothing that is known stands as null."""

    python: _TwoNumbers | None = None
    """Version of its Python, in quotes: "3.10"."""
    glibc: _TwoNumbers | None = None
    """Version of its C library, which decides what ready-made packages it can take, in quotes."""
    arch: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    """Instruction set, as `uname -m` names it: `aarch64`, `x86_64`."""

    def __str__(self) -> str:
        """Return what is known, in words."""
        known = (("Python ", self.python), ("glibc ", self.glibc), ("", self.arch))
        return ", ".join(f"{name}{value}" for name, value in known if value is not None)


class KnownBad(Section):
    """Releases of a runtime that crash or compute wrongly on the device."""

    runtime: Text
    """Such as `onnxruntime`."""
    versions: Annotated[str, AfterValidator(_are_comparisons)]
    """Which: comparisons that hold all, such as `==1.21.0` or `>=1.23,<1.24`."""
    symptom: Text
    """What happens."""
    cure: Text
    """What helps, as a command to whoever reads it."""
    source: Text
    """Who reported it."""

    def __str__(self) -> str:
        """Return which releases."""
        return f"{self.runtime} {self.versions}"


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
