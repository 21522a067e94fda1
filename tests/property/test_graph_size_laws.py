"""What a file has besides its numbers: counted without onnx, held against files that were written."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy.space import cost
from fedsup_deploy.space.graph_size import FRAME_BYTES
from fedsup_deploy.space.layers.kind import folded_shapes
from fedsup_deploy.space.onnx_graph import build_model, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.sampling import random_genes


@settings(max_examples=25)
@given(st.data())
def test_a_file_is_no_larger_than_counted_and_little_smaller(spaces: Any, data: st.DataObject) -> None:
    """Whatever the space: by at most a fifth of what is not a number. Alone or among others it counts the same."""
    space = data.draw(spaces)
    genes_NG = random_genes(space, np.random.default_rng(data.draw(st.integers(0, 2**32))), 8)
    together = cost.costs(space, genes_NG)
    for row, genes in enumerate(genes_NG[:2]):
        plan = space.plan(space.decode(genes))
        assert cost.costs_of_plan(plan).graph_bytes.tolist() == [together.graph_bytes[row]]
        shapes = {name: shape for layer in plan.layers() for name, shape in folded_shapes(layer).items()}
        weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        written = len(to_bytes(build_model(tuple(parts_of(plan)), weights))) - 4 * int(together.num_params[row])
        counted = int(together.graph_bytes[row]) + FRAME_BYTES
        assert written <= counted <= 1.2 * written
