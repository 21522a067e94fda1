"""What `demo` says of its page."""

import types
from pathlib import Path

import pytest

from fedsup_deploy.cli import demo


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (Path("report.html"), "To look at, in a browser: report.html"),
        (
            None,
            "For a page to look at: pip install 'fedsup-deploy[report]'; then run the demo again, or "
            "fedsup-deploy report.",
        ),
    ],
)
def test_where_it_is_or_how_to_get_one_in_one_line(report: Path | None, line: str) -> None:
    assert list(demo._look(types.SimpleNamespace(report=report))(120)) == [line]
