"""What `watch` shows, of recorded runs and of runs that hardly are any."""

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from fedsup_deploy import places
from fedsup_deploy.cli import watch_page
from fedsup_deploy.cli.curves import curve
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.watch import RunView, watch
from fedsup_deploy.config.load import dump
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.runs.run import load_space

RECORDED = Path(__file__).parents[2] / "data" / "recorded-runs"
STARTED = {"event": "train_started", "round": 0, "rounds": 4, "num_clients": 3, "notes": ["2 images are not used"]}
FAULT = {
    "event": "health",
    "round": 1,
    "kind": "tier-starved",
    "subject": "1",
    "words": "tier 1: starved",
    "figures": {},
}


def played(number: int, absent: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    sizes = {"bytes_down": 2**20, "bytes_up": 2**19, "seconds": 10.0}
    return {"event": "round", "round": number, "loss": 2.0 - number, "clients": [0, 1, 2], "absent": absent or {}} | (
        sizes | fields
    )


def evaluated(number: int, largest: float, smallest: float) -> dict[str, Any]:
    shares = {"accuracy_largest": largest, "accuracy_smallest": smallest}
    return {"event": "evaluation", "round": number, **shares, "num_images": 100, "seconds": 1.0}


def run_of(folder: Path, *events: dict[str, Any], rest: str = "") -> Path:
    """Make a run that has recorded events, ten seconds after each other."""
    lines = [json.dumps({**event, "unix_time_s": 1000.0 + 10 * at}) + "\n" for at, event in enumerate(events)]
    (folder / "events.jsonl").write_text("".join(lines) + rest)
    return folder


def shown(view: RunView, width: int = 80) -> str:
    return "\n".join(watch_page.page(view, braille=True)(width))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run that was stopped: a client is absent, the smallest subnet behind, and a fault was found."""
    absent = {"1": "no answer within 5 s"}
    named = played(1, absent, absent_names={"1": "camera-7"})
    return run_of(tmp_path, STARTED, played(0, absent), evaluated(0, 0.5, 0.25), named, FAULT, evaluated(1, 0.75, 0.5))


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar10", "digits-resumed"])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    view = watch(RECORDED / name, 0.0)
    for braille in (True, False):
        lines = list(watch_page.page(view, braille=braille)(width))
        assert max(cell_len(line) for line in lines if str(view.run) not in line) <= width
    assert all(line.isascii() for line in lines)


def test_the_view_alone_answers_what_one_asks_of_a_run(run: Path) -> None:
    text = shown(watch(run, 1060.0))
    for how_far_and_how_long in (
        r"rounds +2 of 4 \(50 %\)",
        r"time left +about 20 s, when it goes on",
        r"10 s a round in the",
    ):
        assert re.search(how_far_and_how_long, text)
    for does_it_learn in ("from 2 to 1", "+25.0 points", "75.0 % (65.7 to 82.5)"):
        assert does_it_learn in text
    assert re.search(r"largest .* best\n *smallest .* worst", text), "which size"
    assert "accuracy after round 2" in text
    assert "in brackets: 95 % interval, of 100 images" in text
    assert re.search(r"camera-7 +2 +2 +no answer within 5 s", text), "who fails"
    assert "4 of 6 updates were used, 33.3 % are missing, none rejected" in text
    for traffic in ("bytes down  2 MiB, 1 MiB a round", "bytes up    1 MiB, 512 KiB a round"):
        assert traffic in text
    assert "warning, round 2: tier 1: starved" in text
    assert "note: 2 images are not used" in text


def test_sizes_that_cannot_be_told_apart_are_not_called_best_and_worst(tmp_path: Path) -> None:
    """As on the report page, by the same rule."""
    text = shown(watch(run_of(tmp_path, STARTED, played(0), evaluated(0, 0.76, 0.75)), 0.0))
    assert "the sizes: cannot be told apart; in brackets: 95 % interval, of 100 images" in text
    assert re.search(r"^subnet +accuracy", text, re.MULTILINE), "a table, also on 80 columns"
    assert "best" not in text
    assert "worst" not in text


def test_a_run_that_was_stopped_says_so_and_by_which_command_it_goes_on(run: Path) -> None:
    text = shown(watch(run, 0.0), 200)
    assert "stopped before its end" in text
    assert "next:" not in text, "without its config it does not go on"
    settings = load_train_config("digits", ["training.rounds=4"])
    (run / "config.resolved.yaml").write_text(dump(settings))
    (run / "space.yaml").write_text(dump(load_space(settings)))
    [command] = watch(run, 0.0).next_commands
    assert command in shown(watch(run, 0.0), 200)
    program, *arguments = shlex.split(command)
    assert (program, arguments[0], arguments[-1]) == ("fedsup-deploy", "train", "--resume")
    assert main([*arguments, "--dry-run"]) == 0, "what it says is a command"
    quiet = watch(run_of(run, STARTED, played(0)), 0.0)
    assert "no warnings in the 1 round that there were" in shown(quiet)


def test_after_a_whole_run_it_says_what_comes_next(tmp_path: Path) -> None:
    (tmp_path / "supernet.safetensors").touch()
    whole = watch(run_of(tmp_path, {**STARTED, "rounds": 1}, played(0)), 0.0)
    assert [shlex.split(each)[:2] for each in whole.next_commands] == [
        ["fedsup-deploy", "evaluate"],
        ["fedsup-deploy", "profile"],
        ["fedsup-deploy", "search"],
    ]
    assert re.search(r"^state +ended$", shown(whole), re.MULTILINE)
    cut = watch(run_of(tmp_path, STARTED, played(0)), 0.0)
    assert "its log tells of fewer rounds than it has" in shown(cut, 200)
    assert "no warnings in the 1 round that there were" in shown(cut, 200)


def test_who_was_never_asked_and_whose_update_was_rejected_is_counted(tmp_path: Path) -> None:
    refused = played(0, {"1": "too far"}, clients=[0, 1], rejected=[1])
    view = watch(run_of(tmp_path, STARTED, refused), 0.0)
    assert (view.rejected, view.never_asked) == (1, 1)
    text = shown(view)
    assert "1 of 2 updates were used, 50.0 % are missing, 1 rejected" in text
    assert re.search(r"never asked +1 of 3 clients", text)


def test_a_run_without_a_fault_says_so(tmp_path: Path) -> None:
    text = shown(watch(run_of(tmp_path, STARTED, played(0)), 0.0))
    assert "no warnings" in text
    assert "missing" not in text


def test_tiers_are_told_where_a_client_has_one_by_its_number(run: Path) -> None:
    assert watch(run, 0.0).tiers is None
    settings = load_train_config("digits", ["partition={kind: iid, num_clients: 4}", "training.clients_per_round=3"])
    (run / "config.resolved.yaml").write_text(dump(settings))
    (run / "space.yaml").write_text(dump(load_space(settings)))
    tiers = watch(run, 0.0).tiers
    assert tiers is not None
    assert [(each.tier, each.asked, each.answered) for each in tiers][:2] == [(0, 2, 2), (1, 2, 0)]
    text = shown(watch(run, 0.0), 120)
    assert re.search(r"\n +1 .* 100\.0 %, worst +0  the largest subnet", text)
    assert re.search(r"\n +0 .* 0\.0 % +0  the smallest subnet", text)
    assert "random true" not in text
    assert [each.never_asked for each in tiers] == [0, 0, 0, 0]
    tiers = watch(run_of(run, STARTED, played(0, clients=[0, 2])), 0.0).tiers
    assert tiers is not None
    assert [each.never_asked for each in tiers] == [0, 1, 0, 0]


def test_a_folder_of_other_files_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ArtifactError, match=r"^no run at .*: no config.resolved.yaml there; make one with"):
        watch(tmp_path, 0.0)


def test_states(tmp_path: Path, run: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert watch(empty, 0.0).state == "not begun"
    assert watch(run, 0.0).state == "stopped"
    with places.hold(run, inside=True):
        running = watch(run, 1055.0)
    assert (running.state, running.seconds_silent, running.seconds_left) == ("running", 5.0, 15.0)
    (run / "supernet.safetensors").touch()
    assert (watch(run, 0.0).state, watch(run, 0.0).seconds_left) == ("ended", 0.0)


def test_a_last_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    found = watch(run_of(tmp_path, STARTED, played(0), rest='{"event": "round", "round": 1, "lo'), 0.0)
    assert found.rounds_done == 1


def test_text_of_others_is_obeyed_by_no_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;taken\x07\x1b[2J\nrounds  4 of 4 [bold]x[/bold]"
    absent = played(0, {"1": evil}, absent_names={"1": evil})
    fault = {**FAULT, "words": evil}
    text = shown(watch(run_of(tmp_path, {**STARTED, "notes": [evil]}, absent, fault), 0.0))
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert not re.search(r"^rounds +4 of 4", text, re.MULTILINE)
    assert "[bold]x" in text, "nor is it markup"


def test_in_a_pipe_it_is_printed_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(run)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "2 of 4" in out


def test_the_document(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["rounds_done"], found["loss"], found["bytes_up"]) == ("stopped", 2, [2.0, 1.0], 2**20)
    assert found["worst"] == [
        {"client": 1, "name": "camera-7", "asked": 2, "absent": 2, "reason": "no answer within 5 s"}
    ]
    assert found["reasons"] == {"no answer within 5 s": 2}


def test_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path / "nothing"), "--once"]) == 4
    assert "no run at" in capsys.readouterr().err


@contextlib.contextmanager
def on_a_terminal(folder: Path, **environment: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Yield `watch` on a terminal, and the other end of it."""
    ours, theirs = pty.openpty()
    program = "import sys; from fedsup_deploy.cli.start import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "watch", str(folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "60", **environment},
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def until(terminal: int, words: str) -> str:
    """Return what a terminal shows until it has shown some words, or takes no more."""
    text = b""
    while words.encode() not in text:
        try:
            text += os.read(terminal, 4096)
        except OSError:
            break
    return text.decode("utf-8", "replace")


def test_on_a_terminal_it_follows_a_run_from_before_its_beginning_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with on_a_terminal(folder) as (process, terminal):
        assert "waiting for a run at" in until(terminal, "waiting for a run at")
        folder.mkdir()
        until(terminal, "not begun")
        run_of(folder, STARTED, played(0), rest='{"event": "rou')
        until(terminal, "1 of 4")
        run_of(folder, STARTED, played(0), played(1), FAULT)
        assert "starved" in until(terminal, "starved")
        (folder / "supernet.safetensors").touch()
        text = until(terminal, "no such words")
        assert process.wait() == 0
    assert "ended" in text.rpartition("\x1b[?1049l")[2], "the last view stays"


def test_ctrl_c_ends_the_view_and_says_so(run: Path) -> None:
    with on_a_terminal(run, NO_COLOR="1") as (process, terminal):
        text = until(terminal, "Ctrl-C ends this view")
        process.send_signal(signal.SIGINT)
        text += until(terminal, "the run itself goes on")
        assert process.wait() == 130
    assert "interrupted: the run itself goes on" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text), "no colour"


