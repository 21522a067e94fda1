"""Latency models as a profile holds them: what is refused."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fedsup_deploy.device.latency import CacheMisses, Latency

CALIBRATION = {
    "scale": 1.0,
    "cached_overhead_us": 1.0,
    "uncached_overhead_us": -1.0,
    "network_overhead_us": 0.0,
    "fits_mib": 1.0,
    "misses_mib": 2.0,
    "num_networks": 12,
}
TABLE = {
    "kind": "table",
    "dtype": "float32",
    "bytes_per_element": 4,
    "space": "tiny",
    "parts": {"conv 3x3 1-4@6": {"cached_us": 2.0, "uncached_us": 3.0}},
    "calibration": CALIBRATION,
}
FITTED = {
    "kind": "fitted",
    "dtype": "int8",
    "bytes_per_element": 1,
    "network_overhead_us": 0.0,
    "ops": {"conv": {"us_per_mmac": 1.0, "us_per_kelement": 0.0, "us_per_layer": 0.0}},
    "num_networks": 75,
}


def read(document: dict[str, Any]) -> Latency:
    return TypeAdapter[Latency](Latency).validate_python(document)


def test_what_needs_provenance() -> None:
    cache = {"us_per_kelement": 1.0, "fits_mib": 1.0, "misses_mib": 2.0}
    assert list(read(TABLE).figures()) == ["latency.parts", "latency.calibration"]
    assert list(read(FITTED).figures()) == ["latency.network_overhead_us", "latency.ops"]
    assert list(read({**FITTED, "cache": cache}).figures())[-1] == "latency.cache"
    assert list(read({**FITTED, "channel_block": 8}).figures())[-1] == "latency.channel_block"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({**TABLE, "parts": {"block 1": TABLE["parts"]["conv 3x3 1-4@6"]}}, "got the part 'block 1', expected layers"),
        ({**TABLE, "parts": {}}, "at least 1"),
        ({**TABLE, "parts": {"conv 3x3 1-4@6": {"cached_us": 0.0, "uncached_us": 3.0}}}, "greater than 0"),
        ({**TABLE, "calibration": {**CALIBRATION, "misses_mib": 1.0}}, "expected more than fits_mib 1.0"),
        ({**TABLE, "calibration": {**CALIBRATION, "scale": -1.0}}, "greater than 0"),
        ({**FITTED, "bytes_per_element": 4}, "got 4, expected 1 for int8"),
        ({**FITTED, "ops": {"softmax": FITTED["ops"]["conv"]}}, "'conv', 'pointwise'"),
        ({**FITTED, "kind": "guessed"}, "'guessed'"),
    ],
)
def test_an_impossible_model_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        read(document)


def test_a_cache_misses_more_the_larger_a_network() -> None:
    with pytest.raises(ValidationError, match=r"got misses_mib 0\.5, expected more than fits_mib 1\.0"):
        CacheMisses(us_per_kelement=1.0, fits_mib=1.0, misses_mib=0.5)
