"""`profile build` and `profile fit` as a user meets them: on this machine, killed, resumed, and used in a search."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.device.summary import summary_of
from fedsup_deploy.errors import GateError

BUILD = ("profile", "build", "--space", "digits")
PROFILE = Path("profiles/host.yaml")
WORKPLACE = Path("profiles/.host.build")
JOURNAL = WORKPLACE / "journal.jsonl"


def num_rounds(folder: Path) -> int:
    path = folder / JOURNAL
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return sum('"event": "round"' in line for line in lines)


def until_stable(shell: Any, *words: str, resume: tuple[str, ...] = ()) -> Any:
    """Run a command that measures; give it more time where it refuses, because tests run side by side."""
    for minutes in ("0.05", "0.2", "0.8", "3"):
        ended = shell.run(*words, "--minutes", minutes)
        if ended.exit_code != GateError.exit_code:
            break
        assert "the measurement is unstable" in ended.errors[0]
        words = (*words, *resume)
    assert ended.exit_code == 0, ended.err
    return ended


def check_built(document: dict[str, Any], folder: Path) -> None:
    """Fail if the profile is not whole, or says something else than the document."""
    profile = load_profile(folder / PROFILE)
    assert profile.is_measured
    assert document["out"] == str(PROFILE)
    assert summary_of(profile).to_dict() == document["profile"]
    assert profile.error != "none"
    assert (profile.error.method, profile.error.num_heldout) == ("held-out", 40)
    assert profile.error.macs_only is not None
    assert profile.error.mape <= profile.error.macs_only.mape, (
        "what predicts worse than the MACs gives way to their line"
    )
    assert profile.latency.kind == ("table" if document["left_out"] is None else "fitted")
    assert profile.percentiles is not None
    assert (profile.percentiles.num_networks, len(profile.percentiles.p90.ratios)) == (52, 40)
    assert (document["num_parts"], document["num_networks"]) == (28, 12)
    assert not (folder / WORKPLACE).exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, shell_in: Any) -> Any:
    """A folder in which this machine has a profile."""
    shell = shell_in(tmp_path_factory.mktemp("built"))
    check_built(until_stable(shell, *BUILD, "--json", resume=("--resume",)).document, shell.folder)
    return shell


def test_a_build_that_is_killed_goes_on(shell: Any) -> None:
    """Killed while it writes models: nothing to go on with. Killed between rounds: it goes on after the last."""
    build = shell.start(*BUILD)
    build.wait_until(lambda: list((shell.folder / WORKPLACE).glob("*.onnx")))
    build.kill()
    build = shell.start(*BUILD, "--resume")
    build.wait_until(lambda: num_rounds(shell.folder) >= 2)
    build.kill()
    assert not (shell.folder / PROFILE).exists()

    before = (shell.folder / JOURNAL).read_text(encoding="utf-8").splitlines()
    seconds = [json.loads(line)["seconds"] for line in before if '"event": "round"' in line and line.endswith("}")]
    document = until_stable(shell, *BUILD, "--resume", "--json").document
    check_built(document, shell.folder)
    assert document["num_rounds"] >= 6
    assert document["seconds"] > seconds[-1]


def test_ctrl_c_says_how_to_go_on(shell: Any) -> None:
    build = shell.start(*BUILD)
    build.wait_until(lambda: num_rounds(shell.folder) >= 1)
    ended = build.interrupt()
    assert (ended.exit_code, ended.out) == (130, "")
    assert ended.err.splitlines()[-1] == (
        "interrupted: the same command with --resume goes on after the last whole round"
    )
    assert build.process.returncode != -signal.SIGINT
    other = shell.run(*BUILD, "--resume", "--threads", "2")
    assert other.exit_code == 2
    assert "threads is 2, the build was begun with 1; begin anew without --resume" in other.errors[0]


def test_a_profile_is_found_by_its_name(built: Any) -> None:
    names = [profile["name"] for profile in built.json("profile", "list")["profiles"]]
    assert "host" in names
    assert built.json("profile", "show", "host")["runtime"]["provider"] == "CPUExecutionProvider"


def test_people_see_the_error_beside_that_of_macs(shell: Any) -> None:
    """And which of the two the profile has: on a busy machine either may predict better."""
    words = ("profile", "fit", "x86-laptop", "--here", "--networks", "6", "--space", "digits", "--name", "near")
    ended = until_stable(shell, *words)
    assert "MACs alone" in ended.out
    assert " x p10, p90 is " in ended.out
    assert "checked on 6 networks (leave-one-out)" in ended.out
    assert ended.out.splitlines()[-2:] == ["wrote profiles/near.yaml", "next: fedsup-deploy search --profile near"]
    profile = load_profile(shell.folder / "profiles" / "near.yaml")
    has_line = "NOTE: a straight line through the MACs predicts better, so the profile has that line" in ended.out
    assert ("the same command with --minutes=" in ended.out) == has_line
    if profile.calibration is None:
        assert (profile.latency.kind, has_line) == ("fitted", True)
    else:
        assert (profile.calibration.donor, profile.calibration.scale > 0, has_line) == ("x86-laptop", True, False)


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (("build", "--name", "Host!"), 2, "--name: got 'Host!', expected at most 64 lower case letters"),
        (("build", "--name", "jetson-nano"), 2, "jetson-nano is the name of a shipped profile"),
        (("build", "--space", "digit"), 2, "no search space 'digit'"),
        (("build", "--out", "host.json"), 8, "expected a name that ends in .yaml"),
        (("build", "--minutes", "nan"), 2, "expected a number above 0"),
        (("build", "--threads", "9999"), 2, "threads: got 9999, expected 1 to"),
        (("fit", "jetson-nano", "--name", "mine"), 2, "give one of --here, --saved and --measurements"),
        (("fit", "jetson-nona", "--name", "mine", "--here"), 2, "did you mean 'jetson-nano'?"),
    ],
)
def test_a_mistake_is_one_line(shell: Any, words: tuple[str, ...], exit_code: int, message: str) -> None:
    ended = shell.run("profile", *words)
    assert ended.exit_code == exit_code
    assert len(ended.errors) == 1
    assert message in ended.errors[0]
    assert shell.content() == {}
