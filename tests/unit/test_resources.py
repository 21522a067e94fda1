"""Shipped files and the paths a user gives."""

from pathlib import Path

import pytest

from fedsup_deploy import resources
from fedsup_deploy.errors import ConfigError


def test_shipped_name_is_found(repository: Path) -> None:
    assert resources.find("configs/spaces", "digits") == repository / "configs" / "spaces" / "digits.yaml"


def test_shipped_names_are_the_stems_of_the_folder(repository: Path) -> None:
    expected = sorted(path.stem for path in (repository / "configs" / "spaces").iterdir())
    assert resources.shipped_names("configs/spaces") == expected
    assert "digits" in expected


def test_installed_package_has_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel carries the files inside the package; they win over a folder that happens to lie beside it."""
    package = tmp_path / "site-packages" / "fedsup_deploy"
    (package / "shipped" / "profiles").mkdir(parents=True)
    (package.parent / "profiles").mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.shipped_folder("profiles") == package / "shipped" / "profiles"
    assert resources.shipped_folder("configs") == package.parent / "configs"


def test_path_may_begin_with_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").touch()
    assert resources.find("profiles", "~/mine.yaml") == tmp_path / "mine.yaml"
    assert resources.find("configs/spaces", "~/mine.yaml", beside=tmp_path / "elsewhere") == tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match=r"^got '~nobody-of-this-name/x', but there is no home folder"):
        resources.find("configs", "~nobody-of-this-name/x")


def test_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.touch()
    assert resources.find("configs", str(path)) == path
    assert resources.find("configs", path) == path


def test_path_may_be_relative_to_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    for place in (folder, tmp_path):
        (place / "mine.yml").touch()
    monkeypatch.chdir(tmp_path)
    assert resources.find("configs/spaces", "mine.yml", beside=folder) == folder / "mine.yml"
    (folder / "mine.yml").unlink()
    assert resources.find("configs/spaces", "mine.yml", beside=folder).resolve() == tmp_path / "mine.yml"


def test_shipped_name_is_not_looked_for_beside_a_file(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "digits.yaml").touch()
    found = resources.find("configs/spaces", "digits", beside=tmp_path)
    assert found == repository / "configs" / "spaces" / "digits.yaml"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", r"no search space 'digit': no such file or shipped name; did you mean 'digits'\?"),
        ("digits.yaml", r"no search space 'digits.yaml': .*; did you mean 'digits'\?"),
        ("./qqqq.yml", r"no search space './qqqq.yml': .*; known: .*digits"),
    ],
)
def test_nothing_found_names_the_nearest(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        resources.find("configs/spaces", name, beside=tmp_path)


def test_folder_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="no profile"):
        resources.find("profiles", str(tmp_path / "folder.yaml"))


def test_profiles_of_ones_own_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those below `profiles/` in the current folder; spaces and configs are not looked for there."""
    monkeypatch.chdir(tmp_path)
    for folder in ("profiles", "configs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "host.yaml").touch()
    assert resources.find("profiles", "host").resolve() == tmp_path / "profiles" / "host.yaml"
    assert resources.known_names("profiles") == [*resources.shipped_names("profiles"), "host"]
    assert resources.known_names("configs") == resources.shipped_names("configs")
    with pytest.raises(ConfigError, match="no config 'host'"):
        resources.find("configs", "host")
    with pytest.raises(ConfigError, match="did you mean 'host'"):
        resources.find("profiles", "hosst")


def test_a_profile_that_stands_in_for_a_shipped_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder may be anybody's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    for name in ("mine", "jetson-nano"):
        (tmp_path / "profiles" / f"{name}.yaml").touch()
    assert resources.find("profiles", "mine") == Path("profiles/mine.yaml")
    said = "profile jetson-nano: profiles/jetson-nano.yaml is used, not the shipped one"
    with pytest.warns(resources.InPlaceOfShipped, match=f"^{said}$"):
        resources.find("profiles", "jetson-nano")


def test_in_a_checkout_the_shipped_profiles_stand_in_for_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    assert resources.find("profiles", "jetson-nano") == Path("profiles/jetson-nano.yaml")


@pytest.mark.parametrize("kind", ["profiles", "configs", "configs/spaces"])
@pytest.mark.parametrize("ending", ["", ".yaml"])
def test_a_name_that_no_file_can_have_is_not_found(kind: str, ending: str) -> None:
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(ConfigError, match="no such file or shipped name"):
            resources.find(kind, name + ending)
