"""How a command ends: exit codes, the one line on stderr, the document on stdout."""

import json
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest

from fedsup_deploy import errors, resources
from fedsup_deploy.cli.commands import Group
from fedsup_deploy.cli.main import main, run
from fedsup_deploy.cli.output import Output

group = Group("tool")
failures: list[BaseException] = [
    errors.FedsupError("base"),
    errors.ConfigError("a.yaml:3: wrong"),
    errors.DataError("no images"),
    errors.ArtifactError("altered"),
    errors.InfeasibleError("no subnet fits"),
    errors.GateError("another answer"),
    errors.FederationError("too few clients"),
    errors.OutputError("disk full"),
    errors.DependencyError("not installed"),
]


@group.command("fail")
@click.argument("index", type=int)
def fail(index: int) -> None:
    """Raise one of our errors."""
    raise failures[index]


@group.command("break")
def break_() -> None:
    """Raise what nobody expected."""
    raise ZeroDivisionError("division\nby zero")


@group.command("stop")
@click.argument("hint", default="")
def stop(hint: str) -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt(*filter(None, [hint]))


@group.command("say")
@click.option("--count", type=click.IntRange(min=1), default=1)
@click.pass_obj
def say(output: Output, count: int) -> None:
    """Print a result, after a library has printed."""
    with output.progress() as listeners:
        sys.stdout.write("noise of a library\n")
        for listener in listeners:
            listener({"event": "step", "done": 1, "total": 1})
    output.emit({"count": count, "flags": [output.as_json, output.is_quiet, output.is_debug]})


@pytest.mark.parametrize("index", range(len(failures)))
def test_each_error_has_its_exit_code_and_one_line(index: int, capsys: pytest.CaptureFixture[str]):
    error = failures[index]
    assert run(group, ["fail", str(index)]) == type(error).exit_code  # type: ignore[attr-defined]
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_an_error_is_one_document_with_json(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["--json", "fail", "4"]) == 5
    out, err = capsys.readouterr()
    expected = {"error": {"kind": "InfeasibleError", "message": "no subnet fits", "exit_code": 5}}
    assert json.loads(out) == expected
    assert err == "error: no subnet fits\n"


def test_the_unexpected_is_one_line_unless_debugging(capsys: pytest.CaptureFixture[str]):
    expected = "internal error: ZeroDivisionError: division by zero (run again with --debug)\n"
    assert run(group, ["break"]) == 70
    assert capsys.readouterr() == ("", expected)
    assert run(group, ["break", "--debug"]) == 70
    out, err = capsys.readouterr()
    assert err.startswith("Traceback")
    assert err.endswith(expected)
    assert out == ""


def test_the_unexpected_is_a_document_with_json(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["break", "--json"]) == 70
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["exit_code"]) == ("InternalError", 70)


