"""Laws of the supernet: supernet, extracted and folded subnet compute the same; costs are those counted on the net."""

import math
from collections.abc import Mapping

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsup_deploy import rng
from fedsup_deploy.artifact.graph import read_graph
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.space import cost, sampling
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import DeployableNet
from fedsup_deploy.supernet.fold import affines, fold
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet, initial_weights
from fedsup_deploy.supernet.normalization import BY_BATCH, FixedAffine, SumCollector
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

Seeds = st.integers(0, 2**32)
Normalizations = st.sampled_from(["batch", "parametric"])
TOLERANCE = 1e-5

#: What random spaces have one at a time, all in one: squeeze-excite, expansion, odd maps, an elastic stem.
CROWDED = {
    "schema": 1,
    "name": "crowded",
    "family": "mobilenet",
    "num_classes": 7,
    "resolutions": [24, 25],
    "choices": "per-block",
    "stem": {"widths": [4, 6], "kernel_size": 5, "stride": 2},
    "stages": [
        {
            "name": "a",
            "widths": [6, 8],
            "depths": [1, 2],
            "kernel_sizes": [3, 5],
            "expand_ratios": [1, 1.5, 3],
            "squeeze_excite": [False, True],
            "stride": 2,
        },
        {
            "name": "b",
            "widths": [8, 12],
            "depths": [1, 2],
            "kernel_sizes": [3, 7],
            "expand_ratios": [2, 4],
            "squeeze_excite": [True],
            "stride": 2,
        },
    ],
}


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds)
def test_no_architecture_takes_more_work_than_the_whole_supernet(spaces, data: st.DataObject, seed: int) -> None:
    for space in (data.draw(spaces), SearchSpace.model_validate(CROWDED)):
        layout, generator = Layout(space, "batch"), rng.generator(seed)
        drawn = [sampling.random_architecture(space, generator) for _ in range(5)]
        assert max(map(layout.num_macs, (space.largest, *drawn))) <= layout.most_macs


def images(space: SearchSpace, architecture: Architecture, count: int, seed: int = 0) -> Tensor:
    side = architecture.resolution
    return torch.randn(count, space.in_channels, side, side, generator=torch.Generator().manual_seed(seed))


def random_supernet(space: SearchSpace, normalization: str, seed: int) -> Supernet:
    """Return a supernet as after training: no gamma is 0, no beta and no bias either, and activations stay near 1."""
    layout = Layout(space, normalization)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in layout.shapes.items():
        noise = torch.randn(shape, generator=generator)
        fan_in = math.prod(shape[1:])
        weights[name] = noise / math.sqrt(fan_in) if len(shape) > 1 else float(name.endswith("gamma")) + 0.3 * noise
    return Supernet(layout, weights)


def statistics_of(subnet: Subnet, normalization: str, x_BCHW: Tensor) -> PooledStatistics:
    collector = SumCollector(frozenset(layer.name for layer in subnet.plan.norm_layers()), BY_BATCH[normalization])
    subnet(x_BCHW, collector)
    return PooledStatistics(
        {
            name: ChannelSums(count, total.numpy(), squares.numpy())
            for name, (count, total, squares) in collector.sums.items()
        }
    )


def prepared(space: SearchSpace, normalization: str, seed: int) -> tuple[Supernet, Architecture, PooledStatistics]:
    """Return a random supernet, one of its architectures, and statistics of that."""
    supernet = random_supernet(space, normalization, seed)
    architecture = sampling.random_architecture(space, rng.generator(seed))
    subnet = supernet.extract(architecture)
    return supernet, architecture, statistics_of(subnet, normalization, images(space, architecture, 8, seed=1))


def assert_same(found: Tensor, expected: Tensor, gain: float) -> None:
    """Compare logits: absolute up to 1 and relative above, where no normalisation multiplies by more than 5.

    Batch normalisation multiplies a channel that hardly varies by up to 300, and what was rounded off it as well.
    """
    scale = max(1.0, float(expected.abs().max())) * max(1.0, gain / 5)
    assert float((found - expected).abs().max()) <= TOLERANCE * scale


