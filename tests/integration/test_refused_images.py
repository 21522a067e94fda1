"""What `train` says of images that cannot be trained on, once clients have looked at them."""

from pathlib import Path

import numpy as np
import pytest

from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import DataError

CONFIG = """
schema: 1
name: small
space: digits
data: {dataset: npz, root: set.npz}
partition: {kind: iid, num_clients: 3}
strategy: {name: fedavg}
engine: {name: local, workers: 1}
training: {rounds: 3, clients_per_round: 3}
"""


@pytest.mark.parametrize(
    ("shape", "problem"),
    [((8, 8), "channel 0 has one value everywhere; drop it or"), ((8, 6), "images are 6x8 pixels, expected square")],
)
def test_it_is_said_of_which_data_set_the_images_are(shape: tuple[int, int], problem: str, tmp_path: Path) -> None:
    parts = {f"{split}_images": np.full((40, *shape), 7, dtype=np.uint8) for split in ("train", "test")}
    np.savez(tmp_path / "set.npz", **parts, train_labels=np.arange(40) % 2, test_labels=np.arange(40) % 2)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(DataError, match=f"^npz at {tmp_path / 'set.npz'}: {problem}"):
        train(load_train_config(tmp_path / "small.yaml"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.yaml"))
