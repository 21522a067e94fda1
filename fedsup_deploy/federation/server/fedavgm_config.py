"""Options of federated averaging with momentum at the server."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedsup_deploy.federation.server.fedavg_config import OneSubnetConfig


class FedAvgMConfig(OneSubnetConfig):
    """As `fedavg`, and the server moves on with a part of its last move."""

    strategy: ClassVar = "fedsup_deploy.federation.server.fedavgm:FedAvgM"

    name: Literal["fedavgm"]
    """Which strategy."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the server's last move that is added to its next. 0: none."""
