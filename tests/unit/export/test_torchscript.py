"""`model.ts.pt`: what it promises beyond the laws that every exporter keeps."""

import io
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export import torchscript
from fedsup_deploy.export.torchscript import TorchScriptExporter
from fedsup_deploy.supernet.deployable import FoldedNetwork


@pytest.fixture(scope="module")
def exported(network: FoldedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchscript") / "model.ts.pt"
    TorchScriptExporter().export(network, {}, path.parent)
    return path


def test_archive_holds_code_and_constants_and_no_source_references(exported):
    with zipfile.ZipFile(exported) as archive:
        names = [name.removeprefix("archive/") for name in archive.namelist()]
        code = archive.read("archive/code/__torch__.py").decode()

    constants = [f"constants/{index}" for index in range(len(names) - 5)]
    assert names == ["data.pkl", "code/__torch__.py", *constants, "constants.pkl", "version", "byteorder"]
    assert code.startswith("class Subnet(Module):")
    assert "mangle" not in code


def test_file_tells_nothing_of_where_it_was_made(exported):
    content = exported.read_bytes()

    for trace in (str(Path(torch.__file__).parents[1]), str(Path(__file__).parent), str(exported.parent)):
        assert trace.encode() not in content


def test_plain_libtorch_loader_takes_the_file(network, exported):
    loaded = torch.jit.load(exported)
    x = torch.linspace(-1, 1, 245).reshape(5, 1, 7, 7)

    torch.testing.assert_close(loaded(x), network.module()(x))


def test_deprecation_of_torchscript_does_not_reach_the_user(network, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TorchScriptExporter().export(network, {}, tmp_path)
        TorchScriptExporter().load(tmp_path / "model.ts.pt")


def test_other_warnings_still_get_through(network, tmp_path, monkeypatch):
    class Warns(nn.Module):
        def forward(self, x):
            warnings.warn("something else", DeprecationWarning, stacklevel=1)
            return x.mean(dim=(2, 3))

    monkeypatch.setattr(FoldedNetwork, "module", lambda _: Warns().eval())
    with pytest.warns(DeprecationWarning, match="something else"):
        TorchScriptExporter().export(network, {}, tmp_path)


def test_archive_of_another_form_is_refused():
    """A later torch may write several classes; then the bytes would no longer be the same in every process."""
    records = {"code/__torch__/a.py": b"class A(Module):\n", "code/__torch__/b.py": b"class B(Module):\n"}

    with pytest.raises(GateError, match="expected one; use a tested torch version"):
        torchscript._anonymise(records)


def test_damaged_file_is_an_artifact_error(exported, tmp_path):
    (tmp_path / "model.ts.pt").write_bytes(exported.read_bytes()[:100])

    with pytest.raises(ArtifactError, match=r"^model.ts.pt: not loadable by torch.jit: \S"):
        TorchScriptExporter().load(tmp_path / "model.ts.pt")


def test_weights_are_in_the_file_bit_for_bit(network, exported):
    with zipfile.ZipFile(io.BytesIO(exported.read_bytes())) as archive:
        constants = {archive.read(name) for name in archive.namelist() if name.startswith("archive/constants/")}

    assert {tensor.numpy().tobytes() for tensor in network.weights.values()} <= constants
