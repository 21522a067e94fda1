"""Timing of several functions in turn, so that all of them see the machine's fast and slow moments."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def time_in_turn(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each function in each round, after one round that does not count. One torch thread."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for index in range(rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if index > 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio_of_medians(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """Return how many times as long `slow` takes as `fast`."""
    return statistics.median(seconds[slow]) / statistics.median(seconds[fast])
