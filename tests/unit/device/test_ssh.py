"""What ssh is told, and the programs that are sent to another machine."""

import ast
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy.device.remote import bootstrap
from fedsup_deploy.device.remote.measure import measure_model_there, session_there
from fedsup_deploy.device.remote.ssh import Access, SshHost, run_there
from fedsup_deploy.errors import ArtifactError, ConfigError, DeviceError


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

    def test_where_nothing_can_be_loaded_from_temporary_files_nothing_is_installed(self, tmp_path):
        """A real mount, seen by this one program."""
        header = {"argv": [], "needs": ["json", "no_such_package"], "install": True, "files": []}
        text = json.dumps(header).encode()
        script = 'mount -t tmpfs -o noexec,size=1m none "$1" && TMPDIR="$1" exec "$2" "$3"'
        words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", tmp_path, sys.executable]
        ran = subprocess.run(
            [*words, bootstrap.__file__], input=b"%d\n%s" % (len(text), text), capture_output=True, check=False
        )
        if b"unshare" in ran.stderr or b"mount" in ran.stderr:
            pytest.skip("mounts of its own (as root, or where user namespaces are allowed)")

        assert json.loads(ran.stdout.splitlines()[-1]) == [
            "fedsup-deploy",
            "noexec",
            [str(tmp_path), ["no_such_package"]],
        ]


@pytest.fixture
def near(tmp_path_factory, monkeypatch) -> Path:
    """An `ssh` that logs in to this machine, as whoever calls it, without a network. Returns the home folder there."""
    folder = tmp_path_factory.mktemp("near")
    script = folder / "ssh"
    script.write_text('#!/bin/sh\nfor word; do last="$word"; done\ncd && exec /bin/sh -c "$last"\n')
    script.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    return home


NEAR = SshHost("near")


def test_a_home_folder_is_that_of_the_machine_there(near, monkeypatch):
    """Whatever else stands in the path is one word of it."""
    (near / "my python; exit").symlink_to(sys.executable)

    run = run_there(Access(NEAR, "~/my python; exit"), {"a.py": b"print(1)"}, ["a.py"])

    assert list(run) == ["1"]


@pytest.mark.parametrize("python", ["~", "~/", "~$(reboot)/x", "a~/b", "~a b/c"])
def test_nothing_else_is_left_to_the_shell_there(python):
    assert Access(NEAR, python).command[-1].startswith(f"'{python}' -c '")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGKILL, "is there enough memory?"),
        (
            signal.SIGSEGV,
            "its libraries do not go together, or are for another processor: "
            "try `python3 -c 'import numpy, onnxruntime'`: last words",
        ),
    ],
)
def test_the_advice_after_a_signal_fits_the_signal(near, number, expected):
    dying = f"import os, sys; sys.stderr.write('last words'); sys.stderr.flush(); os.kill(os.getpid(), {int(number)})"

    with pytest.raises(DeviceError) as caught:
        list(run_there(Access(NEAR), {"a.py": dying.encode()}, ["a.py"]))

    assert str(caught.value).startswith(f"ssh://near: the program was ended by signal {int(number)}; {expected}")


def test_a_folder_for_temporary_files_that_is_mounted_noexec_is_named(near, monkeypatch):
    """As `Access.error` gets it from the last frame."""
    program = f'import json; print(json.dumps([{bootstrap.MARK!r}, "noexec", ["/tmp", ["numpy"]]]))'
    python = near / "python"
    python.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)}\n")
    python.chmod(0o755)

    with pytest.raises(DeviceError) as caught:
        list(run_there(Access(NEAR, str(python), can_install=True), {"a.py": b""}, ["a.py"], needs=["numpy"]))

    assert str(caught.value) == (
        "ssh://near: numpy missing there, and nothing can be loaded from its temporary folder /tmp, which is mounted "
        f"noexec; set TMPDIR there to another one, or install with `{python} -m pip install numpy`"
    )


def model_with_weights_elsewhere(folder: Path, name: str, location: str) -> Path:
    """Write a model whose weights are in a file of that name, which is written where it can be."""
    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "weights")
    content = weights.raw_data
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(len(content))}.items():
        weights.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Conv", ["x", "weights"], ["y"])]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])
    graph = helper.make_graph(nodes, "g", [image], [output], [weights])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7).SerializeToString()
    )
    place = Path(os.path.normpath(folder / location))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return path


def test_models_travel_with_the_files_that_their_weights_are_in(near, tmp_path):
    """Also where two name theirs alike, and what looks like a model is weights."""
    models = {
        "a": model_with_weights_elsewhere(tmp_path / "first", "model.onnx", "data/weights.bin"),
        "b": model_with_weights_elsewhere(tmp_path / "second", "model.onnx", "data/weights.bin"),
        "ruler": model_with_weights_elsewhere(tmp_path / "third", "model.onnx", "weights.onnx"),
    }
    options = ["--ruler", "ruler", "--rounds", "1", "--visit-seconds", "0.001"]

    events = list(session_there(Access(NEAR, sys.executable), models, options))

    assert sorted(event["model"] for event in events if event["event"] == "visit") == ["a", "b"]


def test_a_model_whose_weights_are_missing_is_not_sent(tmp_path):
    model = model_with_weights_elsewhere(tmp_path, "model.onnx", "weights.bin")
    (tmp_path / "weights.bin").unlink()

    with pytest.raises(ArtifactError, match=r"model\.onnx: has weights in weights\.bin, which is not there; copy it"):
        measure_model_there(Access(SshHost("no-such-device.invalid")), model, threads=1, protocol="quick")
