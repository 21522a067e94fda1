"""The ten public names."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

import fedsup_deploy
from fedsup_deploy.commands.search import SearchRequest


def test_public_names_are_those_promised() -> None:
    expected = {
        *("SearchSpace", "Architecture", "Supernet", "DeviceProfile", "Artifact"),
        *("train", "search", "deploy", "load_artifact", "FedsupError"),
    }
    assert set(fedsup_deploy.__all__) - {"__version__"} == expected
    assert all(getattr(fedsup_deploy, name) is not None for name in expected)


def test_search_and_deploy_take_what_a_search_can_be_asked() -> None:
    """With its defaults; `deploy` has another `out`, makes bundles anew anyway, and is told which variants."""
    asked = {field.name: default_of(field) for field in dataclasses.fields(SearchRequest)}
    given = {name: found.default for name, found in inspect.signature(fedsup_deploy.search).parameters.items()}
    assert given.pop("listeners") == ()
    assert {**given, "limits": {}} == asked
    assert given["limits"] is None
    deployed = {name: found.default for name, found in inspect.signature(fedsup_deploy.deploy).parameters.items()}
    assert {**deployed, "out": None, "resume": False} == {**given, "listeners": (), "formats": (), "precisions": ()}


def default_of(field: "dataclasses.Field[object]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = fedsup_deploy.trian


def test_importing_the_package_and_its_torch_free_names_imports_no_torch() -> None:
    code = (
        "import sys, fedsup_deploy as f; f.SearchSpace, f.Architecture, f.DeviceProfile, f.FedsupError, f.search; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
