"""Images that no run can begin with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ArtifactError, DataError
from fedsup_deploy.runs.run import DATA, load_data, read_image_facts

CONFIG = """
schema: 1
name: mine
space: digits
data: {dataset: npz, root: set.npz}
partition: {kind: iid, num_clients: 2}
strategy: {name: fedavg}
training: {rounds: 1, clients_per_round: 1, warmup_rounds: 0}
"""
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 4, 4), dtype=np.uint8)


def complaint(folder: Path, *overrides: str) -> str:
    (folder / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_data(load_train_config(folder / "mine.yaml", overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("train_labels", "test_labels", "expected"),
    [
        ([1, 2] * 4, [1, 2] * 4, "npz: no training image of class 0; remove the class or add images"),
        ([0, 1] * 4, [0, 3] * 4, "npz: no training image of class 2, 3; remove the class or add images"),
        ([0] * 8, [0] * 8, "npz: got one class, '0', expected at least two"),
    ],
    ids=["from 1", "only in test", "one class"],
)
def test_classes_without_training_images_are_named(
    tmp_path: Path, train_labels: list[int], test_labels: list[int], expected: str
) -> None:
    arrays: dict[str, Any] = {"train_labels": train_labels, "test_labels": test_labels}
    np.savez(tmp_path / "set.npz", train_images=IMAGES, test_images=IMAGES, **arrays)
    assert complaint(tmp_path) == expected


def test_images_that_a_list_of_clients_leaves_out_can_be_listed(tmp_path: Path) -> None:
    for place in ("train/cat/1", "train/cat/2", "train/dog/1", "train/dog/2", "test/cat/1"):
        (tmp_path / "images" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / "images" / f"{place}.png")
    lines = [f"train/{label}/{number}.png,gate\n" for label in ("cat", "dog") for number in (1, 2)]
    (tmp_path / "images" / "who.csv").write_text("file,client\n" + "".join(lines), encoding="utf-8")
    data, partition = "{dataset: image-folder, root: images}", "{kind: natural, clients: who.csv}"
    config = CONFIG.replace("{dataset: npz, root: set.npz}", data).replace("{kind: iid, num_clients: 2}", partition)
    (tmp_path / "mine.yaml").write_text(config, encoding="utf-8")
    [note] = [note for note in load_data(load_train_config(tmp_path / "mine.yaml")).notes if "of no client" in note]
    assert note.endswith(": test (1); list them in who.csv")


@pytest.mark.parametrize("name", ["__MACOSX", "empty"])
def test_a_folder_without_images_is_no_class(tmp_path: Path, name: str) -> None:
    """The first is what macOS adds to archives, with files in it that are hidden."""
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            Image.fromarray(IMAGES[0]).save(tmp_path / "images" / split / label / "1.png")
    (tmp_path / "images" / "train" / name).mkdir()
    (tmp_path / "images" / "train" / name / "._1.png").write_bytes(b"no image")
    expected = f"image-folder: no training image of class {name}; remove the class or add images"
    assert complaint(tmp_path, f"data={{dataset: image-folder, root: {tmp_path / 'images'}}}") == expected


@pytest.mark.parametrize("content", [b"", b"[" * 200_000, b'{"classes": ["a"]}', b"\xff", b'{"classes": NaN}'])
def test_damaged_facts_of_images_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATA).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"data\.json: [^;\n]+; put it back or train again$"):
        read_image_facts(tmp_path)


def test_a_folder_in_the_place_of_facts_of_images_is_named(tmp_path: Path) -> None:
    (tmp_path / DATA).mkdir()
    with pytest.raises(ArtifactError, match=r"data\.json: it is no regular file; put it back or train again$"):
        read_image_facts(tmp_path)


def test_where_a_run_says_nothing_of_its_images_nothing_is_known(tmp_path: Path) -> None:
    assert read_image_facts(tmp_path) is None


def test_images_of_the_servers_own_stand_beside_those_of_clients(tmp_path: Path) -> None:
    """Nobody trains on its training images: they are for validation, where it has no images for that."""
    whose = {"train_clients": ["a", "a", "b", "b"], "test_clients": ["a", "b", "b", "b"]}
    labels: dict[str, Any] = {"train_labels": [0, 1, 0, 1], "test_labels": [0, 1, 0, 1]}
    four = IMAGES[:4]
    np.savez(tmp_path / "set.npz", train_images=four, test_images=four, **labels, **whose)
    text = CONFIG.replace("{kind: iid, num_clients: 2}", "{kind: natural}")
    for name, more, sizes in (("two", {}, (4, 4)), ("three", {"val_images": IMAGES[:1], "val_labels": [1]}, (1, 4))):
        np.savez(tmp_path / f"{name}.npz", train_images=four, test_images=four, **labels, **more)
        server = f"{{dataset: npz, root: set.npz, server: {{dataset: npz, root: {name}.npz}}}}"
        config = text.replace("{dataset: npz, root: set.npz}", server)
        (tmp_path / "mine.yaml").write_text(config, encoding="utf-8")
        data = load_data(load_train_config(tmp_path / "mine.yaml"))
        assert data.validation is not None
        assert data.test is not None
        assert (len(data.validation), len(data.test)) == sizes
        assert data.clients[0].tolist() == [0, 1]
        assert any("nobody uses: 4" in note for note in data.notes) == (name == "three")
