"""The learning rate of each round."""

import math


def learning_rate(
    round_index: int, rounds: int, warmup_rounds: int, peak: float, final: float, warm_up_again_at: int = 0
) -> float:
    """Return the step size of a round: linear warm-up to `peak`, then a cosine down to `final`.

    Args:
        round_index: Counted from 0.
        rounds: Rounds in all.
        warmup_rounds: Rounds in which the rate rises from peak / (warmup_rounds + 1) to peak.
        peak: Highest rate.
        final: Rate the cosine would reach one round after the last.
        warm_up_again_at: Round from which clients train something else: from it on the rate rises once more, as it did
            at first, towards what it would otherwise be. 0: there is none.

    Source: FedSup (arXiv 2206.01366) warms up and decays over rounds, once; the cosine is I. Loshchilov and F. Hutter,
    arXiv 1608.03983.
    """
    progress = (round_index - warmup_rounds) / max(rounds - warmup_rounds, 1)
    rate = peak if progress < 0 else final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2
    started = warm_up_again_at if round_index >= warm_up_again_at else 0
    rising = round_index - started + 1
    return rate * rising / (warmup_rounds + 1) if rising <= warmup_rounds else rate
