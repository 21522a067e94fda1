"""`Stem` and `Stage`: what may be chosen in one part of a network. They know nothing of encodings or layers."""

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, field_validator

#: Entries of one list of choices.
MOST_CHOICES: Final = 32

Width = Annotated[StrictInt, Field(ge=1, le=16_384)]
KernelSize = Annotated[StrictInt, Field(ge=1, le=31)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=MOST_CHOICES)]
Depths = Annotated[tuple[Annotated[StrictInt, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=MOST_CHOICES)]
KernelSizes = Annotated[tuple[KernelSize, ...], Field(min_length=1)]
_Ratio = Annotated[StrictFloat, Field(le=32, allow_inf_nan=False)] | Annotated[StrictInt, Field(le=32)]

Choice = TypeVar("Choice", bound=float)


def ascending(values: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """Return the values if each is larger than the one before: the validator of choices.

    Raises:
        ValueError: They are not.
    """
    if list(values) != sorted(set(values)):
        raise ValueError(f"got {list(values)}, expected ascending choices without repetition")
    return values


class Stage(BaseModel):
    """Choices of one stage: a run of blocks at one feature map size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
    """Prefix of the names of its weights; at most 64 characters."""
    widths: Widths
    """Output channels, each at most 16,384; at most 32 choices."""
    depths: Depths
    """Numbers of active blocks, each at most 64; blocks with a lower index are always kept."""
    kernel_sizes: KernelSizes = (3,)
    """Sides of the spatial kernel, odd, each at most 31."""
    expand_ratios: Annotated[tuple[_Ratio, ...], Field(min_length=1, max_length=MOST_CHOICES)] = (1,)
    """Inner channels over the family's reference width, each at most 32; at most 32 choices."""
    squeeze_excite: Annotated[tuple[StrictBool, ...], Field(min_length=1)] = (False,)
    """Whether a squeeze-excitation follows the spatial convolution."""
    stride: Literal[1, 2] = 1
    """Step of the first block."""

    _sorted = field_validator("widths", "depths", "kernel_sizes", "expand_ratios", "squeeze_excite")(ascending)

    @field_validator("kernel_sizes")
    @classmethod
    def _odd(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if any(value % 2 == 0 for value in values):
            raise ValueError(f"got {list(values)}, expected odd kernel sizes")
        return values

    @field_validator("expand_ratios")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if values[0] <= 0:
            raise ValueError(f"got {list(values)}, expected ratios > 0")
        return values

    @property
    def block_choices(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...], tuple[bool, ...]]:
        """Choices of a block in the order of its genes."""
        return self.widths, self.kernel_sizes, self.expand_ratios, self.squeeze_excite


class Stem(BaseModel):
    """The first convolution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: Widths
    """Output channels, each at most 16,384; at most 32 choices."""
    kernel_size: KernelSize = 3
    """Side of the kernel, odd, at most 31."""
    stride: Literal[1, 2] = 1
    """Step of the kernel."""

    _sorted = field_validator("widths")(ascending)

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"got {value}, expected an odd kernel size")
        return value
