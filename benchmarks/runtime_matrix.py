"""Which releases of onnxruntime run our files: every shipped profile, fp32 and int8, in real environments.

    python benchmarks/runtime_matrix.py

The bundles of one briefly trained run are made by the commands of a user, and each bundle's own run.py checks it with
each release of `runtimes.RUNTIMES`. Then random networks of every family, in fp32 and in each form of int8 that a
profile gets: what they compute with batches of 1, 3 and 8 images is held to what they compute here. Prints a table of
each.

Everything runs on this machine's processor, whatever the device has. `tests/integration/test_runtime_matrix.py` holds
what is printed to what the lists of releases say.
"""

import contextlib
import dataclasses
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from runtimes import RUNTIMES, Installed, install

from fedsup_deploy import registry, resources, rng
from fedsup_deploy.artifact.program import FILENAME, program
from fedsup_deploy.cli.main import main as run_command
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.ondevice import bundle_files, inference
from fedsup_deploy.ondevice.bundle_outputs import INT8_TOLERANCE, TOLERANCE
from fedsup_deploy.ondevice.instruction_set import device_here
from fedsup_deploy.ondevice.known_bad import why_known_bad
from fedsup_deploy.ondevice.model_versions import why_too_old
from fedsup_deploy.space import sampling
from fedsup_deploy.space.onnx_graph import IR_VERSION, OPSET, build_model, observable, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import ranges
from fedsup_deploy.supernet.deployable import FoldedNetwork, Quantization

PROFILES = {name: load_profile(name) for name in resources.shipped_names("profiles")}
#: Those whose runtime is onnxruntime. What the others take of us nothing here can try.
_DEVICES = tuple(profile for profile in PROFILES.values() if profile.runtime.name == inference.RUNTIME)
RUN = tuple(profile.name for profile in _DEVICES)
FAMILIES = registry.names("family")
FP32 = "fp32"
NUM_NETWORKS, NUM_IMAGES = 10, 8

_SETTINGS = """
schema: 1
name: matrix
space: digits
data: {dataset: digits, validation_fraction: 0.2}
partition: {kind: dirichlet, num_clients: 8}
strategy: {name: fedavg, architecture: largest}
training: {rounds: 4, clients_per_round: 8, warmup_rounds: 0, local_epochs: 2}
engine: {workers: 1}
calibration: {samples_per_client: 32}
"""
#: Holds files to what they have to compute, as run.py does, beside which it runs: all files in one process.
_CHECK = """
import json, sys
import numpy
import run

found = {}
for name in sys.argv[1:]:
    arrays = numpy.load(name + ".npz")
    inputs, outputs = arrays["inputs"], arrays["outputs"]
    try:
        session = run.open_session(name + ".onnx", 1)
        compute = lambda x: run.first_output(session, x)
        if name.endswith(" fp32"):
            gate = {"tolerance": run.TOLERANCE, "batch_tolerance": run.TOLERANCE}
            found[name] = run.check_outputs(compute, inputs, outputs, gate)
        else:
            found[name] = run.check_int8_outputs(compute, inputs, outputs, run.INT8_TOLERANCE)
    except (run.CheckError,) + run.runtime_errors() as error:
        found[name] = {"reason": str(error)}
print(json.dumps(found))
"""


class Outcome(NamedTuple):
    """How a run.py ends: its exit code, and why it fails."""

    exit_code: int
    reason: str | None


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(index) for index in range(len(RUNTIMES))]
        installed = [install(runtime, place) for runtime, place in zip(RUNTIMES, places, strict=True)]
        bundles = make_bundles(Path(folder))
        reports = {name: [run_bundle(each, bundles[name]) for each in installed] for name in RUN}
        networks = write_networks(Path(folder))
        found = [check_networks(each, Path(folder), networks) for each in installed]
    print("\n".join([*bundle_table(installed, reports), "", *network_table(installed, found)]))


def make_bundles(folder: Path) -> dict[str, Path]:
    """Train, and export a bundle in fp32 and int8 for every profile that can have one; return their folders."""
    (folder / "matrix.yaml").write_text(_SETTINGS, encoding="utf-8")
    run = str(folder / "run")
    _document("train", "--config", str(folder / "matrix.yaml"), "--out", run)
    names = [word for name, each in PROFILES.items() if refusal(each) is None for word in ("--profile", name)]
    forms = ["--format", "onnx", "--precision", "fp32", "--precision", "int8"]
    # Briefly trained: what it loses in int8 says nothing, and what the file computes is what is looked at.
    allowing = ["--over-limit", "--max-accuracy-drop", "10"]
    words = ["--arch", "largest", *names, *forms, *allowing, "--out", str(folder / "exports")]
    return {each["profile"]: Path(each["folder"]) for each in _document("export", run, *words)["bundles"]}


