"""What `pip install .` installs: all modules, and the profiles and configs that are shipped."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this tree, built as `pip install .` builds it, but with the hatchling that is here."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *build], check=True)
    (built,) = folder.iterdir()
    return built


def test_it_holds_every_module_and_every_shipped_file(wheel: Path) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fedsup_deploy").rglob("*.py")}
    places = {"profiles": "*.yaml", "configs": "**/*.yaml"}
    shipped = {
        f"fedsup_deploy/shipped/{path.relative_to(ROOT).as_posix()}"
        for folder, pattern in places.items()
        for path in (ROOT / folder).glob(pattern)
        if not path.name.startswith("host")  # what `profile build` makes here, and git ignores
    }
    held = zipfile.ZipFile(wheel).namelist()
    assert len(set(held)) == len(held)
    assert {name for name in held if name.endswith(".py")} == modules
    assert {name for name in held if name.endswith(".yaml") and name.startswith("fedsup_deploy/shipped/")} >= shipped
    assert "fedsup_deploy/py.typed" in held
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fedsup_deploy/report/templates").iterdir()}
    assert len(templates) == 3
    assert templates <= set(held)


def test_every_module_of_it_can_be_imported(wheel: Path, tmp_path: Path) -> None:
    """Away from this tree, whose folders would be found as packages without being any."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import importlib, pkgutil, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import fedsup_deploy\n"
        "found = list(pkgutil.walk_packages(fedsup_deploy.__path__, 'fedsup_deploy.'))\n"
        "for module in found:\n"
        "    try:\n"
        "        importlib.import_module(module.name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        if error.name not in ('flwr', 'flwr.app', 'httpx') or '.engines.flower.' not in module.name: raise\n"
        "print(fedsup_deploy.__file__, len(found))\n"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    where, number = ran.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    packages = [path for path in (ROOT / "fedsup_deploy").rglob("*.py") if path.parent != ROOT / "fedsup_deploy"]
    assert int(number) >= len(packages)
