"""Whole inputs of every kind, made by the program itself: what the fuzzer damages."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from PIL import Image

from fedsup_deploy.cli.main import main
from fedsup_deploy.ondevice.install import main as install_py

SETTINGS = """\
schema: 1
name: mine
space: mine-space.yaml
data: {dataset: digits}
partition: {kind: iid, num_clients: 4}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}
training:
  rounds: 2
  clients_per_round: 2
  local_epochs: 1
  warmup_rounds: 1
  learning_rate: 0.1
  checkpoint_every: 1
  evaluate_every: 2
calibration: {samples_per_client: 16}
engine: {workers: 1}
"""
SPACE = """\
schema: 1
name: mine
family: mobilenet
resolutions: [8]
stem: {widths: [4]}
stages:
- {name: a, widths: [4, 8], depths: [1], expand_ratios: [1]}
"""
BUNDLE = "bundle"
#: The folder that it was exported to, with the index.
BUNDLES = "bundles"
#: Where the bundle is installed, with its key.
DEVICE = "device"
LOG = Path(__file__).resolve().parents[1] / "data" / "trtexec" / "8-jetson-nano.log"


def make(folder: Path) -> None:
    """Make a run, a search, a bundle, installed as well, a measurement and files in YAML in an empty folder.

    Side effects: Trains, searches, exports and measures, in about half a minute; the working folder is another one
    meanwhile.
    """
    with contextlib.chdir(folder):
        Path("mine.yaml").write_text(SETTINGS, encoding="utf-8")
        Path("mine-space.yaml").write_text(SPACE, encoding="utf-8")
        _run("train", "--config", "mine.yaml", "--out", "run")
        _run("search", "--run", "run", "--profile", "raspberry-pi-4", "--evaluations", "2", "--out", "search.json")
        _run("export", "--search", "search.json", "--run", "run", "--format", "onnx", "--out", BUNDLES)
        (bundle,) = Path(BUNDLES, "raspberry-pi-4").iterdir()
        shutil.copytree(bundle, BUNDLE)
        Path("measured.json").write_text(_run("measure", BUNDLE, "--json"), encoding="utf-8")
        private = ec.derive_private_key(2**200 + 1, ec.SECP256R1())
        Path("key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        Path("key.pub").write_bytes(public)
        _run("sign", BUNDLE, "--key", "key.pem", "--version", "3")
        with contextlib.redirect_stdout(io.StringIO()):
            code = install_py([BUNDLE, "--to", DEVICE, "--key", "key.pub"])
        if code != 0:
            raise RuntimeError(f"install.py ended with {code}")
        shutil.copy(LOG, "trtexec.log")
        with np.load(Path(BUNDLE, "vectors.npz")) as vectors:
            outputs = vectors["outputs"]
        dimensions = "x".join(str(size) for size in outputs.shape)
        exported = [{"name": "logits", "dimensions": dimensions, "values": outputs.ravel().tolist()}]
        Path("outputs.json").write_text(json.dumps(exported), encoding="utf-8")
        _run("extract", "run", "--arch", "smallest", "--out", "subnet.safetensors")
        Image.new("L", (8, 8), 99).save("photo.png")
        manifest = json.loads(Path(BUNDLE, "manifest.json").read_text(encoding="utf-8"))
        Path("arch.json").write_text(json.dumps(manifest["arch"]), encoding="utf-8")
        Path("profile.yaml").write_text(_profile(), encoding="utf-8")


def _profile() -> str:
    from fedsup_deploy import resources

    text = resources.find("profiles", "raspberry-pi-4").read_text(encoding="utf-8")
    # One value a line, so that each can be damaged.
    document = {**yaml.safe_load(text), "name": "mine"}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _run(*words: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, "--quiet"])
    if code != 0:
        raise RuntimeError(f"{words} in {os.getcwd()} ended with {code}: {err.getvalue()}")  # noqa: PTH109
    return out.getvalue()
