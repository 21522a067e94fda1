"""The training config: defaults, ranges, checks between settings, and paths."""

import ast
import inspect
import itertools
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from fedsup_deploy import registry, resources
from fedsup_deploy.config import schema
from fedsup_deploy.config.load import apply_overrides, dump, load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.config.section import Section
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.server.assignment import Tier

MINIMAL = """\
schema: 1
name: digits
space: digits
data: {dataset: digits}
partition: {kind: dirichlet, num_clients: 20}
strategy: {name: e-fedsup}
training: {rounds: 30}
"""

FULL = """\
schema: 1
name: digits
seed: 0
space: digits
data:
  dataset: digits
  root: null
  validation_fraction: 0.15
  augmentation: {crop_padding: 0, flip: false}
partition: {kind: dirichlet, num_clients: 20, beta: 0.5, min_samples: 2}
supernet: {normalization: batch}
strategy:
  name: e-fedsup
  tiers:
    - {architecture: smallest}
    - {architecture: largest}
    - {params: [750000, 1000000]}
    - {random: true}
training: {rounds: 30, clients_per_round: null, local_epochs: 1, batch_size: 32, learning_rate: 0.1, warmup_rounds: 3,
           final_learning_rate: 0.0, momentum: 0.9, weight_decay: 0.0001, clip_value: 1.0, checkpoint_every: 5,
           evaluate_every: 5}
engine: {name: local, workers: 2}
calibration: {samples_per_client: 64, batch_size: 64, schedule: layer-wise}
"""


def config_of(folder: Path, text: str = MINIMAL, *overrides: str) -> TrainConfig:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return validate(apply_overrides(load_yaml(path), overrides), TrainConfig)


def problem(folder: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(folder, MINIMAL, *overrides)
    return str(caught.value)


def test_rare_classes_count_for_more_in_one_way_at_most(tmp_path: Path):
    """Logit adjustment is what a config that says nothing has."""
    expected = "training.class_weights: got true, expected false, or training.logit_adjustment false"
    assert expected in problem(tmp_path, "training.class_weights=true")
    training = config_of(tmp_path, MINIMAL, "training.class_weights=true", "training.logit_adjustment=false").training
    assert (training.class_weights, training.logit_adjustment) == (True, False)
    assert not config_of(tmp_path, MINIMAL).training.class_weights


def test_what_is_not_said_has_the_documented_defaults(tmp_path: Path):
    assert config_of(tmp_path, MINIMAL) == config_of(tmp_path, FULL)


@pytest.mark.parametrize(
    "key",
    ["schema", "name", "space", "data", "partition", "strategy", "training"],
)
def test_what_has_no_default_is_asked_for(tmp_path: Path, key: str):
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(key)]
    with pytest.raises(ConfigError, match=f"x.yaml:1: missing key '{key}'$"):
        config_of(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("data={}", "missing key 'dataset' in data"),
        ("partition={kind: iid}", "missing key 'num_clients' in partition of kind 'iid'"),
        (
            "partition={kind: natural, num_clients: 3}",
            "unknown key 'num_clients' in partition of kind 'natural'; did you mean 'clients'?",
        ),
        ("strategy={}", "missing key 'name' in strategy"),
        ("training={}", "missing key 'rounds' in training"),
    ],
)
def test_missing_keys_of_sections(tmp_path: Path, assignment: str, expected: str):
    assert problem(tmp_path, assignment) == f"--set {assignment.partition('=')[0]}: {expected}"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("schema", "2", "got 2, expected 1, the layout this version of fedsup-deploy reads"),
        ("schema", "true", "got true, expected an integer"),
        ("name", "\u201cdigits\u201d", "got '\u201cdigits\u201d', expected text that matches ^[a-z0-9-]+$"),
        ("name", "Digits", "got 'Digits', expected text that matches ^[a-z0-9-]+$"),
        ("seed", "-1", "got -1, expected >= 0"),
        ("data.dataset", "digts", "unknown dataset 'digts'; did you mean 'digits'?"),
        ("data.validation_fraction", "0", "got 0, expected > 0"),
        ("data.validation_fraction", "0.51", "got 0.51, expected <= 0.5"),
        ("data.client_validation_fraction", "-0.1", "got -0.1, expected >= 0"),
        ("data.client_validation_fraction", "0.6", "got 0.6, expected <= 0.5"),
        ("data.augmentation.crop_padding", "-1", "got -1, expected >= 0"),
        ("data.augmentation.crop_padding", "257", "got 257, expected <= 256"),
        ("data.augmentation.flip", "1", "got 1, expected true or false"),
        ("partition.num_clients", "0", "got 0, expected >= 1"),
        ("partition.beta", "0", "got 0, expected > 0"),
        ("supernet.normalization", "layer", "got 'layer', expected 'batch' or 'parametric'"),
        ("strategy", "{name: fedsup, num_subnets: 1}", "strategy.num_subnets: got 1, expected >= 2"),
        ("training.rounds", "0", "got 0, expected >= 1"),
        ("training.rounds", "'3'", "got '3', expected an integer"),
        ("training.learning_rate", "0", "got 0, expected > 0"),
        ("training.learning_rate", "true", "got true, expected a number"),
        ("training.learning_rate", "1e300", "got 1e+300, expected <= 1000"),
        ("training.weight_decay", "1e308", "got 1e+308, expected <= 1000"),
        ("training.rounds", "9223372036854775807", "got 9223372036854775807, expected <= 1000000"),
        ("training.batch_size", "65537", "got 65537, expected <= 65536"),
        ("partition.num_clients", "1000001", "got 1000001, expected <= 1000000"),
        ("calibration.samples_per_client", "1000001", "got 1000001, expected <= 1000000"),
        ("federation.deadline_s", "1e10", "got 10000000000.0, expected <= 3.1536e+07"),
        ("name", "a" * 65, "got '" + "a" * 57 + "...', expected at most 64 characters"),
        ("training.momentum", "1", "got 1, expected < 1"),
        ("training.clip_value", "0", "got 0, expected > 0"),
        ("engine.workers", "0", "got 0, expected >= 1"),
        ("engine.name", "xyz", f"unknown engine 'xyz'; known: {', '.join(sorted(registry.names('engine')))}"),
        ("calibration.schedule", "exact", "got 'exact', expected 'one-shot' or 'layer-wise'"),
    ],
)
def test_values_out_of_range(tmp_path: Path, path: str, value: str, expected: str):
    assert problem(tmp_path, f"{path}={value}") == f"--set {path}: {expected}"


