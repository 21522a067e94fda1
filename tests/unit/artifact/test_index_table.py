"""`index.md` shows what others wrote into `index.json` as text: it leads nowhere else."""

import pytest

from fedsup_deploy.artifact.index import Index, IndexedBundle, IndexedVariant
from fedsup_deploy.artifact.index_table import render_table
from fedsup_deploy.artifact.markdown import text_of


def index_of(**changes: str) -> Index:
    variant = IndexedVariant(num_bytes=1, accuracy=None, latency_ms_predicted=None, latency_ms_measured_here=None)
    values = {"folder": "jetson-nano/a123", "arch_id": "a123", "split": "test", **changes}
    bundle = IndexedBundle(
        profile="jetson-nano",
        sums="0" * 64,
        trimmed_from=None,
        accuracy=0.5,
        accuracy_interval=None,
        num_images=10,
        search=None,
        choice=None,
        limits={},
        latency_limit=None,
        variants={"onnx-fp32": variant},
        left_out={},
        **values,
    )
    return Index(schema=1, bundles=(bundle,), refused=())


def test_a_bundle_is_a_link_to_its_folder() -> None:
    assert "| jetson-nano | [a123](jetson-nano/a123) | 50.0 % of 10 test |" in render_table(index_of())


@pytest.mark.parametrize("field", ["arch_id", "split"])
@pytest.mark.parametrize("text", ["a](http://evil)", "a) [b](http://evil)", "a | b | c", "<img src=x>"])
def test_no_text_of_others_makes_a_link_a_cell_or_html(field: str, text: str) -> None:
    [row] = (line for line in render_table(index_of(**{field: text})).splitlines() if "50.0 %" in line)
    assert row.count("|") == len(("class", "bundle", "accuracy", "limits", "why")) + 1
    assert (row.count("]("), row.count("<"), "](http" in row) == (1, 0, False)


def test_text_of_others_has_no_bracket_of_its_own() -> None:
    assert not set("[]<|`") & set(text_of("[a](b) <i> | `c`"))
