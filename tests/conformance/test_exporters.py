"""Every registered exporter on random plain networks: the laws that let a bundle exist.

The networks have what folded subnets have: dense, depthwise and 1x1 convolutions with bias, ReLU, squeeze-excitation,
2x2 average pooling (of odd sizes, too), residual sums, a mean over the image and one linear layer.
"""

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsup_deploy import registry, rng
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.parity import check_parity

EXPORTERS = registry.names("exporter")
SEEDS = [0, 1, 2]


class SqueezeExcite(nn.Module):
    __module__ = "plain"  # the same class wherever this file is loaded from: some formats record its name

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.gate(x_BCHW)


class Block(nn.Module):
    __module__ = "plain"

    def __init__(self, num_in: int, num_out: int, kernel_size: int, stride: int, *, has_se: bool) -> None:
        super().__init__()
        depthwise = nn.Conv2d(num_in, num_in, kernel_size, stride, kernel_size // 2, groups=num_in)
        scale = [SqueezeExcite(num_in)] if has_se else []
        self.main = nn.Sequential(depthwise, nn.ReLU(), *scale, nn.Conv2d(num_in, num_out, 1), nn.ReLU())
        pool = [nn.AvgPool2d(2, ceil_mode=True)] if stride == 2 else []
        project = [nn.Conv2d(num_in, num_out, 1)] if num_in != num_out else []
        self.shortcut = nn.Sequential(*pool, *project)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.main(x_BCHW) + self.shortcut(x_BCHW)


class PlainNet(nn.Module):
    __module__ = "plain"

    def __init__(self, channels: int, widths: list[int], blocks: list[nn.Module], num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = torch.relu(self.stem(x_BCHW))
        return self.head(self.blocks(x_BCHW).mean(dim=(2, 3)))


def plain_net(seed: int) -> tuple[nn.Module, Tensor]:
    """Return a random network and ten random inputs."""
    choose = rng.generator(seed, "plain net")
    widths = [8 * int(width) for width in choose.integers(1, 4, size=4)]
    strides = [1, 2, 1] if seed % 2 else [2, 1, 2]
    blocks: list[nn.Module] = [
        Block(num_in, num_out, int(choose.choice([3, 5, 7])), stride, has_se=bool(choose.integers(2)))
        for num_in, num_out, stride in zip(widths, widths[1:], strides, strict=False)
    ]
    channels, side = (1, 3)[seed % 2], (9, 12, 16)[seed % 3]
    net = PlainNet(channels, widths, blocks, num_classes=int(choose.integers(2, 11))).eval()
    torch_rng = rng.torch_generator(seed, "plain net")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-0.3, 0.3, generator=torch_rng)
    return net, torch.randn(10, channels, side, side, generator=torch_rng)


def export_all(folder: Path, seed: int) -> dict[str, bytes]:
    """Return the bytes of every format of one network."""
    net, inputs = plain_net(seed)
    content = {}
    for name in EXPORTERS:
        exporter_for(name).export(net, inputs[:1], folder / exporter_for(name).filename)
        content[name] = (folder / exporter_for(name).filename).read_bytes()
    return content


def test_file_names_differ():
    filenames = {exporter_for(name).filename for name in EXPORTERS}

    assert len(filenames) == len(EXPORTERS)


@pytest.mark.parametrize("name", EXPORTERS)
def test_exporter_knows_its_registered_name(name):
    assert exporter_for(name).name == name


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", EXPORTERS)
def test_file_computes_what_the_network_does_alone_and_in_a_batch(name, seed, tmp_path):
    net, inputs = plain_net(seed)
    exporter = exporter_for(name)

    exporter.export(net, inputs[:1], tmp_path / exporter.filename)

    with torch.no_grad():
        expected = net(inputs).numpy()
    report = check_parity(expected, {name: exporter.load(tmp_path / exporter.filename)}, inputs.numpy())
    assert np.ptp(expected) > 0.1, "a network that says the same of every image proves nothing"
    assert report.formats[name].argmax_agreement == 1.0
    assert report.formats[name].max_scaled_diff <= report.tolerance
    assert report.formats[name].batch_invariance_max_scaled_diff <= report.batch_tolerance
    assert [path.name for path in tmp_path.iterdir()] == [exporter.filename]


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
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TMPDIR": str(elsewhere)}
    subprocess.run([sys.executable, "-c", script, __file__], cwd=elsewhere, env=environment, check=True)

    third = {name: (elsewhere / "same" / exporter_for(name).filename).read_bytes() for name in EXPORTERS}
    assert [name for name in EXPORTERS if not first[name] == second[name] == third[name]] == []


@pytest.mark.parametrize("name", EXPORTERS)
def test_export_leaves_the_module_and_the_process_as_they_were(name, tmp_path):
    net, inputs = plain_net(1)
    before = snapshot(net)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    exporter_for(name).export(net, inputs[:1], tmp_path / "model")
    exporter_for(name).load(tmp_path / "model")(inputs.numpy())

    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    after = snapshot(net)
    assert [key for key in before if str(before[key]) != str(after[key])] == []
    assert all(parameter.requires_grad for parameter in net.parameters())


def snapshot(net: nn.Module) -> dict[str, object]:
    """Return what an export might change: the module, switches of torch, warning filters."""
    return {
        "weights": {key: tensor.tolist() for key, tensor in net.state_dict().items()},
        "modes": [module.training for module in net.modules()],
        "attributes": [sorted(vars(module)) for module in net.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()],
        "grads": [parameter.grad for parameter in net.parameters()],
        "grad mode": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
    }
