"""`report`: which paths it takes, and what it refuses before any work."""

from pathlib import Path

import pytest

from fedsup_deploy.commands.report import MOST_SEARCHES, report
from fedsup_deploy.errors import ArtifactError, ConfigError, DependencyError, OutputError
from fedsup_deploy.report import library


def test_a_missing_library_is_named_with_the_way_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "NEEDED", {"no_such_module": "vl-convert-python"})
    expected = r"report: vl-convert-python is not installed; run: pip install 'fedsup-deploy\[report\]'"
    with pytest.raises(DependencyError, match=expected):
        report([tmp_path], tmp_path / "report.html")


@pytest.fixture
def _installed() -> None:
    if library.missing():
        pytest.skip(f"the extra report ({library.INSTALL})")


@pytest.mark.usefixtures("_installed")
class TestInput:
    def test_a_path_that_is_nothing_of_ours_is_named(self, tmp_path: Path) -> None:
        for name in ("a.txt", "model.onnx"):
            (tmp_path / name).touch()
            with pytest.raises(ArtifactError, match=f"{name}: expected a run, a search.json, a bundle"):
                report([tmp_path / name], tmp_path / "report.html")
        with pytest.raises(ArtifactError, match="neither a run"):
            report([tmp_path], tmp_path / "report.html")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "model.onnx"]

    def test_a_damaged_file_is_named_and_an_older_page_stays(self, tmp_path: Path) -> None:
        (tmp_path / "search.json").write_text("{")
        (tmp_path / "report.html").write_text("older")
        with pytest.raises(ArtifactError, match=r"search.json"):
            report([tmp_path / "search.json"], tmp_path / "report.html")
        assert (tmp_path / "report.html").read_text() == "older"

    def test_a_page_has_the_ending_of_one(self, tmp_path: Path) -> None:
        (tmp_path / "folder.html").mkdir()
        for name, problem in (("report.json", "ends in .html"), ("folder.html", "a folder is there")):
            with pytest.raises(OutputError, match=problem):
                report([tmp_path], tmp_path / name)

    def test_more_than_a_page_holds_is_refused(self, tmp_path: Path) -> None:
        paths = [tmp_path / f"{number}.json" for number in range(MOST_SEARCHES + 1)]
        with pytest.raises(ConfigError, match=f"got {len(paths)} searches, expected at most {MOST_SEARCHES}"):
            report(paths, tmp_path / "report.html")

    def test_what_is_named_twice_is_shown_once(self, tmp_path: Path) -> None:
        """So it is not one too many."""
        with pytest.raises(ArtifactError, match="cannot read"):
            report([tmp_path / "search.json"] * (MOST_SEARCHES + 1), tmp_path / "report.html")
