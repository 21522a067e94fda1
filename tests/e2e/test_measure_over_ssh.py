"""Measuring on another machine: a real ssh server on this one, with keys and a configuration of its own."""

import functools
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from ssh_server import Server, free_port

from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.store import ModelWriter, Vectors, WrittenFiles, load_measurement, write_bundle
from fedsup_deploy.artifact.variants import Int8Gate, ParityGate, PredictedLatency
from fedsup_deploy.commands.measure import measure_on
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.remote.measure import measure_bundle_there, measure_model_there, session_there
from fedsup_deploy.device.remote.ssh import SshHost, run_there
from fedsup_deploy.errors import ArtifactError, DeviceError
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.onnx_graph import observable, to_bytes
from fedsup_deploy.space.quantization import quantized
from fedsup_deploy.variant import MAIN, MAIN_INT8

# Says where it is, with a child beside it, and would stay for long.
LINGER = b"""
import os, subprocess, time
child = subprocess.Popen(["sleep", "600"])
print(os.getcwd(), os.getpid(), child.pid)
time.sleep(600)
"""


@pytest.fixture
def are_running(processes) -> Callable[[list[int]], bool]:
    """Return whether all of some processes run."""
    return lambda pids: set(pids) <= {one.pid for one in processes()}


@pytest.fixture
def is_any_running(processes) -> Callable[[list[int]], bool]:
    """Return whether any of some processes runs."""
    return lambda pids: not set(pids).isdisjoint(one.pid for one in processes())


INT8_GATE = Int8Gate(
    scheme=Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False),
    split="test",
    num_images=100,
    accuracy_drop=0.0,
    accuracy_drop_interval=(-0.01, 0.01),
    max_accuracy_drop=0.01,
    num_float_convolutions=0,
    tolerance=0.1,
    max_scaled_diff=0.0,
    class_agreement=1.0,
)


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory) -> Path:
    """A bundle with a linear model of real digits."""
    return write_linear_bundle(tmp_path_factory.mktemp("exports") / "afd02a30afb7", has_int8=False)


@pytest.fixture(scope="module")
def bundle_with_int8(tmp_path_factory) -> Path:
    """The same with its int8 file."""
    return write_linear_bundle(tmp_path_factory.mktemp("exports") / "afd02a30afb7", has_int8=True)


def write_linear_bundle(folder: Path, *, has_int8: bool) -> Path:
    draft = Path(__file__).parents[1] / "unit" / "artifact" / "draft.json"
    document = json.loads(draft.read_text(encoding="utf-8"))
    matrix_PK = np.random.default_rng(0).standard_normal((64, 3), dtype=np.float32) / 64
    images = (load_digits().images[:16, np.newaxis] / 16).astype(np.float32)
    outputs_VK = images.reshape(16, 64) @ matrix_PK
    kernels = np.ascontiguousarray(matrix_PK.T).reshape(3, 1, 8, 8)
    nodes = [
        helper.make_node("Conv", ["input", "m"], ["sums"], "sums"),
        helper.make_node("ReduceMean", ["sums"], ["logits"], "logits", axes=[2, 3], keepdims=0),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "linear", [image], [logits], [numpy_helper.from_array(kernels, "m")])
    model = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    watched, names = observable(model)
    values = [images, *inference.open_session(to_bytes(watched), 1).run(list(names), {"input": images})]
    ranges_V2 = np.array([(each.min(), each.max()) for each in values], dtype=np.float32)
    int8 = to_bytes(quantized(model, ranges_V2, INT8_GATE.scheme))
    int8_outputs_VK = inference.bind(inference.open_session(int8, 1), images)()

    def writing(name: str, content: bytes) -> Callable[[Path], tuple[str, ...]]:
        def write(partial: Path) -> tuple[str, ...]:
            (partial / name).write_bytes(content)
            return (name,)

        return write

    def gate(partial: Path, written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate | Int8Gate]:
        found = check_parity(vectors.outputs_VK, {MAIN.name: OnnxExporter().load(partial / "model.onnx")}, images)
        return {**found, MAIN_INT8.name: INT8_GATE}

    predicted = PredictedLatency(value_ms=1.5, interval_ms=None, kind="roofline", provenance=("published",))
    draft_of = ManifestDraft.model_validate_json(json.dumps(document))
    writers = [ModelWriter(MAIN, writing("model.onnx", to_bytes(model)), 0.9, predicted)]
    if has_int8:
        writers.append(ModelWriter(MAIN_INT8, writing("model.int8.onnx", int8), 0.9, None))
    vectors = Vectors(images, outputs_VK, int8_outputs_VK if has_int8 else None)
    write_bundle(folder, draft_of, writers, vectors, gate)
    return folder


