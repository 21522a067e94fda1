"""Who the clients of a run are, and who of them takes part."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ConfigError, DataError, FedsupError
from fedsup_deploy.federation.client import HELD_OUT, TESTED, TRAINED
from fedsup_deploy.federation.simulation import CLIENTS, TEST, UNSEEN, VALIDATION, FederatedData
from fedsup_deploy.runs.clients import ClientFacts
from fedsup_deploy.runs.run import load_data

CONFIG = """
schema: 1
name: mine
space: digits
data: {dataset: npz, root: set.npz}
partition: {kind: natural}
strategy: {name: fedavg}
training: {rounds: 1, warmup_rounds: 0}
"""
#: Of each image the only pixel is its number, by which it is told from all others; classes take turns.
CLIENTS_OF = {"train": "aaaaaaaaaabbbbbcccccccccd", "val": "aaab", "test": "bbbe"}


def data_of(folder: Path, *overrides: str, clients: dict[str, str] | None = None) -> FederatedData:
    """Return the data of 25, 4 and 4 images; `clients` has a letter for each image of splits that are of clients."""
    arrays: dict[str, Any] = {}
    start = 0
    for split, count in (("train", 25), ("val", 4), ("test", 4)):
        numbers = np.arange(start, start + count)
        arrays |= {f"{split}_images": numbers.astype(np.uint8)[:, None, None], f"{split}_labels": numbers % 2}
        start += count
    given_clients = CLIENTS_OF if clients is None else clients
    arrays |= {f"{split}_clients": list(letters) for split, letters in given_clients.items()}
    np.savez(folder / "set.npz", **arrays)
    (folder / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    return load_data(load_train_config(folder / "mine.yaml", overrides))


def held(data: FederatedData, population: str = CLIENTS) -> dict[str, dict[str, set[int]]]:
    """Return the numbers of the images that each client of a population has, by kind."""
    members = data.populations()[population]
    found: dict[str, dict[str, set[int]]] = {}
    for info in members.infos():
        kinds = {}
        for kind in (TRAINED, HELD_OUT, TESTED):
            if info.num_images(kind):
                pixels = members.client(info.client).images(kind).images_NHWC
                kinds[kind] = set(pixels.ravel().tolist())
                assert len(kinds[kind]) == info.num_images(kind) == len(pixels)
        found[data.names[info.client]] = kinds
    return found


def problem(folder: Path, *overrides: str, clients: dict[str, str] | None = None) -> str:
    with pytest.raises(FedsupError) as caught:
        data_of(folder, *overrides, clients=clients)
    assert isinstance(caught.value, ConfigError | DataError)
    return str(caught.value)


def test_names_that_differ_only_in_case_or_spaces_are_said(tmp_path: Path) -> None:
    """Of classes and of clients; `a b` and `ab` are two names."""
    arrays: dict[str, Any] = {"classes": ["Scene", "scene", "dog", "scene "]}
    arrays["train_clients"] = ["Gate", "gate", " gate "] * 5 + ["a b", "ab"] * 5
    for split in ("train", "test"):
        arrays |= {
            f"{split}_images": np.arange(25, dtype=np.uint8)[:, None, None],
            f"{split}_labels": np.arange(25) % 4,
        }
    np.savez(tmp_path / "set.npz", **arrays)
    (tmp_path / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    alike = "whose names differ only in case or spaces"
    notes = load_data(load_train_config(tmp_path / "mine.yaml")).notes
    assert [note for note in notes if alike in note] == [
        f"classes {alike}: 3 ('Scene', 'scene', 'scene '); if they are one, give them one name",
        f"clients {alike}: 3 (' gate ', 'Gate', 'gate'); if they are one, give them one name",
    ]
    assert not any(alike in note for note in data_of(tmp_path).notes)


def test_clients_hold_what_is_theirs(tmp_path: Path) -> None:
    """Whoever brings images to hold out trains on all others; `d` has too few and `e` none; the server has nothing."""
    data = data_of(tmp_path)
    found = held(data)
    assert found["a"] == {TRAINED: set(range(10)), HELD_OUT: {25, 26, 27}}
    assert found["b"] == {TRAINED: set(range(10, 15)), HELD_OUT: {28}, TESTED: {29, 30, 31}}
    assert found["c"][TRAINED] | found["c"][HELD_OUT] == set(range(15, 24))
    assert len(found["c"][HELD_OUT]) == 2, "a fifth"
    assert data.names == ("a", "b", "c")
    assert data.populations().keys() == {CLIENTS}
    assert data.notes == (
        "clients left out, with fewer than partition.min_samples (2) images to train on: 2 (d, e), their images: 2",
        "clients: 3, with 5 to 10 images to train on (median 9)",
        "clients with validation images of their own: 2, images: 4",
        "clients with test images of their own: 1, images: 3",
    )


@given(
    clients=st.fixed_dictionaries(
        {"train": st.text("abcdef", min_size=25, max_size=25)},
        optional={split: st.text("abcdefg", min_size=4, max_size=4) for split in ("val", "test")},
    ),
    unseen=st.sampled_from(["null", "1", "2", "0.3"]),
    min_samples=st.integers(1, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_every_image_is_at_one_client_or_named(
    tmp_path_factory: pytest.TempPathFactory, clients: dict[str, str], unseen: str, min_samples: int, seed: int
) -> None:
    overrides = (f"partition.unseen={unseen}", f"partition.min_samples={min_samples}", f"seed={seed}")
    try:
        data = data_of(tmp_path_factory.mktemp("set"), *overrides, clients=clients)
    except (ConfigError, DataError):
        return
    of_all = [held(data, each) for each in (CLIENTS, UNSEEN) if each in data.populations()]
    having = [(client, kinds) for found in of_all for client, kinds in found.items()]
    owned = [(number, client) for client, kinds in having for numbers in kinds.values() for number in numbers]
    assert len(owned) == len({number for number, _ in owned})
    assert sum(map(len, of_all)) == len(data.names)
    starts = {"train": 0, "val": 25, "test": 29}
    whose = {starts[split] + place: client for split, of in clients.items() for place, client in enumerate(of)}
    assert set(owned) == {(number, client) for number, client in whose.items() if client in data.names}
    lost = len(whose) - len(owned)
    told = [note.rpartition(" ")[2] for note in data.notes if note.startswith("clients left out, ")]
    assert told == ([str(lost)] if lost else [])


@pytest.mark.parametrize(
    ("unseen", "names"),
    [("[b]", {"b"}), ("[e, d]", {"d", "e"}), ("[c]", {"c"}), ("1", None), ("0.01", None), ("0.4", None)],
)
def test_unseen_clients_take_no_part(tmp_path: Path, unseen: str, names: set[str] | None) -> None:
    """By name also those that have too few images to train on. What they have, they have whole."""
    data = data_of(tmp_path, f"partition.unseen={unseen}")
    of_unseen, of_seen = held(data, UNSEEN), held(data)
    assert len(of_unseen) == (1 if names is None else len(names))
    assert names is None or of_unseen.keys() == names
    assert not of_unseen.keys() & of_seen.keys()
    assert of_unseen.keys() | of_seen.keys() >= {"a", "b", "c"}
    whole = {"a": 13, "b": 9, "c": 9, "d": 1, "e": 1}
    assert {name: sum(map(len, kinds.values())) for name, kinds in of_unseen.items()} == {
        n: whole[n] for n in of_unseen
    }
    assert all(HELD_OUT not in kinds or kinds[HELD_OUT] <= {25, 26, 27, 28} for kinds in of_unseen.values())
    facts = ClientFacts.of(data)
    assert (set(facts.unseen), facts.num_clients) == (set(of_unseen), len(of_seen))
    assert data.notes[-1].startswith(f"unseen clients, which only evaluate asks: {len(of_unseen)} (")


def test_who_is_unseen_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    made = {data_of(tmp_path, f"partition.unseen={unseen}").fingerprint for unseen in ("null", "[a]", "[b]", "[c]")}
    assert len(made) == 4


def test_own_images_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    fewer = [{split: of for split, of in CLIENTS_OF.items() if split != left_out} for left_out in ("", "val", "test")]
    moved = {**CLIENTS_OF, "test": "bbab"}
    assert len({data_of(tmp_path, clients=clients).fingerprint for clients in (*fewer, moved)}) == 4


def test_a_drawn_client_stays_drawn_where_more_are(tmp_path: Path) -> None:
    one, two = (set(ClientFacts.of(data_of(tmp_path, f"partition.unseen={n}")).unseen) for n in (1, 2))
    assert one < two


@pytest.mark.parametrize("kind", ["iid", "shards", "dirichlet, beta: 0.5"])
def test_clients_of_any_partition_may_be_unseen(tmp_path: Path, kind: str) -> None:
    """They are called by their numbers; tiers are equal runs of those that take part."""
    several = "strategy={name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}"
    overrides = (f"partition={{kind: {kind}, num_clients: 5, unseen: [0, '3']}}", several)
    data = data_of(tmp_path, *overrides, clients={})
    assert (data.unseen, data.seen) == ((0, 3), (1, 2, 4))
    assert data.names == ()
    infos = data.populations()[CLIENTS].infos()
    assert [(info.client, info.tier) for info in infos] == [(1, 0), (2, 0), (4, 1)]
    assert [info.client for info in data.populations()[UNSEEN].infos()] == [0, 3]
    facts = ClientFacts.of(data)
    assert (facts.unseen, facts.names) == (("0", "3"), None)
    assert data.notes == (f"unseen clients, which only evaluate asks: 2 (0, 3), their images: {_num_unseen(data)}",)


def _num_unseen(data: FederatedData) -> int:
    return sum(info.num_of_all for info in data.populations()[UNSEEN].infos())


def test_a_server_may_have_what_is_of_no_client(tmp_path: Path) -> None:
    of_train = {"train": CLIENTS_OF["train"]}
    data = data_of(tmp_path, "data.server_images=true", clients=of_train)
    assert data.populations().keys() == {CLIENTS, VALIDATION, TEST}
    assert all(HELD_OUT not in kinds for kinds in held(data).values())
    nothing = data_of(tmp_path, clients=of_train)
    assert nothing.populations().keys() == {CLIENTS}
    unused = "images of no client are not used, as the server has none (data.server_images)"
    cure = "say whose they are in val_clients and test_clients or set data.server_images: true"
    assert nothing.notes[0] == f"{unused}: validation (4), test (4); {cure}"
    theirs = data_of(tmp_path, clients={**of_train, "val": CLIENTS_OF["val"]})
    assert theirs.notes[0] == f"{unused}: test (4); say whose they are in test_clients"
    assert "expected false or null" in problem(
        tmp_path, "data.server_images=true", clients={**of_train, "val": CLIENTS_OF["val"]}
    )


def test_of_other_partitions_it_is_said_as_well_what_nobody_uses(tmp_path: Path) -> None:
    settings_of = ("partition={kind: iid, num_clients: 3}", "data.server_images=false")
    assert (
        data_of(tmp_path, *settings_of, clients={})
        .notes[0]
        .endswith(": validation (4), test (4); set data.server_images: true")
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.server_images=true"], "data.server_images: got true, but all images are of clients; expected false or"),
        (["partition.unseen=[z]"], "partition.unseen: no client 'z'; known: a, b, c"),
        (["partition.unseen=3"], "partition.unseen: got 3, expected fewer than all of the 3 clients"),
        (["partition.unseen=[a, b, c]"], "partition.unseen: got 3 clients, expected fewer than all of the 3 clients"),
        (["partition.min_samples=50"], "npz: no client has 50 images to train on; lower partition.min_samples or add"),
        (
            ["training.clients_per_round=4"],
            "training.clients_per_round: got 4, expected <= the number of clients of the",
        ),
        (["strategy={name: fedavg, clients: [[0, 3]]}"], "strategy.clients: got 3, expected no client after the last"),
        (["partition.clients=list.csv"], "partition.clients: npz takes no list of clients; remove it, or"),
        (["data={dataset: digits}"], "partition: natural, but digits does not say whose images are whose"),
    ],
    ids=["server", "unknown", "all", "all by name", "small", "round", "strategy", "list", "digits"],
)
def test_what_does_not_fit_to_the_clients_is_said_in_one_line(
    tmp_path: Path, overrides: list[str], expected: str
) -> None:
    message = problem(tmp_path, *overrides)
    assert message.startswith(expected)
    assert "\n" not in message


def test_a_class_that_only_unseen_clients_have_cannot_be_learned(tmp_path: Path) -> None:
    """Classes take turns: every second image of `a` is given to `b`."""
    clients = {"train": "ab" * 12 + "a"}
    message = problem(tmp_path, "partition.unseen=[b]", clients=clients)
    assert message.startswith("npz: no client that is trained on has an image of class 1; choose other clients for")
