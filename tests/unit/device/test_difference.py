"""`profile diff`: which figures differ, and what that does to predictions."""

import dataclasses
import json
from pathlib import Path

import pytest

from fedsup_deploy import resources
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.profile_diff import diff


def changed(tmp_path: Path, *changes: tuple[str, str]) -> str:
    """Return the file of jetson-nano with some changes."""
    text = (resources.shipped_folder("profiles") / "jetson-nano.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "changed.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_profile_does_not_differ_from_itself() -> None:
    result = diff("jetson-nano", "jetson-nano")
    assert result.figures == result.provenance == ()
    assert result.first == result.second
    expected = {"median_ratio": 1.0, "smallest_ratio": 1.0, "largest_ratio": 1.0, "spearman": 1.0}
    assert {name: getattr(result.predictions, name) for name in expected} == pytest.approx(expected)


def test_figures_are_named_by_path_with_their_relative_change(tmp_path: Path) -> None:
    path = changed(tmp_path, ("conv: {gmacs_per_s: 8.38", "conv: {gmacs_per_s: 4.19"), ("cores: 4", "cores: 6"))
    expected = [
        ("device.cores", 4, 6, pytest.approx(0.5)),
        ("latency.ops.conv.gmacs_per_s", 8.38, 4.19, pytest.approx(-0.5)),
    ]
    assert [dataclasses.astuple(figure) for figure in diff("jetson-nano", path).figures] == expected


def test_what_is_no_number_has_no_change(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ("formats: [onnx, torchscript]", "formats: [onnx]"),
        ("limits:", "unsupported_ops: [scale]\nlimits:"),
        ("  network_overhead_us: 0", "  network_overhead_us: 7"),
        ("source: 0 by definition", "source: a guess, not 0 by definition"),
    )
    result = diff("jetson-nano", path)
    assert {entry.path: entry.change for entry in result.figures} == {
        "formats": None,
        "unsupported_ops": None,
        "latency.network_overhead_us": None,  # from 0
    }
    assert result.provenance == ("latency.network_overhead_us",)


def test_predictions_follow_the_costs(tmp_path: Path) -> None:
    """All rates, the bandwidth and the overheads halved or doubled: every subnet takes twice as long."""
    path = changed(
        tmp_path,
        ("memory_bandwidth_gb_s: 7.4", "memory_bandwidth_gb_s: 3.7"),
        ("gmacs_per_s: 8.38", "gmacs_per_s: 4.19"),
        ("gmacs_per_s: 5.02", "gmacs_per_s: 2.51"),
        ("gmacs_per_s: 0.634", "gmacs_per_s: 0.317"),
        ("overhead_us: 47.2", "overhead_us: 94.4"),
    )
    found = diff("jetson-nano", path, "digits").predictions
    assert found.space == "digits"
    for name in ("median_ratio", "smallest_ratio", "largest_ratio"):
        assert getattr(found, name) == pytest.approx(2)
    assert found.spearman == 1


def test_a_space_too_large_to_list_is_sampled() -> None:
    found = diff("jetson-nano", "raspberry-pi-5", "fedsup-mobilenet-per-block").predictions
    assert found.num_architectures == 12_000
    assert found.smallest_ratio < found.median_ratio < found.largest_ratio < 1


def test_the_command_is_a_table_or_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(tmp_path, ("cores: 4", "cores: 6"))
    assert main(["profile", "diff", "jetson-nano", path, "--space", "digits"]) == 0
    out = capsys.readouterr().out
    assert "device.cores" in out
    assert "+50.0%" in out
    assert "rank correlation 1" in out
    assert main(["profile", "diff", "jetson-nano", path, "--space", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == diff("jetson-nano", path, "digits").to_dict()
    assert main(["profile", "diff", "jetson-nano", "jetson-nano", "--space", "digits"]) == 0
    assert "no figure differs" in capsys.readouterr().out