@pytest.mark.parametrize(
    ("kind", "option"),
    [("iid", "beta"), ("iid", "shards_per_client"), ("shards", "beta"), ("dirichlet", "shards_per_client")],
)
def test_options_of_another_partition_are_refused(tmp_path: Path, kind: str, option: str):
    message = problem(tmp_path, f"partition={{kind: {kind}, num_clients: 20, {option}: 1}}")
    assert message.startswith(f"--set partition: unknown key '{option}' in partition of kind '{kind}'")


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        ("{}", "strategy.tiers.0: got 0 of 'architecture', 'params' and 'random: true', expected exactly one"),
        (
            "{random: false}",
            "strategy.tiers.0: got 0 of 'architecture', 'params' and 'random: true', expected exactly one",
        ),
        (
            "{architecture: largest, random: true}",
            "strategy.tiers.0: got 2 of 'architecture', 'params' and 'random: true', expected exactly one",
        ),
        ("{params: [3, 2]}", "strategy.tiers.0.params: got [3, 2], expected [lowest, highest]"),
        ("{params: [3]}", "strategy.tiers.0.params: got [3], expected more entries"),
        ("{params: [0, 2]}", "strategy.tiers.0.params.0: got 0, expected >= 1"),
    ],
)
def test_a_tier_says_exactly_one_thing(tmp_path: Path, tier: str, expected: str):
    assert problem(tmp_path, f"strategy.tiers=[{tier}]") == f"--set strategy.tiers: {expected}"


def test_a_tier_is_written_with_only_what_it_says():
    assert Tier(params=(2, 3)).model_dump(mode="json") == {"params": [2, 3]}
    assert Tier(random=True).model_dump(mode="json") == {"random": True}


def test_an_e_fedsup_run_needs_a_tier(tmp_path: Path):
    assert problem(tmp_path, "strategy.tiers=[]") == "--set strategy.tiers: got [], expected at least 1 entries"


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        ("[[0, 20]]", "--set strategy: strategy.clients: got [[0, 20]], expected no client after the last one, 19"),
        ("[[9, 8]]", "--set strategy: strategy.clients.0: got [9, 8], expected [first, last]"),
        ("[]", "--set strategy: strategy.clients: got [], expected at least 1 entries"),
    ],
)
def test_clients_of_fedavg_that_there_are_not(tmp_path: Path, clients: str, expected: str):
    assert problem(tmp_path, f"strategy={{name: fedavg, clients: {clients}}}") == expected


def test_fewer_clients_of_fedavg_than_take_part_in_a_round(tmp_path: Path):
    few = "strategy={name: fedavg, clients: [[0, 4], [3, 8]]}"
    expected = "training.clients_per_round: got 10, expected <= the clients of strategy.clients (9)"
    assert problem(tmp_path, few, "training.clients_per_round=10").endswith(expected)
    assert config_of(tmp_path, MINIMAL, few, "training.clients_per_round=9").training.clients_per_round == 9


