"""Check and time a bundle on the device that will run it: `python run.py` inside the bundle folder.

`run.py` is this module with `fedsup_deploy.artifact.runner` in the place of its import: one file, which needs Python
3.8+, NumPy and onnxruntime, and nothing of fedsup_deploy. It checks that the folder holds the files of SHA256SUMS,
unaltered, and nothing else, then that the model computes the recorded outputs alone and inside a batch, then times it.
It reads only the bundle, writes no file, and reports no host name, user name or path.

Exit codes: 0 all checks passed; 1 a file was altered; 2 wrong usage, or NumPy or onnxruntime is missing; 3 the outputs
are wrong; 4 the output of an image depends on its batch; 5 a file is missing.
"""

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    # Before any other import, even that of `__future__`: what lies beside this file must not be taken for a library.
    sys.path[:] = [entry for entry in sys.path if entry not in ("", sys.path[0])]

import argparse
import fnmatch
import hashlib
import importlib
import json
import os
import stat
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from fedsup_deploy.artifact.runner import (
    JSON,
    PROTOCOLS,
    QUICK,
    Protocol,
    bind,
    environment,
    first_line,
    measure_latency,
    open_session,
    runtime_errors,
    time_visit,
)

OK, ALTERED, USAGE, PARITY, BATCH_INVARIANCE, MISSING = range(6)
BATCHES = (1, 3, 8)
TOLERANCE = 1e-5  # the parity gate's; a bundle that allows more was altered
MANIFEST, SUMS, MEASURED, MODEL, VECTORS = "manifest.json", "SHA256SUMS", "measured.json", "model.onnx", "vectors.npz"
#: What desktops, and a `fedsup-deploy measure` that was killed, leave in a folder: no part of a bundle, and never read.
LITTER = (
    ".DS_Store",
    "._*",
    "Thumbs.db",
    "desktop.ini",
    ".measured.json.partial-*",
    ".*.fedsup-lock",
    ".*.fedsup-holder",
)
MOST_BYTES = 2**22  # of a text that is read before it is known to be unaltered