def test_debug_shows_where_our_own_error_comes_from(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["--debug", "fail", "1"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: a.yaml:3: wrong\n")


def test_an_interruption(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["stop", "--debug"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert run(group, ["stop", "go on with --resume", "--json"]) == 130
    out, err = capsys.readouterr()
    assert err == "interrupted: go on with --resume\n"
    assert json.loads(out)["error"]["exit_code"] == 130


@pytest.mark.parametrize(
    ("args", "words", "page"),
    [
        (["sya"], "unknown command 'sya'; did you mean 'say'?", "tool"),
        (["--bogus"], "--bogus", "tool"),
        (["say", "--cuont", "3"], "'--count'", "tool say"),
        (["say", "--count", "0"], "0 is not in the range x>=1", "tool say"),
        (["say", "extra"], "extra", "tool say"),
        (["fail"], "Missing argument 'INDEX'", "tool fail"),
    ],
)
def test_usage_errors(args: list[str], words: str, page: str, capsys: pytest.CaptureFixture[str]):
    """One line with the mistake (click words some of them) and the page to read."""
    assert run(group, args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert words in err
    assert err.endswith(f"; see '{page} --help'\n")
    assert err.count("\n") == 1
    assert run(group, [*args, "--json"]) == 2
    message = err.removeprefix("error: ").rstrip()
    expected = {"error": {"kind": "UsageError", "message": message, "exit_code": 2}}
    assert json.loads(capsys.readouterr().out) == expected


def test_no_command_is_an_error_where_a_document_is_expected(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "no command given; see 'tool --help'"


@pytest.mark.parametrize(
    "args", [["--json", "--quiet", "say"], ["say", "--quiet", "--json"], ["--quiet", "say", "--json"]]
)
def test_global_options_stand_anywhere(args: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(group, args) == 0
    assert json.loads(capsys.readouterr().out) == {"count": 1, "flags": [True, True, False]}


def test_global_options_end_at_two_dashes(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["stop", "--", "--json"]) == 130
    assert capsys.readouterr() == ("", "interrupted: --json\n")


def test_only_the_result_is_on_stdout(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["say", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["count"] == 1
    assert err == "noise of a library\nstep 1/1\n"


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]):
    assert run(group, ["say", "--quiet"]) == 0
    assert capsys.readouterr().err == "noise of a library\n"


@pytest.mark.parametrize("args", [["--version"], ["search", "--version"], ["profile", "list", "--version"]])
def test_version(args: list[str], capsys: pytest.CaptureFixture[str]):
    from fedsup_deploy.version import __version__

    assert main(args) == 0
    assert capsys.readouterr().out == f"fedsup-deploy {__version__}\n"
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": __version__}


@pytest.mark.parametrize("args", [["--help"], ["profile", "list"], ["--json", "profile", "show", "jetson-nano"]])
def test_output_that_cannot_be_written_is_said_in_one_line(args: list[str]):
    command = [sys.executable, "-m", "fedsup_deploy.cli.main", *args]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        8,
        "error: cannot write to the standard output: no space left on device\n",
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_streams_may_be_closed(closed: str):
    """Whoever closes one wants nothing of it."""
    line = f"{shlex.quote(sys.executable)} -m fedsup_deploy.cli.main profile list {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("jetson-nano" in done.stdout) == (closed == "2>&-")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["--json"]])
def test_a_closed_pipe_is_no_error(args: list[str]):
    """Such as that of `fedsup-deploy --help | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fedsup_deploy.cli.main", *args]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_broken_pipe_elsewhere_is_an_error():
    """A worker process that died is not the same as a reader of stdout that went away."""
    script = textwrap.dedent("""
        import sys
        from fedsup_deploy.cli.commands import Group
        from fedsup_deploy.cli.main import run

        group = Group("tool")

        @group.command("work")
        def work():
            raise BrokenPipeError("a worker died")

        sys.exit(run(group, ["work"]))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stderr == "internal error: BrokenPipeError: a worker died (run again with --debug)\n"


def test_a_terminal_that_knows_only_ascii_gets_escapes():
    script = "import sys; from fedsup_deploy.cli.main import main; from fedsup_deploy.cli.output import Output\n"
    script += "main(['--version']); Output().emit({'name': 'caf\\u00e9'})"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\xe9" in done.stdout


@pytest.mark.parametrize("option", ["--\x1b]0;title\a", "\u202e", "x" * 100_000, "\ud800", "a\x85b"])
def test_what_others_wrote_is_said_in_one_line_that_no_terminal_obeys(option: str, capsys: pytest.CaptureFixture[str]):
    failures.append(errors.ArtifactError(f"{option}: damaged; copy it again"))
    try:
        assert run(group, ["fail", str(len(failures) - 1)]) == 4
    finally:
        failures.pop()
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.isprintable()
    assert len(line) <= 2000
    assert line.endswith("damaged; copy it again")


@pytest.mark.parametrize(
    ("environ", "name", "shown"),
    [
        ({}, b"caf\xe9", b"caf\\udce9"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"caf\xc3\xa9", b"caf\\udcc3\\udca9"),
    ],
)
def test_a_name_that_no_file_of_ours_could_hold_is_refused_before_any_work(
    tmp_path: Path, environ: dict[str, str], name: bytes, shown: bytes
):
    program = [sys.executable, "-c", "import sys; from fedsup_deploy.cli.main import main; sys.exit(main())"]
    words = [b"train", b"--config", b"digits", b"--out=" + name]
    done = subprocess.run([*program, *words], cwd=tmp_path, env=os.environ | environ, capture_output=True, check=False)
    said = b"error: --out=" + shown + b": not UTF-8 in this locale; rename it, or set PYTHONUTF8=1\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", said)
    assert list(tmp_path.iterdir()) == []


@group.command("use-profile")
def use_profile() -> None:
    """Look for a profile twice."""
    for _ in range(2):
        resources.find("profiles", "jetson-nano")


def test_a_profile_that_stands_in_for_a_shipped_one_is_said_once_in_each_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "jetson-nano.yaml").touch()
    for _ in range(2):
        assert run(group, ["use-profile"]) == 0
        said = "note: profile jetson-nano: profiles/jetson-nano.yaml is used, not the shipped one\n"
        assert capsys.readouterr() == ("", said)