@pytest.fixture
def bare_python(tmp_path) -> str:
    """A Python without packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    return str(tmp_path / "bare" / "bin" / "python")


def test_lines_come_back_and_nothing_stays(server):
    program = b"import sys\nprint('one')\nprint('zwei \\u00fc')\nprint('note', file=sys.stderr)\nprint('last', end='')"

    assert server.run(program) == ["one", "zwei ü", "last"]
    assert server.is_clean()


def test_files_of_any_size_arrive_as_they_are(server, tmp_path):
    big = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "big").write_bytes(big)
    program = b"import hashlib\nfor name in ('in/a', 'b'): print(hashlib.sha1(open(name, 'rb').read()).hexdigest())"
    files = {"program.py": program, "in/a": tmp_path / "big", "b": b""}

    lines = list(run_there(server.access(), files, ["program.py"]))

    assert lines == [hashlib.sha1(content).hexdigest() for content in (big, b"")]


def test_failed_program_gives_its_last_words(server):
    with pytest.raises(DeviceError, match=rf"^{server.url}: the program ended with exit code 3: no such thing$"):
        server.run(b"import sys\nprint('no such thing', file=sys.stderr)\nsys.exit(3)")


def test_killed_program_says_so(server):
    with pytest.raises(DeviceError, match="ended by signal 9; is there enough memory"):
        server.run(b"import os\nos.kill(os.getpid(), 9)")


def refused(server: Server, **changes: Any) -> str:
    """Return what is said of a machine that nothing can be run on; it must be one line, and nothing stays there."""
    with pytest.raises(DeviceError) as caught:
        server.run(b"print('never')", **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert server.is_clean()
    return message.removeprefix(f"{changes.get('target', server.url)}: ")


def test_unknown_host_key_is_refused(server, tmp_path):
    config = server.configured(tmp_path / "config", UserKnownHostsFile="/dev/null")

    assert refused(server, ssh_config=config).startswith(
        f"its host key is not known here; connect once with `ssh -F {config} -p {server.port} 127.0.0.1`"
    )


def test_changed_host_key_is_refused(server, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} " + (server.folder / "stranger.pub").read_text())
    config = server.configured(tmp_path / "config", UserKnownHostsFile=str(known))

    message = refused(server, ssh_config=config)
    assert message.startswith("its host key is not the one known here: another machine may be answering")
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in message


def test_configuration_cannot_switch_the_check_of_the_host_key_off(server, tmp_path):
    config = server.configured(tmp_path / "config", UserKnownHostsFile="/dev/null", StrictHostKeyChecking="no")

    assert refused(server, ssh_config=config).startswith("its host key is not known here")


def test_key_that_is_not_welcome_is_refused(server, tmp_path):
    config = server.configured(tmp_path / "config", IdentityFile=str(server.folder / "stranger"))
    text = config.read_text().replace(f"IdentityFile {server.folder}/client\n", "")
    config.write_text(text)

    assert refused(server, ssh_config=config).startswith("permission denied; ssh has to log in without asking")


def test_machine_that_does_not_listen_is_refused(server):
    assert refused(server, target=SshHost("127.0.0.1", port=free_port())).startswith("connection refused")


def test_unknown_name_is_refused(server):
    assert refused(server, target=SshHost("no-such-device.invalid")).startswith("no such host")


def test_missing_python_is_named(server):
    assert refused(server, python="no-such-python").startswith("there is no no-such-python; install Python 3.6")


def test_missing_packages_are_named_with_what_to_do(server, bare_python):
    with pytest.raises(DeviceError, match="numpy and onnxruntime missing there") as caught:
        list(
            run_there(
                server.access(python=bare_python), {"program.py": b""}, ["program.py"], needs=("numpy", "onnxruntime")
            )
        )

    assert f"`{bare_python} -m pip install numpy onnxruntime`" in str(caught.value)
    assert "--install" in str(caught.value)
    assert server.is_clean()


def test_install_without_pip_says_why_not(server, bare_python):
    access = server.access(python=bare_python, can_install=True)

    with pytest.raises(DeviceError, match=r"pip could not install numpy and onnxruntime: .*No module named pip"):
        list(run_there(access, {"program.py": b""}, ["program.py"], needs=("numpy", "onnxruntime")))
    assert server.is_clean()


def test_install_gives_the_program_its_packages_for_this_run(server):
    """With a package made here, which pip on the other machine finds in a folder instead of on the internet."""
    about = {"METADATA": "Metadata-Version: 2.1\nName: ruler\nVersion: 1\n", "WHEEL": "Wheel-Version: 1.0\n"}
    about["WHEEL"] += "Generator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(server.folder / "ruler-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ruler.py", "LENGTH_CM = 30\n")
        for name, text in about.items():
            wheel.writestr(f"ruler-1.dist-info/{name}", text)
        wheel.writestr("ruler-1.dist-info/RECORD", "")
    program = b"import ruler; print(ruler.LENGTH_CM)"

    def run(**changes: Any) -> list[str]:
        access = server.access(python=sys.executable, **changes)
        return list(run_there(access, {"program.py": program}, ["program.py"], needs=("json", "ruler")))

    with pytest.raises(DeviceError, match="ruler missing there"):
        run()
    assert run(can_install=True) == ["30"]
    assert server.is_clean()
    with pytest.raises(DeviceError, match="ruler missing there"):
        run()


def test_old_python_is_refused(server, tmp_path):
    """A Python that takes itself for 3.5."""
    script = f"""#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 5, 9); $2"\n"""
    old = tmp_path / "python3.5"
    old.write_text(script)
    old.chmod(0o755)

    expected = "expected Python 3.6 or later, found 3.5; name a newer one with --python"
    assert refused(server, python=str(old)) == expected


