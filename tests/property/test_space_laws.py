"""Laws of search spaces: one row and one name per architecture, nothing leaves the space, costs are exact."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy import resources, rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.space import cost, sampling
from fedsup_deploy.space.architecture import Architecture, Block
from fedsup_deploy.space.layers.kind import kind_of
from fedsup_deploy.space.search_space import SearchSpace

Seeds = st.integers(0, 2**32)
SHIPPED = resources.shipped_names("configs/spaces")
COSTS = ("num_macs", "num_params", "moved_bytes", "peak_activation_bytes")

#: arch_id of the largest and the smallest subnet: they stand in files, so they never change.
CORNERS = {
    "digits": ("a4464257d49e", "a12d0108d544"),
    "elastic-resnet": ("a9bc6ead7ed6", "a946400b9af4"),
    "fedsup-mobilenet": ("a048fddf4277", "a132829eed11"),
    "fedsup-mobilenet-per-block": ("a048fddf4277", "a132829eed11"),
    "large-mobilenet": ("a581d08b05ef", "a61677d56859"),
    "photographs": ("aaff7f5ce4ef", "ad1bacbcd670"),
}


def shipped(name: str) -> SearchSpace:
    return validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace)


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds)
def test_decode_then_encode_is_the_identity_on_canonical_rows(spaces, data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces)
    for genes in sampling.random_genes(space, rng.generator(seed), 5):
        architecture = space.decode(genes)
        assert space.encode(architecture).tolist() == genes.tolist()
        assert space.decode(space.encode(architecture)) == architecture
        assert space.contains(architecture)


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds)
def test_rows_that_differ_only_in_inactive_blocks_are_one_architecture(spaces, data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces)
    generator = rng.generator(seed)
    raw_NG = generator.integers(0, space.num_choices, size=(20, len(space.num_choices)))
    canonical_NG = space.canonical(raw_NG)
    assert np.array_equal(space.canonical(canonical_NG), canonical_NG)
    for raw, canonical in zip(raw_NG, canonical_NG, strict=True):
        assert space.decode(raw) == space.decode(canonical)
        assert space.encode(space.decode(raw)).tolist() == canonical.tolist()


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds)
def test_document_of_an_architecture_round_trips_through_json(spaces, data: st.DataObject, seed: int) -> None:
    architecture = sampling.random_architecture(data.draw(spaces), rng.generator(seed))
    again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert again == architecture
    assert again.arch_id == architecture.arch_id


def brute_force(space: SearchSpace) -> set[Architecture]:
    """Return every architecture from the product of all choices, without genes."""
    per_stage = []
    for stage in space.stages:
        blocks = [Block(*values) for values in itertools.product(*stage.block_choices)]
        per_stage.append(
            [
                chosen
                for depth in stage.depths
                for chosen in (
                    itertools.product(blocks, repeat=depth)
                    if space.choices == "per-block"
                    else [(block,) * depth for block in blocks]
                )
            ]
        )
    return {
        Architecture(resolution, width, stages)
        for resolution, width in itertools.product(space.resolutions, space.stem.widths)
        for stages in itertools.product(*per_stage)
    }


@settings(max_examples=20)
@given(data=st.data())
def test_enumeration_is_the_product_of_all_choices(spaces, data: st.DataObject) -> None:
    space = data.draw(spaces.filter(lambda space: space.num_architectures <= 1500))
    genes_NG = space.enumerate_genes()
    found = [space.decode(genes) for genes in genes_NG]
    assert len(found) == len(set(found)) == space.num_architectures
    assert set(found) == brute_force(space)
    assert genes_NG.tolist() == sorted(genes_NG.tolist())
    assert np.array_equal(space.canonical(genes_NG), genes_NG)


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds, probability=st.floats(0, 1))
def test_sampling_mutation_and_crossover_stay_in_the_space(
    spaces, data: st.DataObject, seed: int, probability: float
) -> None:
    space = data.draw(spaces)
    generator = rng.generator(seed)
    first, second = (sampling.random_genes(space, generator, 6) for _ in range(2))
    mutated = sampling.mutate(space, first, generator, probability)
    children = sampling.crossover(space, first, second, generator)
    for genes in (*first, *mutated, *children):
        assert space.encode(space.decode(genes)).tolist() == genes.tolist()
    for architecture in sampling.sandwich(space, generator, 4):
        assert space.contains(architecture)


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds)
def test_every_architecture_lies_within_the_full_plan(spaces, data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces)
    full = {layer.name: layer for layer in space.full_plan.layers()}
    for genes in sampling.random_genes(space, rng.generator(seed), 5):
        for layer in space.plan(space.decode(genes)).layers():
            have = full[layer.name]
            assert (layer.op, layer.stride, layer.has_norm) == (have.op, have.stride, have.has_norm)
            assert layer.in_channels <= have.in_channels
            assert layer.out_channels <= have.out_channels
            assert layer.kernel_size <= have.kernel_size
            assert layer.in_size <= have.in_size


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds)
def test_costs_do_not_depend_on_what_else_is_asked_for(spaces, data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces)
    genes_NG = sampling.random_genes(space, rng.generator(seed), 5)
    together = cost.costs(space, genes_NG)
    for index, genes in enumerate(genes_NG):
        assert cost.costs(space, genes[None]).row(0) == together.row(index)


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds)
def test_columns_of_a_plan_chain(spaces, data: st.DataObject, seed: int) -> None:
    """What a layer reads is what the one before it has written, in every architecture."""
    space = data.draw(spaces)
    plan = space.plan(sampling.random_architecture(space, rng.generator(seed)))
    channels, size = plan.stem.out_channels, plan.stem.out_size
    for block in plan.blocks:
        for path in (block.main, block.shortcut):
            has, side = channels, size
            for layer in path:
                assert (layer.in_channels, layer.in_size) == (has, side), layer.name
                has = has if layer.op == "squeeze_excite" else layer.out_channels
                side = layer.out_size
            assert (has, side) == (block.add.in_channels, block.add.in_size)
        channels, size = block.add.out_channels, block.add.out_size
    assert (plan.head[0].in_channels, plan.head[0].in_size) == (channels, size)
    assert (plan.head[-1].in_channels, plan.head[-1].out_channels) == (channels, space.num_classes)


def test_golden_corners_name_every_shipped_space() -> None:
    assert CORNERS.keys() == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_arch_ids_of_the_corners_never_change(name: str) -> None:
    space = shipped(name)
    assert (space.largest.arch_id, space.smallest.arch_id) == CORNERS[name]


def test_arch_id_is_the_same_in_every_process() -> None:
    """Also with other hash seeds, and however the architecture came to be."""
    program = (
        "import sys, json; from fedsup_deploy.space.architecture import Architecture;"
        "print(*(Architecture.from_dict(d).arch_id for d in json.load(sys.stdin)))"
    )
    space = shipped("fedsup-mobilenet-per-block")
    drawn = [space.decode(genes) for genes in sampling.random_genes(space, rng.generator(0), 20)]
    document = json.dumps([architecture.to_dict() for architecture in drawn])
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", program],
            input=document,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert found.stdout.split() == [architecture.arch_id for architecture in drawn]


def test_the_papers_space_has_10368_architectures_all_distinct() -> None:
    space = shipped("fedsup-mobilenet")
    genes_NG = space.enumerate_genes()
    assert space.num_architectures == len(genes_NG) == 10_368
    architectures = [space.decode(genes) for genes in genes_NG]
    assert len({architecture.arch_id for architecture in architectures}) == 10_368
    assert len({layer_sizes(space, genes) for genes in genes_NG[::37]}) == len(genes_NG[::37])


def layer_sizes(space: SearchSpace, genes: np.ndarray) -> tuple:
    plan = space.plan(space.decode(genes))
    return tuple((layer.name, layer.in_channels, layer.out_channels, layer.kernel_size) for layer in plan.layers())


def test_the_space_per_block_has_444528_rows_all_distinct() -> None:
    space = shipped("fedsup-mobilenet-per-block")
    genes_NG = space.enumerate_genes()
    assert space.num_architectures == len(genes_NG) == 444_528
    weights = np.cumprod([1, *space.num_choices[:-1]])
    assert len(np.unique(genes_NG @ weights)) == 444_528


def costs_of_all(space: SearchSpace) -> cost.Costs:
    """Return the costs of every architecture where there are few enough, else of a large sample."""
    is_small = space.num_architectures <= 20_000
    genes_NG = space.enumerate_genes() if is_small else sampling.random_genes(space, rng.generator(0), 20_000)
    return cost.costs(space, genes_NG)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "large-mobilenet"])
def test_largest_bounds_every_cost(name: str) -> None:
    space = shipped(name)
    everything, high = costs_of_all(space), cost.costs_of(space, [space.largest]).row(0)
    for kind in COSTS:
        assert getattr(everything, kind).max() <= high[kind], kind


def test_where_each_block_has_a_width_the_largest_bounds_all_but_its_projections() -> None:
    """A block that changes the width has a 1x1 convolution on its shortcut; within a stage of the largest none does."""
    space = shipped("large-mobilenet")
    genes_NG = sampling.random_genes(space, rng.generator(0), 20_000)
    high = cost.costs_of(space, [space.largest]).row(0)
    num_macs_N = cost.costs(space, genes_NG).num_macs
    assert num_macs_N.max() > high["num_macs"]
    for genes in genes_NG[np.argsort(-num_macs_N)[:200]]:
        plan = space.plan(space.decode(genes))
        shortcuts = sum(
            operation.num_macs
            for block in plan.blocks
            for layer in block.shortcut
            for operation in kind_of(layer).operations(layer)
        )
        assert cost.costs_of_plan(plan).row(0)["num_macs"] - shortcuts <= high["num_macs"]


@pytest.mark.parametrize("name", SHIPPED)
def test_smallest_bounds_every_cost(name: str) -> None:
    space = shipped(name)
    everything, low = costs_of_all(space), cost.costs_of(space, [space.smallest]).row(0)
    for kind in COSTS:
        assert getattr(everything, kind).min() >= low[kind], kind
