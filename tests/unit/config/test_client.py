"""The config of a device: its paths start beside it, and a mistake is named with its line."""

from pathlib import Path

import pytest

from fedsup_deploy.config.client import load_client_config
from fedsup_deploy.errors import ConfigError

TEXT = "schema: 1\nname: camera-1\nsuperlink: server:9092\ndata: {dataset: npz, root: images.npz}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.yaml"


def test_paths_start_beside_the_file(path: Path) -> None:
    path.write_text(f"{TEXT}root_certificates: certs/ca.crt\nkey: /etc/key\n", encoding="utf-8")
    config = load_client_config(path)
    beside = path.parent
    assert (config.root_certificates, config.key) == (beside / "certs" / "ca.crt", Path("/etc/key"))
    assert (config.data.root, config.home, config.blobs) == (
        beside / "images.npz",
        beside / "fedsup-node" / "flower",
        beside / "fedsup-node" / "blobs",
    )


def test_without_certificate_and_key_there_are_none(path: Path) -> None:
    path.write_text(TEXT, encoding="utf-8")
    config = load_client_config(path)
    assert (config.root_certificates, config.key, config.tier, config.storage_mib) == (None, None, 0, 64)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("name: two words", "name"),
        ("superlink: https://server", "superlink"),
        ("tier: -1", "tier"),
        ("tiers: 1", "did you mean 'tier'"),
        ("data: {dataset: nppz}", "did you mean 'npz'"),
        ("schema: 2", "schema"),
    ],
)
def test_a_mistake_is_named_with_its_place(path: Path, line: str, words: str) -> None:
    key = line.partition(":")[0]
    lines = [each for each in TEXT.splitlines() if not each.startswith(f"{key}:")]
    path.write_text("\n".join([*lines, line, ""]), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"device\.yaml:{len(lines) + 1}: ") as error:
        load_client_config(path)
    assert words in str(error.value)
