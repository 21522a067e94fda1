"""`model.pt2`: what it promises beyond the laws that every exporter keeps."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export.exported_program import ExportedProgramExporter
from fedsup_deploy.supernet.deployable import FoldedNetwork


@pytest.fixture(scope="module")
def exported(network: FoldedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    ExportedProgramExporter().export(network, {}, path.parent)
    return path


def test_batch_is_open_upwards(exported):
    program = torch.export.load(exported)

    [constraint] = program.range_constraints.values()
    assert constraint.lower == 1
    assert constraint.upper > 10**9


def test_plain_loader_takes_the_file(network, exported):
    x = torch.linspace(-1, 1, 245).reshape(5, 1, 7, 7)

    torch.testing.assert_close(torch.export.load(exported).module()(x), network.module()(x))


def test_file_tells_nothing_of_where_it_was_made(exported):
    content = exported.read_bytes()

    for trace in (str(Path(torch.__file__).parents[1]), str(Path(__file__).parent), str(exported.parent)):
        assert trace.encode() not in content
    assert b"stack_trace" not in content


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
