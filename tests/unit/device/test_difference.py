"""`profile diff`: which figures differ, and what that does to predictions."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from fedsup_deploy import resources
from fedsup_deploy.cli import profile_tables
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
        ("formats: [onnx]", "formats: [onnx, torchscript]"),
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


def test_releases_that_fail_are_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    [known_bad] = [each for each in diff("raspberry-pi-5", "raspberry-pi-4").figures if each.path == "known_bad"]
    assert (known_bad.first, known_bad.change) == (None, None)
    assert isinstance(known_bad.second, list)
    [told] = known_bad.second
    assert str(told).startswith("onnxruntime ==1.21.0: illegal instruction as soon as it is imported")
    assert main(["profile", "diff", "raspberry-pi-5", "raspberry-pi-4"]) == 0
    assert "onnxruntime ==1.21.0: illegal instruction" in " ".join(capsys.readouterr().out.split())


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


def test_many_figures_alike_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the parts of a table, whose names are long; that with the largest change is named below."""
    parts = {f"pointwise 8-{width}@4": {"cached_us": float(width), "uncached_us": 60.0} for width in range(1, 11)}
    slower = {
        name: {**times, "cached_us": times["cached_us"] * (1.5 if "-7@" in name else 1.1)}
        for name, times in parts.items()
    }
    paths = [table_profile(tmp_path, name, of) for name, of in (("mine", parts), ("later", slower))]
    monkeypatch.chdir(tmp_path)
    lines = list(profile_tables.difference(diff(*paths, "digits"))(80))
    [row] = [line.split("  ") for line in lines if line.startswith("latency.parts.*.cached_us  ")]
    assert [cell.strip() for cell in row if cell.strip()] == [
        "latency.parts.*.cached_us",
        "1 to 10",
        "1.1 to 11",
        "+10.0% (median)",
    ]
    text = " ".join(" ".join(lines).split())
    about = "latency.parts.*.cached_us: 10 figures; changes of +10.0% to +50.0%, the largest of pointwise 8-7@4"
    assert about in text
    assert "mine later change" in text
    assert max(map(len, lines)) <= 80


def test_figures_of_one_profile_only_are_one_row_of_each_kind(tmp_path: Path) -> None:
    """Two kinds of latency models have hardly a figure in common."""
    parts = {f"pointwise 8-{width}@4": {"cached_us": float(width), "uncached_us": 60.0} for width in (1, 2)}
    lines = list(profile_tables.difference(diff("jetson-nano", table_profile(tmp_path, "mine", parts), "digits"))(80))
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("latency.")}
    assert rows["latency.ops.*.overhead_us"][-2:] == ["-", "-"]
    assert rows["latency.parts.*.cached_us"] == ["-", "1", "to", "2", "-"]
    assert max(map(len, lines)) <= 80


def table_profile(folder: Path, name: str, parts: dict[str, dict[str, float]]) -> str:
    """Write jetson-nano with a table of parts in place of its costs; return the file."""
    document = yaml.safe_load((resources.shipped_folder("profiles") / "jetson-nano.yaml").read_text(encoding="utf-8"))
    calibration = {"scale": 1.0, "fits_mib": 1.0, "misses_mib": 2.0, "num_networks": 12}
    calibration |= dict.fromkeys(("cached_overhead_us", "uncached_overhead_us", "network_overhead_us"), 0.0)
    latency = {"kind": "table", "dtype": "float32", "bytes_per_element": 4, "space": "digits", "parts": parts}
    measured = {"kind": "measured", "protocol": "timed", "date": "2026-01-31", "environment": "a machine"}
    document |= {"name": name, "latency": {**latency, "calibration": calibration}, "provenance": {"latency": measured}}
    for section in ("energy", "accepts", "system", "build_on_device"):
        document.pop(section, None)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


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
