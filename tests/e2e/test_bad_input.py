"""What a user can get wrong: for each the exit code, one line that says what is wrong, and nothing left behind."""

import dataclasses
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedsup_deploy.artifact import weights
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.ondevice.bundle_files import sha256sums
from fedsup_deploy.space.parts import part_names
from fedsup_deploy.space.search_space import SearchSpace

USAGE = CONFIG = 2
DATA, ARTIFACT, INFEASIBLE, GATE, OUTPUT = 3, 4, 5, 6, 8

SETTINGS = """\
schema: 1
name: mine
space: digits
data: {dataset: digits}
partition: {kind: iid, num_clients: 4}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}
training:
  rounds: 2
  clients_per_round: 2
  warmup_rounds: 1
  learning_rate: 0.1
engine: {workers: 1}
"""

LARGE_SPACE = """\
schema: 1
name: mine
family: mobilenet
resolutions: [2048]
stem: {widths: [64]}
stages: [{name: a, widths: [16384], depths: [2], expand_ratios: [16]}]
"""

Change = Callable[[Path], object]


@dataclasses.dataclass(frozen=True)
class Case:
    """A mistake.

    Args:
        words: The command. `{...}` stands for what `places` knows.
        exit_code: How it must end.
        told: What the line on stderr must say, in this order.
        change: Makes the mistake, if it is not in the words.
    """

    words: str
    exit_code: int
    told: tuple[str, ...]
    change: Change | None = None


def setting(old: str, new: str) -> Change:
    """Replace something in the config."""
    return edit("mine.yaml", old, new)


def edit(name: str, old: str, new: str, times: int = 1) -> Change:
    """Replace something in a text file, so many times or with -1 everywhere; it must be there."""

    def change(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, times), encoding="utf-8")

    return change


def cut(name: str) -> Change:
    """Keep the first half of a file."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def put(name: str, content: str | bytes) -> Change:
    """Write a file."""
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


#: Clients that hold what is theirs.
NATURAL = setting("{kind: iid, num_clients: 4}", "{kind: natural}")


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


class Payload:
    """What a hostile pickle would do."""

    def __reduce__(self) -> tuple[object, tuple[Path, bytes]]:
        return Path.write_bytes, (Path("executed"), b"")


def images(
    *,
    shape: tuple[int, ...] = (40, 8, 8),
    dtype: str = "uint8",
    num_labels: int = 40,
    is_blank: bool = False,
    is_pickled: bool = False,
    nan_at: int | None = None,
) -> Change:
    """Make `mine.npz`, and a config that names it."""

    def change(folder: Path) -> None:
        pixels = np.arange(np.prod(shape)).reshape(shape) % (1 if is_blank else 251)
        labels = np.arange(num_labels) % 4
        arrays = {"train_images": pixels.astype(dtype), "train_labels": labels}
        arrays |= {"test_images": pixels.astype(dtype), "test_labels": labels}
        if nan_at is not None:
            arrays["train_images"][nan_at, 1, 2] = np.nan
        if is_pickled:
            arrays["test_labels"] = np.array([Payload()] * num_labels, dtype=object)
        np.savez(folder / "mine.npz", **arrays)
        setting("{dataset: digits}", "{dataset: npz, root: mine.npz}")(folder)

    return change


def unfinished(folder: Path) -> None:
    """Turn the run into one that was stopped after its last checkpoint."""
    (folder / "runs" / "digits" / "supernet.safetensors").unlink()


def other_weights(folder: Path) -> None:
    """Change one weight of the supernet: as if it had been trained again."""
    path = folder / "runs" / "digits" / "supernet.safetensors"
    arrays, document = weights.read_arrays(path, "supernet")
    name = min(arrays)
    arrays[name] = arrays[name] + 1
    weights.write_arrays(path, "supernet", arrays, document)


def without_a_tensor(folder: Path) -> None:
    """Take one weight out of the supernet."""
    path = folder / "runs" / "digits" / "supernet.safetensors"
    arrays, document = weights.read_arrays(path, "supernet")
    del arrays[min(arrays)]
    weights.write_arrays(path, "supernet", arrays, document)


def cut_statistics(folder: Path) -> None:
    """Damage what was kept of clients' statistics."""
    kept = list((folder / "runs" / "digits" / "statistics").iterdir())
    assert kept
    for path in kept:
        cut(path.name)(path.parent)


