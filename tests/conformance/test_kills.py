"""What `benchmarks/kills.py` compares of a run that was killed and one that was not: all that is not measured."""

import runpy
from pathlib import Path
from typing import Any

from fedsup_deploy.run_events import Round

KILLS: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "kills.py"), run_name="kills")


def test_no_time_is_compared_and_whatever_else_a_round_says_is() -> None:
    """Each run takes its own time; a field of it that was compared would make every case a failure."""
    timed = {name for name in Round.model_fields if "seconds" in name or name == "unix_time_s"}
    assert {"seconds", "seconds_left", "unix_time_s"} <= timed
    assert KILLS["without_measured"](dict.fromkeys(Round.model_fields, 1)).keys() == Round.model_fields.keys() - timed
