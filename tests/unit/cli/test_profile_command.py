"""`fedsup-deploy profile`, on the shipped profiles."""

import json
from pathlib import Path

import pytest

from fedsup_deploy import resources
from fedsup_deploy.cli.main import main
from fedsup_deploy.config.reader import read


def shipped() -> list[str]:
    names = resources.shipped_names("profiles")
    assert names, "no profile is shipped"
    return names


def test_list_has_every_shipped_profile(capsys: pytest.CaptureFixture[str]):
    assert main(["profile", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [profile["name"] for profile in document["profiles"]] == shipped()
    assert main(["--json", "profile", "list"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_list_is_a_table_for_people(capsys: pytest.CaptureFixture[str]):
    assert main(["profile", "list"]) == 0
    out = capsys.readouterr().out
    for name in shipped():
        assert name in out
    assert "costs are" in out


def test_show_is_the_whole_profile(capsys: pytest.CaptureFixture[str]):
    name = shipped()[0]
    assert main(["profile", "show", name]) == 0
    text = capsys.readouterr().out
    assert main(["profile", "show", name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert read(text, str)[0] == document
    assert document["name"] == name


def test_show_knows_the_nearest_name(capsys: pytest.CaptureFixture[str]):
    name = shipped()[0]
    assert main(["profile", "show", name[:-1]]) == 2
    assert f"did you mean {name!r}?" in capsys.readouterr().err


def test_validate_accepts_the_shipped_files(capsys: pytest.CaptureFixture[str]):
    paths = [str(resources.shipped_folder("profiles") / f"{name}.yaml") for name in shipped()]
    assert main(["profile", "validate", *paths, "--json"]) == 0
    expected = {"valid": [{"file": path, "name": name} for path, name in zip(paths, shipped(), strict=True)]}
    assert json.loads(capsys.readouterr().out) == expected


def test_validate_names_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "odd.yaml"
    text = (resources.shipped_folder("profiles") / f"{shipped()[0]}.yaml").read_text(encoding="utf-8")
    path.write_text(f"colour: red\n{text}", encoding="utf-8")
    assert main(["profile", "validate", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}:1: unknown key 'colour'")
    assert main(["profile", "validate"]) == 2
    assert "Missing argument 'FILE...'" in capsys.readouterr().err
