"""What profiles and bundles alike say of a device: the system it has, and which releases of runtimes fail there."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedsup_deploy.config.section import Section, Text
from fedsup_deploy.ondevice.known_bad import comparisons_of


def _are_comparisons(versions: str) -> str:
    comparisons_of(versions)
    return versions


_TwoNumbers = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}$")]


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

    def __str__(self) -> str:
        """Return it in words."""
        symmetric = ", symmetric" if self.is_symmetric else ""
        scale = "channel" if self.per_channel else "tensor"
        return f"{self.activations} activations{symmetric}, weights of {7 if self.reduce_range else 8} bits per {scale}"
