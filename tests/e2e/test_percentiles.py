"""Which percentile of latency a limit means, as a user says it and reads it."""

import re
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.space.cost import costs

QUICK = ("--run", "runs/digits", "--accuracy", "measured", "--method", "random", "--evaluations", "2")
#: What a measured p90 is of what is predicted, and the median.
P90, P50 = 1.5, 1.25


@pytest.fixture(scope="module")
def limit_ms(own_workshop: Any, measured_profile: Any) -> float:
    """The p90 of the fastest subnet on a device that was measured; `measured.yaml` is its profile."""
    profile = measured_profile()
    (own_workshop.folder / "measured.yaml").write_text(dump(profile), encoding="utf-8")
    space = load_space(str(own_workshop.folder / "runs" / "digits"))
    return float(P90 * predictor_for(profile).predict(costs(space, space.enumerate_genes()).layers).min())


def result_of(own_workshop: Any, *words: str) -> Any:
    (found,) = own_workshop.json("search", "--profile", "measured.yaml", *QUICK, "--out", "percentile.json", *words)[
        "results"
    ]
    return found


def test_a_higher_percentile_is_a_stricter_limit(own_workshop: Any, limit_ms: float) -> None:
    """The median is what a limit means where nobody says."""
    limit = ("--max-latency-ms", repr(limit_ms))
    median, p90 = (result_of(own_workshop, *limit, *words) for words in ((), ("--percentile", "p90")))
    assert median["percentile"] == {"name": "p50", "ratio": P50, "is_assumed": False}
    assert p90["percentile"] == {"name": "p90", "ratio": P90, "is_assumed": False}
    assert 1 <= p90["num_feasible"] < median["num_feasible"]
    for found, ratio in ((median, P50), (p90, P90)):
        for candidate in found["candidates"]:
            assert candidate["latency_percentile_ms"] == candidate["latency_ms_predicted"] * ratio <= limit_ms


def test_a_person_reads_which_percentile_was_held_to_the_limit(own_workshop: Any, limit_ms: float) -> None:
    words = ("--max-latency-ms", repr(limit_ms), "--percentile", "p90", *QUICK, "--out", "percentile.json")
    ended = own_workshop.run("search", "--profile", "measured.yaml", "--profile", "jetson-nano", *words)
    assert ended.exit_code == 2, "of published figures nobody knows a p90"
    ended = own_workshop.run("search", "--profile", "measured.yaml", *words)
    assert ended.exit_code == 0, ended.err
    assert "p90, 1.5 x predicted" in ended.out


@pytest.mark.parametrize("percentile", ["p10", "p90"])
@pytest.mark.parametrize("command", [("search",), ("deploy", "--out", "refused")])
def test_published_figures_are_no_other_percentile_than_the_median(
    own_workshop: Any, command: tuple[str, ...], percentile: str
) -> None:
    ended = own_workshop.run(*command, "--profile", "raspberry-pi-4", *QUICK, "--percentile", percentile)
    assert (ended.exit_code, ended.out) == (2, "")
    (error,) = ended.errors
    assert f"percentile: got {percentile}, but profile raspberry-pi-4 is made of published figures" in error
    assert "search with --percentile p50, or time networks on the device: fedsup-deploy profile build or fit" in error
    assert not (own_workshop.folder / "refused").exists()


def test_every_table_says_where_a_percentile_is_assumed(own_workshop: Any, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "percentile.json"))
    searched = own_workshop.run("search", "--profile", "raspberry-pi-4", *QUICK, *out)
    deployed = own_workshop.run("deploy", "--profile", "raspberry-pi-4", *QUICK, "--out", str(tmp_path / "bundles"))
    for ended in (searched, deployed):
        assert ended.exit_code == 0, ended.err
        assert "p50, assumed" in ended.out
    listed = own_workshop.run("profile", "list").out
    assert re.search(r"^raspberry-pi-4 .* 2\.5  p50, assumed$", listed, re.MULTILINE)
    (card,) = (tmp_path / "bundles" / "raspberry-pi-4").glob("*/MODEL_CARD.md")
    assert "p50; that predictions are of it is assumed" in card.read_text(encoding="utf-8")


def test_a_profile_from_before_there_were_percentiles_says_what_to_do(own_workshop: Any, measured_profile: Any) -> None:
    (own_workshop.folder / "older.yaml").write_text(dump(measured_profile(has_percentiles=False)), encoding="utf-8")
    words = ("search", "--profile", "older.yaml", "--max-latency-ms", "1000", *QUICK, "--out", "percentile.json")
    ended = own_workshop.run(*words)
    assert ended.exit_code == 2
    (error,) = ended.errors
    assert "predicts p10 and holds no measured ratio to another percentile; build or fit it again" in error
    assert own_workshop.run(*words, "--percentile", "p10").exit_code == 0
