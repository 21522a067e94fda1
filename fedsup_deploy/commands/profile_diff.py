"""`fedsup-deploy profile diff`: what two profiles say differently, also about the networks of a run. Torch-free."""

from fedsup_deploy.commands.profile_build import SPACE, load_space
from fedsup_deploy.device.difference import ProfileDifference, compare_profiles


def diff(first: str, second: str, space: str = SPACE) -> ProfileDifference:
    """Compare two profiles.

    Args:
        first: Shipped name, or file.
        second: The same, of the other.
        space: Name or file of a search space, or the folder of a run: whose networks' predictions are compared.

    Raises:
        ConfigError: There is no such profile or space, or one is wrong.
        ArtifactError: The run is damaged, or none.
    """
    return compare_profiles(first, second, load_space(space))
