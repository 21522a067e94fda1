"""What holds for every partition, whatever the labels."""

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy import registry
from fedsup_deploy.data.partition import DividedPartition, partition

DIVIDED = [
    kind for kind in registry.names("partition") if issubclass(registry.resolve("partition", kind), DividedPartition)
]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request that can be met, of any registered kind that divides images."""
    num_clients = draw(st.integers(1, 20))
    min_samples = draw(st.integers(1, 4))
    fewest = num_clients * min_samples
    labels = draw(st.lists(st.integers(0, 6), min_size=fewest, max_size=fewest + 60))
    kind = draw(st.sampled_from(DIVIDED))
    options: dict[str, float] = {"min_samples": min_samples}
    if kind == "dirichlet":
        options["beta"] = draw(st.sampled_from([0.01, 0.1, 1.0, 100.0]))
    if kind == "shards":
        options["shards_per_client"] = draw(st.integers(1, len(labels) // num_clients))
    seed = draw(st.integers(0, 2**40))
    return {"labels_N": labels, "kind": kind, "num_clients": num_clients, "seed": seed, **options}


@given(requests())
def test_every_image_has_exactly_one_client(request: dict[str, Any]) -> None:
    parts = partition(**request)
    assert len(parts) == request["num_clients"]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(request["labels_N"])))


@given(requests())
def test_every_client_has_enough_images_in_order(request: dict[str, Any]) -> None:
    for part in partition(**request):
        assert len(part) >= request["min_samples"]
        assert part.dtype == np.int64
        assert part.tolist() == sorted(part.tolist())


@given(requests())
def test_the_seed_alone_decides(request: dict[str, Any]) -> None:
    first, again = partition(**request), partition(**request)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]


@pytest.mark.parametrize("kind", DIVIDED)
def test_another_seed_gives_another_partition(kind: str) -> None:
    options = {"beta": 0.5} if kind == "dirichlet" else {}
    labels = np.repeat(np.arange(5), 20)
    drawn = {str([part.tolist() for part in partition(labels, kind, 5, seed, **options)]) for seed in range(5)}
    assert len(drawn) == 5


IN_A_PROCESS = """
import hashlib
import numpy as np
from fedsup_deploy.data.partition import partition

labels = np.repeat(np.arange(10), 50)
for kind, options in (("iid", {}), ("shards", {"shards_per_client": 3}), ("dirichlet", {"beta": 0.1})):
    parts = partition(labels, kind, 20, 7, **options)
    print(hashlib.sha256(str([part.tolist() for part in parts]).encode()).hexdigest())
"""


def test_another_process_gives_the_same_partition() -> None:
    """Under another hash seed, which changes the order of sets and whatever else depends on `hash`."""
    ran = [
        subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]
    labels = np.repeat(np.arange(10), 50)
    here = [
        hashlib.sha256(str([part.tolist() for part in partition(labels, kind, 20, 7, **options)]).encode()).hexdigest()
        for kind, options in (("iid", {}), ("shards", {"shards_per_client": 3}), ("dirichlet", {"beta": 0.1}))
    ]
    assert ran == [here, here]