def test_machine_that_says_nothing_is_given_up(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = SshHost("127.0.0.1", port=silent.getsockname()[1])
        assert refused(server, target=target).startswith("no answer; is the device switched on")


def test_noise_of_the_login_shell_is_no_result(server, tmp_path):
    """Some accounts greet whoever logs in, also where nobody reads it."""
    greeting = tmp_path / "python"
    greeting.write_text(f"#!/bin/sh\necho 'Welcome!'\necho '[1, 2]'\nexec {sys.executable} \"$@\"\n")
    greeting.chmod(0o755)

    assert server.run(b"print('one')", python=str(greeting)) == ["one"]


def test_missing_ssh_is_named(server, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(DeviceError, match=r"^no ssh on this machine"):
        server.run(b"")


def test_cut_connection_ends_the_program_there_and_removes_its_files(
    server, processes, are_running, is_any_running, eventually
):
    lines = run_there(server.access(), {"program.py": LINGER}, ["program.py"])
    folder, *words = next(lines).split()
    pids = [int(word) for word in words]
    assert Path(folder).parents[1] == server.temporary
    assert not server.is_clean()
    assert are_running(pids)

    server.cut(processes())

    with pytest.raises(DeviceError, match=r"the connection was cut before the work was done \(.+\); run this again$"):
        next(lines)
    assert eventually(server.is_clean)
    assert eventually(lambda: not is_any_running(pids))


def test_killed_client_ends_the_program_there_and_removes_its_files(
    server, children, are_running, is_any_running, eventually
):
    """As when the laptop's terminal is closed: nothing can be tidied up here."""
    code = (
        "import sys; from pathlib import Path; from fedsup_deploy.device.remote.measure import *\n"
        "access = Access(SshHost.parse(sys.argv[1]), ssh_config=Path(sys.argv[2]))\n"
        "for line in run_there(access, {'program.py': sys.argv[3].encode()}, ['program.py']):\n"
        "    print(line, flush=True)"
    )
    command = [sys.executable, "-c", code, server.url, str(server.folder / "config"), LINGER.decode()]
    client = children.start(command, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in client.stdout.readline().split()[1:]]
    assert are_running(pids)

    client.kill()
    client.communicate()

    assert eventually(server.is_clean)
    assert eventually(lambda: not is_any_running(pids))


def test_abandoned_iterator_waits_until_nothing_is_left(server, is_any_running):
    lines = run_there(server.access(), {"program.py": LINGER}, ["program.py"])
    pids = [int(pid) for pid in next(lines).split()[1:]]

    lines.close()  # type: ignore[attr-defined]

    assert server.is_clean()
    assert not is_any_running(pids)


def test_bundle_is_checked_and_timed_there(server, small_bundle):
    access = server.access(python=sys.executable)

    report = measure_bundle_there(access, small_bundle, threads=1, protocol="quick")

    assert (report["exit_code"], report["arch_id"]) == (0, "afd02a30afb7")
    assert report["latency"]["statistics"]["num_runs"] >= 200
    assert report["environment"]["threads"] == 1
    assert server.is_clean()


def test_altered_bundle_is_not_sent(server, small_bundle, tmp_path):
    shutil.copytree(small_bundle, tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")

    access = server.access(python=sys.executable)
    with pytest.raises(ArtifactError, match=r"bundle: model\.onnx was altered: its sha256 is not that of SHA256SUMS$"):
        measure_bundle_there(access, tmp_path / "bundle", threads=1, protocol="quick")
    (tmp_path / "bundle" / "model.onnx").write_bytes((small_bundle / "model.onnx").read_bytes())
    (tmp_path / "bundle" / "MODEL_CARD.md").unlink()
    (tmp_path / "bundle" / "MODEL_CARD.md").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match=r"MODEL_CARD\.md is no regular file"):
        measure_bundle_there(access, tmp_path / "bundle", threads=1, protocol="quick")


def test_model_is_timed_there(server, small_bundle):
    access = server.access(python=sys.executable)

    latency, energy, reason = measure_model_there(access, small_bundle / "model.onnx", threads=1, protocol="quick")

    assert (energy is None) == (reason is not None)
    statistics = latency["statistics"]
    assert 0 < statistics["min_ms"] <= statistics["p10_ms"] <= statistics["p50_ms"]
    assert (latency["protocol"]["name"], latency["environment"]["threads"]) == ("quick", 1)
    assert server.is_clean()


def test_session_there_tells_of_every_visit(server, small_bundle):
    model = small_bundle / "model.onnx"
    options = ["--ruler", "ruler", "--rounds", "2", "--visit-seconds", "0.002"]

    events = list(
        session_there(server.access(python=sys.executable), {"a": model, "b": model, "ruler": model}, options)
    )

    assert events[0]["event"] == "environment"
    visited = [event["model"] for event in events if event["event"] == "visit"]
    assert sorted(visited) == ["a", "a", "b", "b"]


def test_file_that_is_no_model_is_named(server, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")

    with pytest.raises(DeviceError, match=r"onnxruntime [0-9.]+ cannot run text/text\.onnx: "):
        measure_model_there(server.access(python=sys.executable), tmp_path / "text.onnx", threads=1, protocol="quick")
    assert server.is_clean()


def test_measured_bundle_holds_the_result_and_still_verifies(shell, server, small_bundle):
    shutil.copytree(small_bundle, shell.folder / "bundle")

    result = shell.json("measure", "bundle", *server.words())

    assert (result["arch_id"], result["profile"], result["is_recorded"]) == ("afd02a30afb7", "raspberry-pi-4", True)
    recorded = load_measurement(shell.folder / "bundle")
    assert recorded is not None
    assert recorded.statistics.p50_ms == result["statistics"]["p50_ms"]
    assert recorded.environment == result["environment"]
    assert "127.0.0.1" not in (shell.folder / "bundle" / "measured.json").read_text()
    assert shell.json("verify", "bundle")["measured"]["statistics"] == result["statistics"]
    assert server.is_clean()


def test_both_files_of_a_bundle_are_timed_there_in_turns_and_kept(shell, server, bundle_with_int8):
    shutil.copytree(bundle_with_int8, shell.folder / "bundle")

    result = shell.json("measure", "bundle", *server.words())

    speed = result["int8"]["speed"]
    p10_ms = [each["statistics"]["p10_ms"] for each in (result, result["int8"])]
    assert speed["times_as_fast"] == pytest.approx(p10_ms[0] / p10_ms[1])
    recorded = load_measurement(shell.folder / "bundle")
    assert recorded is not None
    assert recorded.int8 is not None
    assert recorded.int8.speed.model_dump() == speed
    assert recorded.int8.environment == recorded.environment == result["environment"]
    assert shell.json("verify", "bundle")["measured"]["int8"]["speed"] == speed
    assert server.is_clean()


@pytest.fixture
def rail(tmp_path) -> Path:
    """A folder like the /sys of a Jetson module, which takes 4 W."""
    hwmon = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    hwmon.mkdir(parents=True)
    for name, content in {"in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 800}.items():
        (hwmon / name).write_text(f"{content}\n")
    return tmp_path / "sys"


def test_a_sensor_there_is_asked_by_what_is_sent(server, small_bundle, rail, device_python):
    """With nothing of this package on the other machine: of a bundle and of a model."""
    access = server.access(python=device_python())

    report = measure_bundle_there(access, small_bundle, threads=1, protocol="quick", sensors=rail)
    _, energy, reason = measure_model_there(
        access, small_bundle / "model.onnx", threads=1, protocol="quick", sensors=rail
    )

    assert (report["why_no_energy"], reason) == (None, None)
    for found in (report["energy"], energy):
        assert found is not None
        assert found["energy_mj"] == pytest.approx(4e3 * found["seconds"] / found["num_runs"], rel=0.05)
        assert (found["covers"], found["source"]) == ("module", "INA3221")
        assert found["idle_power_w"] == pytest.approx(4, rel=0.05)
    assert server.is_clean()


def test_energy_that_was_measured_there_is_kept(server, small_bundle, rail, tmp_path, monkeypatch):
    """And where there is no sensor it is said so, and nothing is kept."""
    bundle = tmp_path / "bundle"
    shutil.copytree(small_bundle, bundle)
    access = server.access(python=sys.executable)
    for sensors, has_one in ((tmp_path / "none", False), (rail, True)):
        there = functools.partial(measure_bundle_there, sensors=sensors)
        monkeypatch.setattr("fedsup_deploy.commands.measure.measure_bundle_there", there)

        found = measure_on(bundle, access, 1, "quick")

        kept = load_measurement(bundle)
        assert kept is not None
        assert (found.energy is not None, kept.energy is not None) == (has_one, has_one)
        assert ("no sensor that can be read" in (found.why_no_energy or "")) == (not has_one)
        assert ("why_no_energy" in found.to_dict()) == (not has_one)


@pytest.mark.parametrize("place", ["here", "there"])
def test_what_takes_longer_than_allowed_ends_with_an_exit_code_of_its_own_and_is_kept(
    shell, server, small_bundle, place
):
    shutil.copytree(small_bundle, shell.folder / "bundle")
    on = server.words() if place == "there" else []

    slow = shell.run("measure", "bundle", *on, "--fail-above", "0.000001", "--percentile", "p90", "--json")

    document = json.loads(slow.out)
    measured_ms = document["statistics"]["p90_ms"]
    [error] = slow.errors
    assert slow.exit_code == 11
    assert error.startswith(f"error: p90 is {measured_ms:.4g} ms, above 1e-06 ms, ")
    assert document["fail_above"]["verdict"] in {"not met", "undecided"}
    kept = load_measurement(shell.folder / "bundle")
    assert kept is not None
    assert kept.statistics.p90_ms == measured_ms
    fast = shell.json("measure", "bundle", *on, "--fail-above", "1e6")
    held = {"limit_ms": 1e6, "percentile": "p50", "measured_ms": fast["statistics"]["p50_ms"], "verdict": "met"}
    assert fast["fail_above"] == held


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of 40 pictures that a bundle of digits takes."""
    (tmp_path / "pictures").mkdir()
    for number, digit in enumerate(load_digits().images[:40]):
        Image.fromarray((digit * 15).astype(np.uint8)[:6, :6]).save(tmp_path / "pictures" / f"mine {number:02}.png")
    return tmp_path / "pictures"


def test_pictures_are_timed_there_apart_from_the_network_and_kept(shell, server, small_bundle, pictures):
    shutil.copytree(small_bundle, shell.folder / "bundle")

    result = shell.json("measure", "bundle", *server.words("--images", str(pictures)))

    found = result["pictures"]
    assert (found["num_pictures"], found["num_found"]) == (32, 40)
    assert found["smallest"] == found["largest"] == {"width": 6, "height": 6}
    assert found["decode"]["statistics"]["num_runs"] == found["prepare"]["statistics"]["num_runs"] >= 200
    recorded = load_measurement(shell.folder / "bundle")
    assert recorded is not None
    assert recorded.pictures is not None
    assert recorded.pictures.model_dump() == found
    assert "mine" not in (shell.folder / "bundle" / "measured.json").read_text()
    assert ", before the network; pictures: 32, 6x6 pixels" in " ".join(shell.run("inspect", "bundle").out.split())
    assert server.is_clean()


def test_a_picture_that_cannot_be_used_is_named_and_nothing_is_sent(shell, server, small_bundle, pictures):
    shutil.copytree(small_bundle, shell.folder / "bundle")
    (pictures / "text.png").write_text("no picture")
    before = shell.content()

    ended = shell.run("measure", "bundle", *server.words("--images", str(pictures / "text.png")))

    assert (ended.exit_code, len(ended.errors)) == (3, 1)
    assert "text.png: it is none of BMP, GIF, JPEG" in ended.errors[0]
    assert shell.content() == before


def test_pillow_is_needed_there_for_pictures_alone(shell, server, small_bundle, pictures, device_python):
    shutil.copytree(small_bundle, shell.folder / "bundle")
    python = device_python("PIL")
    there = ["--on", server.url, "--python", python, "--ssh-config", str(server.folder / "config")]

    assert shell.run("measure", "bundle", *there).exit_code == 0
    ended = shell.run("measure", "bundle", *there, "--images", str(pictures))

    assert (ended.exit_code, len(ended.errors)) == (10, 1)
    assert f"pillow missing there; install with `{python} -m pip install pillow`" in ended.errors[0]


def test_model_is_measured_from_the_command_line(shell, server, small_bundle):
    ended = shell.run("measure", small_bundle / "model.onnx", *server.words("--threads", "2"))

    assert (ended.exit_code, ended.errors) == (0, [])
    assert "first run" in ended.out


def test_altered_bundle_ends_as_with_verify_and_stays_as_it_is(shell, server, small_bundle):
    shutil.copytree(small_bundle, shell.folder / "bundle")
    (shell.folder / "bundle" / "vectors.npz").write_bytes(b"other")
    before = shell.content()

    ended = shell.run("measure", "bundle", *server.words())

    assert ended.exit_code == 4
    [error] = ended.errors
    assert error.startswith("error: bundle: vectors.npz was altered: ")
    assert shell.content() == before


def test_unreachable_machine_has_its_own_exit_code(shell, server, small_bundle):
    ended = shell.run("measure", small_bundle, "--on", f"ssh://127.0.0.1:{free_port()}")

    assert (ended.exit_code, len(ended.errors)) == (10, 1)
    assert "connection refused" in ended.errors[0]


def test_interrupted_measurement_leaves_nothing_there(shell, server, small_bundle):
    shutil.copytree(small_bundle, shell.folder / "bundle")
    before = shell.content()
    started = shell.start("measure", "bundle", *server.words("--protocol", "full"))
    started.wait_until(lambda: not server.is_clean())

    ended = started.interrupt()

    assert ended.exit_code == 130
    assert server.is_clean()
    assert shell.content() == before
    assert started.survivors() == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--install"], "name it with --on"),
        (["--on", "pi@nano"], "expected ssh://[user@]host[:port]"),
        (["--on", "ssh://-oProxyCommand=reboot"], "expected ssh://[user@]host[:port]"),
        (["--percentile", "p90"], "--percentile says what --fail-above is about"),
        (["--fail-above", "0"], "--fail-above"),
        (["--on", "ssh://nano", "--ruler", "model.onnx"], "--ruler compares on this machine only"),
        (["--images", "model.onnx"], "model.onnx: a model does not say how pictures are prepared; give a bundle"),
        (["--on", "ssh://nano", "--images", "model.onnx"], "a model does not say how pictures are prepared"),
    ],
)
def test_options_that_cannot_be_are_refused(shell, small_bundle, given, expected):
    shutil.copy(small_bundle / "model.onnx", shell.folder)

    ended = shell.run("measure", "model.onnx", *given)

    assert (ended.exit_code, len(ended.errors)) == (2, 1)
    assert expected in ended.errors[0]
