"""What is damaged, and the commands that must not mind: one function per kind of input.

Each damages something in a folder with a copy of the base and returns the words of a command; `run.py` and `install.py`
stand for the programs in a bundle.
"""

import base64
import json
import os
import random
import shlex
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import yaml
from archives import archive
from base import BUNDLE, BUNDLES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from images import clients, images, photo
from mutations import NASTY, as_json, as_yaml, damaged_bytes, damaged_npz, places, scalar
from safetensors.numpy import load_file, save_file

from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.signature import signature_text, signed_bytes

RUN_PY = "run.py"
Target = Callable[[random.Random, Path], list[str]]


def _bundle(rng: random.Random, folder: Path, name: str, change: Callable[[bytes], bytes]) -> list[str]:
    """Damage a file of the bundle, mostly under a hash that is right."""
    bundle = folder / BUNDLE
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(change(content))
    if rng.random() < 0.9 and name != bundle_files.SUMS:
        names = bundle_files.list_files(bundle).keys() - bundle_files.BESIDE_SUMS
        (bundle / bundle_files.SUMS).write_bytes("".join(bundle_files.sha256sums(bundle, names)).encode())
        (bundle / bundle_files.MEASURED).unlink(missing_ok=True)
    classify = [RUN_PY, BUNDLE, "--classify", "photo.png"]
    looked_at = rng.choice((["inspect", BUNDLE], ["report", BUNDLE]))
    return rng.choice((["verify", BUNDLE], ["verify", BUNDLE], [RUN_PY, BUNDLE], classify, looked_at))


def manifest(rng: random.Random, folder: Path) -> list[str]:
    return _bundle(rng, folder, "manifest.json", lambda content: as_json(rng, json.loads(content)))


def sums(rng: random.Random, folder: Path) -> list[str]:
    return _bundle(rng, folder, "SHA256SUMS", lambda content: damaged_bytes(rng, content))


def model(rng: random.Random, folder: Path) -> list[str]:
    _bundle(rng, folder, "model.onnx", lambda content: damaged_bytes(rng, content))
    return rng.choice((["verify", BUNDLE], [RUN_PY, BUNDLE]))


def classified(rng: random.Random, folder: Path) -> list[str]:
    return [RUN_PY, BUNDLE, "--classify", photo(rng, folder).name, "photo.png"]


def vectors(rng: random.Random, folder: Path) -> list[str]:
    return _bundle(rng, folder, "vectors.npz", lambda content: damaged_npz(rng, content))


def measured(rng: random.Random, folder: Path) -> list[str]:
    bundle = folder / BUNDLE
    content = (bundle / bundle_files.MEASURED).read_bytes()
    body = as_json(rng, json.loads(content)).rstrip(b"}\n") + b",\n"
    whole = bundle_files.sealed(body, (bundle / bundle_files.SUMS).read_bytes())
    (bundle / bundle_files.MEASURED).write_bytes(whole if rng.random() < 0.8 else damaged_bytes(rng, content))
    return rng.choice((["inspect", BUNDLE], ["verify", BUNDLE]))