def refusal(profile: DeviceProfile) -> str | None:
    """Return why there is no ONNX file for a device; None where there is."""
    return exporter_for("onnx").refusal(profile.accepts)


def by_rule(profile: DeviceProfile, bundle: Path, release: str) -> Outcome:
    """Return what has to come of a bundle with a release of onnxruntime here, by the lists of releases."""
    may_be_here = device_here(profile.system.arch)["may_be_here"]
    known_bad = [each.model_dump() for each in profile.known_bad] if may_be_here else []
    bad = why_known_bad(inference.RUNTIME, release, known_bad)  # type: ignore[arg-type]  # such documents
    if bad is not None:
        return Outcome(bundle_files.KNOWN_BAD, bad)
    for name in (bundle_files.MODEL, bundle_files.INT8_MODEL):
        too_old = why_too_old(release, str(bundle / name), name)
        if too_old is not None:
            return Outcome(bundle_files.USAGE, too_old)
    return Outcome(bundle_files.OK, None)


def run_bundle(runtime: Installed, bundle: Path) -> dict[str, Any]:
    """Return the report of a bundle's own run.py; nothing is timed.

    Raises:
        RuntimeError: It says something on stderr, or ends with another code than it reports.
    """
    ended = runtime.run(FILENAME, "--json", "--skip-latency", cwd=bundle)
    report: dict[str, Any] = json.loads(ended.stdout) if ended.stdout else {}
    if ended.stderr or report.get("exit_code") != ended.returncode:
        raise RuntimeError(f"exit code {ended.returncode}: {ended.stdout}{ended.stderr}")
    return report


def name_of(scheme: Int8Scheme) -> str:
    """Return the words for a form of int8."""
    notes = {"symmetric": scheme.is_symmetric, "7-bit weights": scheme.reduce_range}
    return ", ".join([f"int8 {scheme.activations}", *(note for note, holds in notes.items() if holds)])


#: Every form of a file that some profile gets: in float32, or a form of int8.
FORMS: dict[str, Int8Scheme | None] = {FP32: None} | {
    name_of(each.accepts.int8_scheme): each.accepts.int8_scheme for each in _DEVICES
}


def random_networks(family: str) -> Iterator[FoldedNetwork]:
    """Yield random networks of a family with made-up weights, from all shipped spaces of it in turn."""
    shipped = (resources.find("configs/spaces", name) for name in resources.shipped_names("configs/spaces"))
    spaces = [space for path in shipped if (space := validate(load_yaml(path), SearchSpace)).family == family]
    for index in range(NUM_NETWORKS):
        space = spaces[index % len(spaces)]
        plan = space.plan(sampling.random_architecture(space, rng.generator(index, "matrix")))
        weights = random_weights(parts_of(plan), index)
        yield FoldedNetwork(plan, {name: torch.from_numpy(values) for name, values in weights.items()})


def write_networks(folder: Path) -> dict[str, list[str]]:
    """Write random networks in every form, with what each file has to compute; return the files' names by form.

    An fp32 file has to compute what the network does in torch, and passes its gate here first; an int8 file what it
    computes here.
    """
    (folder / FILENAME).write_bytes(program())
    exporter = exporter_for("onnx")
    written: dict[str, list[str]] = {form: [] for form in FORMS}
    for family in FAMILIES:
        for index, network in enumerate(random_networks(family)):
            stem = network.plan.stem
            shape = (NUM_IMAGES, stem.in_channels, stem.in_size, stem.in_size)
            inputs_BCHW = rng.generator(index, family, "images").standard_normal(shape, dtype=np.float32)
            counts = _counts(network, inputs_BCHW)
            for form, scheme in FORMS.items():
                quantization = None if scheme is None else Quantization(counts, scheme)
                variant = dataclasses.replace(network, quantization=quantization)
                name = f"{family}-{index} {form}"
                path = folder / exporter.export(variant, {}, folder)[0]
                path = path.rename(folder / f"{name}.onnx")
                here = exporter.load(path)
                outputs_BK = here(inputs_BCHW)
                if scheme is None:
                    outputs_BK = network.module()(torch.from_numpy(inputs_BCHW)).detach().numpy()
                    check_parity(outputs_BK, {name: here}, inputs_BCHW)
                np.savez(folder / f"{name}.npz", inputs=inputs_BCHW, outputs=outputs_BK)
                written[form].append(name)
    return written


