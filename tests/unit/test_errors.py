"""Exit codes: one per class, as the drawing in the module's docstring says."""

import re

from fedsup_deploy import errors
from fedsup_deploy.errors import FedsupError


def test_exit_codes_are_those_of_the_drawing_and_all_different() -> None:
    drawn = {name: int(code) for name, code in re.findall(r"(\w+Error) +(\d+)", errors.__doc__ or "")}
    defined = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, FedsupError)
    }
    assert defined == drawn
    assert len(set(defined.values())) == len(defined) == 11


def test_no_exit_code_is_success_or_a_signal() -> None:
    codes = [error.exit_code for error in FedsupError.__subclasses__()]
    assert all(1 < code < 128 for code in codes)
