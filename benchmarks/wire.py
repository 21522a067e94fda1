"""What do jobs and replies cost, as bytes and as time of the server?

    python benchmarks/wire.py --data FOLDER_WITH_THE_FOUR_IDX_FILES

Everything travels as bytes, as on a network, and each client holds blobs of its own. Printed are: bytes to and from one
client in a layer-wise recalibration of the largest subnet of the paper's space, beside one copy of its weights; the
share of the first rounds of the Fashion-MNIST config that is not clients' compute; the time to add an update of the
largest subnet to the average, beside a copy of its tensors and beside a client's compute, and the memory after 10 and
after 1,000 updates; and the seconds of a round, and of an evaluation of the smallest subnet, with 100 and with 10,000
clients of five images each, for cohorts of the same size.
"""

import argparse
import dataclasses
import itertools
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from interleaved import ratio_of_medians, time_in_turn

from fedsup_deploy.commands.training_plan import make_strategy, round_params
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.engines.inprocess import InProcess, perform
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.messages import BlobStore, Job, Reply
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.federation import Federation, pixel_preprocessing
from fedsup_deploy.federation.server.rounds import run_rounds
from fedsup_deploy.federation.server.strategy import ServerState
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData, Population
from fedsup_deploy.runs.federation import absences_into, federation_of, terms_of
from fedsup_deploy.runs.run import load_data, load_space
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.slices import gather

#: Of the config's rounds, the first, in which all clients train the smallest subnet.
SMALLEST_ROUNDS = 9
ROUNDS = 5
IMAGES_PER_CLIENT = 5
R = TypeVar("R")


class Network:
    """An engine that makes bytes of everything, for clients that each hold blobs of their own.

    Args:
        population: Who can be asked.

    Attributes:
        bytes_down: Bytes to each client.
        bytes_up: Bytes from each client.
        client_seconds: What clients have computed for, in seconds.
    """

    def __init__(self, population: Population) -> None:
        self._population = population
        self._stores: defaultdict[ClientId, BlobStore] = defaultdict(BlobStore)
        self._held: defaultdict[ClientId, set[str]] = defaultdict(set)
        self.bytes_down: defaultdict[ClientId, int] = defaultdict(int)
        self.bytes_up: defaultdict[ClientId, int] = defaultdict(int)
        self.client_seconds = 0.0

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked."""
        return self._population.infos()

    def ask(self, jobs: Mapping[ClientId, Job[R]], deadline_s: float | None = None) -> Iterator[Reply[R]]:
        """Yield the replies, in the order of the jobs."""
        del deadline_s
        for client, job in jobs.items():
            request, sent = encoding.encode_request({client: job}, self._held[client])
            self._held[client] |= sent
            self.bytes_down[client] += len(request)
            began = time.perf_counter()
            received = encoding.decode_request(request, self._stores[client])
            assert isinstance(received, dict)
            reply = perform(self._population, client, received[client])
            answer = encoding.encode_replies([reply], {client: job})
            self.client_seconds += time.perf_counter() - began
            self.bytes_up[client] += len(answer)
            replies = encoding.decode_replies(answer, {client: job})
            assert isinstance(replies, list)
            yield from replies


def main() -> None:
    """Measure and print. As in a worker process, torch has one thread."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the images")
    options = parser.parse_args()
    config = load_train_config("fashion-mnist", [f"data.root={options.data.absolute()}"])
    recalibration_bytes(config)
    per_client = round_overhead(config)
    aggregation(config, per_client)
    many_clients(config, options.data)


def recalibration_bytes(config: TrainConfig) -> None:
    """Print what travels in a layer-wise recalibration."""
    data = load_data(config)
    engine = Network(data.populations()[CLIENTS])
    one = config.calibration.model_copy(update={"clients": 1})
    federation = opened(config.model_copy(update={"calibration": one}), engine)
    engine.bytes_down.clear()
    engine.bytes_up.clear()
    network = standalone(start(config).supernet.extract(layout_of(config).space.largest))
    recalibration.collect(federation, network, "layer-wise")
    (client,) = engine.bytes_down
    down, up, copy = engine.bytes_down[client], engine.bytes_up[client], network.weights.num_bytes
    passes = len(network.plan.norm_layers())
    print(
        f"layer-wise recalibration, {passes} exchanges: {down:,} bytes down, {down / copy:.3f} of one copy, {up:,} up"
    )


