"""Who is asked in a round: how many, and which, from the seed alone."""

import math
from collections.abc import Sequence
from typing import Final

from fedsup_deploy import rng
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import ClientInfo

#: Clients of a round where a config does not say, if there are so many.
USUAL_CLIENTS: Final = 10


def cohort_size(wanted: int | None, num_eligible: int) -> int:
    """Return how many clients train in a round.

    Args:
        wanted: `RoundParams.clients_per_round`.
        num_eligible: Clients that can take part.

    Raises:
        ConfigError: Those are fewer.
    """
    if wanted is None and num_eligible > 0:
        return min(USUAL_CLIENTS, num_eligible)
    if wanted is None or num_eligible < wanted:
        raise ConfigError(f"training.clients_per_round: got {wanted or 'null'}, {num_eligible} can take part")
    return wanted


def draw_cohort(
    eligible: Sequence[ClientInfo], num_clients: int, oversample: float, seed: int, round_index: int
) -> list[ClientInfo]:
    """Return who is asked in a round, ascending.

    Whoever is asked beyond `num_clients` is drawn after the others, which are the same with and without.

    Args:
        eligible: Clients that can take part.
        num_clients: How many are wanted.
        oversample: Share of them that is asked beyond, rounded up to whole clients; all, where there are no more.
        seed: Seed of the run.
        round_index: Counted from 0.
    """
    infos = {info.client: info for info in eligible}
    drawn = rng.generator(seed, "cohort", round_index).choice(list(infos), num_clients, replace=False).tolist()
    others = [client for client in infos if client not in set(drawn)]
    # Rounded first: 0.07 * 100 is a little more than 7.
    num_beyond = min(math.ceil(round(oversample * num_clients, 9)), len(others))
    if num_beyond > 0:
        drawn += rng.generator(seed, "reserve", round_index).choice(others, num_beyond, replace=False).tolist()
    return [infos[client] for client in sorted(drawn)]
