"""Timing of several functions in turn, so that all of them see the machine's fast and slow moments."""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection

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


def time_processes_in_turn(
    make: Callable[[str], Callable[[], object]],
    names: Iterable[str],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of functions in each round, each in a process of its own: none gets memory that another freed.

    Args:
        make: Makes the function of a name, in its process; it must pickle.
        names: Of the functions.
        rounds: How often.
        clock: As of `time_in_turn`.
    """
    spawning = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as ends:
        functions: dict[str, Connection] = {}
        for name in names:
            functions[name], there = spawning.Pipe()
            process = spawning.Process(target=_answer, args=(there, make, name, clock), daemon=True)
            process.start()
            there.close()
            ends.callback(process.join)
            ends.callback(functions[name].close)

        def seconds_of(function: Connection) -> float:
            function.send(None)
            return float(function.recv())

        seconds: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(rounds + 1):
            for name, function in functions.items():
                seconds[name].append(seconds_of(function))
    return {name: times[1:] for name, times in seconds.items()}


def _answer(
    connection: Connection, make: Callable[[str], Callable[[], object]], name: str, clock: Callable[[], float]
) -> None:
    """Call a function whenever asked to, and tell how long it took, until nobody can ask."""
    torch.set_num_threads(1)
    function = make(name)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        started = clock()
        function()
        connection.send(clock() - started)


def ratio_of_medians(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """Return how many times as long `slow` takes as `fast`."""
    return statistics.median(seconds[slow]) / statistics.median(seconds[fast])
