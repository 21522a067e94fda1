"""Check and time a bundle on the device that will run it: `python run.py` inside the bundle folder.

It needs Python 3.6+, NumPy and onnxruntime 1.8+, and nothing of fedsup_deploy. It checks that the folder holds the
files of SHA256SUMS, unaltered, and nothing else, then that the model computes the recorded outputs alone and inside a
batch, then times it. An int8 file is checked as well, and both are timed in turns. It reads only the bundle, writes no
file, and reports no host name, user name or path.

`python run.py --images photos/` times as well how long such pictures take before the network has them: to decode, and
to be made its input. This needs Pillow 8.1+.

`python run.py --energy` also asks a sensor of the device, if it has one, what a run takes.

`python run.py --classify photo.jpg other.png` checks the files of the bundle and says what the model takes each image
for; the outputs are not compared then, and nothing is timed. This needs Pillow 8.1+, but not for arrays (`.npy`). It
runs the file of the precision that the bundle is for, or of `--precision`.

Exit codes: 0 all checks passed; 1 a file was altered; 2 wrong usage, or NumPy, onnxruntime or Pillow is missing or too
old; 3 the outputs are wrong; 4 the output of an image depends on its batch; 5 a file is missing; 6 the model cannot be
run here; 7 an image cannot be classified, the others are, or it cannot be timed; 8 this onnxruntime is known to fail on
the bundle's device: nothing is run with it. A machine of another instruction set is not that device: a line says so, no
release is refused there, and times are about that machine alone.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, List, Optional, Tuple, Union

from fedsup_deploy.ondevice.bundle_checks import check_bundle
from fedsup_deploy.ondevice.bundle_files import MODEL, OK, USAGE, CheckError
from fedsup_deploy.ondevice.classification import classify_images
from fedsup_deploy.ondevice.energy import add_energy_options, energy_of, energy_words
from fedsup_deploy.ondevice.inference import most_threads
from fedsup_deploy.ondevice.instruction_set import why_not_device
from fedsup_deploy.ondevice.latency_statistics import speed_words
from fedsup_deploy.ondevice.loaded_model import load_model
from fedsup_deploy.ondevice.picture_timing import pictures_for, size_words, step_words, time_pictures
from fedsup_deploy.ondevice.printable import print_report, printable
from fedsup_deploy.ondevice.timing import PROTOCOLS, QUICK

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import Classification, DeviceHere, Latency, Report


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line and return its exit code. Side effects: Prints the report on standard output."""
    options = _parse(arguments)
    report, told = _classified_images(options) if options.classify else _checked_bundle(options)
    text = json.dumps(report, indent=2, allow_nan=False) if options.json else "\n".join(told)
    is_told = print_report(text)
    return int(report["exit_code"]) or (OK if is_told else USAGE)


def _checked_bundle(options: argparse.Namespace) -> "Tuple[Report, Iterator[str]]":
    """Return what the checks found, and that as lines of text."""
    report: Report = {"schema": 1, "exit_code": OK, "reason": None}
    protocol = PROTOCOLS[options.protocol]
    with _failing_in(report):
        pictures = pictures_for(options.folder, options.images) if options.images else None
        check_bundle(options.folder, report, options.threads, options.seconds, protocol)
        if pictures is not None:
            report["pictures"] = time_pictures(pictures, protocol._replace(min_seconds=options.seconds))
        if options.energy:
            model = options.folder / MODEL
            energy, reason = energy_of(lambda: load_model(model, options.threads).run_once, options.sensors)
            report["energy"], report["why_no_energy"] = energy, reason
    return report, lines(report)


def _classified_images(options: argparse.Namespace) -> "Tuple[Classification, Iterator[str]]":
    """Return what the images were taken for, and that as lines of text."""
    report: Classification = {
        "schema": 1,
        "device": None,
        "model": None,
        "threads": options.threads,
        "images": [],
        "exit_code": OK,
        "reason": None,
    }
    with _failing_in(report):
        classify_images(options.folder, options.classify, options.precision, report)
    return report, lines_of_images(report)


@contextlib.contextmanager
def _failing_in(report: "Union[Report, Classification]") -> Iterator[None]:
    """Put the check that did not pass into a report."""
    try:
        yield
    except CheckError as error:
        report["exit_code"] = error.exit_code
        report["reason"] = printable(str(error))


def lines_of_images(report: "Classification") -> Iterator[str]:
    """Yield where this is not the device, which file says it, a line for each image, then one of what did not pass."""
    if report["device"] is not None:
        yield from _lines_of_device(report["device"])
    if report["images"]:
        yield f"by {report['model']}, threads used: {report['threads']}"
    for image in report["images"]:
        if image["reason"] is None:
            likely = ", ".join(f"{each['class']} {each['probability']:.1%}" for each in image["top"])
            yield printable(f"{image['file']}  {likely}")
        else:
            yield printable(image["reason"])
    if report["exit_code"] != OK:
        yield f"FAIL: {report['reason']}"


