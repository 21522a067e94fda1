"""Clients that fail, are silent or poison what they send: around any engine, between the server and its clients.

`robustness.py` tells what they cost; `tests/integration/test_trust.py` that each is met.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from fedsup_deploy import registry, rng
from fedsup_deploy.engines.workers import MakePopulations, open_local
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import ClientUpdate, Train
from fedsup_deploy.federation.messages import Engine, Job, Reply

#: Name of the engine while `injected`.
ENGINE: Final = "faulty"

#: From an honest update, the weights that its client was sent and a generator to what is sent instead: an update, the
#: reason why there is none, or nothing.
Fault = Callable[[ClientUpdate, Mapping[str, Tensor], np.random.Generator], ClientUpdate | str | None]


def _moved(factor: float) -> Fault:
    """Send a multiple of the honest move."""

    def fault(update: ClientUpdate, sent: Mapping[str, Tensor], _: np.random.Generator) -> ClientUpdate:
        weights = {name: sent[name] + factor * (tensor - sent[name]) for name, tensor in update.weights.items()}
        return dataclasses.replace(update, weights=weights)

    return fault


def _noise(update: ClientUpdate, _: Mapping[str, Tensor], generator: np.random.Generator) -> ClientUpdate:
    """Send numbers in place of weights."""
    return dataclasses.replace(update, weights={name: _drawn(t, generator) for name, t in update.weights.items()})


def _quiet_noise(update: ClientUpdate, sent: Mapping[str, Tensor], generator: np.random.Generator) -> ClientUpdate:
    """Send noise that is as far from what was sent as the honest update, tensor by tensor."""
    weights = {}
    for name, tensor in update.weights.items():
        size = (tensor - sent[name]).square().mean().sqrt()
        weights[name] = sent[name] + size * _drawn(tensor, generator)
    return dataclasses.replace(update, weights=weights)


def _drawn(like: Tensor, generator: np.random.Generator) -> Tensor:
    return torch.from_numpy(generator.standard_normal(tuple(like.shape), dtype=np.float32))


def _nan(update: ClientUpdate, _: Mapping[str, Tensor], generator: np.random.Generator) -> ClientUpdate:
    """Send one number that is none."""
    weights = {name: tensor.clone() for name, tensor in update.weights.items()}
    name = sorted(weights)[generator.integers(len(weights))]
    weights[name].view(-1)[-1] = torch.nan
    return dataclasses.replace(update, weights=weights)


#: By its name: what a client does instead.
FAULTS: Final[dict[str, Fault]] = {
    "fails": lambda *_: "RuntimeError",
    "silent": lambda *_: None,
    "NaN": _nan,
    "more images": lambda update, *_: dataclasses.replace(update, num_samples=2 * update.num_samples),
    "more steps": lambda update, *_: dataclasses.replace(update, num_macs=2 * update.num_macs),
    "times 100": _moved(100.0),
    "noise": _noise,
    "sign flipped": _moved(-1.0),
    "quiet noise": _quiet_noise,
}
#: Those that no check can tell from honest updates, each by itself.
UNNOTICED: Final = ("sign flipped", "quiet noise")
#: Those that are answers, and are all to be rejected.
REJECTED: Final = ("NaN", "more images", "more steps", "times 100", "noise")


@dataclasses.dataclass
class Injection:
    """Which faults there are, and what was done.

    Args:
        kinds: Names of faults; whoever is at fault has one of them, by chance.
        share: Of the clients that are asked to train.
        done: For each client that was at fault, which fault and who, in their order.
    """

    kinds: Sequence[str]
    share: float
    done: list[tuple[str, ClientId]] = dataclasses.field(default_factory=list)


class FaultyEngine:
    """An engine some of whose clients are at fault whenever they are asked to train: by chance, but by the jobs' seeds.

    Args:
        engine: Carries the jobs.
        injection: Which faults.
    """

    def __init__(self, engine: Engine, injection: Injection) -> None:
        self._engine, self._injection = engine, injection

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked, ascending."""
        return self._engine.clients()

    def ask(self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None) -> Iterator[Reply[Any]]:
        """Yield the replies, some of them at fault."""
        faults = self._drawn({client: job for client, job in jobs.items() if isinstance(job, Train)})
        self._injection.done += [(kind, client) for client, kind in faults.items()]
        for reply in self._engine.ask(jobs, deadline_s):
            client, job = reply.client, jobs[reply.client]
            if client in faults and isinstance(job, Train) and reply.value is not None:
                generator = rng.generator(job.seed, "fault")
                sent = FAULTS[faults[client]](reply.value, job.weights.tensors, generator)
                if sent is not None:
                    yield Reply(client, None, sent) if isinstance(sent, str) else Reply(client, sent)
            else:
                yield reply

    def _drawn(self, jobs: Mapping[ClientId, Train]) -> dict[ClientId, str]:
        """Return who is at fault in this exchange, and how."""
        if not jobs:
            return {}
        generator = rng.generator(min(job.seed for job in jobs.values()), "faults")
        who = generator.choice(sorted(jobs), round(self._injection.share * len(jobs)), replace=False)
        return {client: str(generator.choice(self._injection.kinds)) for client in sorted(who.tolist())}


_injections: list[Injection] = []


@contextlib.contextmanager
def injected(kinds: Sequence[str], share: float) -> Iterator[Injection]:
    """Let there be an engine `ENGINE` for a while, whose clients are at fault; runs that it trained need it later."""
    injection = Injection(kinds, share)
    _injections.append(injection)
    registry.TABLES["engine"][ENGINE] = f"{__name__}:open_faulty"
    try:
        yield injection
    finally:
        _injections.pop()
        if not _injections:
            del registry.TABLES["engine"][ENGINE]


@contextlib.contextmanager
def open_faulty(make_populations: MakePopulations, workers: int) -> Iterator[dict[str, Engine]]:
    """Yield the engines of `open_local`, with the faults that are injected now."""
    with open_local(make_populations, workers) as engines:
        yield {name: FaultyEngine(engine, _injections[-1]) for name, engine in engines.items()}
