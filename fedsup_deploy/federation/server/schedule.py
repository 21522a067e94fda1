"""The learning rate of each round."""

import math


def learning_rate(round_index: int, rounds: int, warmup_rounds: int, peak: float, final: float) -> float:
    """Return the step size of a round: linear warm-up to `peak`, then a cosine down to `final`.

    Args:
        round_index: Counted from 0.
        rounds: Rounds in all.
        warmup_rounds: Rounds in which the rate rises from peak / (warmup_rounds + 1) to peak.
        peak: Highest rate.
        final: Rate the cosine would reach one round after the last.

    Source: FedSup (arXiv 2206.01366) warms up and decays over rounds; the cosine is I. Loshchilov and F. Hutter,
    arXiv 1608.03983.
    """
    if round_index < warmup_rounds:
        return peak * (round_index + 1) / (warmup_rounds + 1)
    progress = (round_index - warmup_rounds) / max(rounds - warmup_rounds, 1)
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2
