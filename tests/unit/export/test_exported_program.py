"""`model.pt2`: what it promises beyond the laws that every exporter keeps."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsup_deploy import rng
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export.exported_program import ExportedProgramExporter

EXAMPLE = torch.full((1, 1, 4, 4), 0.123456)


def tiny() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    generator = rng.torch_generator(0, "tiny")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-1, 1, generator=generator)
    return net


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    ExportedProgramExporter().export(tiny(), EXAMPLE, path)
    return path


def test_batch_is_open_upwards(exported):
    program = torch.export.load(exported)

    [constraint] = program.range_constraints.values()
    assert constraint.lower == 1
    assert constraint.upper > 10**9


def test_plain_loader_takes_the_file(exported):
    x = torch.linspace(-1, 1, 80).reshape(5, 1, 4, 4)

    torch.testing.assert_close(torch.export.load(exported).module()(x), tiny()(x))


def test_file_tells_nothing_of_where_it_was_made_or_of_the_example(exported):
    content = exported.read_bytes()

    for trace in (str(Path(torch.__file__).parents[1]), str(Path(__file__).parent), str(exported.parent)):
        assert trace.encode() not in content
    assert b"stack_trace" not in content
    assert EXAMPLE.numpy().tobytes()[:16] not in content


def test_module_names_stay_for_compilers(exported):
    """Compilers and `torch.export.unflatten` need them."""
    with zipfile.ZipFile(exported) as archive:
        document = json.loads(archive.read("archive/models/model.json"))

    stacks = [node["metadata"]["nn_module_stack"] for node in document["graph_module"]["graph"]["nodes"]]
    assert any("torch.nn.modules.conv.Conv2d" in stack for stack in stacks)


def test_damaged_file_is_an_artifact_error(exported, tmp_path):
    (tmp_path / "model.pt2").write_bytes(exported.read_bytes()[:100])

    with pytest.raises(ArtifactError, match=r"^model.pt2: not loadable by torch.export: \S"):
        ExportedProgramExporter().load(tmp_path / "model.pt2")