def linear_in_every_vector(name: str, x_BCHW: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Stand in for a normalisation: gamma * x plus all other vectors, so that no gradient happens to be zero."""
    vectors = {part: vector[:, None, None] for part, vector in weights.items() if part.startswith(f"{name}.norm.")}
    gamma = vectors.pop(f"{name}.norm.gamma")
    return gamma * x_BCHW + torch.stack(list(vectors.values())).sum(dim=0)


def check_evaluation(space: SearchSpace, normalization: str, seed: int) -> None:
    supernet, architecture, statistics = prepared(space, normalization, seed)
    subnet = supernet.extract(architecture)
    net = fold(subnet, statistics).module()
    maps = affines(subnet.weights, normalization, statistics)
    normalizer, gain = FixedAffine(maps), max(float(affine.scale_C.abs().max()) for affine in maps.values())
    x_BCHW = images(space, architecture, 8)
    together = supernet(x_BCHW, architecture, normalizer)
    for count in (1, 3, 8):
        expected = together[:count]
        assert_same(supernet(x_BCHW[:count], architecture, normalizer), expected, gain)
        assert torch.equal(subnet(x_BCHW[:count], normalizer), supernet(x_BCHW[:count], architecture, normalizer))
        assert_same(net(x_BCHW[:count]), expected, gain)
    for index in range(8):
        assert_same(net(x_BCHW[index : index + 1]), together[index : index + 1], gain)
    assert together.std(dim=0).max() > 1e-3, "an output that does not depend on the image proves nothing"


@settings(max_examples=20)
@given(data=st.data(), normalization=Normalizations, seed=Seeds)
def test_supernet_extracted_and_folded_subnet_agree_in_every_batch(
    spaces, data: st.DataObject, normalization: str, seed: int
) -> None:
    check_evaluation(data.draw(spaces), normalization, seed)


@settings(max_examples=12)
@given(normalization=Normalizations, seed=Seeds)
def test_they_agree_with_everything_in_one_space(normalization: str, seed: int) -> None:
    check_evaluation(SearchSpace.model_validate(CROWDED), normalization, seed)


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds)
def test_by_batch_extracted_subnet_equals_the_supernet(spaces, data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces)
    supernet, architecture, _ = prepared(space, "batch", seed)
    x_BCHW = images(space, architecture, 4)
    assert torch.equal(supernet.extract(architecture)(x_BCHW), supernet(x_BCHW, architecture))


@settings(max_examples=20)
@given(data=st.data(), normalization=Normalizations, seed=Seeds)
def test_weights_outside_the_slices_of_a_subnet_do_not_matter(
    spaces, data: st.DataObject, normalization: str, seed: int
) -> None:
    """Put anything there: the answer is the same to the last bit."""
    space = data.draw(spaces)
    supernet, architecture, _ = prepared(space, normalization, seed)
    other = {name: torch.full_like(tensor, 1e6) for name, tensor in supernet.weights.items()}
    for name, index in supernet.layout.slices(architecture).items():
        other[name][index] = supernet.weights[name][index]
    x_BCHW = images(space, architecture, 2)
    assert torch.equal(Supernet(supernet.layout, other)(x_BCHW, architecture), supernet(x_BCHW, architecture))


def counted(net: DeployableNet, x_BCHW: Tensor) -> tuple[int, int]:
    """Return (MACs of convolutions and linear layers, parameters) as fvcore and torch count them."""
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(net, x_BCHW).unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    return int(by_operator["conv"] + by_operator["linear"]), sum(p.numel() for p in net.parameters())


def check_costs(space: SearchSpace, seed: int) -> None:
    supernet, architecture, statistics = prepared(space, "batch", seed)
    net = fold(supernet.extract(architecture), statistics).module()
    expected = counted(net, images(space, architecture, 1))
    row = cost.costs_of(space, [architecture]).row(0)
    assert (row["num_macs"], row["num_params"]) == expected


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds)
def test_closed_form_costs_are_those_counted_on_the_folded_net(spaces, data: st.DataObject, seed: int) -> None:
    check_costs(data.draw(spaces), seed)


@settings(max_examples=12)
@given(seed=Seeds)
def test_costs_with_everything_in_one_space(seed: int) -> None:
    check_costs(SearchSpace.model_validate(CROWDED), seed)


def test_graph_of_an_exported_file_has_the_costs_of_the_folded_net(tmp_path) -> None:
    """What `verify` reads off the file is what fvcore counts on the module, squeeze-excitation and all."""
    space = SearchSpace.model_validate(CROWDED)
    supernet, architecture, statistics = prepared(space, "batch", 0)
    network, x_BCHW = fold(supernet.extract(architecture), statistics), images(space, architecture, 1)
    assert any(layer.op == "squeeze_excite" and layer.is_active for layer in space.plan(architecture).layers())
    exporter_for("onnx").export(network, {}, tmp_path)
    graph = read_graph(tmp_path / "model.onnx")
    assert (graph.num_macs, graph.num_params) == counted(network.module(), x_BCHW)
    assert graph.inputs == {"input": ("batch", *x_BCHW.shape[1:])}
    assert graph.outputs == {"logits": ("batch", space.num_classes)}
    assert graph.first_width == architecture.stem_width


def test_crowded_space_has_what_its_name_says() -> None:
    """Odd maps all the way down: 25, 13, 7, 4."""
    space = SearchSpace.model_validate(CROWDED)
    plan = space.plan(space.largest)
    assert [plan.stem.in_size, *sorted({block.add.in_size for block in plan.blocks}, reverse=True)] == [25, 7, 4]
    assert plan.stem.out_size == 13
    ops = {layer.op for layer in plan.layers()}
    assert {"squeeze_excite", "pool", "depthwise", "pointwise"} < ops
    assert any(layer.name.endswith(".expand") for layer in plan.layers())


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds)
def test_plan_says_the_shape_of_every_feature_map(spaces, data: st.DataObject, seed: int) -> None:
    """What each module of the folded net gives is what its layer's plan says."""
    space = data.draw(spaces)
    supernet, architecture, statistics = prepared(space, "batch", seed)
    subnet = supernet.extract(architecture)
    net = fold(subnet, statistics).module()
    shapes: list[tuple[int, ...]] = []
    modules = [net.stem, *(part for block in net.blocks for part in (*block.main, *block.shortcut, block))]
    for module in modules:
        module.register_forward_hook(lambda _module, _inputs, result: shapes.append(tuple(result.shape)))
    net(images(space, architecture, 1))
    layers = [
        subnet.plan.stem,
        *(layer for block in subnet.plan.blocks for layer in (*block.main, *block.shortcut, block.add)),
    ]
    assert len(shapes) == len(layers)
    for shape, layer in zip(shapes, layers, strict=True):
        channels = layer.in_channels if layer.op == "squeeze_excite" else layer.out_channels
        assert shape == (1, channels, layer.out_size, layer.out_size), layer.name


@settings(max_examples=20)
@given(data=st.data(), normalization=Normalizations, seed=Seeds)
def test_every_tensor_of_a_subnet_gets_a_gradient_and_no_other_does(
    spaces, data: st.DataObject, normalization: str, seed: int
) -> None:
    space = data.draw(spaces)
    supernet = random_supernet(space, normalization, seed)
    for tensor in supernet.weights.values():
        tensor.requires_grad_()
    architecture = sampling.random_architecture(space, rng.generator(seed))
    x_BCHW = images(space, architecture, 4)
    supernet(x_BCHW, architecture, linear_in_every_vector).sum().backward()
    where = supernet.layout.slices(architecture)
    for name, tensor in supernet.weights.items():
        assert (tensor.grad is not None) == (name in where), name
        if tensor.grad is not None:
            outside = torch.ones_like(tensor, dtype=torch.bool)
            outside[where[name]] = False
            assert not tensor.grad[outside].any(), name


@settings(max_examples=10)
@given(data=st.data(), seed=Seeds)
def test_random_start_of_training_gives_finite_logits_and_gradients(spaces, data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces)
    layout = Layout(space, data.draw(Normalizations))
    weights = {name: tensor.requires_grad_() for name, tensor in initial_weights(layout, seed).items()}
    supernet = Supernet(layout, weights)
    for architecture in sampling.sandwich(space, rng.generator(seed), 3):
        logits = supernet(images(space, architecture, 4), architecture)
        assert torch.isfinite(logits).all()
        logits.square().sum().backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in weights.values() if tensor.grad is not None)


def test_referee_counts_what_we_count() -> None:
    """The referee counts a multiply-accumulate as one: 3x3 from 2 to 4 channels at 5x5 pixels is 4 x 2 x 9 x 25."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=True), nn.Flatten(), nn.Linear(100, 3))
    assert counted(net, torch.zeros(1, 2, 5, 5)) == (4 * 2 * 9 * 25 + 300, 4 * 2 * 9 + 4 + 303)
