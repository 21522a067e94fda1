"""The Python interface from training to a bundle that predicts."""

from pathlib import Path

import numpy as np
import pytest

import fedsup_deploy
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.errors import DataError
from fedsup_deploy.searchers.result import load_result

TINY = [
    "training.rounds=2",
    "training.clients_per_round=3",
    "training.local_epochs=1",
    "training.warmup_rounds=0",
    "partition.num_clients=4",
    "engine.workers=1",
]


def test_train_deploy_and_predict(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    summary = fedsup_deploy.train("digits", run, overrides=TINY)
    assert summary.rounds == 2
    found = fedsup_deploy.search(["jetson-nano"], run, limits={"params": 9000}, evaluations=3, method="random")
    assert found.results[0].picked.num_params <= 9000
    assert found.to_dict() == {**load_result(found.out).to_dict(), "out": str(run / "search.json")}

    (artifact,) = fedsup_deploy.deploy(
        ["jetson-nano"], run, tmp_path / "exports", limits={"params": 7500}, formats=["pt2"]
    )
    assert list(artifact.manifest.models) == ["onnx-fp32", "pt2-fp32"]

    test = load_dataset("digits", None).test
    correct = artifact.predict(test.images_NHWC).argmax(axis=1) == test.labels_N
    assert np.mean(correct) == pytest.approx(artifact.manifest.accuracy.recalibrated, abs=1e-12)
    with pytest.raises(DataError, match="expected uint8"):
        artifact.predict(test.images_NHWC[:, :7])
