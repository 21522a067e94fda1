"""What each command hands to the commands: here its functions are replaced by ones that record how they were called."""

import dataclasses
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from fedsup_deploy.cli.main import cli, main
from fedsup_deploy.cli.options import UserPath
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.device.remote.ssh import Access, SshHost
from fedsup_deploy.runs import run as runs

CONFIG = """\
schema: 1
name: tiny
space: digits
data: {dataset: digits}
partition: {kind: iid, num_clients: 4}
strategy: {name: fedsup}
training: {rounds: 3, clients_per_round: 2}
"""


@dataclasses.dataclass
class SearchRequest:
    profiles: list[str]
    run: Path | None
    limits: dict[str, float]
    method: str
    evaluations: int
    seed: int
    out: Path | None
    accuracy: str = "auto"
    risk: float | None = None
    max_artifacts: int | None = None
    resume: bool = False
    percentile: str | None = None
    objective: str = "accuracy"
    prefer: str = "accurate"
    engine: str | None = None


@dataclasses.dataclass
class ExportRequest:
    run: Path | None
    architecture: str | None
    search: Path | None
    profiles: list[str]
    formats: list[str]
    precisions: list[str]
    out: Path
    refine: bool = False
    over_limit: bool = False
    max_accuracy_drop: float = 0.01
    engine: str | None = None


@dataclasses.dataclass
class Saving:
    profile: Path | None = None


@dataclasses.dataclass
class Keeping:
    out: Path | None = None
    saving: Saving | None = None


