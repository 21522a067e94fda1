"""Put a bundle in the place of the one that runs on this device, and go back: `python3 install.py BUNDLE --to FOLDER`.

BUNDLE is the folder of a bundle, or an archive of one that tar wrote. FOLDER is this program's own; what runs is
FOLDER/current, a link. The bundle is copied beside what runs; what is the same there is linked, not copied. Then every
hash is checked, the signature, and by the run.py beside this program that the model computes here what it must. Only
then is the link changed, in one step: whatever ends this program, whenever, a whole model is at FOLDER/current, the old
one or the new one. The model before stays for --rollback.

With --key PUB the bundle has to be signed with the key whose public half that is. The key is kept in FOLDER, and from
then on every bundle has to be signed with it; another --key takes its place. A version lower than one that was here
before is refused. Start the copy that is installed, FOLDER/current/install.py, and no stranger's: a program that came
with a bundle cannot vouch for it.

It needs Python 3.6+ and nothing else; run.py needs NumPy and onnxruntime. Exit codes: 0 done; 1 a file was altered, or
the signature is not by the key or of other files; 2 wrong usage, or NumPy or onnxruntime is missing or too old; 3 the
outputs are wrong; 4 the output of an image depends on its batch; 5 a file is missing, or the signature; 6 the model
cannot be run here; 8 this onnxruntime is known to fail on the bundle's device; 9 the version is lower than one that was
here; 10 it cannot be written there, or another installation is at work. Whatever of these is not 0, what ran before
still does. Ctrl-C ends it with 130, and then either does. Where the report cannot be written, standard error says so,
and the exit code says what was done all the same.
"""

import argparse
import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterator, List, Optional

from fedsup_deploy.ondevice.bundle_files import (
    OK,
    SIGNATURE,
    SUMS,
    UNRUNNABLE,
    USAGE,
    CheckError,
    check_files,
    list_files,
    read_text_file,
    sha256,
)
from fedsup_deploy.ondevice.p256 import PublicKey, is_signed, public_key_of
from fedsup_deploy.ondevice.printable import print_report, printable, reason_of
from fedsup_deploy.ondevice.reading import parse_json, read_bytes
from fedsup_deploy.ondevice.releases import CURRENT, KEY, UNWRITABLE, Place, Release, held
from fedsup_deploy.ondevice.signature import check_signature
from fedsup_deploy.ondevice.unpacking import copy_bundle

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.install_records import Installation

#: Exit code: a version below one that was here.
OLDER = 9