@pytest.mark.parametrize("room", [20, 30, 36, 44])
def test_a_low_terminal_sees_what_is_most_important_and_how_much_is_cut(run: Path, room: int) -> None:
    """Curves give way before anything else: who fails, and by which key the view ends, is seen on 40 lines."""
    view = watch(run, 0.0)
    whole = list(watch_page.page(view, braille=True)(100))
    found = list(watch_page.page(view, braille=True, most_lines=room)(100))
    assert len(found) <= room
    assert found[0] == whole[0]
    cut = [line for line in found if "more lines; --once prints all of them" in line]
    tables = [line for line in whole if line and not re.search("[\u2800-\u28ff]", line)]
    if room < 30:
        assert len(cut) == 1
        assert not re.search("[\u2800-\u28ff]", "\n".join(found)), "curves are gone first"
    else:
        assert not cut
        assert "camera-7" in "\n".join(found)
    assert set(found) - set(cut) <= {*whole, ""} or any("from 2 to 1" in line for line in tables)
    assert list(watch_page.page(view, braille=True, most_lines=500)(100)) == whole


def test_a_fall_is_said_where_no_warning_was_written(tmp_path: Path) -> None:
    """And the curve names its peak, which its ends hide."""
    accuracies = (0.5, 0.95, 0.6)
    events = [event for at, each in enumerate(accuracies) for event in (played(at), evaluated(at, each, 0.5))]
    text = shown(watch(run_of(tmp_path, STARTED, *events), 0.0), 100)
    assert "fallen: the largest subnet is -35.0 points against its best, 95.0 % in round 2: they can be told apart" in (
        text.replace("\n", " ")
    )
    assert "no warnings" not in text
    assert "from 50.0 % to 60.0 %, best 95.0 % in round 2" in text
    assert "it has fallen, and more rounds like these do not help" in re.sub(r"\s+", " ", text)