class Commands:
    """Stands for the commands's functions and remembers the last call."""

    def __init__(self) -> None:
        self.called = ""
        self.args: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def function(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> dict[str, Any]:
            self.called, self.args, self.options = name, args, options
            return {"made by": name}

        return call


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    recorder = Commands()
    contents = {
        "train": ["train"],
        "evaluate": ["evaluate"],
        "search": ["search"],
        "fit_accuracy": ["fit_accuracy"],
        "extract": ["extract"],
        "recalibrate": ["recalibrate"],
        "export": ["export"],
        "demo": ["demo"],
        "measure": ["measure", "measure_on"],
        "verify": ["verify"],
        "inspect": ["inspect"],
        "resolution": ["resolution_costs"],
    }
    package = types.ModuleType("fedsup_deploy.commands")
    vars(package)["runs"] = runs  # only where runs stand is asked of it
    monkeypatch.setitem(sys.modules, "fedsup_deploy.commands", package)
    for module_name, functions in contents.items():
        module = types.ModuleType(f"fedsup_deploy.commands.{module_name}")
        vars(module).update({name: recorder.function(name) for name in functions})
        vars(module).update(SearchRequest=SearchRequest, ExportRequest=ExportRequest, Saving=Saving, Keeping=Keeping)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return recorder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run, a bundle, a search and a config."""
    for name in ("runs/tiny", "bundle", "photos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "search.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_path_may_begin_with_a_home_folder(
    commands: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it comes where no shell expands it."""
    monkeypatch.setenv("HOME", str(folder))
    assert main(["recalibrate", "~/runs/tiny", "--arch", "smallest", "--out=~/a.safetensors"]) == 0
    assert commands.args[:3] == (folder / "runs" / "tiny", "smallest", folder / "a.safetensors")
    assert main(["recalibrate", "runs/tiny", "--arch", "smallest", "--out=~nobody-of-this-name/a"]) == 2
    assert "got '~nobody-of-this-name/a', but there is no home folder ~nobody-of-this-name; " in capsys.readouterr().err


def test_no_parameter_reads_a_path_in_another_way() -> None:
    def parameters(command: click.Command) -> Iterator[click.Parameter]:
        yield from command.params
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from parameters(inner)

    context = click.Context(cli)
    paths = [each for each in parameters(cli) if isinstance(each.type, click.Path)]
    assert len(paths) > 20
    assert {each.name for each in paths if not isinstance(each.type, UserPath)} == set()


RUN = Path("runs/tiny")
FIT = {"evaluations": 300, "measured_by": None, "predictor": "auto", "seed": 0}


def are_listeners(given: object) -> bool:
    """Return whether something is what is told of notes and warnings."""
    return isinstance(given, tuple) and len(given) == 1 and callable(given[0])


@pytest.mark.parametrize(
    ("command", "called", "args", "options"),
    [
        (
            "evaluate runs/tiny --arch largest",
            "evaluate",
            (RUN, "largest"),
            {"split": None, "per_client": False, "schedule": None, "engine": None},
        ),
        (
            "evaluate runs/tiny --arch a12d0108d544 --split validation --per-client --schedule one-shot --engine local",
            "evaluate",
            (RUN, "a12d0108d544"),
            {"split": "validation", "per_client": True, "schedule": "one-shot", "engine": "local"},
        ),
        (
            "extract runs/tiny --arch smallest --out a.safetensors",
            "extract",
            (RUN, "smallest", Path("a.safetensors")),
            {},
        ),
        (
            "recalibrate runs/tiny --arch smallest --out a.safetensors --schedule layer-wise --engine flower",
            "recalibrate",
            (RUN, "smallest", Path("a.safetensors"), "layer-wise", (), "flower"),
            {},
        ),
        ("recalibrate runs/tiny --arch a12d0108d544", "recalibrate", (RUN, "a12d0108d544", None, None, (), None), {}),
        ("verify bundle", "verify", (Path("bundle"), None), {}),
        (f"verify bundle --key {__file__}", "verify", (Path("bundle"), Path(__file__)), {}),
        ("inspect search.json", "inspect", (Path("search.json"), None), {}),
        ("inspect digits --resolution", "resolution_costs", ("digits", (), ()), {}),
        (
            "inspect digits --profile a --resolution 96,8 --profile b",
            "resolution_costs",
            ("digits", (96, 8), ("a", "b")),
            {},
        ),
        (
            "measure bundle",
            "measure",
            (Path("bundle"), 1, "quick", ()),
            {"ruler": None, "images": None, "keeping": Keeping()},
        ),
        (
            "measure bundle --threads 2 --protocol full --ruler tiny.yaml",
            "measure",
            (Path("bundle"), 2, "full", ()),
            {"ruler": Path("tiny.yaml"), "images": None, "keeping": Keeping()},
        ),
        (
            "measure bundle --save-to-profile --on ssh://pi@nano:2222",
            "measure_on",
            (Path("bundle"), Access(SshHost("nano", "pi", 2222)), 1, "quick", ()),
            {"images": None, "keeping": Keeping(saving=Saving())},
        ),
        (
            "measure bundle --on ssh://nano --python python3.12 --install --ssh-config tiny.yaml --protocol full",
            "measure_on",
            (Path("bundle"), Access(SshHost("nano"), "python3.12", True, Path("tiny.yaml")), 1, "full", ()),
            {"images": None, "keeping": Keeping()},
        ),
        (
            "measure bundle --images photos",
            "measure",
            (Path("bundle"), 1, "quick", ()),
            {"ruler": None, "images": Path("photos"), "keeping": Keeping()},
        ),
        (
            "measure bundle --images tiny.yaml --on ssh://nano",
            "measure_on",
            (Path("bundle"), Access(SshHost("nano")), 1, "quick", ()),
            {"images": Path("tiny.yaml"), "keeping": Keeping()},
        ),
        ("demo", "demo", (Path(), ()), {}),
        ("demo --out here", "demo", (Path("here"), ()), {}),
        (
            "search --profile a --profile b.yaml",
            "search",
            (SearchRequest(["a", "b.yaml"], None, {}, "auto", None, 0, None), ()),
            {},
        ),
        (
            "search --profile a --run runs/tiny --max-latency-ms 2.5 --max-macs 1e6 --max-params 1000"
            " --max-memory-mib 1 --max-storage-mib 2 --max-energy-mj 3 --method exact --evaluations 9 --seed 7"
            " --max-resolution 24 --accuracy clients --risk 0.9 --percentile p90 --max-artifacts 2 --resume"
            " --prefer cheaper --objective balanced-accuracy --out s.json --engine local",
            "search",
            (
                SearchRequest(
                    ["a"],
                    RUN,
                    {
                        "latency_ms": 2.5,
                        "macs": 1e6,
                        "params": 1000.0,
                        "memory_mib": 1.0,
                        "storage_mib": 2.0,
                        "energy_mj": 3.0,
                        "resolution": 24.0,
                    },
                    "exact",
                    9,
                    7,
                    Path("s.json"),
                    "clients",
                    0.9,
                    2,
                    resume=True,
                    percentile="p90",
                    objective="balanced_accuracy",
                    prefer="cheaper",
                    engine="local",
                ),
                (),
            ),
            {},
        ),
        ("fit-accuracy", "fit_accuracy", (None,), FIT),
        (
            f"fit-accuracy {RUN} --evaluations 40 --accuracy clients --predictor ridge --seed 3",
            "fit_accuracy",
            (RUN,),
            {"evaluations": 40, "measured_by": "clients", "predictor": "ridge", "seed": 3},
        ),
        (
            "export --search search.json",
            "export",
            (ExportRequest(None, None, Path("search.json"), [], [], [], Path("exports")), ()),
            {},
        ),
        (
            "export --search search.json --run runs/tiny --over-limit",
            "export",
            (ExportRequest(RUN, None, Path("search.json"), [], [], [], Path("exports"), over_limit=True), ()),
            {},
        ),
        (
            "measure bundle --save-to-profile --profile tiny.yaml --out m.json",
            "measure",
            (Path("bundle"), 1, "quick", ()),
            {"ruler": None, "images": None, "keeping": Keeping(Path("m.json"), Saving(Path("tiny.yaml")))},
        ),
        (
            "export --search search.json --refine --engine flower",
            "export",
            (
                ExportRequest(
                    None, None, Path("search.json"), [], [], [], Path("exports"), refine=True, engine="flower"
                ),
                (),
            ),
            {},
        ),
        (
            "export runs/tiny --arch largest --profile a --profile b --format onnx --format pt2"
            " --precision fp32 --out e",
            "export",
            (ExportRequest(RUN, "largest", None, ["a", "b"], ["onnx", "pt2"], ["fp32"], Path("e")), ()),
            {},
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_command_hands_over_what_was_typed(
    command: str,
    called: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
):
    assert main([*command.split(), "--json", "--quiet"]) == 0
    commands.options.pop("listeners", None)
    found = tuple(() if are_listeners(given) else given for given in commands.args)
    assert (commands.called, found, commands.options) == (called, args, options)
    assert json.loads(capsys.readouterr().out) == {"made by": called}


@pytest.mark.usefixtures("folder")
def test_train_hands_over_the_resolved_config(commands: Commands):
    line = "train --config tiny.yaml --set training.rounds=4 --seed 5 --engine local --out r --resume --quiet"
    words = line.split()
    assert main(words) == 0
    config, out = commands.args
    assert isinstance(config, TrainConfig)
    assert (config.training.rounds, config.seed, config.engine.name, out) == (4, 5, "local", Path("r"))
    assert are_listeners(commands.options.pop("listeners")), "notes are shown"
    assert commands.options == {"resume": True, "command": ["fedsup-deploy", *words], "track": ()}


@pytest.mark.usefixtures("folder")
def test_train_leaves_to_the_config_what_was_not_typed(commands: Commands):
    assert main(["train", "--config", "tiny.yaml"]) == 0
    config, out = commands.args
    assert (config.seed, config.training.rounds, out, commands.options["resume"]) == (0, 3, None, False)
    assert len(commands.options["listeners"]) == 1, "progress is shown"


@pytest.mark.usefixtures("folder")
def test_to_resume_where_there_is_no_run_says_that_one_begins(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    for words, folder in (([], "runs/tiny"), (["--out", "mine"], "mine")):
        has_run = (Path(folder) / "config.resolved.yaml").exists()
        assert main(["train", "--config", "tiny.yaml", "--resume", *words]) == 0
        note = f"note: no run at {folder} to go on with; starting one"
        assert (note in capsys.readouterr().err) == (not has_run)
        assert commands.options["resume"] is True


@pytest.mark.usefixtures("folder")
def test_an_interrupted_training_says_how_to_go_on(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_args: Any, **_options: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["fedsup_deploy.commands.train"], "train", interrupted)
    words = ["train", "--config", "tiny.yaml", "--out", "made"]
    assert main(words) == 130
    assert capsys.readouterr().err == "interrupted: before the first checkpoint, so nothing was kept\n"
    Path("made").mkdir()
    Path("made", runs.CONFIG).touch()
    assert main(words) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("export", "expected either --search FILE, or RUN with --arch"),
        ("export runs/tiny --arch largest --search search.json", "expected either --search FILE, or RUN with --arch"),
        ("export runs/tiny --arch largest", "RUN, --arch and --profile are needed together"),
        ("export runs/tiny --profile a", "RUN, --arch and --profile are needed together"),
        ("export runs/tiny --arch largest --profile a --refine", "--refine goes with --search"),
        ("export --arch largest --profile a", "RUN, --arch and --profile are needed together"),
        ("export runs/tiny --arch largest --profile a --run runs/tiny", "--run goes with --search"),
        ("measure bundle --profile tiny.yaml", "--profile names what --save-to-profile writes to"),
        ("export --search search.json --precision int3", "'int3' is not one of 'fp32', 'int8'"),
        ("export --search search.json --format tflite", "'tflite' is not one of"),
        ("export --search nope.json", "File 'nope.json' does not exist"),
        ("evaluate nope --arch largest", "Directory 'nope' does not exist"),
        ("evaluate runs/tiny", "Missing option '--arch'"),
        ("evaluate runs/tiny --arch largest --split train", "'train' is not one of"),
        *(
            (f"{command} runs/tiny --arch medium", "got 'medium', expected largest, smallest, an arch_id")
            for command in ("evaluate", "recalibrate", "extract --out x.safetensors", "export --profile a")
        ),
        ("extract runs/tiny --arch largest", "Missing option '--out'"),
        ("search", "Missing option '--profile'"),
        ("search --profile a --max-latency-ms nan", "got nan, expected a number above 0"),
        ("search --profile a --max-latency-ms inf", "got inf, expected a number above 0"),
        ("search --profile a --max-latency-ms 0", "got 0.0, expected a number above 0"),
        *(
            (f"export runs/tiny --arch largest --profile a --max-accuracy-drop {points}", "expected 0 to 100 points")
            for points in ("-1", "101", "inf", "nan")
        ),
        ("search --profile a --max-latency-ms fast", "'fast' is not a valid float"),
        ("search --profile a --method best", "'best' is not one of"),
        ("search --profile a --evaluations 0", "0 is not in the range x>=1"),
        ("measure bundle --threads 0", "0 is not in the range x>=1"),
        ("train", "Missing option '--config'"),
        ("train --config tiny.yaml --engine cloud", "'cloud' is not"),
        ("train --config tiny.yaml --seed -1", "-1 is not in the range x>=0"),
        ("train --config tiny.yaml --set training.roundz=3", "--set training.roundz: unknown key 'roundz' in training"),
        ("train --config tiny.yaml --set training.rounds", "expected key.path=value"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_impossible_requests_do_not_reach_the_pipeline(
    command: str, expected: str, commands: Commands, capsys: pytest.CaptureFixture[str]
):
    assert main([*command.split(), "--json"]) == 2
    out, err = capsys.readouterr()
    assert commands.called == ""
    assert expected in err
    assert err.count("\n") == 1
    assert expected in json.loads(out)["error"]["message"]