def round_overhead(config: TrainConfig) -> float:
    """Print the share of rounds that is not clients' compute. Return the seconds that a client of the last computes."""
    engine = Network(load_data(config).populations()[CLIENTS])
    federation = opened(config, engine)
    found = list(itertools.islice(rounds(config, federation, engine, config.training.rounds), SMALLEST_ROUNDS + 3))
    kinds = {"the smallest subnet": found[:SMALLEST_ROUNDS], "all sizes": found[SMALLEST_ROUNDS:]}
    in_all = {"the smallest subnet": SMALLEST_ROUNDS, "all sizes": config.training.rounds - SMALLEST_ROUNDS}
    both = [0.0, 0.0]
    for what, some in kinds.items():
        server = statistics.median(seconds - computed for seconds, computed in some)
        clients = statistics.median(computed for _, computed in some)
        print(f"{len(some)} rounds of {what}: {server:.3f} s beside {clients:.2f} s of clients, {server / clients:.2%}")
        both = [both[0] + in_all[what] * server, both[1] + in_all[what] * clients]
    print(f"so {config.training.rounds} rounds of the config: {both[0] / both[1]:.2%}")
    return found[-1][1] / config.training.clients_per_round


def aggregation(config: TrainConfig, client_seconds: float) -> None:
    """Print what adding one update takes, and the memory that many take."""
    layout = layout_of(config)
    weights = initial_weights(layout, config.seed)
    where = layout.slices(layout.space.largest)
    update = ClientUpdate(500, 1.0, {name: tensor.clone() for name, tensor in gather(weights, where).items()})
    mean = CoverageMean(weights, 10**6)
    seconds = time_in_turn(
        {
            "copy": lambda: [tensor.clone() for tensor in update.weights.values()],
            "add": lambda: mean.add(update, where),
        },
        20,
    )
    added = statistics.median(seconds["add"])
    ratio = ratio_of_medians(seconds, "add", "copy")
    print(f"adding an update: {ratio:.1f} times a copy of it, {added / client_seconds:.3%} of a client's compute")
    mean, peaks = CoverageMean(weights, 10**6), []
    for number in range(1, 1001):
        assert mean.add(update, where) is None
        if number in {10, 1000}:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(f"most memory so far after 10 updates {peaks[0] / 1024:.0f} MiB, after 1,000 {peaks[1] / 1024:.0f} MiB")


def many_clients(config: TrainConfig, root: Path) -> None:
    """Print seconds of rounds and evaluations with few and with many clients, in turns."""
    images = load_dataset("fashion-mnist", root).train
    seconds: dict[int, list[float]] = {100: [], 10_000: []}
    evaluated: dict[int, list[float]] = {100: [], 10_000: []}
    for _ in range(3):
        for number, found in seconds.items():
            indices = np.arange(number * IMAGES_PER_CLIENT).reshape(number, IMAGES_PER_CLIENT)
            data = FederatedData(images, tuple(indices), images.take(np.arange(500)), None)
            engine = Network(data.populations()[CLIENTS])
            sandwich = {"name": "fedsup", "num_subnets": 2, "smallest_first": 0}
            changed = TrainConfig.model_validate({**config.model_dump(by_alias=True), "strategy": sandwich})
            federation = opened(changed, engine)
            federation = dataclasses.replace(
                federation, own={"validation": InProcess(data.populations()["validation"])}
            )
            found.extend(each for each, _ in rounds(changed, federation, engine, ROUNDS))
            began = time.perf_counter()
            network = standalone(start(config).supernet.extract(layout_of(config).space.smallest))
            pooled = recalibration.collect(federation, network, "one-shot")
            recalibration.evaluate(federation, network, pooled, "validation")
            evaluated[number].append(time.perf_counter() - began)
    for what, measured in (("a round", seconds), ("an evaluation", evaluated)):
        few, many = (statistics.median(measured[number]) for number in (100, 10_000))
        print(f"{what}: {few:.2f} s with 100 clients, {many:.2f} s with 10,000, ratio {many / few:.2f}")


def opened(config: TrainConfig, engine: Network) -> Federation:
    """Return the server's side over one engine of clients."""
    size, on_absences = max(layout_of(config).space.resolutions), absences_into(EventLog())
    preprocessing = pixel_preprocessing(engine, terms_of(config), size, on_absences)
    return federation_of(config, {CLIENTS: engine}, preprocessing, EventLog())


def layout_of(config: TrainConfig) -> Layout:
    """Return the layout of a config's supernet over Fashion-MNIST."""
    return Layout(load_space(config).with_data(1, 10), config.supernet.normalization)


def start(config: TrainConfig) -> ServerState:
    """Return what a run starts from."""
    layout = layout_of(config)
    return ServerState(Supernet(layout, initial_weights(layout, config.seed)))


def rounds(config: TrainConfig, federation: Federation, engine: Network, number: int) -> Iterator[tuple[float, float]]:
    """Yield of each round its seconds, and those that clients have computed for."""
    params = dataclasses.replace(round_params(config, federation.preprocessing), rounds=number, warmup_rounds=0)
    strategy = make_strategy(config, layout_of(config).space)
    computed = engine.client_seconds
    for result in run_rounds(federation, start(config), strategy, params):
        yield result.seconds, engine.client_seconds - computed
        computed = engine.client_seconds


if __name__ == "__main__":
    main()
