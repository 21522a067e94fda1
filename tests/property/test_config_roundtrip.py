"""Law: writing a model and reading it again gives the same model."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue

from fedsup_deploy import registry
from fedsup_deploy.config.load import Document, dump, load_yaml, validate
from fedsup_deploy.config.reader import read
from fedsup_deploy.config.schema import TrainConfig

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text() | st.sampled_from(
    ["on", "no", "null", "~", "1e-4", "1_0", "0x1", ".inf", "true", "12:30", "<<", "=", "#"]
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


class Anything(BaseModel, extra="forbid"):
    content: JsonValue


@given(documents)
@settings(max_examples=80)
def test_any_document_survives(content: Any):
    """Whatever JSON can hold: also text that looks like a number, and lists that are equal."""
    data, _ = read(dump(Anything(content=[content, content])), str)
    assert data == {"content": [content, content]}
    assert repr(data) == repr({"content": [content, content]}), "also the types and the order of keys"
    document = Document(Path("x.yaml"), data, {}, {})
    assert validate(document, Anything).content == [content, content]


def below(limit: int, start: int = 1) -> st.SearchStrategy[int]:
    return st.integers(start, limit)


def mapping(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


positive = st.floats(1e-300, 1e300)
rates = st.floats(1e-300, 1000)
tiers = st.one_of(
    mapping({"architecture": st.text(min_size=1)}),
    mapping({"params": st.tuples(below(10**9), below(10**9)).map(sorted)}),
    mapping({"random": st.just(True)}),
)
clients = {"num_clients": st.integers(50, 10**6)}
names = st.lists(st.integers(0, 9) | st.text(min_size=1), min_size=1, max_size=4)
unseen = st.none() | st.integers(1, 9) | st.floats(1e-9, 0.999) | names
partitions = st.one_of(
    mapping({"kind": st.just("iid"), **clients}, min_samples=below(9), unseen=unseen),
    mapping({"kind": st.just("natural")}, clients=st.none() | st.text(min_size=1), unseen=unseen),
    mapping({"kind": st.just("shards"), **clients}, shards_per_client=below(9)),
    mapping({"kind": st.just("dirichlet"), **clients}, beta=positive),
)
recipes = {
    "paper": st.booleans(),
    "smallest_first": st.none() | st.floats(0, 0.99),
    "extrapolate": st.none() | st.booleans(),
}
strategies = st.one_of(
    mapping({"name": st.just("fedavg")}, architecture=st.text(min_size=1), clients=st.just([[0, 49], [20, 20]])),
    mapping({"name": st.just("fedsup")}, num_subnets=below(9, 2), **recipes),
    mapping({"name": st.just("e-fedsup")}, tiers=st.lists(tiers, min_size=1, max_size=4), **recipes),
)
configs = mapping(
    {
        "schema": st.just(1),
        "name": st.from_regex(r"[a-z0-9-]+", fullmatch=True),
        "space": st.text(min_size=1),
        "data": mapping(
            {"dataset": st.sampled_from(registry.names("dataset"))},
            root=st.none() | st.text(min_size=1),
            validation_fraction=st.floats(1e-9, 0.5),
            server_images=st.none() | st.booleans(),
            client_validation_fraction=st.none() | st.floats(0, 0.5),
            augmentation=mapping({}, crop_padding=below(9, 0), flip=st.booleans()),
        ),
        "partition": partitions,
        "strategy": strategies,
        "training": mapping(
            {"rounds": st.integers(30, 10**6)},
            clients_per_round=st.none() | below(50),
            warmup_rounds=below(30, 0),
            learning_rate=rates,
            clip_value=st.none() | rates,
            momentum=st.floats(0, 0.999),
            weight_decay=st.sampled_from([0, 1e-4, 5e-324]),
        ),
    },
    seed=st.integers(0, 2**63 - 1),
    supernet=mapping({}, normalization=st.sampled_from(["batch", "parametric"])),
    engine=mapping({}, workers=below(64)),
    calibration=mapping({}, schedule=st.sampled_from(["one-shot", "layer-wise"])),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


@given(configs)
@settings(max_examples=50)
def test_any_training_config_survives(folder: Path, content: dict[str, Any]):
    config = validate(Document(Path("x.yaml"), content, {}, {}), TrainConfig)
    path = folder / "resolved.yaml"
    path.write_text(dump(config), encoding="utf-8", newline="")
    assert validate(load_yaml(path), TrainConfig) == config
