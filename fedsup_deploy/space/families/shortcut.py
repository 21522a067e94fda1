"""The shortcut around a block, the same in every family."""

import numpy as np

from fedsup_deploy.space.layers.layer import Layer, Number
from fedsup_deploy.space.plan import BlockInput


def shortcut(inputs: BlockInput, out_size: Number) -> tuple[Layer, ...]:
    """Return the layers of a block's shortcut.

    It is the identity where shapes agree, and otherwise a 1x1 convolution with a norm, after 2x2 average pooling where
    there is a stride. With a stride the convolution is there between equal numbers of channels as well: so every subnet
    of a strided block has it, whatever its widths, and no client trains one that the others' subnets do without.

    Args:
        inputs: What the block is built from.
        out_size: Side of the block's result, in pixels.

    Source: the pooled shortcut is FedSup's (arXiv 2206.01366) and the "D" variant of T. He et al. (arXiv 1812.01187).
    FedSup's 1x1 convolution has no norm. With one, sums stay of one scale and training is stable at higher rates; in
    the deployed network it is folded away.
    """
    name, active, channels = inputs.name, inputs.is_active, inputs.in_channels
    pool = Layer(f"{name}.pool", "pool", channels, channels, inputs.in_size, 2, 2, active)
    project = Layer(
        f"{name}.shortcut",
        "pointwise",
        channels,
        inputs.width,
        out_size,
        is_active=active & ((np.asarray(channels) != inputs.width) | (inputs.stride == 2)),
        has_norm=True,
    )
    return (pool, project) if inputs.stride == 2 else (project,)