def lines(report: "Report") -> Iterator[str]:
    """Yield the report as short lines of text."""
    if "files" in report:
        yield f"files     {report['files']['num_files']} unchanged"
    if "device" in report:
        yield from _lines_of_device(report["device"])
    if "runtime" in report:
        runtime = report["runtime"]
        least = runtime["least_version"]
        needs = f", the model needs {least} or later" if least else ""
        yield f"runtime   {runtime['name']} {runtime['version']}{needs}"
    if "parity" in report:
        parity = report["parity"]
        off_by = f"scaled difference {parity['max_scaled_diff']:.2g}, allowed {parity['tolerance']:.2g}"
        batches = ", ".join(map(str, parity["batches"]))
        yield f"parity    {parity['num_inputs']} images, batch {batches}: {off_by}"
    if "int8" in report:
        int8 = report["int8"]
        off_by = f"scaled difference {int8['max_scaled_diff']:.2g}, allowed {int8['tolerance']:.2g}"
        compared = f"class compared on {int8['num_classes_compared']} of them"
        yield f"int8      {int8['num_inputs']} images, {compared}: {off_by}"
    yield from _lines_of_what_was_timed(report)
    if "environment" in report:
        where = report["environment"]
        yield f"device    {where['device'] or where['cpu']}, {where['cores']} cores, threads used: {where['threads']}"
    yield "PASS" if report["exit_code"] == OK else f"FAIL: {report['reason']}"


def _lines_of_what_was_timed(report: "Report") -> Iterator[str]:
    if "latency" in report:
        yield from _lines_of_latency(report["latency"])
    if "int8_latency" in report:
        found, may_be_device = report["int8_latency"], report["device"]["may_be_here"]
        words = speed_words(found["speed"], may_be_device=may_be_device)
        yield f"int8      p10 {found['statistics']['p10_ms']:.4g} ms, {words}"
    if "pictures" in report:
        pictures = report["pictures"]
        yield f"pictures  {size_words(pictures)}; before the network, by Pillow {pictures['pillow']}"
        yield f"decode    {step_words(pictures['decode'])}"
        yield f"prepare   {step_words(pictures['prepare'])}"
    if "energy" in report:
        yield f"energy    {energy_words(report['energy'], report['why_no_energy'])}"


def _lines_of_device(device: "DeviceHere") -> Iterator[str]:
    reason = why_not_device(device)
    if reason is not None:
        yield f"machine   {reason}"


def _lines_of_latency(latency: "Latency") -> Iterator[str]:
    found = latency["statistics"]
    times = [("min", found["min_ms"]), ("p10", found["p10_ms"]), ("p50", found["p50_ms"]), ("p90", found["p90_ms"])]
    times += [] if found["p90_bound_ms"] is None else [("p90_bound", found["p90_bound_ms"])]
    values = "  ".join(f"{name} {milliseconds:.4g}" for name, milliseconds in times)
    yield f"latency   {values} ms, {found['num_runs']} runs at batch 1"
    stable = latency["stability"]
    difference = max(stable["disagreement"], stable["drift"])
    apart = f"p10 differs by {difference:.1%} between parts of the session"
    yield f"noise     {stable['verdict']}: {apart}, by {stable['spread']:.1%} between visits"
    yield f"start     load {latency['load_ms']:.1f} ms, first run {latency['first_run_ms']:.2f} ms"


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    """Return the options; `seconds` is None where the model is not to be timed."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(prog="run.py", description="Check and time this bundle on this device.")
    parser.add_argument("folder", nargs="?", type=Path, default=here, help="the bundle (default: where this file is)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime (default 1)")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="full takes a minute (default quick)")
    parser.add_argument("--seconds", type=float, help="time each file for so long at least (default: quick 5, full 60)")
    parser.add_argument("--skip-latency", action="store_true", help="check only")
    parser.add_argument(
        "--classify", nargs="+", metavar="IMAGE", help="say what images show: .npy, or with Pillow files"
    )
    parser.add_argument(
        "--precision", choices=["fp32", "int8"], help="with --classify: which file (default: what the bundle is for)"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="image files or folders of them: time decoding and preparing as well; needs Pillow",
    )
    add_energy_options(parser)
    options = parser.parse_args(arguments)
    if options.precision is not None and not options.classify:
        parser.error("--precision says which file classifies; add --classify IMAGE, or leave it out")
    if options.classify and (options.protocol is not None or options.seconds is not None):
        parser.error("--classify times nothing: leave out --protocol and --seconds")
    if options.energy and (options.classify or options.skip_latency):
        parser.error("--energy runs the model for some seconds: leave out --classify and --skip-latency")
    if options.images and (options.classify or options.skip_latency):
        parser.error("--images says what to time: leave out --classify and --skip-latency")
    options.protocol = options.protocol or QUICK.name
    protocol = PROTOCOLS[options.protocol]
    if options.seconds is None:
        options.seconds = protocol.min_seconds
    if not 1 <= options.threads <= most_threads():
        parser.error(f"--threads: got {options.threads}, expected 1 to {most_threads()}")
    if not 0 < options.seconds <= protocol.max_seconds:
        parser.error(f"--seconds must be above 0 and at most {protocol.max_seconds:g}")
    if options.skip_latency:
        options.seconds = None
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + 2)  # as a shell says of a program that Ctrl-C ended, and no trace of where it was
