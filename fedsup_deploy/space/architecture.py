"""`Architecture`: a frozen choice of every elastic dimension. It knows nothing of weights, files or search spaces."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from fedsup_deploy import files
from fedsup_deploy.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """The choices of one active block.

    Args:
        width: Output channels.
        kernel_size: Side of the spatial kernel, odd.
        expand_ratio: Inner channels over the family's reference width (input channels for `mobilenet`, output channels
            for `resnet`).
        has_se: Whether a squeeze-excitation follows the spatial convolution.
    """

    width: int
    kernel_size: int
    expand_ratio: float = 1.0
    has_se: bool = False


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One subnet of a search space, as a value: equal choices are equal objects with equal `arch_id`.

    Only active blocks are listed, so two architectures that compute the same have one form. The depth of a stage is
    the number of its blocks.

    Args:
        resolution: Side of the square input image in pixels.
        stem_width: Output channels of the first convolution.
        stages: For each stage its active blocks, in order.
    """

    resolution: int
    stem_width: int
    stages: tuple[tuple[Block, ...], ...]

    @functools.cached_property
    def arch_id(self) -> str:
        """A stable name: `a` and the first 11 hexadecimal digits of the SHA-256 of the canonical form."""
        return "a" + files.sha256_of(self.to_dict())[:11]

    def refined_id(self, layers: Mapping[str, JsonValue]) -> str:
        """Return a stable name for this network after channels were removed: its own, and a hash of what was removed.

        Args:
            layers: What was removed, by the name of the layer, in JSON values.
        """
        return f"{self.arch_id}-refined-{files.sha256_of(layers)[:8]}"

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the canonical form as a JSON document."""
        return {
            "resolution": self.resolution,
            "stem_width": self.stem_width,
            "stages": [
                [
                    {
                        "width": block.width,
                        "kernel_size": block.kernel_size,
                        "expand_ratio": float(block.expand_ratio),
                        "has_se": block.has_se,
                    }
                    for block in stage
                ]
                for stage in self.stages
            ],
        }

    @classmethod
    def from_dict(cls, document: object) -> "Architecture":
        """Return the architecture of a JSON document made by `to_dict`.

        Raises:
            ConfigError: A key is missing or unknown, or a value has the wrong type.
        """
        fields = _read(document, {"resolution": int, "stem_width": int, "stages": list}, "architecture")
        stages = tuple(tuple(_block(block) for block in _list(stage)) for stage in fields["stages"])
        return cls(fields["resolution"], fields["stem_width"], stages)


def _block(document: object) -> Block:
    types: dict[str, type] = {"width": int, "kernel_size": int, "expand_ratio": float, "has_se": bool}
    return Block(**_read(document, types, "block of an architecture"))


def _list(document: object) -> list[object]:
    if not isinstance(document, list):
        raise ConfigError(f"architecture: got {document!r} for a stage, expected a list of blocks")
    return document


def _read(document: object, types: dict[str, type], what: str) -> dict[str, Any]:
    if not isinstance(document, dict) or set(document) != set(types):
        got = sorted(map(str, document)) if isinstance(document, dict) else document
        raise ConfigError(f"{what}: got {got!r}, expected the keys {', '.join(types)}")
    values = {}
    for key, kind in types.items():
        value = document[key]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{what}: {key} is {value!r}, expected {kind.__name__}")
        values[key] = value
    return values
