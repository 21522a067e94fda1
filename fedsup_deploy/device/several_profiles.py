"""The profiles of a command that is for several devices."""

from collections import Counter
from collections.abc import Sequence

from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ConfigError


def load_profiles(profiles: Sequence[str | DeviceProfile]) -> list[DeviceProfile]:
    """Return profiles, some of which are shipped names or files, in their order.

    Raises:
        ConfigError: Two have one name, under which results and bundles stand; or as of `load_profile`.
    """
    loaded = [load_profile(item) if isinstance(item, str) else item for item in profiles]
    for name, times in Counter(profile.name for profile in loaded).items():
        if times > 1:
            raise ConfigError(f"got profile {name} {times} times, expected each once; a copy needs a name of its own")
    return loaded