def test_more_clients_per_round_than_clients(tmp_path: Path):
    expected = "--set training.clients_per_round: got 21, expected <= partition.num_clients (20)"
    assert problem(tmp_path, "training.clients_per_round=21") == expected
    assert config_of(tmp_path, MINIMAL, "training.clients_per_round=20").training.clients_per_round == 20


def test_a_default_that_does_not_fit_is_called_a_default(tmp_path: Path):
    what = "training.warmup_rounds: got the default 3, expected <= training.rounds (2)"
    assert problem(tmp_path, "training.rounds=2") == (
        f"{tmp_path / 'x.yaml'}:7: {what}, as of --set training.warmup_rounds=2"
    )
    assert config_of(tmp_path, MINIMAL, "training.rounds=2", "training.warmup_rounds=2").training.warmup_rounds == 2
    assert config_of(tmp_path, MINIMAL, "training.rounds=3").training.warmup_rounds == 3


def test_all_misfits_are_counted(tmp_path: Path):
    message = problem(tmp_path, "training.clients_per_round=21", "training.warmup_rounds=31")
    assert message.endswith("(and 1 more)")


def test_every_setting_says_what_it_means():
    inside = [value for value in vars(schema).values() if isinstance(value, type)]
    registered = [registry.resolve(kind, name) for kind in ("partition", "strategy") for name in registry.names(kind)]
    bases = {base for section in [*inside, *registered, Tier] for base in section.__mro__}
    sections = [base for base in bases if issubclass(base, Section)]
    assert len(sections) > 10
    for section in sections:
        assert section.__doc__
        for setting in _settings_without_docstring(section):
            pytest.fail(f"{section.__name__}.{setting} has no docstring")


def _settings_without_docstring(section: type[Section]) -> list[str]:
    # Read from the source here: pydantic's `use_attribute_docstrings` does it whenever the module is imported, which
    # took a tenth of the time of `search`.
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    missing = []
    for setting, after in itertools.pairwise([*definition.body, ast.Pass()]):
        said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and bool(after.value.value)
        name = ast.unparse(setting.target) if isinstance(setting, ast.AnnAssign) else ""
        if name in section.model_fields and not said:
            missing.append(name)
    return missing


def test_a_config_cannot_be_changed(tmp_path: Path):
    config = config_of(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_a_shipped_space_keeps_its_name(tmp_path: Path):
    (tmp_path / "x.yaml").write_text(MINIMAL, encoding="utf-8")
    config = load_train_config(tmp_path / "x.yaml")
    assert config.space == "digits"
    assert str(tmp_path) not in dump(config)


def test_the_path_of_a_shipped_space_becomes_its_name(tmp_path: Path):
    shipped = resources.shipped_folder("configs/spaces") / "digits.yaml"
    (tmp_path / "x.yaml").write_text(MINIMAL, encoding="utf-8")
    assert load_train_config(tmp_path / "x.yaml", [f"space={shipped}"]).space == "digits"


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "small.yaml").write_text("schema: 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    text = MINIMAL.replace("space: digits", "space: small.yaml").replace("digits}", "digits, root: images}")
    (tmp_path / "there" / "x.yaml").write_text(text, encoding="utf-8")

    config = load_train_config(tmp_path / "there" / "x.yaml")

    assert config.space == str(tmp_path / "there" / "small.yaml")
    assert config.data.root == tmp_path / "there" / "images"


