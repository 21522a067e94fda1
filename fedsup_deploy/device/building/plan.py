"""What has to be timed to know a device: the parts of a search space, or whole networks; and some to check against.

Owns the choice and the order of work, up to the graphs. It times nothing and fits nothing. Needs no torch.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.graph import write_graph
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture, Block
from fedsup_deploy.space.parts import Part, name_of, parts_of
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

#: The model timed between the others: the space's largest network, which leaves nothing of them in the cache.
FILLER: Final = "filler"
_MAX_SAMPLE: Final = 4096
_MIN_ARCHITECTURES: Final = 8


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """What is timed to build a profile.

    Args:
        space: Whose networks.
        kind: Latency model that comes out: a `table` of parts, or costs `fitted` to whole networks.
        parts: What is timed for the table, by name; none if `fitted`.
        calibration: Networks that the latency model is fitted on.
        heldout: Networks that it is checked on. None of them is in `calibration`.
        seed: Decided which networks, and of the weights.
    """

    space: SearchSpace
    kind: Literal["table", "fitted"]
    parts: Mapping[str, Part]
    calibration: tuple[Architecture, ...]
    heldout: tuple[Architecture, ...]
    seed: int

    @property
    def part_models(self) -> dict[str, str]:
        """Names of the models of the parts, by the name of the part."""
        return {part: f"part-{index:03d}" for index, part in enumerate(self.parts)}

    @property
    def calibration_models(self) -> list[str]:
        """Names of the models of the calibration networks."""
        return [f"network-{index:03d}" for index in range(len(self.calibration))]

    @property
    def heldout_models(self) -> list[str]:
        """Names of the models of the held-out networks."""
        return [f"heldout-{index:03d}" for index in range(len(self.heldout))]

    def graphs(self) -> dict[str, tuple[Part, ...]]:
        """Return the parts each model consists of, by its name; the filler among them."""
        networks = dict(zip(self.calibration_models, self.calibration, strict=True))
        networks |= dict(zip(self.heldout_models, self.heldout, strict=True))
        networks[FILLER] = self.space.largest
        alone = {model: (self.parts[part],) for part, model in self.part_models.items()}
        return alone | {model: parts_of(self.space.plan(network)) for model, network in networks.items()}


def plan_build(
    space: SearchSpace, num_networks: int = 12, num_heldout: int = 40, max_measurements: int = 75, seed: int = 0
) -> BuildPlan:
    """Return what to time for a profile of a device that is to run networks of a space.

    If all distinct parts of the space and `num_networks` whole ones can be timed, the latency model is a table of the
    parts, else costs of operations fitted to whole networks. Networks are drawn at random from every range of size.

    Args:
        space: The search space.
        num_networks: Whole networks to calibrate a table with.
        num_heldout: Networks to check with.
        max_measurements: Parts and networks that the latency model may be made from.
        seed: Decides which networks.

    Raises:
        ConfigError: The space has too few architectures to hold any out.
    """
    if space.num_architectures < _MIN_ARCHITECTURES:
        count = f"{space.num_architectures} architectures, expected at least {_MIN_ARCHITECTURES}"
        raise ConfigError(f"space {space.name}: got {count}, to fit a latency model on some and check it on others")
    parts = _distinct_parts(space, max_measurements - num_networks)
    wanted = num_networks if parts else max_measurements
    genes_SG = _sample(space, seed)
    calibration = _stratified(genes_SG, min(wanted, len(genes_SG) // 2), seed, "calibration")
    taken = {tuple(genes) for genes in calibration}
    rest_SG = np.array([genes for genes in genes_SG if tuple(genes) not in taken])
    heldout = _stratified(rest_SG, num_heldout, seed, "heldout")
    networks = [tuple(space.decode(genes) for genes in drawn) for drawn in (calibration, heldout)]
    return BuildPlan(space, "table" if parts else "fitted", parts, networks[0], networks[1], seed)


def plan_timing(space: SearchSpace, num_networks: int, seed: int = 0) -> BuildPlan:
    """Return a plan to time so many networks of every size, fewer where the space is smaller, and nothing else."""
    genes_SG = _stratified(_sample(space, seed), num_networks, seed, "timing")
    return BuildPlan(space, "fitted", {}, (), tuple(space.decode(genes) for genes in genes_SG), seed)


def write_graphs(plan: BuildPlan, folder: Path, scheme: Int8Scheme | None) -> Iterator[Path]:
    """Write all models of a plan as ONNX, and yield each file when it is done.

    Args:
        plan: What to write.
        folder: Where to.
        scheme: How they are written in int8; None: in float32.

    Side effects: Writes the files.
    """
    for index, (name, parts) in enumerate(plan.graphs().items()):
        path = folder / f"{name}.onnx"
        write_graph(parts, path, rng.derive(plan.seed, "graph", index), scheme)
        yield path


def covering_architectures(space: SearchSpace) -> Iterator[Architecture]:
    """Yield architectures such that every distinct part of the space's networks is in at least one of them.

    A part depends on the image, on the width before it and on its own choices: these are combined, all else is the
    first choice. So even a space of millions needs hundreds.
    """
    for resolution, (index, stage) in itertools.product(space.resolutions, enumerate(space.stages)):
        for position, choices in itertools.product(range(max(stage.depths)), itertools.product(*stage.block_choices)):
            block = _block(choices)
            for width in _widths_before(space, index, position, block):
                yield _network_with(space, resolution, (index, position), block, width)


def _widths_before(space: SearchSpace, index: int, position: int, block: Block) -> tuple[int, ...]:
    """Return the widths that what a block reads may have."""
    if position > 0:
        return (block.width,) if space.choices == "per-stage" else space.stages[index].widths
    return space.stages[index - 1].widths if index > 0 else space.stem.widths


def _network_with(
    space: SearchSpace, resolution: int, place: tuple[int, int], block: Block, width_before: int
) -> Architecture:
    """Return an architecture with a block at a place (stage, position) that reads a width; the rest is plainest."""
    index, position = place
    stages = [(_block(tuple(choices[0] for choices in one.block_choices)),) * one.depths[0] for one in space.stages]
    blocks = [block] * min(depth for depth in space.stages[index].depths if depth > position)
    stem_width = space.stem.widths[0]
    if position > 0:
        blocks[position - 1] = dataclasses.replace(block, width=width_before)
    elif index > 0:
        stages[index - 1] = tuple(dataclasses.replace(one, width=width_before) for one in stages[index - 1])
    else:
        stem_width = width_before
    stages[index] = tuple(blocks)
    return Architecture(resolution, stem_width, tuple(stages))


def _block(choices: tuple[Any, ...]) -> Block:
    width, kernel_size, expand_ratio, has_se = choices
    return Block(width, kernel_size, float(expand_ratio), has_se)


def _distinct_parts(space: SearchSpace, at_most: int) -> dict[str, Part]:
    """Return the distinct parts of a space by name; none if there are too many."""
    found: dict[str, Part] = {}
    for architecture in covering_architectures(space):
        for part in parts_of(space.plan(architecture)):
            found.setdefault(name_of(part), part)
        if len(found) > at_most:
            return {}
    return found


def _sample(space: SearchSpace, seed: int) -> IntArray:
    """Return the genes of distinct random architectures, or of all where they are few, from small to large networks."""
    random = rng.generator(seed, "build", "sample")
    if space.num_architectures <= _MAX_SAMPLE:
        genes_SG = space.enumerate_genes()
    else:
        genes_SG = np.unique(random_genes(space, random, _MAX_SAMPLE), axis=0)
    size_S = cost.costs(space, genes_SG).layers.working_set_elements_N
    assert size_S is not None, "costs of a space say how large its networks are"
    return genes_SG[np.argsort(size_S, kind="stable")]


def _stratified(genes_SG: IntArray, count: int, seed: int, what: str) -> IntArray:
    """Return one random row from each of `count` equal parts of rows in the order of size; of fewer rows, all."""
    count = min(count, len(genes_SG))
    random = rng.generator(seed, "build", what)
    drawn = [int(random.choice(stratum)) for stratum in np.array_split(np.arange(len(genes_SG)), count)]
    return genes_SG[drawn]
