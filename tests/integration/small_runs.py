"""Runs that were trained for a moment, for tests of what comes after it."""

from pathlib import Path
from typing import Final

from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config

#: One round of two clients: a supernet with weights, no more.
SUPERNET: Final = """
schema: 1
name: small
space: digits
data: {dataset: digits}
partition: {kind: iid, num_clients: 4}
strategy: {name: fedsup, num_subnets: 2}
training: {rounds: 1, clients_per_round: 2, warmup_rounds: 0}
engine: {workers: 1}
calibration: {samples_per_client: 16}
"""
#: The smallest subnet alone, until it is better than chance: what int8 costs it can be told.
NETWORK: Final = """
schema: 1
name: small
space: digits
data: {dataset: digits, validation_fraction: 0.2}
partition: {kind: dirichlet, num_clients: 8}
strategy: {name: fedavg, architecture: smallest}
training: {rounds: 4, clients_per_round: 8, warmup_rounds: 0, local_epochs: 2}
engine: {workers: 1}
calibration: {samples_per_client: 32}
"""


def trained(config: str, folder: Path) -> Path:
    """Train by a config in a folder that is there; return the run's folder."""
    (folder / "small.yaml").write_text(config, encoding="utf-8")
    train(load_train_config(folder / "small.yaml"), folder / "small")
    return folder / "small"