def test_paths_on_the_command_line_are_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "small.yaml").write_text("schema: 1\n", encoding="utf-8")
    (tmp_path / "x.yaml").write_text(MINIMAL, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")

    config = load_train_config(tmp_path / "x.yaml", ["space=small.yaml", "data.root=images"])

    assert config.space == str(tmp_path / "here" / "small.yaml")
    assert config.data.root == tmp_path / "here" / "images"


@pytest.mark.parametrize("override", ["space=small.yaml", "data.root=images"])
def test_paths_that_the_config_of_a_run_could_not_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str
):
    """Nobody could read that run again."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "small.yaml").write_text("schema: 1\n", encoding="utf-8")
    Path("x.yaml").write_text(MINIMAL, encoding="utf-8")
    assert load_train_config("x.yaml").space == "digits"
    with pytest.raises(ConfigError, match=r"caf\udce9/(small\.yaml|images): not UTF-8 in this locale; rename it, or"):
        load_train_config("x.yaml", [override])


def test_a_root_that_no_file_can_have_is_refused(tmp_path: Path):
    (tmp_path / "x.yaml").write_text(MINIMAL, encoding="utf-8")
    for root, name in (('"a\\0b"', "a\x00b"), ("x" * 2000, "x" * 2000)):
        with pytest.raises(ConfigError, match=f"{name}: no file can have this name$"):
            load_train_config(tmp_path / "x.yaml", [f"data.root={root}"])


def test_a_path_may_begin_with_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "small.yaml").write_text("schema: 1\n", encoding="utf-8")
    text = MINIMAL.replace("space: digits", "space: ~/small.yaml").replace("digits}", "digits, root: ~/images}")
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "y.yaml").write_text(MINIMAL, encoding="utf-8")

    for config in (
        load_train_config(tmp_path / "x.yaml"),
        load_train_config(tmp_path / "y.yaml", ["space=~/small.yaml", "data.root=~/images"]),
    ):
        assert config.space == str(tmp_path / "home" / "small.yaml")
        assert config.data.root == tmp_path / "home" / "images"

    expected = "--set data.root: got '~nobody-of-this-name/x', but there is no home folder ~nobody-of-this-name; "
    with pytest.raises(ConfigError) as caught:
        load_train_config(tmp_path / "y.yaml", ["data.root=~nobody-of-this-name/x"])
    assert str(caught.value).startswith(expected)


def test_an_absolute_root_stays(tmp_path: Path):
    (tmp_path / "x.yaml").write_text(MINIMAL, encoding="utf-8")
    assert load_train_config(tmp_path / "x.yaml", ["data.root=/data"]).data.root == Path("/data")


def test_an_unknown_space_is_named_with_its_line(tmp_path: Path):
    (tmp_path / "x.yaml").write_text(MINIMAL.replace("space: digits", "space: digts"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_train_config(tmp_path / "x.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'x.yaml'}:3: space: no search space 'digts'")
    assert "did you mean 'digits'?" in str(caught.value)


def test_an_unknown_config_is_an_error():
    with pytest.raises(ConfigError, match="no config 'nope'"):
        load_train_config("nope")


def test_sections_are_models():
    assert issubclass(TrainConfig, BaseModel)


@pytest.mark.parametrize("text", ["0", "-1", "0.0", "1.5", "[]", "true", "'yard'", '["yard", -1]', "[[1]]", "[true]"])
def test_what_is_no_number_share_or_list_of_clients_is_not_unseen(tmp_path: Path, text: str):
    expected = f"got {text}, expected a number of clients, a share between 0 and 1, or a list of clients"
    assert problem(tmp_path, f"partition.unseen={text}") == f"--set partition.unseen: {expected}"


@pytest.mark.parametrize(
    ("text", "unseen"),
    [("2", 2), ("0.25", 0.25), ("[yard, '7', 7]", ("yard", "7", 7)), ("null", None)],
)
def test_who_is_unseen(tmp_path: Path, text: str, unseen: object):
    assert config_of(tmp_path, MINIMAL, f"partition.unseen={text}").partition.unseen == unseen


def test_clients_as_they_are_need_no_other_key(tmp_path: Path):
    """The server then has no images, and clients hold a fifth out; a fraction is theirs where the server has none."""
    natural = config_of(tmp_path, MINIMAL, "partition={kind: natural}")
    assert (natural.server_has_images, natural.held_out_fraction) == (False, 0.2)
    assert natural.partition.stated_clients is None
    drawn = config_of(tmp_path, MINIMAL)
    assert (drawn.server_has_images, drawn.held_out_fraction, drawn.clients_may_hold_out) == (True, 0.0, False)
    alone = config_of(tmp_path, MINIMAL, "data.server_images=false")
    assert (alone.server_has_images, alone.held_out_fraction) == (False, 0.2)
    stated = config_of(tmp_path, MINIMAL, "partition={kind: natural}", "data.client_validation_fraction=0")
    assert (stated.held_out_fraction, stated.clients_may_hold_out) == (0, True), "they may bring images"


def test_a_server_may_bring_images_of_its_own(tmp_path: Path):
    """Their root starts where that of the clients' images does, and `server_images` may not say otherwise."""
    server = "data.server={dataset: npz, root: own.npz}"
    (tmp_path / "x.yaml").write_text(MINIMAL.replace("digits}", "digits, server: {dataset: npz, root: own.npz}}"))
    natural = load_train_config(tmp_path / "x.yaml", ["partition={kind: natural}"])
    assert natural.server_has_images
    assert natural.data.server is not None
    assert natural.data.server.root == tmp_path / "own.npz"
    with pytest.raises(ConfigError, match=r"data\.server_images: got false, expected true or null, as there is data\."):
        config_of(tmp_path, MINIMAL, server, "data.server_images=false")


def test_without_a_superlink_nobody_can_join(tmp_path: Path):
    engine = "engine={name: flower, superlink: 'here:1'}"
    assert config_of(tmp_path, MINIMAL, "federation.joining=true", engine).federation.joining
    with pytest.raises(ConfigError, match=r"federation\.joining: got true, expected false: without engine\.superlink"):
        config_of(tmp_path, MINIMAL, "federation.joining=true")
