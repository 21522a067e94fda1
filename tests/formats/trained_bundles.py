"""A bundle of a real, if briefly trained, run that has a format in fp32 and in int8."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config

SETTINGS = """
schema: 1
name: small
space: digits
data: {dataset: digits, validation_fraction: 0.2}
partition: {kind: dirichlet, num_clients: 8}
strategy: {name: fedavg, architecture: smallest}
training: {rounds: 4, clients_per_round: 8, warmup_rounds: 0, local_epochs: 2}
engine: {workers: 1}
calibration: {samples_per_client: 32}
"""


def exported(folder: Path, name: str, profile: str) -> Path:
    """Train, export a format in both precisions for a device, and return the bundle."""
    (folder / "small.yaml").write_text(SETTINGS, encoding="utf-8")
    train(load_train_config(folder / "small.yaml"), folder / "run")
    words = [folder / "run", "--arch", "smallest", "--profile", profile, "--out", folder / "out"]
    choices = ["--format", name, "--precision", "fp32", "--precision", "int8"]
    assert main(["export", *map(str, words), *choices, "--json"]) == 0
    (manifest,) = (folder / "out").rglob("manifest.json")
    return manifest.parent


def signed(bundle: Path, keys: Path) -> Path:
    """Sign a bundle with a new key and return the public one."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (keys / "key.pem").write_bytes(pem)
    (keys / "key.pem").chmod(0o600)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (keys / "key.pub").write_bytes(public)
    assert main(["sign", str(bundle), "--key", str(keys / "key.pem"), "--version", "1"]) == 0
    return keys / "key.pub"


def verified(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Return what `verify` prints."""
    capsys.readouterr()
    assert main(["verify", *map(str, words), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document
