"""One federated supernet training run, the right model for every device class.

The ten public names are imported on first use, so importing the package is quick and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fedsup_deploy.version import __version__

if TYPE_CHECKING:
    from fedsup_deploy.api import Artifact, deploy, load_artifact, search, train
    from fedsup_deploy.device.profile import DeviceProfile
    from fedsup_deploy.errors import FedsupError
    from fedsup_deploy.space.architecture import Architecture
    from fedsup_deploy.space.search_space import SearchSpace
    from fedsup_deploy.supernet.model import Supernet

__all__ = [
    "Architecture",
    "Artifact",
    "DeviceProfile",
    "FedsupError",
    "SearchSpace",
    "Supernet",
    "__version__",
    "deploy",
    "load_artifact",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    homes = {
        "fedsup_deploy.api": ("Artifact", "deploy", "load_artifact", "search", "train"),
        "fedsup_deploy.device.profile": ("DeviceProfile",),
        "fedsup_deploy.errors": ("FedsupError",),
        "fedsup_deploy.space.architecture": ("Architecture",),
        "fedsup_deploy.space.search_space": ("SearchSpace",),
        "fedsup_deploy.supernet.model": ("Supernet",),
    }
    for module, public in homes.items():
        if name in public:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'fedsup_deploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
