"""Results on stdout."""

import json

import pytest

from fedsup_deploy.cli.output import Output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], (False, False, False)),
        (["--json", "search"], (True, False, False)),
        (["search", "--quiet", "--debug"], (False, True, True)),
        (["search", "--", "--json"], (False, False, False)),
        (["search", "--jsonx"], (False, False, False)),
    ],
)
def test_flags_are_read_from_the_arguments(args: list[str], expected: tuple[bool, bool, bool]):
    output = Output.from_args(args)
    assert (output.as_json, output.is_quiet, output.is_debug) == expected
    assert output.command == ["fedsup-deploy", *args]


def test_a_result_is_one_json_document(capsys: pytest.CaptureFixture[str]):
    result = {"name": "caf\u00e9", "rows": [{"a": 1.5, "b": None}]}
    Output(as_json=True).emit(result, lambda _: "not this")
    assert json.loads(capsys.readouterr().out) == result


def test_a_result_that_json_cannot_hold_is_our_mistake():
    with pytest.raises(ValueError, match="not JSON compliant"):
        Output(as_json=True).emit({"loss": float("nan")})


def test_a_result_is_text_for_people(capsys: pytest.CaptureFixture[str]):
    Output().emit({"name": "a"}, lambda result: f"name is {result['name']}")
    assert capsys.readouterr().out == "name is a\n"
    Output().emit({"name": "a"})
    assert capsys.readouterr().out.split() == ["name", "a"]
