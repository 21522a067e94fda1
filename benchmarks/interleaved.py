"""Timing of several functions in turn, so that all of them see the machine's fast and slow moments."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def time_in_turn(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each function in each round, after one round that does not count. One torch thread.

    Args:
        functions: What to time, by name.
        rounds: How often.
        clock: Tells seconds; `time.process_time` those that this process computed, where others take the processor too.
    """
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for index in range(rounds + 1):
        for name, function in functions.items():
            started = clock()
            function()
            if index > 0:
                seconds[name].append(clock() - started)
    return seconds


def ratio_of_medians(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """Return how many times as long `slow` takes as `fast`."""
    return statistics.median(seconds[slow]) / statistics.median(seconds[fast])
