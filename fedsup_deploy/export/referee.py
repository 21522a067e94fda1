"""A second opinion on what a network costs: fvcore counts the multiply-accumulates of the module that is exported.

Costs are computed in closed form (`space.cost`), so a mistake there would stand in every search and every manifest.
"""

from typing import Final

import torch

from fedsup_deploy.errors import GateError
from fedsup_deploy.supernet.deployable import FoldedNetwork

#: What counts as multiply-accumulates, by fvcore's names: convolutions and linear layers.
_COUNTED: Final = ("conv", "linear", "addmm")


def check_macs(network: FoldedNetwork, num_macs: int, name: str) -> None:
    """Compare what a network is said to cost with what fvcore counts.

    Args:
        network: What is exported.
        num_macs: What its manifest says: multiply-accumulates of convolutions and linear layers for one image.
        name: Its arch_id, for the message.

    Raises:
        GateError: They differ.
    """
    counted = count_macs(network)
    if counted != num_macs:
        raise GateError(f"{name}: num_macs: got {num_macs}, expected {counted} as fvcore counts the exported network")


def count_macs(network: FoldedNetwork) -> int:
    """Return the multiply-accumulates of convolutions and linear layers for one image, as fvcore counts them."""
    from fvcore.nn import FlopCountAnalysis

    stem = network.plan.stem
    zeros_BCHW = torch.zeros(1, stem.in_channels, stem.in_size, stem.in_size)
    analysis = FlopCountAnalysis(network.module(), zeros_BCHW)
    by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return int(sum(by_operator[name] for name in _COUNTED))
