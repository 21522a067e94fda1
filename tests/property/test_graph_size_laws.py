"""What a file has besides its parameters: counted without onnx, held against files that were written."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.space.graph_size import FRAME_BYTES, graph_bytes
from fedsup_deploy.space.layers.kind import folded_shapes
from fedsup_deploy.space.onnx_graph import build_model, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.space.quantization import quantized
from fedsup_deploy.space.sampling import random_genes

SCHEMES = st.builds(
    Int8Scheme,
    activations=st.sampled_from(["u8", "s8"]),
    is_symmetric=st.booleans(),
    per_channel=st.booleans(),
    reduce_range=st.booleans(),
)


def written_bytes(plan: NetworkPlan, scheme: Int8Scheme | None, rng: np.random.Generator) -> int:
    """Return the size of a network's file without one number for each parameter."""
    shapes = {name: shape for layer in plan.layers() for name, shape in folded_shapes(layer).items()}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model, size = build_model(tuple(parts_of(plan)), weights), 4
    if scheme is not None:
        ranges_V2 = np.sort(rng.standard_normal((len(value_sizes(model)), 2)).astype(np.float32))
        model, size = quantized(model, ranges_V2, scheme), 1
    return len(to_bytes(model)) - size * sum(weight.size for weight in weights.values())


@settings(max_examples=40)
@given(st.data())
def test_a_file_is_no_larger_than_counted_and_little_smaller(spaces: Any, data: st.DataObject) -> None:
    """Whatever space and precision: by at most a fifth. Alone or among others an architecture counts the same."""
    space, scheme = data.draw(spaces), data.draw(st.none() | SCHEMES)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    genes_NG = random_genes(space, rng, 8)
    together_N = graph_bytes(space.plan_many(genes_NG), len(genes_NG), scheme)
    for row, genes in enumerate(genes_NG[:2]):
        plan = space.plan(space.decode(genes))
        assert graph_bytes(plan, 1, scheme).tolist() == [together_N[row]]
        written, counted = written_bytes(plan, scheme, rng), int(together_N[row]) + FRAME_BYTES
        assert written <= counted <= 1.2 * written
