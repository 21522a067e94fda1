"""Published latencies: what a file may say, and which profile a table is about."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.device.published.tables import PublishedRow, PublishedTable, published_tables


def table(**changes: Any) -> PublishedTable:
    """A table whose conditions are those of raspberry-pi-4, apart from the changes."""
    conditions = {"source": "a table", "device": "a board", "runtime": "ncnn", "threads": 1, "dtype": "float32"}
    rows = [{"network": "resnet-18", "ms": 200.0, "is_deduced_from": True}]
    return PublishedTable.model_validate({**conditions, "rows": rows, **changes}, strict=False)


def measured(profile: DeviceProfile) -> DeviceProfile:
    """The same profile, had all its costs been measured."""
    protocol = {"kind": "measured", "protocol": "timed", "date": "2026-01-31", "environment": "a board"}
    provenance = {path: protocol for path in profile.provenance if path != "energy.active_power_w"}
    document = profile.model_dump(by_alias=True) | {"provenance": provenance, "energy": None}
    return DeviceProfile.model_validate(document, strict=False)


def test_a_time_is_multiplied_by_the_factor_of_its_table() -> None:
    assert table().factor == 1
    assert table(scaling={"factor": 0.5, "dtype": "float32", "because": "twice the clock"}).factor == 0.5


def test_costs_deduced_from_a_table_are_costs_of_its_runtime() -> None:
    """The profile's own runtime is ONNX Runtime, which nobody published times of."""
    profile = load_profile("raspberry-pi-4")
    assert profile.runtime.name == "onnxruntime"
    assert table().runs_like(profile)
    assert table(runtime="onnxruntime").runs_like(profile)
    assert not table(rows=[{"network": "resnet-18", "ms": 200.0}]).runs_like(profile)


def test_measured_costs_are_costs_of_the_profile_s_own_runtime() -> None:
    profile = measured(load_profile("raspberry-pi-4"))
    assert profile.is_measured
    assert not table().runs_like(profile)
    assert table(runtime="onnxruntime").runs_like(profile)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"threads": 4}, False),
        ({"threads": None}, True),
        ({"dtype": "float16"}, False),
        ({"dtype": "float16", "scaling": {"factor": 2.0, "dtype": "float32", "because": "half as many"}}, True),
        ({"scaling": {"factor": 2.0, "dtype": "int8", "because": "a guess"}}, False),
    ],
)
def test_threads_and_element_type_have_to_be_those_of_the_profile(changes: dict[str, Any], expected: bool) -> None:
    assert table(**changes).runs_like(load_profile("raspberry-pi-4")) == expected


def test_a_row_names_a_network_whose_layers_are_known() -> None:
    with pytest.raises(ValidationError, match="unknown network 'resnet-19'; did you mean 'resnet-18'"):
        PublishedRow(network="resnet-19", ms=1.0)


def test_nobody_published_times_of_an_unknown_device() -> None:
    assert published_tables("my-own-board") == []
    assert {entry.device for entry in published_tables("pixel-class-phone")} == {
        "Pixel 3a",
        "Pixel 3a, both big cores",
        "Pixel 3",
    }
