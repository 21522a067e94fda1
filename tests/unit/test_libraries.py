"""What the libraries leave behind: nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# As a command that fits a predictor and times a model does, in a process that is then killed.
_WORK = """
import os, signal
from fedsup_deploy.cli.main import main
main(["--version"])
import onnxruntime, torch
from sklearn.ensemble import GradientBoostingRegressor
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_nothing_of_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "ORT_DISABLE_TELEMETRY", "JOBLIB_MULTIPROCESSING"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    environ = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen([sys.executable, "-c", _WORK], env=environ, stdout=subprocess.DEVNULL) as process:
        assert process.wait() == -signal.SIGKILL
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "home", tmp_path / "temporary"]
    assert not list(Path("/dev/shm").glob(f"sem.*-{process.pid}-*"))