_CHECKER = "run.py"
#: Many times what a slow device takes; what it runs has limits of its own, and this is for what holds all of it up.
_MOST_SECONDS_OF_A_CHECK = 3600
_MOST_BYTES_OF_A_KEY = 2**16


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line and return its exit code. Side effects: Those of the command; prints what it did."""
    options = _parse(arguments)
    report = {
        "schema": 1,
        "action": "rolled back" if options.rollback else "installed",
        "release": None,
        "previous": None,
        "version": None,
        "signature": "none",
        "files": None,
        "moved": None,
        "exit_code": OK,
        "reason": None,
    }  # type: Installation
    try:
        with held(options.to, is_new=not options.rollback) as place:
            try:
                if options.rollback:
                    _roll_back(place, report)
                else:
                    _install(options.bundle, options.key, options.keep, place, report)
            finally:
                with contextlib.suppress(CheckError):
                    _tell_what_runs(place, report)
    except CheckError as error:
        report["exit_code"], report["reason"] = error.exit_code, printable(str(error))
    except OSError as error:
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else reason_of(error)
        report["exit_code"], report["reason"] = UNWRITABLE, f"it cannot be written there: {what}"
    print_report(json.dumps(report, indent=2) if options.json else "\n".join(lines(report)))
    return report["exit_code"]


def _install(bundle: Path, key: Optional[Path], num_previous: int, place: Place, report: "Installation") -> None:
    """Let a bundle run, if it is all that it must be."""
    pem = _key_for(place, key)
    current = place.current()
    place.partial.mkdir()
    installed = {} if current is None else _by_hash(place.path_of(current))
    report["moved"] = copy_bundle(bundle, place.partial, installed)
    sizes = check_files(place.partial)
    report["files"] = {"num_files": len(sizes), "num_bytes": sum(sizes.values())}
    report["signature"] = "not checked" if SIGNATURE in sizes else "none"
    public_key = None if pem is None else _public_key(pem)
    if public_key is not None:
        report["signature"], report["version"] = "checked", _signed_version(place.partial, public_key)
    is_there = current is not None and _is_same(place, current, public_key, report["version"])
    if not is_there:
        if pem is not None:
            _refuse_older(place, report["version"])
        _check_model(place.partial)
    if pem is not None and key is not None:
        place.keep_key(pem)
    if current is None or not is_there:
        current = place.add(report["version"])
    else:
        report["action"] = "unchanged"
    with contextlib.suppress(OSError):  # it runs: what could not be removed, the next installation removes
        place.remove_old(current, num_previous)


def _roll_back(place: Place, report: "Installation") -> None:
    """Let the model before run again, if it still does what it must."""
    before = place.before(place.current())
    if not before:
        raise CheckError(USAGE, "there is no model before this one to go back to")
    path = place.path_of(before[0])
    sizes = check_files(path)
    report["files"] = {"num_files": len(sizes), "num_bytes": sum(sizes.values())}
    _check_model(path)
    place.switch_to(before[0])


def _tell_what_runs(place: Place, report: "Installation") -> None:
    current = place.current()
    before = place.before(current)
    report["release"] = None if current is None else current.name
    report["previous"] = before[0].name if before else None
    if report["action"] == "rolled back" and current is not None:
        report["version"] = current.version


def _key_for(place: Place, key: Optional[Path]) -> Optional[bytes]:
    """Return the key that a bundle has to be signed with, given or kept; None where there is none."""
    path = place.folder / KEY if key is None else key
    if key is None and not os.path.lexists(str(path)):
        return None
    try:
        return read_bytes(path, _MOST_BYTES_OF_A_KEY)
    except (OSError, ValueError) as error:
        raise CheckError(USAGE, f"the key {path.name} cannot be read: {reason_of(error)}") from None


def _public_key(pem: bytes) -> PublicKey:
    try:
        return public_key_of(pem)
    except ValueError as error:
        raise CheckError(USAGE, f"the key is of no use: {error}") from None


def _signed_version(folder: Path, key: PublicKey) -> Optional[int]:
    """Return the version that the signature of a bundle gives. Raises CheckError where it is not by the key."""
    return check_signature(folder, lambda message, signature: is_signed(key, message, signature)).version


def _refuse_older(place: Place, version: Optional[int]) -> None:
    newest = place.newest_version()
    if newest is None:
        return
    if version is None:
        raise CheckError(
            OLDER, f"its signature gives no version, and version {newest} was here; sign it with a higher one"
        )
    if version < newest:
        raise CheckError(OLDER, f"its version is {version}, and version {newest} was here; sign it with a higher one")
    sums = read_text_file(place.partial, SUMS)
    same = [place.path_of(each) for each in place.releases() if each.version == version]
    if any(_is_whole(each) and read_text_file(each, SUMS) != sums for each in same):
        raise CheckError(OLDER, f"version {version} was here with other files; sign it with a higher one")


def _is_same(place: Place, current: Release, key: Optional[PublicKey], version: Optional[int]) -> bool:
    """Return whether what lies at `partial` runs already, unaltered, and is signed by the same key there as well."""
    path = place.path_of(current)
    if version != current.version or not _is_whole(path):
        return False
    if read_text_file(path, SUMS) != read_text_file(place.partial, SUMS):
        return False
    try:
        return key is None or _signed_version(path, key) == version
    except CheckError:
        return False


def _is_whole(path: Path) -> bool:
    """Return whether a release is as it was installed: what is damaged does not say what it was."""
    try:
        check_files(path)
    except CheckError:
        return False
    return True


def _by_hash(folder: Path) -> Dict[str, Path]:
    """Return the files of what runs by what is in them now, whatever its SHA256SUMS says."""
    try:
        return {sha256(folder / name): folder / name for name in list_files(folder)}
    except CheckError:  # it is damaged: all is copied
        return {}


def _check_model(folder: Path) -> None:
    """Let run.py check a bundle, in a process of its own: a runtime may crash.

    Raises:
        CheckError: It did not pass; with its exit code.
    """
    checker = Path(__file__).resolve().parent / _CHECKER
    if not checker.is_file():
        raise CheckError(USAGE, f"{_CHECKER} is missing beside install.py; start the install.py of a whole bundle")
    command = [sys.executable, "-B", str(checker), str(folder), "--skip-latency", "--json"]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, timeout=_MOST_SECONDS_OF_A_CHECK
        )
    except subprocess.TimeoutExpired:
        raise CheckError(UNRUNNABLE, f"{_CHECKER} did not end within {_MOST_SECONDS_OF_A_CHECK:,} s") from None
    if ended.returncode == OK:
        return
    if ended.returncode < 0:
        raise CheckError(UNRUNNABLE, f"{_CHECKER} was ended by signal {-ended.returncode} when it ran the model")
    try:
        reason = parse_json(ended.stdout)["reason"]  # type: ignore[index]
    except (ValueError, TypeError, KeyError):
        raise CheckError(UNRUNNABLE, f"{_CHECKER} ended with {ended.returncode} and no report") from None
    raise CheckError(ended.returncode, str(reason))


def lines(report: "Installation") -> Iterator[str]:
    """Yield a report as short lines of text."""
    if report["files"] is not None:
        yield f"files     {report['files']['num_files']} unchanged"
    if report["moved"] is not None:
        moved = report["moved"]
        same = f"{moved['linked_files']} files of {moved['linked_bytes']:,} bytes were here"
        yield f"moved     {moved['copied_files']} files, {moved['copied_bytes']:,} bytes; {same}"
    version = "" if report["version"] is None else f", version {report['version']}"
    if report["action"] != "rolled back":
        why = "; --key PUB checks it" if report["signature"] == "not checked" else ""
        yield f"signature {report['signature']}{version}{why}"
    if report["release"] is not None:
        back = "" if report["previous"] is None else f", before it {report['previous']}"
        yield f"{CURRENT}   {report['release']}{back}"
    yield f"PASS: {report['action']}" if report["exit_code"] == OK else f"FAIL: {report['reason']}"


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="install.py", description="Let a bundle run on this device, or go back.")
    parser.add_argument("bundle", nargs="?", type=Path, help="the folder of a bundle, or an archive of one by tar")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where; FOLDER/current is what runs")
    parser.add_argument("--key", type=Path, metavar="PUB", help="the public key it has to be signed with; it is kept")
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="how many models before it stay (default 1)")
    parser.add_argument("--rollback", action="store_true", help="go back to the model before")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    if (options.bundle is None) != options.rollback:
        parser.error("give a bundle, or --rollback")
    if options.bundle is not None and not (options.bundle.is_dir() or options.bundle.is_file()):
        parser.error(f"{options.bundle}: no such folder or archive")
    if options.bundle is not None and options.bundle.resolve() in options.to.resolve().parents:
        parser.error("--to lies in the bundle; name a folder elsewhere")
    if options.rollback and options.key is not None:
        parser.error("--rollback checks no signature: leave out --key")
    if not 1 <= options.keep <= 100:
        parser.error("--keep must be 1 to 100")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + 2)  # as a shell says of a program that Ctrl-C ended
