"""Random networks with every kind of layer, pools of odd maps among them: what every exporter is tried on."""

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np
import torch

from fedsup_deploy import registry, rng
from fedsup_deploy.artifact.variants import Int8Gate, ParityGate
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.export.exporter import Exporter, batches_for, exporter_for, missing_libraries
from fedsup_deploy.export.int8_gate import held_to
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.ondevice import inference
from fedsup_deploy.ondevice.bundle_outputs import INT8_TOLERANCE
from fedsup_deploy.space.onnx_graph import INPUT_NAME, build_model, observable, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import FoldedNetwork, Quantization
from fedsup_deploy.supernet.ranges import ActivationCounts, count

FACTS = {"arch_id": "a0123456789a", "classes": '["cat", "/home/user/dog"]', "preprocessing": "{}"}
#: Seeds of ten networks of each family.
TEN_OF_EACH_FAMILY: Final = range(20)
#: How ARM computes, and how every x86 does.
SCHEMES: Final = tuple(
    Int8Scheme(activations=activations, is_symmetric=False, per_channel=True, reduce_range=activations == "u8")
    for activations in ("s8", "u8")
)
_FAMILIES: Final = ("mobilenet", "resnet")


def extras() -> set[str]:
    """Return the extras of all registered exporters."""
    return {extra for name in registry.names("exporter") for extra in registry.resolve("exporter", name).needs.values()}


def missing_for(extra: str) -> list[str]:
    """Return the libraries of an extra's formats that are not installed."""
    kinds = [registry.resolve("exporter", name) for name in registry.names("exporter")]
    return sorted({each for kind in kinds if extra in kind.needs.values() for each in missing_libraries(kind)})


def exporters_here() -> list[str]:
    """Return the names of the exporters whose libraries are installed; what others need has a file of its own."""
    return [name for name in registry.names("exporter") if not missing_libraries(registry.resolve("exporter", name))]


def exporters_of(extra: str) -> list[Exporter]:
    """Return the exporters of an extra."""
    return [each for each in map(exporter_for, exporters_here()) if extra in each.needs.values()]


def random_network(seed: int) -> tuple[FoldedNetwork, np.ndarray]:
    """Return a random network and ten random inputs."""
    choose = rng.generator(seed, "network")
    stages = [
        {
            "name": f"s{index}",
            "widths": [8 * int(choose.integers(1, 4))],
            "depths": [int(choose.integers(1, 3))],
            "kernel_sizes": [int(choose.choice([3, 5, 7]))],
            "expand_ratios": [int(choose.integers(1, 3))],
            "squeeze_excite": [bool(choose.integers(2)) or index == 0],
            "stride": stride,
        }
        for index, stride in enumerate([1, 2, 1] if seed % 2 else [2, 1, 2])
    ]
    document = {
        "schema": 1,
        "name": "random",
        "family": _FAMILIES[seed % 2],
        "in_channels": (1, 3)[seed % 2],
        "num_classes": int(choose.integers(2, 11)),
        "resolutions": [(9, 12, 16)[seed % 3]],
        "stem": {"widths": [8 * int(choose.integers(1, 4))]},
        "stages": stages,
    }
    space = SearchSpace.model_validate(document)
    plan = space.plan(space.largest)
    weights = {name: torch.from_numpy(array) for name, array in random_weights(parts_of(plan), seed).items()}
    shape = (10, plan.stem.in_channels, plan.stem.in_size, plan.stem.in_size)
    return FoldedNetwork(plan, weights), choose.standard_normal(shape, dtype=np.float32)


def in_int8(network: FoldedNetwork, inputs: np.ndarray, scheme: Int8Scheme) -> FoldedNetwork:
    """Return the int8 form of a network, with the ranges that its activations have on the inputs."""
    model = build_model(parts_of(network.plan), {name: tensor.numpy() for name, tensor in network.weights.items()})
    watched, names = observable(model)
    values = [inputs, *inference.open_session(to_bytes(watched), threads=1).run(list(names), {INPUT_NAME: inputs})]
    extremes_V2 = np.array([(each.min(), each.max()) for each in values], dtype=np.float32)
    counts = ActivationCounts(np.stack([count(each) for each in values]), extremes_V2)
    return dataclasses.replace(network, quantization=Quantization(counts, scheme))


def checked(exporter: Exporter, seed: int, folder: Path) -> ParityGate:
    """Export a random network and return what the gate finds of the file, loaded into its runtime."""
    network, inputs = random_network(seed)
    names = exporter.export(network, FACTS, folder)
    expected, model = network.module()(torch.from_numpy(inputs)).numpy(), exporter.load(folder / names[0])
    batches, allowed = batches_for(exporter, is_asked=False), (exporter.tolerance, exporter.tolerance)
    return check_parity(expected, {exporter.name: model}, inputs, batches, *allowed)[exporter.name]


def checked_in_int8(exporter: Exporter, seed: int, scheme: Int8Scheme, folder: Path) -> Int8Gate:
    """Export the int8 form of a random network and return what its gate finds of the file."""
    network, inputs = random_network(seed)
    quantized, onnx = in_int8(network, inputs, scheme), exporter_for("onnx")
    expected = network.module()(torch.from_numpy(inputs)).numpy()
    reference = onnx.load(folder / onnx.export(quantized, FACTS, folder)[0])(inputs)
    model = exporter.load(folder / exporter.export(quantized, FACTS, folder)[0])
    passed = Int8Gate(
        scheme=scheme,
        split="none",
        num_images=1,
        accuracy_drop=0.0,
        accuracy_drop_interval=(0.0, 0.0),
        max_accuracy_drop=0.0,
        num_float_convolutions=0,
        tolerance=INT8_TOLERANCE,
        max_scaled_diff=0.0,
        class_agreement=1.0,
    )
    return held_to(passed, exporter.name, model, inputs, (expected, reference), batches_for(exporter, is_asked=False))
