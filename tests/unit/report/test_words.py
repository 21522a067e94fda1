"""Numbers as a person reads them."""

import pytest

from fedsup_deploy.report import words


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0123456, "0.0123"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (1000, "1,000"),
        (8.0, "8"),
        (0.0, "0"),
        (1e300, "1e+300"),
        (None, "not known"),
    ],
)
def test_three_digits_count(value: float | None, told: str) -> None:
    assert words.number(value) == told


def test_a_number_has_its_unit_once() -> None:
    assert words.number(1.5, "ms") == "1.5 ms"
    assert words.between((0.5, 1.5), "ms") == "0.5 to 1.5 ms"


def test_a_share_has_its_interval() -> None:
    assert words.share(0.965, (0.93, 0.983)) == "96.5 % (93.0 to 98.3)"
    assert words.share(None) == "not known"
    assert (words.points(0.0123), words.points(-0.5)) == ("+1.2 points", "-50.0 points")


@pytest.mark.parametrize(
    ("num_bytes", "told"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1023.9 * 1024, "1,024 KiB"),
        (1.5 * 2**20, "1.5 MiB"),
        (3 * 2**30, "3 GiB"),
    ],
)
def test_bytes_have_the_unit_that_fits(num_bytes: float, told: str) -> None:
    assert words.size(num_bytes) == told


@pytest.mark.parametrize(("value", "told"), [(0.5, "0.5 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h")])
def test_times_have_the_unit_that_fits(value: float, told: str) -> None:
    assert words.seconds(value) == told


def test_what_is_counted_is_one_or_many() -> None:
    assert (words.counted(1, "image"), words.counted(2000, "image")) == ("1 image", "2,000 images")


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.01, "+1.0"), (-0.05, "-5.0"), (0.0, "0.0"), (-0.000333, "-0.03"), (1e-12, "0.0"), (0.7 - 0.6 - 0.1, "0.0")],
)
def test_a_difference_has_digits_enough_to_see_it(value: float, told: str) -> None:
    assert words.points(value) == f"{told} points"
