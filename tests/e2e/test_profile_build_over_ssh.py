"""`profile build --on`: the profile of another machine, built from here over a real ssh server, cut and resumed."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ssh_server import Server

from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.building import workplace as building
from fedsup_deploy.device.building.assemble import About, assemble, device_facts
from fedsup_deploy.device.building.bench import There
from fedsup_deploy.device.building.plan import BuildPlan, plan_build
from fedsup_deploy.device.building.times import times_of
from fedsup_deploy.device.building.workplace import Workplace
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.device.session import order_of_round
from fedsup_deploy.errors import ConfigError, DeviceError, GateError
from fedsup_deploy.ondevice import machine
from fedsup_deploy.ondevice.session_records import SessionEvent

BUILD = ("profile", "build", "--space", "digits", "--name", "device")
JOURNAL = Path("profiles/.device.build/journal.jsonl")


def ignored(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def plan() -> BuildPlan:
    return plan_build(load_space("digits"), num_networks=4, num_heldout=8)


def with_made_times(events: Sequence[SessionEvent]) -> list[SessionEvent]:
    """Return the events with the same times in the place of those measured: of each model, state and round its own."""
    made: list[Any] = []
    for event in events:
        if event["event"] == "visit":
            told = f"{event['model']}/{event['state']}/{event['round'] % 2}".encode()
            ms = 1 + int.from_bytes(hashlib.sha256(told).digest()[:2], "big") / 2**20
            made.append({**event, "min_ms": ms, "p10_ms": ms, "p50_ms": 1.1 * ms, "p90_ms": 1.2 * ms, "num_runs": 9})
        else:
            made.append({**event, "seconds": float(event["done"])} if event["event"] == "round" else event)
    return made


def built(workplace: Workplace) -> str:
    """Return the profile that comes of a build with made times."""
    plan = workplace.plan
    times = times_of(with_made_times(workplace.events), plan.heldout_models, "")
    return dump(assemble(plan, times, About("device", memory_mib=workplace.facts.memory_mib)).profile)


def test_a_build_that_was_cut_twice_is_that_of_an_undisturbed_one_there(
    server: Server,
    plan: BuildPlan,
    device_python: Callable[..., str],
    processes: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for times: with the same in the place of those measured, they give the same profile, byte for byte.

    Every model was timed in every state exactly once in each round, in that round's order.
    """
    access = server.access(python=device_python())

    def cut_after(rounds: int) -> Callable[[str, int, int], None]:
        seen = Counter[str]()

        def progress(stage: str, _done: int, _total: int) -> None:
            seen[stage] += 1
            if stage.startswith("timing") and seen[stage] == rounds:
                server.cut(processes())

        return progress

    def begin_or_resume() -> Workplace:
        workplace = Workplace(tmp_path / "there", plan, 1, "fp32", There(access))
        if not workplace.resume():
            workplace.begin(ignored)
        return workplace

    rounds = []
    for most in (2, 1):
        with pytest.raises(DeviceError, match="the connection was cut before the work was done"):
            begin_or_resume().time_models(60, cut_after(most))
        rounds.append(begin_or_resume().rounds)
    there = begin_or_resume()
    there.time_models(1e-6, ignored)

    assert 2 <= rounds[0] < rounds[1]
    stops = {name: (name, "cached") for name in plan.graphs() if name != "filler"}
    stops |= {f"{name}/": (name, "uncached") for name in plan.part_models.values()}
    visited: dict[int, list[tuple[str, str]]] = {}
    for line in (tmp_path / "there" / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "visit" and event["round"] < there.rounds:
            visited.setdefault(event["round"], []).append((event["model"], event["state"]))
    assert sorted(visited) == list(range(there.rounds))
    for index, of_round in visited.items():
        assert of_round == [stops[key] for key in order_of_round(list(stops), plan.seed, index)]
    assert server.is_clean()

    # A build stops by its time: for this one to have as many rounds, they are the fewest.
    monkeypatch.setattr(building, "MIN_ROUNDS", there.rounds)
    here = Workplace(tmp_path / "here", plan, 1, "fp32")
    here.begin(ignored)
    here.time_models(1e-6, ignored)
    models = [
        {path.name: path.read_bytes() for path in (tmp_path / place).glob("*.onnx")} for place in ("here", "there")
    ]
    assert models[0] == models[1]
    assert built(there) == built(here)


def test_a_build_is_not_put_together_of_two_machines(server: Server, plan: BuildPlan, tmp_path: Path) -> None:
    bench = There(server.access(python=sys.executable))
    for first, second, words in (
        (None, bench, f"machine is {server.url}, the build was begun with None"),
        (bench, None, f"machine is None, the build was begun with {server.url}"),
    ):
        Workplace(tmp_path / "build", plan, 1, "fp32", first).begin(ignored)
        with pytest.raises(ConfigError, match=f"{words}; begin anew without --resume"):
            Workplace(tmp_path / "build", plan, 1, "fp32", second).resume()


def num_rounds(folder: Path) -> int:
    path = folder / JOURNAL
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return sum('"event": "round"' in line for line in lines)


def test_a_profile_is_built_from_the_command_line_and_goes_on_where_it_was_cut(
    shell: Any, server: Server, processes: Any
) -> None:
    words = (*BUILD, *server.words())
    build = shell.start(*words)
    build.wait_until(lambda: num_rounds(shell.folder) >= 1)
    server.cut(processes())
    ended = build.end()
    assert (ended.exit_code, len(ended.errors)) == (10, 1)
    assert ended.errors[0].endswith("; the same command with --resume goes on after the last whole round")
    assert not (shell.folder / "profiles" / "device.yaml").exists()

    for minutes in ("0.05", "0.2", "0.8", "3"):
        ended = shell.run(*words, "--resume", "--minutes", minutes, "--json")
        if ended.exit_code != GateError.exit_code:  # as on a machine on which tests run side by side
            break
    assert ended.exit_code == 0, ended.err
    profile = load_profile(shell.folder / "profiles" / "device.yaml")
    assert (profile.name, profile.is_measured) == ("device", True)
    assert profile.device == device_facts(machine.environment(1)), "the server is on this machine"
    assert "127.0.0.1" not in (shell.folder / "profiles" / "device.yaml").read_text(encoding="utf-8")
    assert not (shell.folder / JOURNAL.parent).exists()
    assert server.is_clean()


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (("--on", "ssh://nano"), 2, "give it a name of its own with --name"),
        (("--on", "nano", "--name", "mine"), 2, "expected ssh://[user@]host[:port]"),
        (("--python", "python3.9"), 2, "name it with --on"),
    ],
)
def test_a_mistake_is_one_line(shell: Any, words: tuple[str, ...], exit_code: int, message: str) -> None:
    ended = shell.run("profile", "build", *words)
    assert (ended.exit_code, len(ended.errors)) == (exit_code, 1)
    assert message in ended.errors[0]
    assert shell.content() == {}


def test_more_threads_than_the_other_machine_has_are_refused_by_it(shell: Any, server: Server) -> None:
    ended = shell.run(*BUILD, *server.words("--threads", "9999"))
    assert (ended.exit_code, len(ended.errors)) == (10, 1)
    assert f"error: {server.url}: --threads: got 9999, expected 1 to " in ended.errors[0]
