"""Folders of image files, a folder per client."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.data.dataset import DatasetSplits
from fedsup_deploy.data.image_folder import load_image_folder
from fedsup_deploy.errors import DataError

BY_FOLDER = ClientList()


def save(root: Path, *names: str) -> None:
    """Write images, each grey as its place among the names."""
    for level, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), level, dtype=np.uint8)).save(root / name)


def held(splits: DatasetSplits, split: str = "train") -> dict[str, list[tuple[str, int]]]:
    """Return the class and the grey of each client's images of a split."""
    images = {"train": splits.train, "validation": splits.validation, "test": splits.test}[split]
    assert splits.owners is not None
    parts = splits.owners.parts(split)
    assert images is not None
    assert parts is not None
    return {
        client: [(images.classes[images.labels_N[i]], int(images.images_NHWC[i, 0, 0, 0])) for i in part]
        for client, part in zip(splits.owners.names, parts, strict=True)
    }


def problem(root: Path, clients: ClientList | None = BY_FOLDER) -> str:
    with pytest.raises(DataError) as caught:
        load_image_folder(root, clients=clients)
    return str(caught.value)


def test_a_folder_per_client_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, "b/cat/1.png", "a/dog/1.png", "a/cat/2.png", "a/cat/1.png")
    splits = load_image_folder(tmp_path, clients=BY_FOLDER)
    assert splits.train.classes == ("cat", "dog")
    assert held(splits) == {"a": [("cat", 3), ("cat", 2), ("dog", 1)], "b": [("cat", 0)]}
    assert (splits.test, splits.validation, splits.notes) == (None, None, ())


def test_a_client_may_bring_images_to_validate_and_to_test_on(tmp_path: Path) -> None:
    """One does, one has test images alone, and one has no parts."""
    save(tmp_path, "a/train/cat/1.png", "a/valid/cat/1.png", "a/test/dog/1.png", "b/test/cat/1.png", "c/dog/1.png")
    splits = load_image_folder(tmp_path, clients=BY_FOLDER)
    assert held(splits) == {"a": [("cat", 0)], "b": [], "c": [("dog", 4)]}
    assert held(splits, "validation") == {"a": [("cat", 1)], "b": [], "c": []}
    assert held(splits, "test") == {"a": [("dog", 2)], "b": [("cat", 3)], "c": []}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    save(tmp_path, "a/train/1.png", "a/test/1.png", "b/bus/1.png")
    splits = load_image_folder(tmp_path, clients=BY_FOLDER)
    assert held(splits) == {"a": [("test", 1), ("train", 0)], "b": [("bus", 2)]}


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    save(tmp_path, "a/train/cat/1.png", "a/train/cat/2021/1.png", "a/cat/1.png", "b/dog/1.png", ".hidden/cat/1.png")
    for name in ("list.txt", "b/list.txt", "b/dog/list.txt"):
        (tmp_path / name).write_text("no image", encoding="utf-8")
    assert load_image_folder(tmp_path, clients=BY_FOLDER).notes == (
        "passed over beside folders of clients, train and test: 2 (list.txt, a/cat), "
        "images among them: 1; move them into a/train to train on them",
        "passed over in train, folders within those of classes: 1 (a/train/cat/2021), files in them: 1",
        "passed over in train, files of kinds that are not read: 2 (b/list.txt, b/dog/list.txt)",
    )


def test_images_beside_train_and_test_of_several_clients_are_counted(tmp_path: Path) -> None:
    """Hidden files are none."""
    save(tmp_path, *(f"{client}/{name}" for client in "ab" for name in ("test/cat/1.png", "cat/1.png", "cat/.2.png")))
    save(tmp_path, "c/cat/1.png", "a/dog/1.JPG")
    assert load_image_folder(tmp_path, clients=BY_FOLDER).notes == (
        "passed over beside folders of clients, train and test: 3 (a/cat, a/dog, b/cat), "
        "images among them: 3; move them into <client>/train to train on them",
    )


def test_a_client_without_images_is_one(tmp_path: Path) -> None:
    """So that whoever divides the images can say that it is left out."""
    save(tmp_path, "a/cat/1.png")
    (tmp_path / "b").mkdir()
    assert held(load_image_folder(tmp_path, clients=BY_FOLDER)) == {"a": [("cat", 0)], "b": []}


def test_the_other_layout_is_recognised(tmp_path: Path) -> None:
    save(tmp_path / "classes", "train/cat/1.png", "test/cat/1.png")
    assert problem(tmp_path / "classes").startswith(f"{tmp_path / 'classes'}: has train and test, which are no clients")
    save(tmp_path / "clients", "a/cat/1.png")
    assert problem(tmp_path / "clients", None).endswith("; for a folder per client set partition.kind: natural")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat.png"], "no folders of clients, expected <client>/<class>/"),
        (["cat/1.png", "dog/1.png"], "no images, expected <client>/<class>/*"),
        (["a/test/cat/1.png"], "no client has training images, expected <client>/train/<class>/"),
        (["a/cat/1.png", "b/test/dog/1.png"], "class 'dog' has no folder in train"),
        (["a/train/cat/1.png", "a/val/cat/1.png", "a/valid/cat/1.png"], "got val and valid, expected one folder"),
        (["caf\u00e9/cat/1.png", "cafe\u0301/cat/1.png"], "two folders of client 'caf\u00e9'"),
    ],
    ids=["files", "classes", "test only", "class in test only", "two of validation", "one name"],
)
def test_folders_that_are_none_of_clients(tmp_path: Path, names: list[str], expected: str) -> None:
    save(tmp_path, *names)
    assert expected in problem(tmp_path)


def test_a_link_to_the_folder_of_another_is_no_further_client(tmp_path: Path) -> None:
    save(tmp_path, "a/cat/1.png", "elsewhere/cat/1.png")
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert problem(tmp_path) == f"{tmp_path}: client 'b' and client 'a' are one folder; remove one"


def test_a_list_beside_the_images(tmp_path: Path) -> None:
    """It is no file that is passed over."""
    save(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/cat/1.png")
    text = "file,client\ntrain/dog/1.png,a\ntrain/cat/1.png,b\n"
    (tmp_path / "clients.csv").write_text(text, encoding="utf-8")
    splits = load_image_folder(tmp_path, clients=ClientList(tmp_path / "clients.csv"))
    assert held(splits) == {"a": [("dog", 1)], "b": [("cat", 0)]}
    assert splits.notes == ()
    assert splits.owners is not None
    assert splits.owners.parts("test") is None
