"""ncnn on random networks, in a bundle, and damaged. In the environment `.venv-ncnn`: `make test-formats`."""

import random
from pathlib import Path

import numpy as np
import pytest
from random_networks import FACTS, TEN_OF_EACH_FAMILY, checked, random_network
from small_bundles import exported, verified
from small_runs import NETWORK, trained

from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.ncnn import LAYERS, NUMBERS, NcnnExporter


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_ten_networks_of_each_family_pass_the_gate_one_image_at_a_time(seed: int, tmp_path: Path) -> None:
    gate = checked(NcnnExporter(), seed, tmp_path)
    assert (gate.batches, gate.tolerance, gate.argmax_agreement) == ((1,), 1e-4, 1.0)


def test_nothing_is_said_against_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Ncnn tells of layers that it will not know for ever."""
    for seed in (0, 1):
        network, inputs = random_network(seed)
        NcnnExporter().export(network, FACTS, tmp_path)
        NcnnExporter().load(tmp_path / LAYERS)(inputs)
    assert capfd.readouterr() == ("", "")


def test_damaged_files_never_reach_ncnn(tmp_path: Path) -> None:
    """Any change of the text is refused but one to another network of ours, which its numbers fit as well."""
    network, inputs = random_network(1)
    NcnnExporter().export(network, FACTS, tmp_path)
    text, numbers = (tmp_path / LAYERS).read_text(encoding="utf-8"), (tmp_path / NUMBERS).read_bytes()
    choose, said = random.Random(0), []
    for _ in range(300):
        at = choose.randrange(len(text))
        (tmp_path / LAYERS).write_text(text[:at] + choose.choice("0123456789=.- e\nC\0") + text[at + 1 :])
        try:
            NcnnExporter().load(tmp_path / LAYERS)(inputs)
        except ArtifactError as error:
            said.append(str(error))
    assert len(said) > 200
    assert all(each.startswith(f"{LAYERS}: not loadable by ncnn: ") and "\n" not in each for each in said)
    (tmp_path / LAYERS).write_text(text)
    for content in (numbers[:-4], numbers + bytes(4), b""):
        (tmp_path / NUMBERS).write_bytes(content)
        with pytest.raises(ArtifactError, match="it has numbers of"):
            NcnnExporter().load(tmp_path / LAYERS)
    (tmp_path / NUMBERS).write_bytes((0x000D4B38).to_bytes(4, "little") + numbers[4:])
    with pytest.raises(ArtifactError, match="are not all float32"):
        NcnnExporter().load(tmp_path / LAYERS)
    (tmp_path / NUMBERS).unlink()
    with pytest.raises(ArtifactError, match="not loadable by ncnn"):
        NcnnExporter().load(tmp_path / LAYERS)


@pytest.mark.parametrize("shape", [(2, 3000, 9, 9), (2, 1, 9, 9), (2, 3, 900, 9), (2, 3, 12, 12)])
def test_images_that_a_network_is_not_for_never_reach_ncnn(shape: tuple[int, ...], tmp_path: Path) -> None:
    """What follows from the sizes of its input is checked: that of other images ncnn would have to believe."""
    network, inputs = random_network(3)
    NcnnExporter().export(network, FACTS, tmp_path)
    model = NcnnExporter().load(tmp_path / LAYERS)
    assert inputs.shape[1:] == (3, 9, 9)
    model(inputs)
    with pytest.raises(GateError, match=r"expected images of 3 channels and 9 x 9"):
        model(np.zeros(shape, np.float32))


def test_a_bundle_records_and_verify_repeats_what_ran_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(NETWORK, tmp_path)
    made = [exported(run, tmp_path / name, "ncnn", "fp32", "int8") for name in ("one", "two")]
    folder, manifest = made[0]
    assert set(manifest.models) == {"onnx-fp32", "onnx-int8", "ncnn-fp32"}, "ncnn has no int8 of ours"
    record = manifest.models["ncnn-fp32"]
    assert isinstance(record.gate, ParityGate)
    assert (record.gate.tolerance, record.gate.batches) == (1e-4, (1,))
    assert record.ran_by is not None
    assert (record.ran_by.name, record.ran_by.version) == ("ncnn", manifest.versions["ncnn"])
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Of ncnn-fp32 0.0001 is allowed: its runtime adds up in another order." in card

    found = verified(folder, capsys)
    assert [(each["file"], each["ran_by"]) for each in found["executed"]] == [(LAYERS, "ncnn")]
    assert (found["not_executed"], found["not_installed"]) == ([], {})
    for name in (LAYERS, NUMBERS):
        assert len({(each / name).read_bytes() for each, _ in made}) == 1