def signature(rng: random.Random, folder: Path) -> list[str]:
    """The signature file, or what its owner signed."""
    path = folder / BUNDLE / bundle_files.SIGNATURE
    document = json.loads(path.read_text(encoding="utf-8"))
    match rng.randrange(4):
        case 0:
            path.write_bytes(damaged_bytes(rng, path.read_bytes()))
        case 1:
            path.write_bytes(as_json(rng, document))
        case 2:
            statement = base64.b64decode(document["dsseEnvelope"]["payload"])
            key = load_pem_private_key((folder / "key.pem").read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            other = as_json(rng, json.loads(statement))
            signed = key.sign(signed_bytes(other), ec.ECDSA(hashes.SHA256()))
            path.write_bytes(signature_text(other, signed, "0" * 64))
        case _:
            name = rng.choice(("key.pub", "key.pem"))
            (folder / name).write_bytes(damaged_bytes(rng, (folder / name).read_bytes()))
    sign = ["sign", BUNDLE, "--key", "key.pem", "--version", str(rng.choice(NASTY))[:30].replace("\0", "")]
    check = ["verify", BUNDLE, "--key", "key.pub"]
    look = ["inspect", BUNDLE, *rng.choice(([], ["--key", "key.pub"]))]
    return rng.choice((check, check, check, sign, [RUN_PY, BUNDLE], look))


def engine(rng: random.Random, folder: Path) -> list[str]:
    """What trtexec printed on another machine, or the outputs it wrote there."""
    name = rng.choice(("trtexec.log", "outputs.json"))
    content = (folder / name).read_bytes()
    as_text = rng.random() < 0.5 or name == "trtexec.log"
    (folder / name).write_bytes(damaged_bytes(rng, content) if as_text else as_json(rng, json.loads(content)))
    return ["measure", BUNDLE, "--trtexec", "trtexec.log", "--outputs", "outputs.json"]


def index(rng: random.Random, folder: Path) -> list[str]:
    """Of the folder of bundles."""
    path = folder / BUNDLES / "index.json"
    content = path.read_bytes()
    path.write_bytes(as_json(rng, json.loads(content)) if rng.random() < 0.8 else damaged_bytes(rng, content))
    return rng.choice((["inspect", BUNDLES], ["inspect", f"{BUNDLES}/index.json"], ["report", BUNDLES]))


def files(rng: random.Random, folder: Path) -> list[str]:
    """Something else than a file in a bundle or run."""
    name = rng.choice(
        [f"{BUNDLE}/{name}" for name in ("manifest.json", "SHA256SUMS", "vectors.npz", "x", "model.onnx")] + RUN_FILES
    )
    path = folder / name
    path.unlink(missing_ok=True)
    match rng.randrange(6):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to("/dev/zero")
        case 2:
            path.mkdir()
        case 3:
            path.symlink_to(path.name)
        case 4:
            with path.open("wb") as file:
                file.truncate(3 * 2**30)
        case _:
            path.touch()
    return rng.choice((["inspect", name], *_on(name)))


def _on(name: str) -> list[list[str]]:
    return [["verify", BUNDLE], ["inspect", BUNDLE], [RUN_PY, BUNDLE]] if name.startswith(BUNDLE) else _RUN_COMMANDS


RUN_FILES = [
    f"run/{name}"
    for name in (
        "config.resolved.yaml",
        "space.yaml",
        "data.json",
        "command.json",
        "events.jsonl",
        "supernet.safetensors",
    )
]
_RUN_COMMANDS = [["inspect", "run"], ["train", "--config", "mine.yaml", "--out", "run", "--resume"]]


def run(rng: random.Random, folder: Path) -> list[str]:
    name = rng.choice([name for name in RUN_FILES if not name.endswith("safetensors")])
    path = folder / name
    text = path.read_text(encoding="utf-8")
    if name.endswith(".json"):
        path.write_bytes(as_json(rng, json.loads(text)))
    elif name.endswith(".jsonl"):
        lines = text.splitlines()
        index = rng.randrange(len(lines))
        lines[index] = as_json(rng, json.loads(lines[index])).decode(errors="surrogateescape")
        path.write_bytes(("\n".join(lines) + "\n").encode(errors="surrogateescape"))
        return rng.choice((_RUN_COMMANDS[1], ["report", "run"], ["watch", "run"]))
    else:
        path.write_bytes(as_yaml(rng, text))
    if name == "run/data.json" and rng.random() < 0.5:
        return ["report", "run"]
    return rng.choice(_RUN_COMMANDS) if rng.random() < 0.2 else _RUN_COMMANDS[0]


def tensors(rng: random.Random, folder: Path) -> list[str]:
    name = rng.choice(("run/supernet.safetensors", "run/checkpoint/state.safetensors", "subnet.safetensors"))
    _damage_tensors(rng, folder / name)
    extract = ["extract", "run", "--arch", "smallest", "--out", "out.safetensors"]
    if "checkpoint" in name:
        (folder / "run/supernet.safetensors").unlink()
        return rng.choice((["inspect", name], _RUN_COMMANDS[1]))
    return (
        ["inspect", name] if name.startswith("subnet") else rng.choice((["inspect", name], ["inspect", "run"], extract))
    )


def _damage_tensors(rng: random.Random, path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    match rng.randrange(4):
        case 0:
            path.write_bytes(damaged_bytes(rng, content))
        case 1:
            document = json.loads(header["__metadata__"]["fedsup-deploy"])
            header["__metadata__"]["fedsup-deploy"] = as_json(rng, document).decode(errors="replace")
            _write(path, json.dumps(header).encode(), content[8 + length :])
        case 2:
            _write(path, as_json(rng, header), content[8 + length :])
        case _:
            arrays = load_file(path)
            key = rng.choice(sorted(arrays))
            arrays[key] = rng.choice(
                (arrays[key][:0], arrays[key] * np.nan, arrays[key].astype("f8"), np.zeros(3, "i4"))
            )
            save_file(arrays, path, metadata=header["__metadata__"])


def _write(path: Path, header: bytes, rest: bytes) -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header + rest)


def journal(rng: random.Random, folder: Path) -> list[str]:
    """Scores that were found before: a search reads them before it evaluates anything."""
    path = rng.choice(sorted((folder / "run" / "evaluations").glob("*.jsonl")))
    lines = path.read_bytes().splitlines()
    index = rng.randrange(len(lines))
    lines[index] = as_json(rng, json.loads(lines[index]))
    path.write_bytes(b"\n".join(lines) + b"\n")
    words = "search --run run --profile raspberry-pi-4 --evaluations 2 --out again.json --quiet"
    return shlex.split(words)


def statistics(rng: random.Random, folder: Path) -> list[str]:
    """What clients said of a subnet before: whoever needs it reads it and asks no client."""
    (path,) = (folder / "run" / "statistics").glob("*.safetensors")
    _damage_tensors(rng, path)
    return ["recalibrate", "run", "--arch", path.stem.partition("-")[0], "--quiet"]


def search(rng: random.Random, folder: Path) -> list[str]:
    path = folder / "search.json"
    path.write_bytes(as_json(rng, json.loads(path.read_text(encoding="utf-8"))))
    # Of a search that is still right no bundle is made: there is no such run.
    return rng.choice(
        (
            ["inspect", "search.json"],
            ["report", "search.json"],
            ["export", "--search", "search.json", "--run", "profiles"],
        )
    )


def evaluation(rng: random.Random, folder: Path) -> list[str]:
    """What `evaluate --per-client --json` has printed, to be shown."""
    each = [{"client": client, "name": "yard", "num_images": 10, "num_right": client} for client in range(3)]
    over = {"images": "held out", "accuracy_mean": 0.1, "worst_decile": 0.0, "each": each}
    document = {"run": "runs/a", "arch_id": "a0123456789a", "split": "test", "schedule": "one-shot", "clients": over}
    (folder / "clients.json").write_bytes(as_json(rng, {**document, "unseen": over}))
    return ["report", "clients.json"]


def profile(rng: random.Random, folder: Path) -> list[str]:
    path = folder / "profile.yaml"
    path.write_bytes(as_yaml(rng, path.read_text(encoding="utf-8")))
    commands = ("inspect", "profile show", "profile validate", "profile check", "profile diff raspberry-pi-4")
    return [*rng.choice(commands).split(), "profile.yaml"]


def measurement(rng: random.Random, folder: Path) -> list[str]:
    path = folder / "measured.json"
    path.write_bytes(as_json(rng, json.loads(path.read_text(encoding="utf-8"))))
    words = "profile fit profile.yaml --name other --space mine-space.yaml --measurements measured.json --out out.yaml"
    return words.split()


def space(rng: random.Random, folder: Path) -> list[str]:
    path = folder / "mine-space.yaml"
    path.write_bytes(as_yaml(rng, rng.choice((path.read_text(encoding="utf-8"), _one_a_line(path)))))
    return ["inspect", "mine-space.yaml"]


def config(rng: random.Random, folder: Path) -> list[str]:
    path = _without_images(folder)
    path.write_bytes(as_yaml(rng, rng.choice((path.read_text(encoding="utf-8"), _one_a_line(path)))))
    return rng.choice((["inspect", "mine.yaml"], ["train", "--config", "mine.yaml", "--out", "out"]))


def size(rng: random.Random, folder: Path) -> list[str]:
    """A number that no machine could live up to, where one stood: whoever takes it begins to train."""
    path = folder / rng.choice(("mine.yaml", "mine-space.yaml"))
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "data" in document:
        document["data"]["augmentation"] = {"crop_padding": 1}
    numbers = [(owner, key) for owner, key in places(document) if type(owner[key]) in {int, float} and key != "schema"]
    owner, key = rng.choice(numbers)
    owner[key] = rng.choice((10**7, 10**9, 2**63 - 1)) if type(owner[key]) is int else rng.choice((1e30, 1e300))
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return ["train", "--config", "mine.yaml", "--out", "out", "--quiet"]


def devices(rng: random.Random, folder: Path) -> list[str]:
    """What devices have announced; whoever believes it still cannot look at an image."""
    device = {"name": "a", "tier": 0, "classes": ["x", "y"], "shape": [8, 8, 1], "fingerprint": "0" * 64}
    device |= {"trained": [20, 20], "held_out": [3, 3], "tested": [0, 1]}
    content = as_json(rng, {"schema": 1, "devices": [device, {**device, "name": "b"}]})
    (folder / "devices.json").write_bytes(content if rng.random() < 0.8 else damaged_bytes(rng, content))
    path = folder / "mine.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document |= {"data": {"dataset": "devices", "root": "devices.json"}, "partition": {"kind": "natural"}}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return ["train", "--config", "mine.yaml", "--out", "out", "--set", "engine.workers=1"]


def setting(rng: random.Random, folder: Path) -> list[str]:
    keys = ("training.rounds", "training.learning_rate", "training", "strategy.tiers.0.architecture", "data.root", "")
    keys += (
        "partition.num_clients",
        "data.augmentation.crop_padding",
        "seed",
        "strategy.tiers.9",
        "a.b.c",
        "space",
        "name",
    )
    _without_images(folder)
    value = _word(scalar(rng))
    return ["train", "--config", "mine.yaml", "--out", "out", "--set", f"{rng.choice(keys)}={value}"]


def architecture(rng: random.Random, folder: Path) -> list[str]:
    path = folder / "arch.json"
    path.write_bytes(as_json(rng, json.loads(path.read_text(encoding="utf-8"))))
    return ["extract", "run", "--arch", "arch.json", "--out", "out.safetensors"]


def options(rng: random.Random, folder: Path) -> list[str]:
    del folder
    words = shlex.split(rng.choice(_COMMANDS))
    for _ in range(rng.choice((1, 1, 2))):
        index = rng.randrange(len(words))
        value = _word(str(rng.choice(NASTY)))
        match rng.randrange(4):
            case 0:
                del words[index]
                words = words or ["x"]
            case 1:
                words.insert(index, value)
            case _:
                words[index] = value
    return words


#: None of them gets far, whatever its options are.
_COMMANDS = (
    "search --run none --profile raspberry-pi-4 --max-latency-ms 3 --evaluations 3 --method exact --risk 0.1 --out x",
    "search --run bundle --profile profile.yaml --percentile p90 --max-artifacts 2 --seed 1",
    "export none --arch smallest --profile raspberry-pi-4 --format onnx --precision fp32 --out x",
    "export --search search.json --run none --profile raspberry-pi-4",
    "evaluate none --arch smallest --schedule one-shot",
    "recalibrate none --arch smallest --out x",
    "extract run --arch nothing --out x.safetensors",
    "fit-accuracy none",
    "deploy --run none --profile raspberry-pi-4 --out x",
    "measure none --threads 1 --protocol quick --ruler none",
    "verify none",
    "inspect mine.yaml --json",
    "profile show raspberry-pi-4",
    "profile diff raspberry-pi-4 jetson-nano",
    "profile check raspberry-pi-4 --factor 1.5",
    "profile fit none --name x --measurements none --space mine-space.yaml --seed 3",
    "train --config none --out x --seed 1 --engine local",
)

TARGETS: MappingProxyType[str, Target] = MappingProxyType(
    {
        each.__name__: each
        for each in (
            *(manifest, sums, model, classified, vectors, measured, signature, engine, files, archive, index),
            *(run, tensors, statistics, journal, search, evaluation),
            *(profile, measurement, space, config, size, setting, architecture, options, images, clients, devices),
        )
    }
)


def _word(text: str) -> str:
    """Return what can be an argument of a command."""
    return text.replace("\0", "")[:2000]


def _one_a_line(path: Path) -> str:
    return yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")), sort_keys=False)


def _without_images(folder: Path) -> Path:
    """Let the config name images that are not there: a config that is still right trains nothing."""
    path = folder / "mine.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("digits}", "npz, root: none.npz}"), encoding="utf-8")
    return path
