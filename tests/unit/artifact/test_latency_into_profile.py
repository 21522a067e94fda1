"""What a profile keeps of a measured bundle, and whose profile it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import resources
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.device.building.measurements import measurement_of, profile_to_save_to
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.errors import ConfigError

#: The user's own profiles have the names of shipped ones here.
pytestmark = pytest.mark.filterwarnings("ignore::fedsup_deploy.resources.InPlaceOfShipped")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own profiles, in the current folder: a copy of each shipped one."""
    shutil.copytree(resources.shipped_folder("profiles"), tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    return Path("profiles")


def test_only_the_profile_a_bundle_was_exported_for_keeps_its_latency(manifest: Manifest, own: Path) -> None:
    record = manifest.profile.model_copy(update={"name": "raspberry-pi-4"})
    with pytest.raises(ConfigError, match="got another profile than the one the bundle was exported for"):
        profile_to_save_to(manifest.model_copy(update={"profile": record}), None)
    same = about_the_pi(manifest)
    assert profile_to_save_to(same, None) == own / "raspberry-pi-4.yaml"
    elsewhere = (own / "raspberry-pi-4.yaml").rename("pi.yaml")
    assert profile_to_save_to(same, elsewhere) == elsewhere


def about_the_pi(manifest: Manifest) -> Manifest:
    """The manifest of a bundle for the shipped profile."""
    update = {"name": "raspberry-pi-4", "hash": load_profile("raspberry-pi-4").profile_hash}
    return manifest.model_copy(update={"profile": manifest.profile.model_copy(update=update)})


def test_a_shipped_profile_is_never_changed(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from a folder without profiles of its own, nor named, nor where the current folder is the checkout."""
    shipped = resources.find("profiles", "raspberry-pi-4").resolve()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"profiles/raspberry-pi-4.yaml: no such file .*; copy .* and name it"):
        profile_to_save_to(about_the_pi(manifest), None)
    with pytest.raises(ConfigError, match="is a shipped profile, which is never changed; copy"):
        profile_to_save_to(about_the_pi(manifest), shipped)
    (tmp_path / "profiles").symlink_to(shipped.parent)
    with pytest.raises(ConfigError, match="is a shipped profile, which is never changed; copy"):
        profile_to_save_to(about_the_pi(manifest), None)


def test_a_profile_from_elsewhere_is_to_be_named(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = manifest.model_copy(update={"profile": manifest.profile.model_copy(update={"name": "my-pi"})})
    with pytest.raises(ConfigError, match=r"profiles/my-pi.yaml: no such file .*--save-to-profile --profile FILE"):
        profile_to_save_to(named, None)


def test_a_profile_of_another_runtime_learns_nothing_from_ours(manifest: Manifest, own: Path) -> None:
    profile = load_profile("stm32h7")
    record = manifest.profile.model_copy(update={"name": profile.name, "hash": profile.profile_hash})
    with pytest.raises(ConfigError, match="got a profile about int8 in x-cube-ai, of which fp32 in onnxruntime tells"):
        profile_to_save_to(manifest.model_copy(update={"profile": record}), None)


def test_a_trimmed_network_is_nothing_a_profile_can_learn_from(
    document: dict[str, Any], refinement: dict[str, Any], own: Path
) -> None:
    """Though the profile is the one the bundle was exported for."""
    shipped = load_profile("raspberry-pi-4")
    document["profile"] |= {"name": shipped.name, "hash": shipped.profile_hash}
    document["lineage"]["profile"] = shipped.profile_hash
    assert profile_to_save_to(Manifest.from_json(json.dumps(document)), None).stem == "raspberry-pi-4"
    document |= {"arch_id": "aba987654321-refined-01234567", "refinement": refinement}
    with pytest.raises(ConfigError) as caught:
        profile_to_save_to(Manifest.from_json(json.dumps(document)), None)
    assert str(caught.value) == (
        "aba987654321-refined-01234567 is trimmed, no subnet of a search space that a profile could learn from; "
        "measure it without --save-to-profile"
    )


def test_what_is_kept_of_a_latency(manifest: Manifest, latency: dict[str, Any]) -> None:
    environment = {"cpu": "a board", "onnxruntime": "1.23.0", "threads": 2}
    kept = measurement_of(manifest, {**latency, "environment": environment})
    assert kept.arch_id == manifest.arch_id
    assert kept.predicted_ms == 1.5
    assert kept.measured_ms == latency["statistics"]["p10_ms"]
    assert (kept.verdict, kept.protocol) == (latency["stability"]["verdict"], "quick, 200 runs")
    assert kept.environment == environment


def test_nothing_is_kept_of_a_variant_that_the_profile_does_not_predict(
    document: dict[str, Any], latency: dict[str, Any]
) -> None:
    document["models"]["onnx-fp32"]["latency"]["predicted"] = None
    with pytest.raises(ConfigError, match="its profile predicts no latency of onnx-fp32, expected one"):
        measurement_of(Manifest.from_json(json.dumps(document)), {**latency, "environment": {}})
