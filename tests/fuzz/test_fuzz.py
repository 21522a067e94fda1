"""About a thousand damaged inputs of every kind: no traceback, no internal error, nothing that a terminal obeys."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.slow
def test_no_damaged_input_ends_in_anything_but_one_line() -> None:
    """In a process of its own: a crash of it is a finding as well. The last line on stderr names the input."""
    command = [sys.executable, str(RUN), "--count", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-1000:]}"
    assert done.stdout.count('"failed": []') == 28, "one line for each kind of input"


def test_an_input_is_named_by_target_and_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a finding can be looked at again."""
    monkeypatch.syspath_prepend(str(RUN.parent))
    import random

    from mutations import as_json

    document = {"a": [1, 2, {"b": "c"}], "d": None}
    first, again, other = (as_json(random.Random(f"manifest {index}"), document) for index in (1, 1, 2))
    assert first == again != other
