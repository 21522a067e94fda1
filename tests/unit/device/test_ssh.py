"""What ssh is told, and the programs that are sent to another machine."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.device.remote import bootstrap
from fedsup_deploy.device.remote.ssh import Access, SshHost, run_there
from fedsup_deploy.errors import ArtifactError, ConfigError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://nano", SshHost("nano")),
        ("ssh://pi@raspberrypi.local", SshHost("raspberrypi.local", "pi")),
        ("ssh://first.last@10.0.0.7:2222", SshHost("10.0.0.7", "first.last", 2222)),
        ("ssh://pi@[fe80::1]:22", SshHost("fe80::1", "pi", 22)),
        ("ssh://_gateway", SshHost("_gateway")),
    ],
)
def test_target_is_read_and_written(url, expected):
    assert SshHost.parse(url) == expected
    assert str(expected) == url


@pytest.mark.parametrize(
    "url",
    [
        "nano",
        "pi@nano",
        "http://nano",
        "ssh://",
        "ssh://-oProxyCommand=reboot",
        "ssh://-l@nano",
        "ssh://pi@-nano",
        "ssh://nano:0",
        "ssh://nano:65536",
        "ssh://nano:ssh",
        "ssh://nano/folder",
        "ssh://nano nano",
        "ssh://nano\n",
        "ssh://nano;reboot",
        "ssh://[nano]",
        "ssh://fe80::1",
        "ssh://bücher",
    ],
)
def test_other_targets_are_refused(url):
    with pytest.raises(ConfigError, match=r"expected ssh://\[user@\]host\[:port\]$"):
        SshHost.parse(url)


def test_password_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="no password: ssh logs in with keys") as caught:
        SshHost.parse("ssh://pi:raspberry@nano")

    assert "raspberry" not in str(caught.value)


def test_host_stands_where_it_cannot_be_an_option():
    command = Access(SshHost("nano", "pi", 2222)).command

    assert command[0] == "ssh"
    assert command[-7:-1] == ["-l", "pi", "-p", "2222", "--", "nano"]
    assert {"-oBatchMode=yes", "-oStrictHostKeyChecking=yes"} < set(command)


def test_python_is_one_word_for_the_shell_there():
    assert Access(SshHost("nano"), python="my python; reboot").command[-1].startswith("'my python; reboot' -c '")


def test_what_the_shell_is_given_means_the_same_to_every_shell():
    _, _, quoted = Access(SshHost("nano")).command[-1].partition(" -c ")

    assert quoted[0] == quoted[-1] == "'"
    assert not set("'\\!\n") & set(quoted[1:-1].replace("!=", ""))


def test_program_that_is_sent_is_one_of_python_3_8():
    """Also where a newer Python would not notice."""
    source = Path(bootstrap.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))

    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {name for name in imported if name.partition(".")[0] in sys.stdlib_module_names}


def test_missing_file_is_named_before_there_is_a_connection(tmp_path):
    with pytest.raises(ArtifactError, match="absent: cannot be read: No such file"):
        next(run_there(Access(SshHost("no-such-device.invalid")), {"a": tmp_path / "absent"}, ["a"]))


class TestBootstrap:
    """The program that is sent, run here as it is there, but without ssh in between."""

    def frames(self, folder: Path, header: dict[str, Any], content: bytes) -> list[Any]:
        text = json.dumps({"argv": ["a.py"], "needs": [], "install": False, **header}).encode()
        result = subprocess.run(
            [sys.executable, bootstrap.__file__],
            input=b"%d\n%s%s" % (len(text), text, content),
            capture_output=True,
            env={"TMPDIR": str(folder)},
            check=False,
        )
        assert result.stderr == b""
        assert list(folder.iterdir()) == []
        frames = [json.loads(line) for line in result.stdout.splitlines()]
        assert frames[0][:2] == ["fedsup-deploy", "started"]
        return frames[1:]

    @pytest.mark.parametrize("name", ["/a.py", "../a.py", "x/../../a.py"])
    def test_no_file_leaves_the_folder(self, tmp_path, name):
        [[_, kind, value]] = self.frames(tmp_path, {"files": [[name, 1]]}, b"1")

        assert kind == "problem"
        assert value == f"got the file name {name!r}, expected one below the folder"

    def test_content_cut_short_ends_it_without_a_word(self, tmp_path):
        assert self.frames(tmp_path, {"files": [["a.py", 100]]}, b"print()") == []

    def test_closed_stdin_ends_the_program(self, tmp_path):
        program = b"import time; time.sleep(600)"

        assert self.frames(tmp_path, {"files": [["a.py", len(program)]]}, program) == []

    def test_missing_packages_are_all_named(self, tmp_path):
        header = {"files": [], "needs": ["json", "no_such_package", "nor_such_a_one"]}

        assert self.frames(tmp_path, header, b"") == [
            ["fedsup-deploy", "missing", ["no_such_package", "nor_such_a_one"]]
        ]
