"""Every registered exporter on random networks: the laws that let a bundle exist.

The networks have every kind of layer, pools of odd maps among them.
"""

import dataclasses
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import random_networks
import torch
from random_networks import FACTS, exporters_here, extras, random_network

from fedsup_deploy import registry
from fedsup_deploy.export.exporter import Exporter, batches_for, exporter_for
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.supernet.deployable import FoldedNetwork
from fedsup_deploy.variant import MAIN

#: Those that can write here. `make test-formats` runs this file in the environment of each extra.
EXPORTERS = exporters_here()
SEEDS = [0, 1, 2]


def export_all(folder: Path, seed: int) -> dict[str, bytes]:
    """Return the bytes of every format of one network."""
    network, _ = random_network(seed)
    folder.mkdir(parents=True)
    return {
        file: (folder / file).read_bytes()
        for name in EXPORTERS
        for file in exporter_for(name).export(network, FACTS, folder)
    }


@pytest.fixture(params=EXPORTERS)
def exporter(request: pytest.FixtureRequest) -> Exporter:
    """Each in turn."""
    return exporter_for(request.param)


def test_every_extra_of_a_format_has_an_environment_and_a_test_file_of_its_own(repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8").splitlines()
    (formats,) = (line.removeprefix("FORMATS :=").split() for line in makefile if line.startswith("FORMATS :="))
    tested = {path.stem.removeprefix("test_") for path in (repository / "tests" / "formats").glob("test_*.py")}
    assert set(formats) == tested == extras()
    assert len(set(formats)) == len(formats)


def test_no_two_formats_write_the_same_file(tmp_path):
    network, _ = random_network(0)
    here = [exporter_for(name) for name in EXPORTERS]
    written = [file for each in here for file in each.export(network, FACTS, tmp_path)]

    assert len(set(written)) == len(written) >= len(here)


@pytest.mark.parametrize("name", registry.names("exporter"))
def test_exporter_knows_its_registered_name_and_has_a_gate(name):
    kind = registry.resolve("exporter", name)
    assert kind.name == name
    assert MAIN.precision in kind.precisions, "what else it writes is compared with that"


@pytest.mark.parametrize("seed", SEEDS)
def test_files_compute_what_the_network_does_alone_and_in_a_batch(exporter, seed, tmp_path):
    network, inputs = random_network(seed)

    names = exporter.export(network, FACTS, tmp_path)

    expected = network.module()(torch.from_numpy(inputs)).numpy()
    batches, allowed = batches_for(exporter, is_asked=False), (exporter.tolerance, exporter.tolerance)
    gate = check_parity(expected, {"it": exporter.load(tmp_path / names[0])}, inputs, batches, *allowed)["it"]
    assert np.ptp(expected) > 0.1, "a network that says the same of every image proves nothing"
    assert gate.argmax_agreement == 1.0
    assert gate.max_scaled_diff <= gate.tolerance
    assert gate.batch_invariance_max_scaled_diff <= gate.batch_tolerance
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(names)


def test_a_network_that_is_to_be_static_is_right_for_one_image_and_the_same_file_elsewhere(exporter, tmp_path):
    """Only what says that it can be static may write another file then."""
    network, inputs = random_network(0)
    static = dataclasses.replace(network, is_static=True)
    folders = [tmp_path / "any", tmp_path / "static"]
    for folder in folders:
        folder.mkdir()
    names = [exporter.export(each, FACTS, folder) for each, folder in zip((network, static), folders, strict=True)]

    assert names[0] == names[1]
    expected = network.module()(torch.from_numpy(inputs)).numpy()
    models, allowed = {"it": exporter.load(folders[1] / names[1][0])}, (exporter.tolerance, exporter.tolerance)
    gate = check_parity(expected, models, inputs, (1,), *allowed)["it"]
    assert gate.batches == (1,)
    is_same = all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names[0])
    assert is_same == (exporter.batch != "either")


def test_bytes_are_the_same_again_and_in_another_process(tmp_path):
    """Elsewhere: another working folder, temporary folder, hash seed, and another network exported before."""
    first, second = export_all(tmp_path / "first", 0), export_all(tmp_path / "second" / "deeper", 0)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = (
        "import pathlib, runpy, sys\n"
        "names = runpy.run_path(sys.argv[1])\n"
        "names['export_all'](pathlib.Path('other'), 1)\n"
        "names['export_all'](pathlib.Path('same'), 0)\n"
    )
    shared = str(Path(random_networks.__file__).parent)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TMPDIR": str(elsewhere), "PYTHONPATH": shared}
    subprocess.run([sys.executable, "-c", script, __file__], cwd=elsewhere, env=environment, check=True)

    third = {name: (elsewhere / "same" / name).read_bytes() for name in first}
    assert [name for name in first if not first[name] == second[name] == third[name]] == []


@pytest.mark.parametrize("name", ["onnx", "torchscript", "pt2"])
def test_file_says_what_it_is_told_to(name, tmp_path):
    """A file that lies alone still says what its classes are; any text may be among them, a path for instance."""
    network, _ = random_network(0)
    path = tmp_path / exporter_for(name).export(network, FACTS, tmp_path)[0]
    found: dict[str, str | bytes] = dict.fromkeys(FACTS, "")
    if name == "onnx":
        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif name == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.load(path, _extra_files=found)
    else:
        torch.export.load(path, extra_files=found)
    assert {key: value.decode() if isinstance(value, bytes) else value for key, value in found.items()} == FACTS


def test_export_leaves_the_network_and_the_process_as_they_were(exporter, tmp_path):
    network, inputs = random_network(1)
    exporter.export(network, FACTS, tmp_path)  # what torch imports then adds warning filters
    before = snapshot(network)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    exporter.load(tmp_path / exporter.export(network, FACTS, tmp_path)[0])(inputs[:1])

    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    after = snapshot(network)
    assert [key for key in before if str(before[key]) != str(after[key])] == []


def snapshot(network: FoldedNetwork) -> dict[str, object]:
    """Return what an export might change: the network, switches of torch, warning filters."""
    return {
        "weights": {key: tensor.tolist() for key, tensor in network.weights.items()},
        "grad mode": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
    }
