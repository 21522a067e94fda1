"""All commands, over devices that keep their images: the same results as with these in one place, to the byte."""

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from local_grid import LocalGrid, app_of

from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.recalibrate import recalibrate
from fedsup_deploy.commands.search import SearchRequest, search
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.devices import write_devices
from fedsup_deploy.engines.flower import app, deployment
from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.engine import far_of, own_of
from fedsup_deploy.engines.flower.grid import GridCourier
from fedsup_deploy.engines.flower.node import ClientNode
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.engines.workers import MakePopulations
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.federation.jobs.announce import Announce
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.simulation import CLIENTS, UNSEEN, Population
from fedsup_deploy.runs.announced import devices_of
from fedsup_deploy.runs.federation import load_supernet
from fedsup_deploy.runs.own_images import OneDevice
from fedsup_deploy.runs.run import SUPERNET, open_run

NAMES = ("camera", "desk", "phone")
CONFIG = """
schema: 1
name: fleet
space: digits
partition: {{kind: natural{unseen}}}
strategy: {{name: e-fedsup, tiers: [{{architecture: smallest}}, {{architecture: largest}}]}}
training: {{rounds: 4, warmup_rounds: 1, batch_size: 16}}
calibration: {{samples_per_client: 32, batch_size: 16}}
"""
TOGETHER = "data: {dataset: npz, root: all.npz}\nengine: {workers: 1}\n"
APART = "data: {dataset: devices, root: devices.json}\nengine: {name: flower, superlink: 'nowhere:1'}\n"
#: As `tiers_by_index` has it, for three clients.
TIERS = (0, 0, 1)


def write_images(folder: Path) -> None:
    images = load_dataset("digits", None).train
    archives: dict[str, dict[str, Any]] = {name: {} for name in (*NAMES, "all")}
    for kind, indices in {"train": np.arange(600), "val": np.arange(600, 900), "test": np.arange(900, 1000)}.items():
        whose = np.array(NAMES)[indices % len(NAMES)]
        pixels, labels = images.images_NHWC[indices], images.labels_N[indices]
        archives["all"] |= {f"{kind}_images": pixels, f"{kind}_labels": labels, f"{kind}_clients": whose}
        for name in NAMES:
            archives[name] |= {f"{kind}_images": pixels[whose == name], f"{kind}_labels": labels[whose == name]}
    for name, arrays in archives.items():
        np.savez(folder / f"{name}.npz", classes=np.array(images.classes), **arrays)


