"""Bundles of a network that was trained for a moment, by the commands that a user types."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.cli.main import main


def exported(run: Path, out: Path, file_format: str, *precisions: str) -> tuple[Path, Manifest]:
    """Export the smallest subnet of a run for a laptop, in one format beside ONNX."""
    asked = [word for precision in precisions for word in ("--precision", precision)]
    words = ["--arch", "smallest", "--profile", "x86-laptop", "--format", file_format, *asked, "--over-limit"]
    assert main(["export", str(run), *words, "--out", str(out)]) == 0
    (folder,) = (out / "x86-laptop").iterdir()
    return folder, load_manifest(folder)


def signed(folder: Path, keys: Path) -> Path:
    """Sign a bundle with a new key; return the public one."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (keys / "key.pem").write_bytes(pem)
    (keys / "key.pem").chmod(0o600)
    (keys / "key.pub").write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert main(["sign", str(folder), "--key", str(keys / "key.pem"), "--version", "1"]) == 0
    return keys / "key.pub"


def verified(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Return what `verify --json` prints of a bundle that is whole."""
    capsys.readouterr()
    assert main(["verify", str(folder), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)