def outside_the_space(folder: Path) -> None:
    """Write down the picked architecture with a width that the space has not."""
    [found] = json.loads((folder / "runs/digits/search.json").read_text(encoding="utf-8"))["results"]
    architecture = found["candidates"][0]["architecture"]
    architecture["stem_width"] = 17
    (folder / "mine.json").write_text(json.dumps(architecture), encoding="utf-8")


def other_outputs(folder: Path) -> None:
    """Exchange two expected outputs and correct the hash, so that only the computation tells."""
    [bundle] = (folder / "exports" / "jetson-nano").iterdir()
    with np.load(bundle / "vectors.npz") as vectors:
        inputs, outputs = vectors["inputs"], vectors["outputs"]
    np.savez(bundle / "vectors.npz", inputs=inputs, outputs=outputs[::-1])
    names = {path.name for path in bundle.iterdir()} - {"SHA256SUMS"}
    (bundle / "SHA256SUMS").write_text("".join(sha256sums(bundle, names)), encoding="utf-8")


def profile(*path: str, value: object) -> Change:
    """Write `mine-profile.yaml`, that of the Jetson Nano with one value changed, added or (None) removed."""

    def change(folder: Path) -> None:
        document = yaml.safe_load((folder / "jetson-nano.yaml").read_text(encoding="utf-8"))
        place = document
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        (folder / "mine-profile.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    return change


def devices_with_nothing_in_common(folder: Path) -> None:
    """Write `narrow.yaml` and `wide.yaml`: on each one of the two first convolutions takes a second.

    No limit that grows with a network does this, as the smallest subnet fits all; a timed table can.
    """
    space = validate(load_yaml(folder / "runs" / "digits" / "space.yaml"), SearchSpace)
    parts = part_names(space.plan_many(space.enumerate_genes()), space.num_architectures)
    names = sorted({name for part in parts for name in part.names})
    first = sorted(name for name in names if name.startswith("conv "))
    assert len(first) == 2
    overheads = dict.fromkeys(("cached_overhead_us", "uncached_overhead_us", "network_overhead_us"), 0.0)
    calibration = {"scale": 1.0, **overheads, "fits_mib": 1.0, "misses_mib": 2.0, "num_networks": 9}
    told = {"kind": "published", "source": "made up"}
    for name, slow in zip(("narrow", "wide"), first, strict=True):
        times = {part: dict.fromkeys(("cached_us", "uncached_us"), 1e6 if part == slow else 1.0) for part in names}
        document = yaml.safe_load((folder / "jetson-nano.yaml").read_text(encoding="utf-8"))
        document["runtime"]["dtype"] = "float32"
        document |= {"name": name, "energy": None, "limits": {"latency_ms": 100.0}, "error": "none"}
        document["latency"] = {"kind": "table", "dtype": "float32", "bytes_per_element": 4, "space": space.name}
        document["latency"] |= {"parts": times, "calibration": calibration}
        about = ("latency.parts", "latency.calibration", "accepts", "system", "build_on_device")
        document["provenance"] = dict.fromkeys(about, told)
        (folder / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")


def in_bundle(change: Callable[[Path], object]) -> Change:
    def in_the_only_one(folder: Path) -> None:
        [bundle] = (folder / "exports" / "jetson-nano").iterdir()
        change(bundle)

    return in_the_only_one


def flip_a_bit(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)


TRAIN = "train --config mine.yaml"
RESUME = "train --config runs/digits/config.resolved.yaml --out runs/digits --resume"
EVALUATE = "evaluate runs/digits --arch smallest"
SEARCH = "search --profile jetson-nano --run runs/digits --out found.json"
EXPORT = "export --search runs/digits/search.json --out made"

CASES = {
    # Command lines
    "unknown command": Case("trian", USAGE, ("unknown command 'trian'", "did you mean 'train'?")),
    "no config": Case("train", USAGE, ("--config",)),
    "option of another command": Case(f"{TRAIN} --profile x", USAGE, ("--profile",)),
    "run and search at once": Case(f"{EXPORT} runs/digits", USAGE, ("either --search FILE, or RUN with --arch",)),
    "neither run nor search": Case("export --profile jetson-nano", USAGE, ("either --search FILE, or RUN",)),
    "no profile": Case("search --run runs/digits", USAGE, ("--profile",)),
    # Configs
    "unknown config": Case("train --config digit", CONFIG, ("no config 'digit'", "did you mean 'digits'?")),
    "unknown key": Case(
        TRAIN, CONFIG, ("mine.yaml:2:", "unknown key 'colour'"), setting("name:", "colour: red\nname:")
    ),
    "misspelt key": Case(
        TRAIN,
        CONFIG,
        ("mine.yaml:9:", "'clients_per_rouns'", "did you mean 'clients_per_round'?"),
        setting("clients_per_round", "clients_per_rouns"),
    ),
    "unknown key with --set": Case(
        f"{TRAIN} --set training.round=3", CONFIG, ("--set training.round", "did you mean 'rounds'?")
    ),
    "malformed --set": Case(f"{TRAIN} --set training.rounds", CONFIG, ("expected key.path=value",)),
    "empty config": Case(TRAIN, CONFIG, ("mine.yaml:1:", "empty"), put("mine.yaml", "")),
    "config that is no YAML": Case(TRAIN, CONFIG, ("mine.yaml:", "not valid YAML"), put("mine.yaml", "a: [1, 2")),
    "config that is no text": Case(TRAIN, CONFIG, ("mine.yaml:1:", "UTF-8"), put("mine.yaml", b"\xff\xfe\x00")),
    "config with a tag": Case(
        TRAIN, CONFIG, ("mine.yaml:2:", "tag"), setting("name: mine", "name: !!python/object/apply:os.getcwd []")
    ),
    "text for a number": Case(
        TRAIN, CONFIG, ("mine.yaml:8:", "'2'", "an integer"), setting("rounds: 2", "rounds: '2'")
    ),
    "out of range": Case(TRAIN, CONFIG, ("training.rounds", "got 0", ">= 1"), setting("rounds: 2", "rounds: 0")),
    "more clients per round than there are": Case(
        TRAIN, CONFIG, ("training.clients_per_round", "got 9", "(4)"), setting("round: 2", "round: 9")
    ),
    "clients as they are of a data set that names none": Case(
        TRAIN, CONFIG, ("partition: natural, but digits does not say whose images are whose",), NATURAL
    ),
    "a client that is not there": Case(
        f"{TRAIN} --set partition.unseen=[yard]", CONFIG, ("partition.unseen: no client 'yard'; known: 0, 1, 2, 3",)
    ),
    "too few clients that are not unseen": Case(
        f"{TRAIN} --set partition.unseen=3", CONFIG, ("training.clients_per_round: got 2, 1 can take part",)
    ),
    "no share of clients": Case(
        f"{TRAIN} --set partition.unseen=1.5",
        CONFIG,
        ("--set partition.unseen: got 1.5, expected a number of clients",),
    ),
    "a folder of classes for one of clients": Case(
        TRAIN,
        DATA,
        ("tree: has train and test, which are no clients",),
        both(
            NATURAL,
            setting("{dataset: digits}", "{dataset: image-folder, root: tree}"),
            lambda folder: [(folder / "tree" / name / "a").mkdir(parents=True) for name in ("train", "test")],
        ),
    ),
    "unknown dataset": Case(
        TRAIN,
        CONFIG,
        ("unknown dataset 'digit'", "did you mean 'digits'?"),
        setting("dataset: digits", "dataset: digit"),
    ),
    "unknown space": Case(
        TRAIN, CONFIG, ("mine.yaml:3:", "no search space 'digit'"), setting("space: digits", "space: digit")
    ),
    "unknown strategy": Case(
        TRAIN, CONFIG, ("strategy.name", "'e-fedsub'", "'e-fedsup'"), setting("e-fedsup", "e-fedsub")
    ),
    "tier that no subnet is in": Case(
        TRAIN,
        CONFIG,
        ("strategy.tiers", "1 to 2 parameters", "they have"),
        setting("architecture: largest", "params: [1, 2]"),
    ),
    "tier of an unknown subnet": Case(
        TRAIN, CONFIG, ("a00000000000",), setting("architecture: largest", "architecture: a00000000000")
    ),
    # Images
    "missing data folder": Case(
        TRAIN,
        DATA,
        ("fashion-mnist", "train-images-idx3-ubyte", "nowhere (no such folder)", "data.root"),
        setting("dataset: digits", "dataset: fashion-mnist, root: nowhere"),
    ),
    "no data folder": Case(TRAIN, CONFIG, ("cifar10", "data.root"), setting("dataset: digits", "dataset: cifar10")),
    "data folder where none is needed": Case(
        TRAIN, CONFIG, ("digits are bundled", "data.root"), setting("dataset: digits", "dataset: digits, root: .")
    ),
    "images that are not square": Case(TRAIN, DATA, ("10x8", "square"), images(shape=(40, 8, 10))),
    "images of long floats": Case(TRAIN, DATA, ("mine.npz: train_images", "float64"), images(dtype="float64")),
    "images of floats with NaN": Case(
        TRAIN, DATA, ("train_images: image 3 ", "NaN"), images(dtype="float32", nan_at=3)
    ),
    "images of floats, resized": Case(
        f"{TRAIN} --set data.image_size=6", CONFIG, ("data.image_size", "float32"), images(dtype="float32")
    ),
    "images of 17 channels": Case(TRAIN, DATA, ("1 to 16 channels",), images(shape=(40, 8, 8, 17))),
    "images of one value": Case(TRAIN, DATA, ("channel 0 has one value",), images(is_blank=True)),
    "fewer labels than images": Case(TRAIN, DATA, ("labels", "40", "one per image"), images(num_labels=39)),
    "images with a pickle": Case(TRAIN, DATA, ("mine.npz", "without objects"), images(is_pickled=True)),
    "half of an archive": Case(TRAIN, DATA, ("mine.npz",), both(images(), cut("mine.npz"))),
    "more clients than images": Case(
        TRAIN,
        CONFIG,
        ("4 clients x min_samples 30", "there are 34"),
        both(images(), setting("num_clients: 4", "num_clients: 4, min_samples: 30")),
    ),
    # Runs
    "folder that holds a run": Case(
        f"{TRAIN} --out runs/digits", ARTIFACT, ("runs/digits holds a run already", "--resume", "--out")
    ),
    "resume with another config": Case(
        f"{RESUME} --set training.learning_rate=0.5",
        CONFIG,
        ("training.learning_rate is 0.5", "started with"),
        unfinished,
    ),
    "resume from half a checkpoint": Case(
        RESUME,
        ARTIFACT,
        ("state.safetensors", "not a whole"),
        both(unfinished, cut("runs/digits/checkpoint/state.safetensors")),
    ),
    "resume from a pickle": Case(
        RESUME,
        ARTIFACT,
        ("state.safetensors", "not a whole"),
        both(unfinished, put("runs/digits/checkpoint/state.safetensors", pickle.dumps(Payload()))),
    ),
    "missing run": Case("evaluate runs/mine --arch smallest", USAGE, ("runs/mine", "does not exist")),
    "folder that is no run": Case(
        "evaluate exports --arch smallest", ARTIFACT, ("no run at exports", "fedsup-deploy train")
    ),
    "no run at all": Case(
        "search --profile jetson-nano",
        ARTIFACT,
        ("no finished run below runs/", "--run"),
        lambda folder: (folder / "runs").rename(folder / "elsewhere"),
    ),
    "run that is not finished": Case(EVALUATE, ARTIFACT, ("not finished", "--resume"), unfinished),
    "half a supernet": Case(
        EVALUATE, ARTIFACT, ("supernet.safetensors", "not a whole"), cut("runs/digits/supernet.safetensors")
    ),
    "pickle for a supernet": Case(
        EVALUATE,
        ARTIFACT,
        ("supernet.safetensors", "not a whole"),
        put("runs/digits/supernet.safetensors", pickle.dumps(Payload())),
    ),
    "garbage for a supernet": Case(
        EVALUATE,
        ARTIFACT,
        ("supernet.safetensors", "not a whole"),
        put("runs/digits/supernet.safetensors", b"\x10" + bytes(99)),
    ),
    "supernet without one of its tensors": Case(
        SEARCH.replace("found", "new/found"), ARTIFACT, ("supernet", "is missing"), without_a_tensor
    ),
    "half of kept statistics": Case(
        EXPORT.replace("made", "new/made"), ARTIFACT, ("statistics", "not a whole"), cut_statistics
    ),
    "checkpoint for a supernet": Case(
        EVALUATE,
        ARTIFACT,
        ("is a checkpoint, expected a supernet",),
        lambda folder: shutil.copy(
            folder / "runs/digits/checkpoint/state.safetensors", folder / "runs/digits/supernet.safetensors"
        ),
    ),
    "another space than the run's": Case(
        EVALUATE,
        ARTIFACT,
        ("space.yaml", "not the space"),
        edit("runs/digits/space.yaml", "num_classes: 10", "num_classes: 9"),
    ),
    "damaged config of a run": Case(
        EVALUATE,
        CONFIG,
        ("config.resolved.yaml:", "missing"),
        edit("runs/digits/config.resolved.yaml", "space:", "spice:"),
    ),
    "no command in the record of it": Case(
        "inspect runs/digits",
        ARTIFACT,
        ("command.json", "command: missing key"),
        put("runs/digits/command.json", "{}"),
    ),
    "nested deeper than any document": Case(
        "inspect runs/digits",
        ARTIFACT,
        ("command.json", "nested deeper"),
        put("runs/digits/command.json", "[" * 200_000),
    ),
    "config that never ends": Case(
        TRAIN, CONFIG, ("mine.yaml", "more than 1,048,576 bytes"), put("mine.yaml", "#" * (2**20 + 1))
    ),
    "config of too many keys": Case(
        "train --config mine.yaml",
        CONFIG,
        ("mine.yaml:1", "more than 50,000 keys"),
        put("mine.yaml", "[1" + ",1" * 60_000),
    ),
    "step size that nothing survives": Case(
        f"{TRAIN} --set training.learning_rate=1e300",
        CONFIG,
        ("training.learning_rate", "got 1e+300, expected <= 1000"),
    ),
    "space that no memory holds": Case(
        f"{TRAIN} --set space=mine-space.yaml",
        CONFIG,
        ("space mine", "training needs at least", "GiB of memory", "engine.workers"),
        put("mine-space.yaml", LARGE_SPACE),
    ),
    "space that nobody could count": Case(
        "inspect mine-space.yaml",
        CONFIG,
        ("mine-space.yaml:6", "stages.0.depths.0: got 100000000000, expected <= 64"),
        put("mine-space.yaml", LARGE_SPACE.replace("depths: [2]", "depths: [100000000000]")),
    ),
    # Architectures
    "unknown arch_id": Case("evaluate runs/digits --arch a00000000000", CONFIG, ("a00000000000",)),
    "misspelt corner": Case("evaluate runs/digits --arch larges", CONFIG, ("'larges'", "largest")),
    "missing architecture file": Case(
        "evaluate runs/digits --arch mine.json", CONFIG, ("no architecture file mine.json",)
    ),
    "architecture outside the space": Case(
        "evaluate runs/digits --arch mine.json", CONFIG, ("mine.json", "stem_width", "17"), outside_the_space
    ),
    "architecture file of something else": Case("evaluate runs/digits --arch mine.yaml", CONFIG, ("mine.yaml",)),
    # Profiles and limits
    "unknown profile": Case(
        SEARCH.replace("nano", "nana"), CONFIG, ("no profile 'jetson-nana'", "did you mean 'jetson-nano'?")
    ),
    "profile twice": Case(f"{SEARCH} --profile jetson-nano", CONFIG, ("jetson-nano 2 times",)),
    "negative cost in a profile": Case(
        "profile validate mine-profile.yaml",
        CONFIG,
        ("mine-profile.yaml:", "gmacs_per_s", "-1", "> 1e-09"),
        profile("latency", "ops", "conv", "gmacs_per_s", value=-1.0),
    ),
    "unknown key in a profile": Case(
        "profile validate mine-profile.yaml",
        CONFIG,
        ("mine-profile.yaml:", "unknown key 'clock'"),
        profile("device", "clock", value=1.5),
    ),
    "wrong unit in a profile": Case(
        "search --run runs/digits --profile mine-profile.yaml",
        CONFIG,
        ("mine-profile.yaml:", "'latency_s'", "'latency_ms'"),
        profile("limits", value={"latency_s": 0.01}),
    ),
    "figure of unknown origin in a profile": Case(
        "profile validate mine-profile.yaml",
        CONFIG,
        ("mine-profile.yaml:", "memory_bandwidth_gb_s", "provenance"),
        profile("provenance", "latency.memory_bandwidth_gb_s", value=None),
    ),
    "impossible limit": Case(
        f"{SEARCH} --max-latency-ms 0.001",
        INFEASIBLE,
        (
            "no subnet fits jetson-nano",
            "latency_ms <= 0.001",
            "fastest predicted",
            "closest is a",
            "latency_ms",
            "raise the limit",
        ),
    ),
    "limits that cannot be met together": Case(
        f"{SEARCH} --max-macs 1 --max-params 1", INFEASIBLE, ("macs <= 1", "fewest", "params <= 1", "closest is a")
    ),
    "negative limit": Case(f"{SEARCH} --max-latency-ms -3", USAGE, ("--max-latency-ms", "-3", "above 0")),
    "limit that is no number": Case(f"{SEARCH} --max-macs nan", USAGE, ("--max-macs", "nan")),
    "limit that nobody can check": Case(
        f"{SEARCH.replace('jetson-nano', 'raspberry-pi-4')} --max-energy-mj 1", CONFIG, ("energy_mj", "states no power")
    ),
    "unknown method": Case(f"{SEARCH} --method best", USAGE, ("best", "exact")),
    # How a search is done
    "result over the weights of a run": Case(
        "search --profile jetson-nano --run runs/digits --out runs/digits/supernet.safetensors",
        OUTPUT,
        ("supernet.safetensors", "holds no search", "--out another name"),
    ),
    "subnet beyond the limits of the device": Case(
        "export runs/digits --arch largest --profile mine-profile.yaml --out made",
        INFEASIBLE,
        ("exceeds the limits", "latency_ms is", "(limit 0.1, p50, assumed)", "--over-limit"),
        profile("limits", value={"latency_ms": 0.1}),
    ),
    "search whose run is elsewhere": Case(
        "export --search moved.json --out made",
        ARTIFACT,
        ("moved.json", "its run 'digits' is not at", "--run RUN"),
        lambda folder: shutil.copy(folder / "runs/digits/search.json", folder / "moved.json"),
    ),
    "search with other costs than its subnet": Case(
        EXPORT,
        ARTIFACT,
        ("search.json", "got MACs", "search again"),
        edit("runs/digits/search.json", '"num_params": ', '"num_params": 1', -1),
    ),
    "risk that is no probability": Case(f"{SEARCH} --risk 1.5", USAGE, ("--risk", "1.5", "between 0 and 1")),
    "risk on a device that nobody measured": Case(
        f"{SEARCH} --risk 0.95",
        CONFIG,
        ("risk: got 0.95", "jetson-nano was not checked with measured networks", "fedsup-deploy profile build"),
    ),
    "clients that hold no images out": Case(
        f"{SEARCH} --accuracy clients", CONFIG, ("no client holds images out", "--set data.client_validation_fraction")
    ),
    "no predictor to predict with": Case(
        f"{SEARCH} --accuracy predicted",
        ARTIFACT,
        ("no accuracy predictor in runs/digits", "fedsup-deploy fit-accuracy runs/digits"),
    ),
    "garbage for a predictor": Case(
        SEARCH,
        ARTIFACT,
        ("accuracy.safetensors", "not a whole"),
        put("runs/digits/accuracy.safetensors", b"\x10" + bytes(99)),
    ),
    "pickle for a predictor": Case(
        SEARCH,
        ARTIFACT,
        ("accuracy.safetensors", "not a whole"),
        put("runs/digits/accuracy.safetensors", pickle.dumps(Payload())),
    ),
    "supernet for a predictor": Case(
        SEARCH,
        ARTIFACT,
        ("accuracy.safetensors", "is a supernet", "expected a accuracy"),
        lambda folder: shutil.copy(
            folder / "runs/digits/supernet.safetensors", folder / "runs/digits/accuracy.safetensors"
        ),
    ),
    "fewer subnets than devices with nothing in common": Case(
        "search --run runs/digits --profile narrow.yaml --profile wide.yaml --max-artifacts 1 --out found.json",
        CONFIG,
        ("max-artifacts: got 1", "of space digits fit all of narrow, wide", "at least 2"),
        devices_with_nothing_in_common,
    ),
    "no subnets at all": Case(f"{SEARCH} --max-artifacts 0", USAGE, ("--max-artifacts", "0")),
    "resuming another search": Case(
        "search --profile jetson-nano --run runs/digits --seed 5 --resume",
        CONFIG,
        ("cannot resume runs/digits/search.json", "another search", "without --resume"),
    ),
    "resuming half a result": Case(
        "search --profile jetson-nano --run runs/digits --resume",
        ARTIFACT,
        ("search.json", "search again"),
        cut("runs/digits/search.json"),
    ),
    "predictor from next to nothing": Case(
        "fit-accuracy runs/digits --evaluations 5", USAGE, ("--evaluations", "5", "20")
    ),
    "predictor from clients that hold no images out": Case(
        "fit-accuracy runs/digits --accuracy clients", CONFIG, ("no client holds images out",)
    ),
    # Searches and bundles
    "search of another run": Case(EXPORT, ARTIFACT, ("search.json", "trained again", "search again"), other_weights),
    "half of a search": Case(EXPORT, ARTIFACT, ("search.json",), cut("runs/digits/search.json")),
    "search of another version": Case(
        EXPORT, ARTIFACT, ("search.json", "schema"), edit("runs/digits/search.json", '"schema": 1', '"schema": 2')
    ),
    "another pick than the best": Case(
        EXPORT,
        ARTIFACT,
        ("search.json", "search again"),
        edit("runs/digits/search.json", '"accuracy": 0.', '"accuracy": 1e-9'),
    ),
    "profile the search did not have": Case(
        f"{EXPORT} --profile x86-laptop", CONFIG, ("no result for profile x86-laptop",)
    ),
    "unknown format": Case(f"{EXPORT} --format onyx", USAGE, ("onyx", "onnx")),
    "unknown precision": Case(f"{EXPORT} --precision int3", USAGE, ("int3", "fp32")),
    "altered model": Case("verify {bundle}", ARTIFACT, ("model.onnx", "altered"), in_bundle(flip_a_bit)),
    "missing model": Case("verify {bundle}", ARTIFACT, ("model.onnx", "missing"), in_bundle(remove("model.onnx"))),
    "stranger in a bundle": Case("verify {bundle}", ARTIFACT, ("stranger.txt",), in_bundle(put("stranger.txt", "x"))),
    "half a manifest": Case("verify {bundle}", ARTIFACT, ("manifest.json",), in_bundle(cut("manifest.json"))),
    "model that computes something else": Case(
        "verify {bundle}", GATE, ("outputs at batch 1", "allowed 1e-05"), other_outputs
    ),
    "folder that is no bundle": Case("verify runs", ARTIFACT, ("runs", "manifest.json")),
    "measuring what is no model": Case("measure mine.yaml", ARTIFACT, ("mine.yaml", ".onnx")),
    "profile of another device": Case(
        "measure {bundle} --save-to-profile",
        CONFIG,
        ("profile jetson-nano: got a measurement on", "expected one on 4x Cortex-A57"),
    ),
    "measuring half a model": Case(
        "measure {bundle}/model.onnx", ARTIFACT, ("model.onnx",), in_bundle(cut("model.onnx"))
    ),
    "inspecting what is not ours": Case(
        "inspect mine.txt", ARTIFACT, ("mine.txt", ".safetensors"), put("mine.txt", "x")
    ),
    "inspecting JSON that is not ours": Case(
        "inspect mine.json", ARTIFACT, ("mine.json: holds no search",), put("mine.json", '{"a": 1}')
    ),
    # Places
    "run below a file": Case(f"{TRAIN} --out mine.yaml/run", OUTPUT, ("cannot write mine.yaml", "--out")),
    "run where nothing can be": Case(f"{TRAIN} --out /proc/nope/run", OUTPUT, ("cannot write /proc/nope", "--out")),
    "search below a file": Case(f"{SEARCH} --out mine.yaml/found.json", OUTPUT, ("cannot write mine.yaml", "--out")),
    "search into a name that no file can have": Case(
        f"{SEARCH} --out {'x' * 300}", OUTPUT, ("cannot write xxx", "file name too long", "--out")
    ),
    "search into a folder": Case(f"{SEARCH} --out exports", OUTPUT, ("cannot write exports", "folder")),
    "bundles below a file": Case(
        "export --search runs/digits/search.json --out mine.yaml/made", OUTPUT, ("cannot write mine.yaml", "--out")
    ),
    "subnet where nothing can be": Case(
        "extract runs/digits --arch smallest --out /proc/nope/x.safetensors", OUTPUT, ("cannot write /proc/nope",)
    ),
    "calibrated subnet below a file": Case(
        "recalibrate runs/digits --arch smallest --out mine.yaml/x.safetensors", OUTPUT, ("cannot write mine.yaml",)
    ),
    "demo below a file": Case("demo --out mine.yaml", OUTPUT, ("cannot write mine.yaml",)),
    "demo in the place of something": Case(
        "demo", OUTPUT, ("runs/demo is in the way",), lambda folder: (folder / "runs/demo/mine").mkdir(parents=True)
    ),
}


@pytest.fixture
def folder(workshop, bundle, repository, shell) -> Path:
    """A folder with a config of the user's own, a finished run that was searched, its bundle, and a profile."""
    for name in ("runs", "exports"):
        shutil.copytree(workshop.folder / name, shell.folder / name)
    (shell.folder / "mine.yaml").write_text(SETTINGS, encoding="utf-8")
    shutil.copy(repository / "profiles" / "jetson-nano.yaml", shell.folder)
    return shell.folder


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing_behind(name, folder, bundle, workshop, shell):
    case = CASES[name]
    if case.change is not None:
        case.change(folder)
    before = shell.content()

    ended = shell.run(*case.words.format(bundle=bundle.relative_to(workshop.folder)).split(), "--json")

    assert (ended.exit_code, len(ended.errors)) == (case.exit_code, 1), ended.err
    [line] = ended.errors
    assert ended.err.endswith(f"{line}\n")
    assert re.search(".*".join(map(re.escape, case.told)), line), line
    assert ended.document["error"]["message"] == line.removeprefix("error: ")
    assert "Traceback" not in ended.err
    assert shell.content() == before


def test_the_same_without_a_mistake_succeeds(folder, shell):
    """So that it is the mistakes that the other tests see."""
    assert shell.json(*TRAIN.split(), "--quiet")["run"] == "runs/mine"


def test_training_that_diverges_is_told_in_one_line(folder, shell):
    ended = shell.run(*TRAIN.split(), "--set", "training.learning_rate=1000", "--set", "training.clip_value=null")
    assert (ended.exit_code, len(ended.errors)) == (7, 1)
    assert ended.err.endswith(ended.errors[0] + "\n")
    assert "client" in ended.errors[0]