class CheckError(Exception):
    """A check that did not pass, with the exit code that says which."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def read_text_file(folder: Path, name: str) -> bytes:
    """Return the content of a small file of a bundle, or raise `CheckError`: missing, too large, or no regular file."""
    try:
        status = (folder / name).lstat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckError(ALTERED, f"{name} is no regular file; copy the bundle again")
        if status.st_size > MOST_BYTES:
            raise CheckError(ALTERED, f"{name} was altered: {status.st_size} bytes, expected at most {MOST_BYTES}")
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        what = "export the bundle again" if name == SUMS else "expected the folder of a bundle"
        raise CheckError(MISSING, f"{name} is missing; {what}") from None
    except OSError as error:
        raise CheckError(ALTERED, f"{name} cannot be read: {error.strerror}") from None


def list_files(folder: Path) -> Dict[str, int]:
    """Return the size of every file but litter by name, or raise `CheckError` for what is no regular file.

    A link, device or pipe leads out of the bundle or never ends, and a folder may be one of code: none is opened.
    """
    sizes = {}
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckError(ALTERED, f"{shown(path.name)} is no regular file; remove it, or copy the bundle again")
        if not any(fnmatch.fnmatchcase(path.name, pattern) for pattern in LITTER):
            sizes[path.name] = status.st_size
    return sizes


def shown(name: str) -> str:
    """Return a name that others chose as it can be printed anywhere."""
    return ascii(name)[1:-1]


def sha256sums(folder: Path, names: Iterable[str]) -> List[str]:
    """Return the lines that `sha256sum` writes about files, sorted by name."""
    return [f"{sha256(folder / name)}  {name}\n" for name in sorted(names)]


def sha256(path: Path) -> str:
    """Return the hash of a file, or raise `CheckError` where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(2**20), b""):
                digest.update(chunk)
    except OSError as error:
        raise CheckError(ALTERED, f"{path.name} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def check_files(folder: Path) -> Dict[str, int]:
    """Return the size of every file by name, or raise `CheckError`: not those of SHA256SUMS, or one was altered.

    SHA256SUMS must be byte for byte what is computed here, so it has one spelling only.
    """
    read_text_file(folder, MANIFEST)
    sums = read_text_file(folder, SUMS)
    sizes = list_files(folder)
    check_sums(folder, sums, sizes.keys() - {SUMS, MEASURED})
    if MEASURED in sizes:
        read_measured(folder)
    return sizes


def check_sums(folder: Path, sums: bytes, present: Set[str]) -> None:
    """Compare the content of SHA256SUMS with the files that are there. Names come first: no stranger is opened."""
    recorded = sums.decode("utf-8", "replace").split("\n")
    names = {line[66:] for line in recorded if line}
    if missing := sorted({MANIFEST, MODEL, VECTORS, *names} - present):
        raise CheckError(MISSING, f"{shown(missing[0])} is missing; copy the bundle again")
    if strangers := sorted(present - names):
        raise CheckError(ALTERED, f"{shown(strangers[0])} is no file of the bundle; remove it")
    computed = sha256sums(folder, present)
    for line in computed:
        if line[:-1] not in recorded:
            raise CheckError(ALTERED, f"{line[66:-1]} was altered: its sha256 is not that of {SUMS}")
    if "".join(computed).encode() != sums:
        raise CheckError(ALTERED, f"{SUMS} was altered: its lines are not those of sha256sum, sorted by name")


def read_measured(folder: Path) -> bytes:
    """Return the content of measured.json, or raise `CheckError`: altered, or of another bundle."""
    content = read_text_file(folder, MEASURED)
    if content != sealed(without_seal(content), read_text_file(folder, SUMS)):
        raise CheckError(ALTERED, f"{MEASURED} was altered, or is of another bundle; remove it, or measure again")
    return content


def sealed(body: bytes, sums: bytes) -> bytes:
    """Return the text of measured.json, which SHA256SUMS cannot list as it is written later.

    `body` is a JSON object but for its end. The last key, `sha256`, is the hash of it and of SHA256SUMS after it, which
    ties what was measured to the bundle.
    """
    return body + b'  "sha256": "' + hashlib.sha256(body + sums).hexdigest().encode() + b'"\n}\n'


def without_seal(content: bytes) -> bytes:
    """Return what `sealed` was made from."""
    return content[: -len(sealed(b"", b""))]


def read_manifest(folder: Path) -> JSON:
    """Return the manifest's document, or raise `CheckError`: missing, no JSON, or without what the checks need."""
    try:
        manifest = dict(json.loads(read_text_file(folder, MANIFEST)))
        for name in ("tolerance", "batch_tolerance"):
            if not 0 <= float(manifest["parity"][name]) <= TOLERANCE:
                asked = f"a {name} of {manifest['parity'][name]:g}, expected at most {TOLERANCE:g}"
                raise CheckError(ALTERED, f"{MANIFEST} was altered: {asked}")
        _ = [manifest[name][0]["shape"][1:] for name in ("inputs", "outputs")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckError(ALTERED, f"{MANIFEST} is damaged: {type(error).__name__}: {error}") from None
    return manifest


def load_vectors(folder: Path, manifest: JSON) -> Tuple[Any, Any]:
    """Return the recorded inputs (V, C, S, S) and outputs (V, K), float32 as in the manifest, or raise `CheckError`."""
    arrays = {name: read_array(folder / VECTORS, name) for name in ("inputs", "outputs")}
    for name, array in arrays.items():
        shape = manifest[name][0]["shape"][1:]
        if str(array.dtype) != "float32" or list(array.shape[1:]) != shape:
            found = f"{name} of type {array.dtype} and shape {list(array.shape[1:])}, expected float32 {shape}"
            raise CheckError(PARITY, f"{VECTORS} holds {found}")
    inputs, outputs = arrays["inputs"], arrays["outputs"]
    if not importlib.import_module("numpy").isfinite(outputs).all():
        raise CheckError(PARITY, f"{VECTORS} holds NaN or infinite outputs, expected finite ones")
    if len(inputs) != len(outputs) or len(inputs) < max(BATCHES):
        counts = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise CheckError(PARITY, f"{VECTORS} holds {counts}, expected equally many, at least {max(BATCHES)}")
    return inputs, outputs


def read_array(path: Path, name: str) -> Any:
    """Return an array of an archive that is not compressed, so that it is never larger than its file."""
    numpy = importlib.import_module("numpy")
    try:
        with zipfile.ZipFile(path) as archive:
            is_compressed = archive.getinfo(f"{name}.npy").file_size > path.stat().st_size
        with numpy.load(path, allow_pickle=False) as arrays:
            array = None if is_compressed else numpy.atleast_1d(arrays[name])
    except Exception as error:  # NumPy and zipfile raise nearly anything for an archive that is none
        raise CheckError(PARITY, f"{path.name} cannot be used: {first_line(error)}") from error
    if array is None:
        raise CheckError(PARITY, f"{path.name} is compressed, expected plain arrays")
    return array


def check_scaled(exit_code: int, what: str, diff_VK: Any, recorded_VK: Any, tolerance: float) -> List[float]:
    """Return the largest difference of a logit, plain and scaled, or raise `CheckError` where the scaled one fails."""
    diff_V = abs(diff_VK).max(axis=1)
    # Relative to an image's largest |logit| above 1, as rounding grows with it: near 40, one step is 4e-6 already.
    scale_V = abs(recorded_VK).max(axis=1).clip(1.0)
    scaled_V = diff_V / scale_V
    worst = scaled_V.argmax()
    if not scaled_V[worst] <= tolerance:  # written so that NaN fails
        found = f"scaled difference {scaled_V[worst]:.2g}, allowed {tolerance:.2g}"
        raise CheckError(exit_code, f"{what}: {found}, on an image of scale {scale_V[worst]:.3g}")
    return [float(diff_V.max()), float(scaled_V[worst])]


def check_outputs(run: Callable[[Any], Any], inputs: Any, outputs: Any, parity: JSON) -> JSON:
    """Compare what the model computes with the recorded outputs, and images alone with images in a batch.

    `run` maps (B, C, S, S) to (B, K). Allowed scaled differences are those of the manifest's `parity`: `tolerance` from
    the recorded outputs; `batch_tolerance` inside a batch. Raises `CheckError`, 3 or 4.
    """
    numpy = importlib.import_module("numpy")
    tolerance, batch_tolerance = float(parity["tolerance"]), float(parity["batch_tolerance"])
    computed, found, between = {}, [], []
    for batch in BATCHES:
        result = numpy.concatenate([run(inputs[i : i + batch]) for i in range(0, len(inputs), batch)])
        if result.shape != outputs.shape:
            raise CheckError(PARITY, f"outputs at batch {batch} have shape {result.shape}, expected {outputs.shape}")
        computed[batch] = result.astype(numpy.float64)
        found.append(check_scaled(PARITY, f"outputs at batch {batch}", computed[batch] - outputs, outputs, tolerance))
        if num_wrong := int(numpy.sum(result.argmax(axis=1) != outputs.argmax(axis=1))):
            raise CheckError(PARITY, f"{num_wrong} of {len(inputs)} images get another class at batch {batch}")
    for batch in BATCHES:
        what = f"an image alone and inside a batch of {batch}"
        between.append(check_scaled(BATCH_INVARIANCE, what, computed[batch] - computed[1], outputs, batch_tolerance))
    worst, apart = (numpy.max(diffs, axis=0).tolist() for diffs in (found, between))
    asked = {"batches": list(BATCHES), "tolerance": tolerance, "batch_tolerance": batch_tolerance}
    recorded = {"max_abs_diff": worst[0], "max_scaled_diff": worst[1], "argmax_agreement": 1.0}
    alone = {"batch_invariance_max_abs_diff": apart[0], "batch_invariance_max_scaled_diff": apart[1]}
    return {"num_inputs": len(inputs), **asked, **recorded, **alone}


def check_bundle(
    folder: Path, report: JSON, threads: int, seconds: Optional[float], protocol: Protocol = QUICK
) -> None:
    """Add what each check finds to `report` until one raises `CheckError`; time the model unless `seconds` is None."""
    sizes = check_files(folder)
    report["files"] = {"num_files": len(sizes), "num_bytes": sum(sizes.values())}
    check_model(folder, report, threads, seconds, protocol)


def check_model(folder: Path, report: JSON, threads: int, seconds: Optional[float], protocol: Protocol = QUICK) -> None:
    """Do the part of `check_bundle` that runs the model; its file is known to be unaltered."""
    manifest = read_manifest(folder)
    report["arch_id"] = manifest.get("arch_id")
    try:
        report["environment"] = environment(threads)
        inputs, outputs = load_vectors(folder, manifest)
        start = time.perf_counter_ns()
        session = open_session(str(folder / MODEL), threads)
        load_ms = (time.perf_counter_ns() - start) / 1e6
        run_once = bind(session, inputs[:1])
        first_run_ms = time_visit(run_once, 1, 0.0, 0.0)[0] / 1e6
        report["parity"] = check_outputs(lambda x: bind(session, x)(), inputs, outputs, manifest["parity"])
    except ImportError as error:
        name = error.name or "onnxruntime"
        raise CheckError(USAGE, f"{name} cannot be imported; run: pip install numpy onnxruntime") from None
    except runtime_errors() as error:
        what = first_line(error).replace(str(folder) + os.sep, "")
        raise CheckError(PARITY, f"onnxruntime cannot run {MODEL}: {what}") from None
    if seconds is not None:
        report["latency"] = measure_latency(run_once, protocol._replace(min_seconds=seconds))
        report["latency"].update(load_ms=load_ms, first_run_ms=first_run_ms)


def lines(report: JSON) -> Iterator[str]:
    """Yield the report as short lines of text."""
    if "files" in report:
        yield f"files     {report['files']['num_files']} unchanged"
    if "parity" in report:
        parity = report["parity"]
        off_by = f"scaled difference {parity['max_scaled_diff']:.2g}, allowed {parity['tolerance']:.2g}"
        yield f"parity    {parity['num_inputs']} images, batch 1, 3, 8: {off_by}"
    if (latency := report.get("latency")) is not None:
        found, stable = latency["statistics"], latency["stability"]
        names = [name for name in ("min", "p10", "p50", "p90", "p90_bound") if found[name + "_ms"] is not None]
        values = "  ".join(f"{name} {found[name + '_ms']:.4g}" for name in names)
        yield f"latency   {values} ms, {found['num_runs']} runs at batch 1"
        apart = f"p10 differs by {max(stable['disagreement'], stable['drift']):.1%} between parts of the session"
        yield f"noise     {stable['verdict']}: {apart}, by {stable['spread']:.1%} between visits"
        yield f"start     load {latency['load_ms']:.1f} ms, first run {latency['first_run_ms']:.2f} ms"
    if (where := report.get("environment")) is not None:
        yield f"device    {where['device'] or where['cpu']}, {where['cores']} cores, threads used: {where['threads']}"
    yield "PASS" if report["exit_code"] == OK else f"FAIL: {report['reason']}"


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line and return its exit code. Side effects: Prints the report on standard output."""
    parser = argparse.ArgumentParser(prog="run.py", description="Check and time this bundle on this device.")
    here = Path(__file__).resolve().parent
    parser.add_argument("folder", nargs="?", type=Path, default=here, help="the bundle (default: where this file is)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime (default 1)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="quick", help="full takes a minute (default quick)")
    parser.add_argument("--seconds", type=float, help="time for at least this long (default: quick 5, full 60)")
    parser.add_argument("--skip-latency", action="store_true", help="check only")
    options = parser.parse_args(arguments)
    protocol = PROTOCOLS[options.protocol]
    seconds = protocol.min_seconds if options.seconds is None else options.seconds
    if options.threads < 1 or not 0 < seconds <= protocol.max_seconds:
        parser.error(f"--threads must be at least 1; --seconds above 0 and at most {protocol.max_seconds:g}")
    report: JSON = {"schema": 1, "exit_code": OK, "reason": None}
    try:
        check_bundle(options.folder, report, options.threads, None if options.skip_latency else seconds, protocol)
    except CheckError as error:
        report.update(exit_code=error.exit_code, reason=str(error))
    try:
        print(json.dumps(report, indent=2, allow_nan=False) if options.json else "\n".join(lines(report)), flush=True)
    except BrokenPipeError:  # whoever read it has gone; Python would complain again when it flushes stdout at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(report["exit_code"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + 2)  # as a shell says of a program that Ctrl-C ended, and no trace of where it was
