"""Laws of trimming: what is cut by hand is what torch-pruning leaves, it costs what is counted, and it is within."""

import math

import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.space import cost, sampling
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.fold import fold
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet
from fedsup_deploy.supernet.normalization import BY_BATCH, SumCollector
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics
from fedsup_deploy.supernet.trimming import MIN_KEPT, Trimmed, cut, smallest, trim

Seeds = st.integers(0, 2**32)


def random_subnet(space: SearchSpace, normalization: str, seed: int) -> Subnet:
    """Return a random subnet as after training: no vector of a normalisation is neutral."""
    layout, generator = Layout(space, normalization), torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in layout.shapes.items():
        noise = torch.randn(shape, generator=generator)
        is_gamma = float(name.endswith("gamma"))
        weights[name] = noise / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else is_gamma + 0.3 * noise
    return Supernet(layout, weights).extract(sampling.random_architecture(space, rng.generator(seed)))


def images(plan: NetworkPlan, count: int) -> Tensor:
    shape = (count, plan.stem.in_channels, plan.stem.in_size, plan.stem.in_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def statistics_of(subnet: Subnet) -> PooledStatistics:
    names = frozenset(layer.name for layer in subnet.plan.norm_layers())
    collector = SumCollector(names, BY_BATCH[subnet.normalization])
    subnet(images(subnet.plan, 8), collector)
    return PooledStatistics(
        {
            name: ChannelSums(count, total.numpy(), squares.numpy())
            for name, (count, total, squares) in collector.sums.items()
        }
    )


def of_what_is_kept(statistics: PooledStatistics, trimmed: Trimmed) -> PooledStatistics:
    layers = {}
    for name, sums in statistics.layers.items():
        kept = trimmed.kept[name].outputs
        layers[name] = ChannelSums(sums.count, sums.total_C[kept], sums.squares_C[kept])
    return PooledStatistics(layers)


def price(kind: str, plan: NetworkPlan) -> int:
    return cost.costs_of_plan(plan).row(0)[kind]


@settings(max_examples=30)
@given(
    data=st.data(),
    normalization=st.sampled_from(["batch", "parametric"]),
    kind=st.sampled_from(["num_macs", "num_params"]),
    share=st.floats(0.6, 0.99),
    quantum=st.sampled_from([1, 2, 4, 8]),
    seed=Seeds,
)
def test_a_trimmed_network_is_the_one_that_torch_pruning_leaves(
    spaces, data: st.DataObject, normalization: str, kind: str, share: float, quantum: int, seed: int
) -> None:
    subnet = random_subnet(data.draw(spaces), normalization, seed)
    statistics = statistics_of(subnet)
    limit = share * price(kind, subnet.plan)
    trimmed = trim(fold(subnet, statistics), quantum, lambda plan: price(kind, plan) / limit - 1)
    event("trimmed" if trimmed is not None else "too small to trim")
    if trimmed is None:
        return

    # The same function, from unfolded weights and the statistics of the same activations.
    left = cut(subnet, trimmed)
    folded = fold(left, of_what_is_kept(statistics, trimmed)).module()
    x_BCHW = images(left.plan, 3)
    expected = trimmed.module(x_BCHW)
    scale = max(1.0, float(expected.abs().max()))
    assert float((folded(x_BCHW) - expected).abs().max()) <= 1e-5 * scale

    # What it costs, counted by somebody else.
    analysis = FlopCountAnalysis(folded, x_BCHW[:1]).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    expected_macs = int(by_operator["conv"] + by_operator["linear"])
    assert price("num_macs", left.plan) == expected_macs
    assert price("num_params", left.plan) == sum(tensor.numel() for tensor in trimmed.module.parameters())

    # Within the limit, in multiples of the quantum, and never less than was promised.
    assert price(kind, left.plan) <= limit
    for kept in trimmed.kept.values():
        assert sorted({*kept.outputs, *kept.removed}) == list(range(kept.num_channels))
        if len(kept.removed):
            assert len(kept.outputs) % quantum == 0
            assert len(kept.outputs) >= kept.num_channels * MIN_KEPT


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds)
def test_a_plan_alone_costs_what_its_architecture_costs(spaces, data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces)
    architecture = sampling.random_architecture(space, rng.generator(seed))
    expected = cost.costs_of(space, [architecture]).row(0)
    assert cost.costs_of_plan(space.plan(architecture)).row(0) == expected


@settings(max_examples=20)
@given(data=st.data(), quantum=st.sampled_from([1, 2, 4, 8]), seed=Seeds)
def test_trimming_ends_at_the_smallest_plan(spaces, data: st.DataObject, quantum: int, seed: int) -> None:
    """It is reached if nothing larger will do, and nothing smaller ever is."""
    subnet = random_subnet(data.draw(spaces), "batch", seed)
    least = smallest(subnet.plan, quantum)
    network = fold(subnet, statistics_of(subnet))
    trimmed = trim(network, quantum, lambda plan: price("num_params", plan) - price("num_params", least))
    assert trimmed is not None
    assert trimmed.plan == least
    assert trim(network, quantum, lambda plan: price("num_params", plan) - price("num_params", least) + 1) is None
