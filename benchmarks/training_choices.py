"""Where our supernet differs from the paper's: the loss of a few local epochs, with and without each difference.

Run: python benchmarks/training_choices.py

One client holding all bundled digits trains the corners of the digits space for four epochs. A loss above log(10) = 2.3
means that training has diverged.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from fedsup_deploy import resources
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import ImageDataset, load_dataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.jobs.train import Assignment, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.space.families import mobilenet
from fedsup_deploy.space.families.shortcut import shortcut
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import model, slices
from fedsup_deploy.supernet.layout import Layout

EPOCHS = 4


def without_norm(*inputs: Any) -> tuple[Any, ...]:
    """Return the paper's shortcut: its 1x1 convolution has no norm."""
    return tuple(dataclasses.replace(layer, has_norm=False) for layer in shortcut(*inputs))


@contextlib.contextmanager
def variant(gamma: float, *, has_norm: bool) -> Iterator[Layout]:
    """Yield the layout of a supernet made with other choices."""
    space = validate(load_yaml(resources.find("configs/spaces", "digits")), SearchSpace).with_data(1, 10)
    make = shortcut if has_norm else without_norm
    with mock.patch.object(model, "RESIDUAL_GAMMA", gamma), mock.patch.object(mobilenet, "shortcut", make):
        yield Layout(space, "batch")


def loss(layout: Layout, digits: ImageDataset, corner: str, rate: float, momentum: float) -> float:
    """Return the mean loss of the last of four epochs, or NaN when training failed."""
    architecture = layout.space.resolve(corner)
    weights = slices.gather(model.initial_weights(layout, seed=0), layout.slices(architecture))
    client, preprocessing = Client({TRAINED: digits}), Preprocessing.fit(digits, 8)
    params = LocalTraining(1, 32, momentum, 1e-4, 1.0, has_logit_adjustment=False)
    found = float("nan")
    for epoch in range(EPOCHS):
        assignment, blob = Assignment(architecture), Blob(weights)
        job = Train(layout, assignment, blob, rate, params, preprocessing, Augmentation(), seed=epoch)
        try:
            update = client.perform(job)
        except DataError:
            return float("nan")
        weights, found = dict(update.weights), update.loss
    return found


def main() -> None:
    """Print a row per choice."""
    torch.set_num_threads(1)
    digits = load_dataset("digits", None).train
    print("first gamma  shortcut norm  rate  momentum  loss largest  loss smallest")
    for gamma, has_norm in ((0.5, True), (0.0, True), (1.0, True), (0.5, False), (0.0, False)):
        for rate, momentum in ((0.1, 0.0), (0.1, 0.9)):
            with variant(gamma, has_norm=has_norm) as layout:
                found = [loss(layout, digits, corner, rate, momentum) for corner in ("largest", "smallest")]
            name = "yes" if has_norm else "no"
            print(f"{gamma:11}  {name:>13}  {rate:4}  {momentum:8}  {found[0]:12.3f}  {found[1]:13.3f}")


if __name__ == "__main__":
    main()
