"""What resolutions cost: counts of the very subnets, predictions as a search has them, mistakes in a line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.commands.resolution import resolution_costs
from fedsup_deploy.commands.search import target_for
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.limits import within
from fedsup_deploy.searchers.pricing import price
from fedsup_deploy.space import cost

SPACE = "photographs"


#: Makes a profile of a device on which 19 networks took 0.91 to 1.09 of what was predicted.
Measured = Callable[..., DeviceProfile]


def test_each_resolution_has_its_smallest_and_its_largest_subnet() -> None:
    space = load_space(SPACE)
    found = resolution_costs(SPACE)
    assert [(each.resolution, each.subnet) for each in found.subnets] == [
        (side, corner) for side in space.resolutions for corner in ("smallest", "largest")
    ]
    for each in found.subnets:
        architecture = dataclasses.replace(space.resolve(each.subnet), resolution=each.resolution)
        expected = cost.costs_of(space, [architecture]).row(0)
        assert {name: getattr(each, name) for name in ("num_macs", "num_params", "peak_activation_bytes")} == {
            name: value for name, value in expected.items() if name != "moved_bytes"
        }
        assert each.last_map == space.plan(architecture).head[0].in_size
        assert each.devices == ()
    assert [found.subnets[row].last_map for row in (0, -1)] == [3, 7]


def test_latency_is_what_a_search_would_go_by_and_limits_are_those_of_the_profile() -> None:
    profile = load_profile("jetson-nano")
    found = resolution_costs(SPACE, profiles=["raspberry-pi-4", profile])
    space, target = load_space(SPACE), target_for(profile, {})
    corners = [dataclasses.replace(space.resolve(each.subnet), resolution=each.resolution) for each in found.subnets]
    (prices,) = price(space, np.stack([space.encode(corner) for corner in corners]), [target])
    on_it = [each.devices[1] for each in found.subnets]
    assert [device.latency_ms_predicted for device in on_it] == prices.latency_ms.tolist()
    assert {device.exceeded for device in on_it} == {(), ("latency_ms",)}
    assert [device.is_allowed for device in on_it] == within(prices.by_limit(), target.limits).tolist()
    assert all(device.latency_interval_ms is None for device in on_it), "figures of others are no ground for one"
    assert [device.profile for device in found.subnets[0].devices] == ["raspberry-pi-4", "jetson-nano"]


def test_other_sides_than_those_of_the_space() -> None:
    found = resolution_costs("fedsup-mobilenet", (96, 32, 96))
    assert [each.resolution for each in found.subnets] == [32, 32, 96, 96]
    assert found.subnets[:2] == resolution_costs("fedsup-mobilenet").subnets
    with pytest.raises(ConfigError, match=r"^resolution 0: resolutions\.0: got 0: input should be greater"):
        resolution_costs("fedsup-mobilenet", (0,))


def test_an_interval_where_the_profile_has_ground_for_one(
    measured_profile: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump(measured_profile()), encoding="utf-8")
    line = ["inspect", SPACE, "--resolution", "64", "--profile", str(path), "--quiet"]
    assert main([*line, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    for subnet in document["subnets"]:
        (device,) = subnet["devices"]
        ratios = np.array(device["latency_interval_ms"]) / device["latency_ms_predicted"]
        assert ratios == pytest.approx([0.9099, 1.0901])
    assert main(line) == 0
    page = capsys.readouterr().out
    assert "2.041 (1.857-2.225) *\n" in page, "2.5 is the limit: of p50, which is 1.25 times that"
    assert "\nms: predicted, nobody timed it: p10 on measured\n" in page
    assert "\nin brackets: the 95 % interval" in page
    assert "\n*: beyond a limit of the profile" in page


def test_layers_that_a_runtime_cannot_run_are_marked(measured_profile: Measured) -> None:
    profile = measured_profile().model_copy(update={"unsupported_ops": ("depthwise",)})
    (first, *_) = resolution_costs(SPACE, (32,), [profile]).subnets
    assert (first.devices[0].is_supported, first.devices[0].exceeded, first.devices[0].is_allowed) == (False, (), False)


def test_without_a_profile_the_page_says_how_to_get_latencies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits", "--resolution"]) == 0  # a config has that name as well
    page = capsys.readouterr().out
    assert page.startswith("space digits, images of 3 channels, 10 classes\n")
    assert "\n--profile NAME adds the latency" in page
    assert "*" not in page


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--resolution photographs", "got 'photographs', expected sides in pixels, such as 96,128,224"),
        ("photographs --resolution 96,,128", "got '96,,128', expected sides"),
        ("photographs --resolution 96x128", "got '96x128', expected sides"),
        ("photographs --resolution 4096", "resolution 4096: resolutions.0: got 4096: input should be less than"),
        ("photographs --profile jetson-nano", "--profile is for what resolutions cost; add --resolution"),
        ("photographs --resolution --profile nano", "no profile 'nano'"),
        ("jetson-nano --resolution", "no search space 'jetson-nano'"),
    ],
)
def test_a_mistake_is_said_in_a_line(line: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *line.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert problem in said.err
    assert said.err.count("\n") == 1
