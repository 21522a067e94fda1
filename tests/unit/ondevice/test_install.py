"""`install.py`: the program in a bundle that lets it run on a device, and goes back."""

import bz2
import contextlib
import errno
import gzip
import io
import json
import lzma
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtimes import RUNTIMES, Installed, Runtime

from fedsup_deploy import rng
from fedsup_deploy.artifact.program import INSTALLER, program
from fedsup_deploy.artifact.signing import SigningKey, checked_hashes, sign_bundle
from fedsup_deploy.ondevice import bundle_files, install

PythonOf = Callable[[str], Path]
Finished = subprocess.CompletedProcess[str]


class Device:
    """A device with a folder that bundles are installed to, and bundles that can be."""

    def __init__(self, folder: Path, bundle: Any) -> None:
        self.folder, self.to = folder, folder / "model"
        self.bundle = bundle
        (bundle.folder / INSTALLER).write_bytes(program(INSTALLER))
        self.keys: dict[str, SigningKey] = {}

    def made(self, name: str, version: int | None = None, key: str = "key", *, is_wrong: bool = False) -> Path:
        """A bundle whose manifest has this name; signed where it has a version."""
        if is_wrong:
            self.bundle.write_vectors(self.bundle.inputs, self.bundle.outputs + np.float32(1))
        manifest = {**self.bundle.manifest(), "arch_id": name}
        self.bundle.write_sums(json.dumps(manifest))
        folder = self.folder / name
        shutil.copytree(self.bundle.folder, folder)
        if is_wrong:
            self.bundle.write_vectors(self.bundle.inputs, self.bundle.outputs)
        if version is not None:
            sign_bundle(folder, self.key(key), name, version, checked_hashes(folder))
        return folder

    def key(self, name: str) -> SigningKey:
        from cryptography.hazmat.primitives.asymmetric import ec

        if name not in self.keys:
            self.keys[name] = SigningKey(ec.generate_private_key(ec.SECP256R1()), is_readable_by_others=False)
            self.public(name).write_bytes(self.keys[name].public_pem)
        return self.keys[name]

    def public(self, name: str = "key") -> Path:
        return self.folder / f"{name}.pub"

    def install(self, *words: object) -> dict[str, Any]:
        """What the program reports, run inside this process; it ends with the exit code that it reports."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = install.main([*map(str, words), "--to", str(self.to), "--json"])
        report: dict[str, Any] = json.loads(output.getvalue())
        assert report["exit_code"] == code
        return report

    def runs(self) -> str:
        """The name of what runs, which is whole."""
        bundle_files.check_files(self.to / "current")
        name: str = json.loads((self.to / "current" / "manifest.json").read_text())["arch_id"]
        return name

    def refused(self, exit_code: int, reason: str, *words: object) -> None:
        """Assert that the program ends so, and that what ran before still does."""
        before = self.runs()
        report = self.install(*words)
        assert (report["exit_code"], self.runs()) == (exit_code, before)
        assert reason in report["reason"]
        assert sorted(path.name for path in self.to.iterdir() if path.name != ".lock") in (
            ["current", "releases"],
            ["current", "key.pem", "releases"],
        )


@pytest.fixture
def device(bundle: Any, tmp_path: Path) -> Device:
    pytest.importorskip("cryptography", reason="cryptography (the extra sign)")
    return Device(tmp_path, bundle)


def archive_of(folder: Path, name: str = "bundle.tar.gz") -> Path:
    path = folder.parent / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
        archive.add(folder, folder.name)
    return path


def test_a_bundle_runs_where_none_did_and_the_next_moves_only_what_differs(device: Device) -> None:
    one, two = device.made("one"), device.made("two")
    report = device.install(one)
    assert (report["action"], report["release"], report["previous"]) == ("installed", "000001", None)
    assert report["moved"]["linked_files"] == 0
    assert report["moved"]["copied_bytes"] == sum(path.stat().st_size for path in one.iterdir())
    report = device.install(archive_of(two))
    assert (device.runs(), report["release"], report["previous"]) == ("two", "000002", "000001")
    moved = sum((two / name).stat().st_size for name in ("manifest.json", "SHA256SUMS"))
    assert (report["moved"]["copied_files"], report["moved"]["copied_bytes"]) == (2, moved)
    assert report["files"]["num_bytes"] == moved + report["moved"]["linked_bytes"]
    releases = device.to / "releases"
    assert (releases / "000001" / "model.onnx").samefile(releases / "000002" / "model.onnx")
    again = device.install(two)
    assert (again["action"], again["release"], again["previous"]) == ("unchanged", "000002", "000001")


def test_a_file_that_was_damaged_where_it_runs_is_copied_again(device: Device) -> None:
    one = device.made("one")
    device.install(one)
    model = device.to / "releases" / "000001" / "model.onnx"
    model.write_bytes(model.read_bytes()[::-1])
    report = device.install(one)
    assert (report["action"], report["release"], device.runs()) == ("installed", "000002", "one")
    assert report["moved"]["copied_files"] == 2  # and SHA256SUMS, which lists itself nowhere


def test_a_bundle_whose_vectors_fail_is_refused_and_rollback_goes_back_to_the_one_before(device: Device) -> None:
    device.install(device.made("one"))
    device.install(device.made("two"))
    device.refused(3, "outputs at batch 1", device.made("wrong", is_wrong=True))
    assert device.runs() == "two"
    report = device.install("--rollback")
    assert (report["exit_code"], report["action"], report["release"]) == (0, "rolled back", "000001")
    assert device.runs() == "one"
    device.refused(2, "no model before this one", "--rollback")
    # What was gone back from is passed over from now on, and a rollback leads to what ran before.
    device.install(device.made("three"))
    assert sorted(path.name for path in (device.to / "releases").iterdir()) == ["000001", "000003"]
    device.install("--rollback")
    assert device.runs() == "one"


def test_rollback_to_what_was_damaged_or_fails_now_is_refused(device: Device) -> None:
    device.install(device.made("one"))
    device.install(device.made("two"))
    vectors = device.to / "releases" / "000001" / "vectors.npz"
    content = vectors.read_bytes()
    vectors.unlink()
    vectors.write_bytes(content[::-1])
    device.refused(1, "vectors.npz was altered", "--rollback")


def test_as_many_models_stay_as_were_asked_for(device: Device) -> None:
    for name in ("a", "b", "c", "d"):
        device.install(device.made(name), "--keep", 2)
    assert sorted(path.name for path in (device.to / "releases").iterdir()) == ["000002", "000003", "000004"]


def test_once_a_key_was_given_all_has_to_be_signed_with_it(device: Device) -> None:
    one, two = device.made("one", 1), device.made("two", 2)
    assert device.install(one)["signature"] == "not checked"
    report = device.install(one, "--key", device.public())
    assert (report["action"], report["version"], report["signature"]) == ("installed", 1, "checked")
    device.refused(5, "it is not signed: model.sig is missing", device.made("unsigned"))
    device.refused(1, "model.sig is not by this key", device.made("stranger", 9, key="other"))
    assert device.install(two)["version"] == 2
    device.refused(1, "model.sig is not by this key", one, "--key", device.public("other"))
    device.install(device.made("new owner", 3, key="other"), "--key", device.public("other"))
    assert (device.to / "key.pem").read_bytes() == device.public("other").read_bytes()
    device.refused(1, "model.sig is not by this key", device.made("old owner", 4))


def test_a_lower_version_is_refused_and_so_is_one_that_was_gone_back_from(device: Device) -> None:
    device.install(device.made("three", 3), "--key", device.public())
    five = device.made("five", 5)
    device.install(five)
    device.refused(9, "its version is 4, and version 5 was here", device.made("four", 4))
    device.refused(9, "version 5 was here with other files", device.made("another five", 5))
    device.install("--rollback")
    device.refused(9, "its version is 4, and version 5 was here", device.folder / "four")
    # The very same may be tried again.
    report = device.install(five)
    assert (report["action"], report["release"], device.runs()) == ("installed", "000003-v5", "five")
    # The same files may get a higher version; then nothing but the signature moves.
    sign_bundle(five, device.key("key"), "five", 6, checked_hashes(five))
    report = device.install(five)
    assert (report["release"], report["previous"]) == ("000004-v6", "000003-v5")
    assert report["moved"]["copied_files"] == 2


def test_what_another_program_signed_has_no_version_and_is_older_than_any(device: Device) -> None:
    device.install(device.made("one", 1), "--key", device.public())
    theirs = device.made("theirs", 2)
    content = json.loads((theirs / "model.sig").read_bytes())
    import base64

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    from fedsup_deploy.ondevice.signature import signature_text, signed_bytes

    statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    del statement["predicate"]["fedsup-deploy"]
    text = json.dumps(statement).encode()
    signature = device.key("key").private.sign(signed_bytes(text), ec.ECDSA(hashes.SHA256()))
    (theirs / "model.sig").write_bytes(signature_text(text, signature, "0" * 64))
    device.refused(9, "its signature gives no version, and version 1 was here", theirs)


def test_another_installation_at_work_is_named(device: Device) -> None:
    import fcntl

    device.install(device.made("one"))
    with (device.to / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        device.refused(10, "another installation is at work", device.made("two"))
    assert device.install(device.folder / "two")["exit_code"] == 0


def test_what_cannot_be_written_leaves_the_old_and_nothing_else(device: Device) -> None:
    """No file may be larger than 64 KiB here: run.py is."""
    one = device.made("one")
    device.install(one)
    two = device.made("two")
    (two / "run.py").write_bytes((two / "run.py").read_bytes() + b"\n")
    names = bundle_files.list_files(two).keys() - bundle_files.BESIDE_SUMS
    (two / "SHA256SUMS").write_text("".join(bundle_files.sha256sums(two, names)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        report = device.install(two)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (report["exit_code"], report["reason"]) == (10, "it cannot be written there: File too large")
    assert (device.runs(), (device.to / ".partial").exists()) == ("one", False)
    assert device.install(two)["exit_code"] == 0


def test_a_folder_that_holds_something_else_is_left_alone(device: Device) -> None:
    one = device.made("one")
    device.to.mkdir()
    (device.to / "notes.txt").write_text("mine")
    report = device.install(one)
    assert (report["exit_code"], [path.name for path in device.to.iterdir()]) == (2, ["notes.txt"])
    assert "notes.txt" in report["reason"]
    report = device.install("--rollback")
    assert (report["exit_code"], report["reason"]) == (2, "nothing is installed there")


def member(name: str, content: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


STRANGE = {
    "above": (member("../evil"), "../evil in the archive is no name"),
    "above, within": (member("two/../../evil"), "in the archive is no name"),
    "absolute": (member("/tmp/evil"), "/tmp/evil in the archive is no name"),
    "doubled slash": (member("two//evil"), "in the archive is no name"),
    "link": (member("two/link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is no file of a bundle"),
    "hard link": (member("two/link", b"", type=tarfile.LNKTYPE, linkname="two/run.py"), "is no file of a bundle"),
    "pipe": (member("two/pipe", b"", type=tarfile.FIFOTYPE), "is no file of a bundle"),
    "device": (member("two/null", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "is no file of a bundle"),
    "twice": (member("two/model.onnx"), "model.onnx is in the archive twice"),
    "elsewhere": (member("other/file"), "other/file in the archive is of no bundle"),
    "stranger": (member("two/evil.py"), "evil.py is no file of the bundle"),
    "controls": (member("two/\x1b[2J"), "\\x1b[2J is no file of the bundle"),
    "long name": (member("two/" + "a" * 300), "in the archive is no name"),
    "file and folder": (member("two/run.py/more"), "run.py is in the archive as a file and as a folder"),
    "file above a folder": (member("two/deep/er/run.py"), "deep/er/run.py is no file of the bundle"),
}


def test_an_archive_with_something_strange_is_refused(device: Device) -> None:
    device.install(device.made("one"))
    whole = archive_of(device.made("two"), "whole.tar")
    for name, ((info, content), reason) in STRANGE.items():
        archive = device.folder / f"{name}.tar"
        shutil.copy(whole, archive)
        with tarfile.open(archive, "a") as file:
            file.addfile(info, io.BytesIO(content))
        before = sorted(path.name for path in device.folder.iterdir())
        device.refused(1, reason, archive)
        assert sorted(path.name for path in device.folder.iterdir()) == before
    assert device.install(whole)["exit_code"] == 0


def header(kind: bytes, num_bytes: int, **fields: str) -> bytes:
    """A header of an archive that says of itself that so many bytes follow it."""
    info = tarfile.TarInfo("two/model.onnx")
    info.type, info.size, info.pax_headers = kind, num_bytes, fields
    return info.tobuf(tarfile.PAX_FORMAT if fields else tarfile.GNU_FORMAT)


#: What tarfile reads whole before anybody sees it: names, and lists of the parts of files with holes.
ENDLESS = {
    "long name": header(tarfile.GNUTYPE_LONGNAME, 2**26),
    "long link": header(tarfile.GNUTYPE_LONGLINK, 2**26),
    "of a file": header(tarfile.XHDTYPE, 2**26),
    "of a file, as Solaris has it": header(tarfile.SOLARIS_XHDTYPE, 2**26),
    "of all files": header(tarfile.XGLTYPE, 2**26),
    "parts of a file": header(tarfile.REGTYPE, 2**26, **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_is_told_of_the_files_of_an_archive_takes_no_memory(device: Device, kind: str, tmp_path: Path) -> None:
    """What is packed small may be any number of bytes when it is read."""
    archive = tmp_path / "bundle.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(ENDLESS[kind])
        file.write(b"9999999999\n")  # parts, as many as that
        for _ in range(4):
            file.write(b"1\n" * 2**23)
    device.install(device.made("one"))
    tracemalloc.start()
    try:
        device.refused(1, "", archive)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**24


def test_many_small_headers_take_no_memory_either(device: Device) -> None:
    """What is told of all files is kept for each of them."""
    device.install(device.made("one"))
    for kind, is_refused in ((tarfile.PAX_FORMAT, True), (tarfile.PAX_FORMAT, False)):
        archive = device.folder / "many.tar"
        told = {f"key{number}": "x" * 60 for number in range(100 if is_refused else 1)}
        with tarfile.open(archive, "w", format=kind, pax_headers=told) as file:
            file.add(device.made(f"two {is_refused}"), "two")
        if is_refused:
            device.refused(1, "the archive tells more of its files than any bundle has", archive)
        else:
            assert device.install(archive)["exit_code"] == 0


def test_a_file_with_holes_is_no_file_of_a_bundle(device: Device) -> None:
    archive = archive_of(device.made("two"), "bundle.tar")
    content = header(tarfile.GNUTYPE_SPARSE, 512)
    archive.write_bytes(content + bytes(512) + archive.read_bytes())
    report = device.install(archive)
    assert (report["exit_code"], report["reason"]) == (1, "two/model.onnx in the archive is no file of a bundle")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_with_a_wrong_byte_is_refused_however_it_is_compressed(
    device: Device, compress: Callable[[bytes], bytes]
) -> None:
    """Each library has errors of its own for that; those of xz are neither OSError nor ValueError.

    The last bytes are those of the archive's own sum, which says so even where all files can be read.
    """
    device.install(device.made("one"))
    archive = archive_of(device.made("two"), "bundle.tar")
    content = bytearray(compress(archive.read_bytes()))
    for place in (*(len(content) * number // 16 for number in range(1, 16)), -6, -1):
        content[place] ^= 0xFF
        archive.write_bytes(bytes(content))
        assert (device.install(archive)["exit_code"], device.runs()) == (1, "one"), place
        content[place] ^= 0xFF
    archive.write_bytes(bytes(content))
    assert device.install(archive)["exit_code"] == 0


def test_an_archive_that_is_cut_off_or_none_is_refused(device: Device) -> None:
    device.install(device.made("one"))
    archive = archive_of(device.made("two"))
    content = archive.read_bytes()
    for number in (0, 1, 100, len(content) // 2, 9 * len(content) // 10):
        archive.write_bytes(content[:number])
        report = device.install(archive)
        assert (report["exit_code"], device.runs()) == (1, "one"), number
    archive.write_bytes(b"no archive")
    device.refused(1, "cannot be read", archive)
    empty = device.folder / "empty"
    empty.mkdir()
    device.refused(5, "manifest.json is missing", empty)


@pytest.mark.parametrize("words", [["nowhere"], [], ["one", "--rollback"], ["one", "--keep", "0"]])
def test_wrong_usage(device: Device, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        install.main([*words, "--to", str(device.to)])
    assert (ended.value.code, device.to.exists()) == (2, False)
    assert "error: " in capsys.readouterr().err


def run_there(python: list[str], program: Path, *words: object, **variables: str) -> Finished:
    command = [*python, str(program), *map(str, words)]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["3.6", "3.13"])
def test_python_of_a_device_checks_the_signature_and_all_else_without_any_library(
    device: Device, python_of: PythonOf, version: str
) -> None:
    """Then run.py says which library it lacks; what was there would still run."""
    python = [str(python_of(version)), "-S"]
    bundle = device.made("one", 7)
    ran = run_there(python, bundle / INSTALLER, archive_of(bundle), "--to", device.to, "--key", device.public())
    assert (ran.returncode, ran.stderr) == (2, "")
    expected = ["signature checked, version 7", "FAIL: numpy cannot be imported; run: pip install numpy onnxruntime"]
    assert ran.stdout.splitlines()[2:] == expected
    assert sorted(path.name for path in device.to.iterdir()) == [".lock", "releases"]
    device.key("other")
    ran = run_there(python, bundle / INSTALLER, bundle, "--to", device.to, "--key", device.public("other"))
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "FAIL: model.sig is not by this key" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [RUNTIMES[0], RUNTIMES[-1]], ids=str)
def test_python_of_a_device_installs_refuses_and_goes_back(
    device: Device, installed: Callable[[Runtime], Installed], runtime: Runtime
) -> None:
    old = installed(runtime)

    def ran(program: Path, *words: object) -> tuple[int, str]:
        ended = run_there([str(old.python)], program, *words, "--to", device.to, PYTHONPATH=str(old.libraries))
        assert ended.stderr == ""
        return ended.returncode, ended.stdout.splitlines()[-1]

    one, two = device.made("one", 1), device.made("two", 2)
    assert ran(one / INSTALLER, one, "--key", device.public()) == (0, "PASS: installed")
    here = device.to / "current" / INSTALLER
    assert ran(here, archive_of(two)) == (0, "PASS: installed")
    assert ran(here, device.made("wrong", 3, is_wrong=True))[0] == 3
    assert device.runs() == "two"
    assert ran(here, one)[0] == 9
    assert ran(here, "--rollback") == (0, "PASS: rolled back")
    assert device.runs() == "one"


#: What is waited for before the kill: what a moment begins with. None: nothing, it comes at any time.
MOMENTS = (None, ".partial", ".partial/manifest.json", "releases/NEXT", ".current")


@pytest.mark.parametrize("num_kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_whenever_it_is_killed_a_whole_model_runs(device: Device, children: Any, num_kills: int) -> None:
    """By SIGKILL, in turns at any time and right after each step, with a random delay; then the next one goes on."""
    bundles = [device.made(name) for name in ("one", "two")]
    program = bundles[0] / INSTALLER
    assert run_there([sys.executable], program, bundles[0], "--to", device.to).returncode == 0
    numbers, ends = rng.generator(0, "kills"), []
    for index in range(num_kills):
        before = sorted(path.name for path in (device.to / "releases").iterdir())
        process = children.start([sys.executable, program, bundles[index % 2], "--to", device.to, "--json"])
        moment = MOMENTS[index % len(MOMENTS)]
        awaited = None if moment is None else device.to / moment.replace("NEXT", f"{int(before[-1][:6]) + 1:06}")
        while awaited is not None and not os.path.lexists(awaited) and process.poll() is None:
            time.sleep(0.0002)
        time.sleep(float(numbers.exponential(0.3 if awaited is None else 0.002)))
        process.kill()
        ends.append(process.wait())
        assert device.runs() in {"one", "two"}
    assert ends.count(-9) > num_kills / 2
    # The last word: a whole installation, which finds the lock free and tidies up.
    assert run_there([sys.executable], program, bundles[1], "--to", device.to).returncode == 0
    assert device.runs() == "two"
    assert {path.name for path in device.to.iterdir()} == {".lock", "current", "releases"}
    assert run_there([sys.executable], device.to / "current" / "run.py", "--skip-latency").returncode == 0


def test_a_folder_that_cannot_be_read_is_said_and_no_traceback(device: Device) -> None:
    """Whatever the reason: a disk that fails, no right to, or that it is none any more."""
    bundle = device.made("one")
    for place in (bundle / "manifest.json", bundle / "nowhere"):
        with pytest.raises(bundle_files.CheckError, match=f"^{place.name} cannot be read: No") as caught:
            bundle_files.list_files(place)
        assert caught.value.exit_code == bundle_files.ALTERED


@pytest.mark.parametrize("to", [">/dev/full", ">&-", ">/dev/full 2>&-", ">/dev/full 2>/dev/full"])
def test_what_was_installed_is_so_where_the_report_cannot_be_written(device: Device, to: str) -> None:
    """The exit code says what runs; what became of the report stands on standard error, if anything can."""
    words = [sys.executable, device.made("one") / INSTALLER, device.folder / "one", "--to", device.to]
    command = f"exec {' '.join(shlex.quote(str(word)) for word in words)} {to}"
    ended = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, device.runs()) == (0, "one")
    reason = {">/dev/full": "No space left on device", ">&-": "Bad file descriptor"}.get(to)
    assert ended.stderr == ("" if reason is None else f"the report cannot be written: {reason}\n")


def test_what_cannot_be_removed_is_no_reason_to_say_that_nothing_was_installed(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(device.made("one"))
    device.install(device.made("two"))

    def fail(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", fail)
        report = device.install(device.made("three"))
    assert (report["exit_code"], report["release"], report["previous"]) == (0, "000003", "000002")
    assert device.runs() == "three"
    assert (device.to / ".removed").exists()
    device.install(device.made("four"))
    assert sorted(path.name for path in device.to.iterdir()) == [".lock", "current", "releases"]


def test_what_runs_is_signed_with_the_key_that_is_kept(device: Device) -> None:
    """Signed anew with the next key, a bundle that runs already is not what ran: its signature has to come along."""
    one = device.made("one", 1)
    device.install(one, "--key", device.public())
    sign_bundle(one, device.key("other"), "one", 1, checked_hashes(one))
    report = device.install(one, "--key", device.public("other"))
    assert (report["action"], report["release"], report["signature"]) == ("installed", "000002-v1", "checked")
    assert (device.to / "current" / "model.sig").read_bytes() == (one / "model.sig").read_bytes()
    assert device.install(one)["action"] == "unchanged"


@pytest.mark.parametrize("damage", [b"x", b"", None])
def test_a_bundle_repairs_the_release_that_was_made_of_it(device: Device, damage: bytes | None) -> None:
    """Whatever became of its SHA256SUMS, which alone says what it was."""
    three = device.made("three", 3)
    device.install(three, "--key", device.public())
    sums = device.to / "current" / "SHA256SUMS"
    sums.unlink()
    if damage is not None:
        sums.write_bytes(damage)
    report = device.install(three)
    assert (report["exit_code"], report["action"], device.runs()) == (0, "installed", "three")
    device.refused(9, "version 3 was here with other files", device.made("another", 3))


def test_a_check_that_does_not_end_is_ended(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.install(device.made("one"))
    monkeypatch.setattr(install, "_MOST_SECONDS_OF_A_CHECK", 0.01)
    device.refused(6, "run.py did not end within 0.01 s", device.made("two"))
