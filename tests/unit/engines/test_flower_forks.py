"""Children that are forked: how they end, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsup_deploy.engines.flower import forks
from fedsup_deploy.engines.flower.forks import collected, end, forked

PARENT = """
import os, signal
from fedsup_deploy.engines.flower.forks import forked

print(forked("child", lambda: signal.pause()), flush=True)
signal.pause()
"""


def fail() -> int:
    raise ValueError("no")


def pause() -> int:
    signal.pause()
    return 0


def ignore() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return pause()


@pytest.mark.parametrize(("run", "code"), [(lambda: 75, 75), (lambda: sys.exit(3), 3), (fail, 1)])
def test_what_a_child_returns_is_its_code(
    run: Callable[[], int], code: int, eventually: Callable[..., bool], capfd: pytest.CaptureFixture[str]
) -> None:
    found: dict[int, int] = {}
    pid = forked("child", run)

    def has_ended() -> bool:
        found.update(collected({pid}))
        return bool(found)

    assert eventually(has_ended)
    assert found == {pid: code}
    assert ("ValueError: no" in capfd.readouterr().err) == (run is fail)


def test_of_children_that_go_on_nothing_is_collected_until_they_are_ended() -> None:
    pid = forked("child", pause)
    assert collected({pid}) == {}
    end({pid})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_that_does_not_end_when_it_is_told_to_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_PATIENCE_S", 0.0)
    pid = forked("child", ignore)
    end({pid})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_does_not_outlive_a_parent_that_is_killed(eventually: Callable[..., bool]) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert (child / "comm").exists()
        parent.kill()
    assert eventually(lambda: not child.exists() or "Z" in (child / "stat").read_text().split()[2])
