"""Bottleneck residual blocks, elastic in depth, width and expand ratio.

Source: K. He et al., arXiv 1512.03385 (bottleneck); the elastic form follows the spaces of SuperFedNAS
(arXiv 2301.10879) and DeepFedNAS (arXiv 2601.15127), which take it from Once-for-All (arXiv 1908.09791).
"""

import numpy as np

from fedsup_deploy.space.families.shortcut import shortcut
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockInput, BlockPlan


class ResNetFamily:
    """Bottlenecks: 1x1 to the inner width, k x k with the stride, 1x1 to the block's width, ReLU after the sum."""

    def block(self, inputs: BlockInput) -> BlockPlan:
        """Return the block's layers. The inner width is expand_ratio x width, rounded to a multiple of 8."""
        name, active, size = inputs.name, inputs.is_active, inputs.in_size
        inner = np.maximum(8, np.round(np.asarray(inputs.expand_ratio) * inputs.width / 8).astype(np.int64) * 8)
        spatial = Layer(
            f"{name}.spatial",
            "conv",
            inner,
            inner,
            size,
            inputs.kernel_size,
            inputs.stride,
            active,
            has_norm=True,
            has_activation=True,
        )
        out_size = spatial.out_size
        main = (
            Layer(
                f"{name}.reduce",
                "pointwise",
                inputs.in_channels,
                inner,
                size,
                is_active=active,
                has_norm=True,
                has_activation=True,
            ),
            spatial,
            Layer(
                f"{name}.se",
                "squeeze_excite",
                inner,
                np.maximum(inner // 4, 1),
                out_size,
                is_active=active & inputs.has_se,
            ),
            Layer(
                f"{name}.expand",
                "pointwise",
                inner,
                inputs.width,
                out_size,
                is_active=active,
                has_norm=True,
                ends_residual=True,
            ),
        )
        add = Layer(f"{name}.add", "add", inputs.width, inputs.width, out_size, is_active=active, has_activation=True)
        return BlockPlan(name, main, shortcut(inputs, out_size), add)
