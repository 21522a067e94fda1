"""The ten public names."""

import subprocess
import sys

import pytest

import fedsup_deploy


def test_public_names_are_those_promised() -> None:
    expected = {
        *("SearchSpace", "Architecture", "Supernet", "DeviceProfile", "Artifact"),
        *("train", "search", "deploy", "load_artifact", "FedsupError"),
    }
    assert set(fedsup_deploy.__all__) - {"__version__"} == expected
    assert all(getattr(fedsup_deploy, name) is not None for name in expected)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = fedsup_deploy.trian


def test_importing_the_package_and_its_torch_free_names_imports_no_torch() -> None:
    code = (
        "import sys, fedsup_deploy as f; f.SearchSpace, f.Architecture, f.DeviceProfile, f.FedsupError, f.search; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