def test_whether_more_rounds_would_help_is_said_also_at_the_end(run: Path) -> None:
    (run / "supernet.safetensors").touch()
    text = re.sub(r"\s+", " ", shown(watch(run, 0.0)))
    assert "accuracy in the last 1 round, by size: the largest +25.0 points, the smallest +25.0 points" in text
    assert "so more rounds may bring more" in text
    assert "a client each time it is asked it is sent 341 KiB in the mean and sends 256 KiB" in text


def test_one_point_is_no_curve_and_told_in_words(tmp_path: Path) -> None:
    text = shown(watch(run_of(tmp_path, STARTED, played(0), evaluated(0, 0.75, 0.5)), 0.0))
    assert re.search(r"^loss +2, in the first round 2$", text, re.MULTILINE)
    assert "75.0 %" in text
    assert not re.search("[\u2800-\u28ff]", text)


def test_a_curve_has_its_highest_and_lowest_value_at_the_edges() -> None:
    lines = curve([(1.0, 4.0), (2.0, 2.0), (3.0, 0.0)], 12, 3, labels=("4", "0"), braille=False)
    assert lines == ["4 ****", "     *****", "0        ***"]
    lines = curve([(1.0, 0.0), (2.0, 1.0)], 8, 2, labels=("1", "0"), braille=True)
    assert lines == ["1    \u28c0\u2874\u281a", "0 \u28e0\u2834\u280b\u2801"]


def test_numbers_that_nobody_would_write_break_nothing(tmp_path: Path) -> None:
    """Rounds that go back, a run of no rounds, and losses at the end of what numbers can be."""
    events = {**STARTED, "rounds": 0}, played(3, loss=1e40), played(1, loss=-1e40), evaluated(3, 0.5, 0.5)
    text = shown(watch(run_of(tmp_path, *events, evaluated(1, 0.25, 0.5), evaluated(9, 0.25, 0.5)), 0.0), 40)
    assert "from 1e+40 to -1e+40" in text