class Devices:
    """Devices as nodes of a grid in this process.

    Args:
        folder: Of their images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own: dict[str, Population] = {}
        for name, tier in zip(NAMES, TIERS, strict=True):
            own = {"dataset": "npz", "root": folder / f"{name}.npz"}
            document = {"schema": 1, "name": name, "superlink": "nowhere:1", "data": own, "tier": tier}
            self.own[name] = OneDevice(ClientConfig.model_validate(document))
        self.connected = list(NAMES)
        #: How many messages each node has received.
        self.received: Counter[int] = Counter()

    @contextlib.contextmanager
    def open(self, make_populations: MakePopulations, *_: object, names: Sequence[str]) -> Iterator[dict[str, Engine]]:
        """Yield the engines of a deployment to those that are connected."""
        nodes = {
            7 * number + 1: ClientNode(
                name, {CLIENTS: self.own[name], UNSEEN: self.own[name]}, DiskBlobs(self.folder / name)
            )
            for number, name in enumerate(reversed(self.connected))
        }

        def counted(number: int, population: str, message: bytes) -> None:
            self.received[number] += 1

        apps = {number: app_of(node, functools.partial(counted, number)) for number, node in nodes.items()}
        courier = GridCourier(LocalGrid(apps), sleep=lambda _: None)
        directory = Directory(courier, names)
        directory.gather(lambda there: there == len(set(self.connected) & set(names)))
        local = {name: InProcess(each) for name, each in own_of(make_populations).items()}
        yield local | deployment.deployed(courier, directory, far_of(make_populations))


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    """Devices, and two runs over them: `together` on all images in one place, `apart` on devices that keep theirs."""
    folder = tmp_path_factory.mktemp("fleet")
    write_images(folder)
    devices = Devices(folder)
    said, unfit = devices_of({name: each.client(0).perform(Announce()) for name, each in devices.own.items()})
    assert unfit == {}
    write_devices(folder / "devices.json", said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployment, "open_deployment", devices.open)
        for name, rest in (("together", TOGETHER), ("apart", APART)):
            text = CONFIG.format(unseen=", unseen: [desk]") + rest
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
            train(load_train_config(folder / f"{name}.yaml"), folder / name)
        yield devices


def document_of(result: Any) -> Any:
    """Return a result without what differs from one run to the next: folders, and what a clock has said."""
    said = json.dumps(result.to_dict()).replace("/apart", "/together")
    return {key: value for key, value in json.loads(said).items() if key not in {"run", "seconds"}}


def test_the_same_supernet(devices: Devices) -> None:
    apart, together = ((devices.folder / name / SUPERNET).read_bytes() for name in ("apart", "together"))
    assert apart == together


def test_the_same_evaluation_of_clients_that_take_part_and_of_one_that_does_not(devices: Devices) -> None:
    apart, together = (
        document_of(evaluate(devices.folder / name, "largest", per_client=True)) for name in ("apart", "together")
    )
    assert apart == together


def test_the_same_calibrated_subnet(devices: Devices) -> None:
    for name in ("apart", "together"):
        recalibrate(devices.folder / name, "smallest", devices.folder / f"{name}.safetensors", "layer-wise")
    apart, together = ((devices.folder / f"{name}.safetensors").read_bytes() for name in ("apart", "together"))
    assert apart == together


def test_the_same_files_in_fp32_and_in_int8(devices: Devices) -> None:
    """Ranges of values and the comparison of files are asked of clients, for the server has nothing to calibrate on."""
    found = []
    for name in ("apart", "together"):
        out = devices.folder / f"{name}-exports"
        of = devices.folder / name
        export(ExportRequest(of, "smallest", None, ("raspberry-pi-4",), ("onnx",), ("fp32", "int8"), out))
        found.append({path.name: path.read_bytes() for path in sorted(out.rglob("*.onnx"))})
    assert found[0].keys() >= {"model.onnx", "model.int8.onnx"}
    assert found[0] == found[1]


def test_the_server_cannot_look_at_an_image(devices: Devices) -> None:
    data = open_run(devices.folder / "apart").data
    with pytest.raises(DataError, match="the images lie on devices"):
        data.populations()[CLIENTS].client(0)


def test_a_search_of_twenty_subnets_sends_each_device_few_messages(devices: Devices, tmp_path: Path) -> None:
    """For many subnets at once their statistics, and how often each is right: less than layer by layer for one."""
    devices.received.clear()
    request = SearchRequest(
        ["raspberry-pi-4"],
        run=devices.folder / "apart",
        method="random",
        accuracy="clients",
        evaluations=20,
        out=tmp_path / "search.json",
    )
    (found,) = search(request).results
    assert len([each for each in found.candidates if each.accuracy is not None]) == 20
    run = open_run(devices.folder / "apart")
    subnet = standalone(load_supernet(run).extract(run.architecture("smallest")))
    # Each is asked who it is; one that no run knows as a client is asked no more.
    few, *most = sorted(devices.received.values())
    assert (few, len(most)) == (1, 2)
    assert max(most) <= len(list(subnet.plan.norm_layers())) + 2


def test_another_engine_than_that_of_devices_is_refused(devices: Devices) -> None:
    with pytest.raises(ConfigError, match=r"engine\.name: got 'local', expected flower, as there is a superlink"):
        evaluate(devices.folder / "apart", "largest", engine="local")


def test_a_device_that_is_not_connected_is_absent_and_the_others_go_on(devices: Devices, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    devices.connected.remove("phone")
    try:
        config = load_train_config(devices.folder / "apart.yaml", ["training.rounds=2"])
        train(config, tmp_path / "run", listeners=(events.append,))
    finally:
        devices.connected.append("phone")
    rounds = [event for event in events if event["event"] == "round"]
    assert [event["absent"] for event in rounds] == [{"2": "not connected"}] * 2


@pytest.mark.parametrize("threads", [2, 1])
def test_a_device_computes_with_as_many_threads_as_it_gives(tmp_path: Path, threads: int) -> None:
    text = f"schema: 1\nname: camera\nsuperlink: nowhere:1\ndata: {{dataset: digits}}\nthreads: {threads}\n"
    (tmp_path / "camera.yaml").write_text(text, encoding="utf-8")
    app._device(str(tmp_path / "camera.yaml"))
    assert torch.get_num_threads() == threads
