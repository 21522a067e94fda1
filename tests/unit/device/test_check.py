"""`profile check`: what is judged, and what is only shown."""

import json
import math
from pathlib import Path

import pytest

from fedsup_deploy import resources
from fedsup_deploy.cli.main import main
from fedsup_deploy.device.published.check import CheckedRow, check_profiles
from fedsup_deploy.errors import ConfigError


def profile_file(tmp_path: Path, old: str, new: str) -> str:
    """Return the file of raspberry-pi-4 with one change."""
    text = (resources.shipped_folder("profiles") / "raspberry-pi-4.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def rows_of(profile: str, factor: float = 1.5) -> dict[tuple[str, str, int | None], CheckedRow]:
    rows = check_profiles([profile], factor).profiles[0].rows
    return {(row.network, row.runtime, row.threads): row for row in rows}


def test_rows_of_other_conditions_decide_nothing() -> None:
    rows = rows_of("raspberry-pi-4")
    four_threads = rows["mobilenet-v2-ncnn", "ncnn", 4]
    assert four_threads.ratio > 1.5
    assert four_threads.verdict == "other conditions"
    assert rows["mobilenet-v1", "xnnpack", None].verdict == "other conditions"
    assert rows["mobilenet-v1", "ncnn", 1].verdict == "inside"


def test_a_known_miss_counts_in_the_error_and_does_not_fail_the_check() -> None:
    report = check_profiles(["raspberry-pi-4"])
    (entry,) = report.profiles
    (miss,) = [row for row in entry.rows if row.network == "vgg-16"]
    assert (miss.verdict, report.is_inside) == ("known miss", True)
    assert math.ceil(1e4 / miss.ratio) / 1e4 in entry.heldout.ratios, "a bound that is rounded up"


def test_the_ratio_is_predicted_over_scaled_published_time() -> None:
    row = rows_of("stm32h7")["resnet-8", "x-cube-ai", 1]
    assert row.published_ms == 40.8
    assert row.ratio == pytest.approx(row.predicted_ms / (40.8 * 280 / 480), rel=1e-3)


def test_the_error_is_that_of_the_rows_nothing_was_deduced_from() -> None:
    entry = check_profiles(["raspberry-pi-4"]).profiles[0]
    ratios = [1 / row.ratio for row in entry.rows if row.role == "held out" and row.verdict in {"inside", "known miss"}]
    assert entry.heldout.num_heldout == len(ratios) == 4
    assert entry.heldout.ratios == pytest.approx(sorted(ratios), abs=1e-4)
    assert entry.num_judged == 7


def test_a_tighter_factor_lets_less_pass() -> None:
    assert check_profiles(["raspberry-pi-4"], 1.5).is_inside
    tight = check_profiles(["raspberry-pi-4"], 1.2)
    assert not tight.is_inside
    outside = {row.network for row in tight.profiles[0].rows if row.verdict == "outside"}
    assert outside == {"mnasnet-ncnn", "squeezenet-ncnn"}


@pytest.mark.parametrize("factor", [0.9, 0.0, float("nan")])
def test_a_factor_below_1_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError, match=r"got factor .*, expected at least 1"):
        check_profiles(["raspberry-pi-4"], factor)


def test_a_wrong_cost_is_noticed_with_exit_code_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = profile_file(tmp_path, "conv: {gmacs_per_s: 9.78", "conv: {gmacs_per_s: 97.8")
    assert main(["profile", "check", "intel-n100", path]) == 6
    captured = capsys.readouterr()
    assert "error: raspberry-pi-4: a prediction is off by more than a factor of 1.5" in captured.err
    assert "intel-n100: 6 rows were judged, all inside a factor of 1.5" in captured.out
    assert "outside" in captured.out


def test_json_is_one_document_also_when_something_is_outside(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "check", "x86-laptop", "--factor", "1.1", "--json"]) == 6
    document = json.loads(capsys.readouterr().out)
    assert not document["is_inside"]
    assert document == check_profiles(["x86-laptop"], 1.1).to_dict()


def test_a_device_nobody_wrote_about_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = profile_file(tmp_path, "name: raspberry-pi-4", "name: my-board")
    result = check_profiles([path])
    assert result.is_inside
    assert result.profiles[0].is_inside is None
    assert result.profiles[0].heldout is None
    assert main(["profile", "check", path]) == 0
    assert "my-board: nothing published about this profile is known" in capsys.readouterr().out


def test_conditions_nobody_published_are_said_to_be_unjudged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With three threads instead of one; network 0 of NAS-Bench-201 has no known number and still counts."""
    path = profile_file(tmp_path, "threads: 1", "threads: 3")
    judged = {row.network for row in check_profiles([path]).profiles[0].rows if row.verdict == "inside"}
    assert judged == {"nas-bench-201-net-0"}
    assert main(["profile", "check", path]) == 0
    assert "1 row was judged, all inside" in capsys.readouterr().out


def test_a_model_without_costs_for_a_layer_predicts_nothing(tmp_path: Path) -> None:
    """Fitted to networks of dense convolutions only, it knows nothing of the layers of any published network."""
    fitted = """\
latency:
  kind: fitted
  dtype: float32
  bytes_per_element: 4
  network_overhead_us: 5
  ops:
    conv: {us_per_mmac: 100, us_per_kelement: 0, us_per_layer: 0}
  num_networks: 20
error: none
provenance:
  latency: {kind: published, source: a table}
  accepts: {kind: published, source: a table}
  system: {kind: published, source: a table}
  also_loads: {kind: published, source: a table}
"""
    text = (resources.shipped_folder("profiles") / "raspberry-pi-4.yaml").read_text(encoding="utf-8")
    path = tmp_path / "fitted.yaml"
    path.write_text(text[: text.index("latency:\n")] + fitted, encoding="utf-8")
    entry = check_profiles([str(path)]).profiles[0]
    assert entry.is_inside is None
    assert {row.verdict for row in entry.rows} == {"no prediction", "other conditions"}
    assert all(row.predicted_ms is None for row in entry.rows)
