"""The paper's MobileNet-V1-like blocks.

Source: T. Kim and S.-Y. Yun, arXiv 2206.01366. A block is a depthwise k x k convolution, norm, ReLU, then a 1x1
convolution and norm, with a shortcut around both. Expand ratios above 1 put a 1x1 convolution, norm and ReLU first;
a squeeze-excitation may follow the depthwise part.
"""

import numpy as np

from fedsup_deploy.space.families.shortcut import shortcut
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockInput, BlockPlan


class MobileNetFamily:
    """Depthwise-separable residual blocks with elastic width, depth, kernel size, expand ratio and SE."""

    def block(self, inputs: BlockInput) -> BlockPlan:
        """Return the block's layers. The inner width is expand_ratio x input channels, at least 1."""
        name, active, size = inputs.name, inputs.is_active, inputs.in_size
        inner = np.maximum(1, np.round(inputs.in_channels * np.asarray(inputs.expand_ratio)).astype(np.int64))
        depthwise = Layer(
            f"{name}.depthwise",
            "depthwise",
            inner,
            inner,
            size,
            inputs.kernel_size,
            inputs.stride,
            active,
            has_norm=True,
            has_activation=True,
        )
        out_size = depthwise.out_size
        main = (
            Layer(
                f"{name}.expand",
                "pointwise",
                inputs.in_channels,
                inner,
                size,
                is_active=active & (np.asarray(inputs.expand_ratio) != 1),
                has_norm=True,
                has_activation=True,
            ),
            depthwise,
            Layer(
                f"{name}.se",
                "squeeze_excite",
                inner,
                np.maximum(inner // 4, 1),
                out_size,
                is_active=active & inputs.has_se,
            ),
            Layer(
                f"{name}.project",
                "pointwise",
                inner,
                inputs.width,
                out_size,
                is_active=active,
                has_norm=True,
                ends_residual=True,
            ),
        )
        add = Layer(f"{name}.add", "add", inputs.width, inputs.width, out_size, is_active=active)
        return BlockPlan(name, main, shortcut(inputs, out_size), add)