def check_networks(runtime: Installed, folder: Path, names: dict[str, list[str]]) -> dict[str, list[dict[str, Any]]]:
    """Return what a runtime finds of each file: what was compared, or `reason`, why it is not right there.

    Raises:
        RuntimeError: The process failed.
    """
    files = [name for each in names.values() for name in each]
    ended = runtime.run("-c", _CHECK, *files, cwd=folder)
    if ended.returncode or ended.stderr:
        raise RuntimeError(f"exit code {ended.returncode}: {ended.stderr}")
    found = json.loads(ended.stdout)
    return {form: [found[name] for name in each] for form, each in names.items()}


def bundle_table(installed: Sequence[Installed], reports: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Yield the lines of the table of bundles: by profile, the report of each runtime."""
    yield from _head(("profile", "file"), installed)
    for profile in PROFILES.values():
        for file, key in ((FP32, "parity"), (name_of(profile.accepts.int8_scheme), "int8")):
            cells = ["refused" if refusal(profile) else "rule"] * len(installed)
            if profile.name in RUN:
                cells = [_cell(report, key) for report in reports[profile.name]]
            yield f"| {' | '.join([profile.name, file, *cells])} |"
    yield ""
    yield from (f"- {name}: {rule_of(profile)}" for name, profile in PROFILES.items() if name not in RUN)
    for key, tolerance in (("parity", TOLERANCE), ("int8", INT8_TOLERANCE)):
        found = [report[key] for each in reports.values() for report in each if key in report]
        yield f"- {key}: {len(found)} cells run, largest scaled difference {_largest(found)}, allowed {tolerance:g}"


def _cell(report: dict[str, Any], key: str) -> str:
    return f"run, {_largest([report[key]])}" if key in report else f"refused: {report['reason']}"


def rule_of(profile: DeviceProfile) -> str:
    """Return what is known of our files on a device whose runtime is not in the matrix."""
    why, accepts = refusal(profile), profile.accepts
    if why is not None:
        return f"refused: {why}"
    takes = f"opset {accepts.onnx_opset} and IR {accepts.onnx_ir} at most, ours are {OPSET} and {IR_VERSION}"
    return f"by rule only: {profile.runtime.name} does not run here; it takes {takes}"


def network_table(installed: Sequence[Installed], found: Sequence[dict[str, list[dict[str, Any]]]]) -> Iterator[str]:
    """Yield the lines of the table of random networks: for each runtime, what it found of the files of each form."""
    yield from _head(("file",), installed)
    for form in FORMS:
        cells = []
        for each in found:
            right = [file for file in each[form] if "reason" not in file]
            cells.append(f"{len(right)} of {len(each[form])}, {_largest(right)}")
        yield f"| {' | '.join([form, *cells])} |"


def _head(first: Sequence[str], installed: Sequence[Installed]) -> Iterator[str]:
    releases = [each.versions["onnxruntime"] for each in installed]
    heads = [*first, *(f"{release}, {of.python}" for release, of in zip(releases, RUNTIMES, strict=True))]
    yield f"| {' | '.join(heads)} |"
    yield "|" + " --- |" * len(heads)


def _largest(found: Sequence[dict[str, Any]]) -> str:
    return f"{max((each['max_scaled_diff'] for each in found), default=0):.1g}"


def _counts(network: FoldedNetwork, inputs_BCHW: np.ndarray) -> ranges.ActivationCounts:
    """Return what a client counts of a network's values."""
    model = build_model(parts_of(network.plan), {name: of.numpy() for name, of in network.weights.items()})
    watched, names = observable(model)
    values = [inputs_BCHW, *inference.open_session(to_bytes(watched), 1).run(list(names), {"input": inputs_BCHW})]
    extremes_V2 = np.array([(each.min(), each.max()) for each in values], dtype=np.float32)
    return ranges.ActivationCounts(np.stack([ranges.count(each) for each in values]), extremes_V2)


def _document(*words: str) -> Any:
    """Run a command of ours and return its document.

    Raises:
        RuntimeError: It fails.
    """
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exit_code = run_command([*words, "--json", "--quiet"])
    if exit_code:
        raise RuntimeError(f"fedsup-deploy {' '.join(words)}: exit code {exit_code}")
    return json.loads(output.getvalue())


if __name__ == "__main__":
    main()
