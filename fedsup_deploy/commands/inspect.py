"""`fedsup-deploy inspect`: what a file or folder of ours is and what made it. Torch-free."""

import dataclasses
import os
from pathlib import Path
from typing import Final

from pydantic import JsonValue, TypeAdapter
from typing_extensions import TypedDict

from fedsup_deploy import registry, resources
from fedsup_deploy.artifact import index as indexes
from fedsup_deploy.artifact import manifest as manifests
from fedsup_deploy.artifact import weights
from fedsup_deploy.artifact.document import JsonObject, first_problem
from fedsup_deploy.artifact.external_data import external_files
from fedsup_deploy.artifact.graph import read_graph
from fedsup_deploy.artifact.index import IndexedBundle, RefusedBundle
from fedsup_deploy.artifact.indexing import load_index
from fedsup_deploy.artifact.measured import PercentileRecord
from fedsup_deploy.commands.inspected_bundle import BundleFacts, bundle_facts, with_checked_signature
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.config.document import display
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.device.summary import ProfileSummary, summary_of
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, parse_json, read_bytes
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result
from fedsup_deploy.runs import run as runs
from fedsup_deploy.searchers.result import SearchResult, load_result
from fedsup_deploy.space import cost
from fedsup_deploy.space.search_space import SearchSpace

#: Files that are part of something which is inspected as a whole, by the file that says what that is.
_PARTS: Final = {
    runs.CONFIG: {
        runs.COMMAND: "command that made a run",
        runs.DATA: "what a run knows of its images and clients",
        runs.EVENTS: "what happened in a run",
    },
    manifests.FILENAME: {
        bundle_files.MEASURED: "what was measured of a bundle",
        bundle_files.SUMS: "hashes of the files of a bundle",
        bundle_files.SIGNATURE: "signature of a bundle",
        bundle_files.VECTORS: "recorded inputs and outputs of a bundle",
    },
}


class _CommandFile(TypedDict):
    """What `command.json` holds."""

    command: list[str]


_COMMAND: Final = TypeAdapter(_CommandFile)


@dataclasses.dataclass(frozen=True)
class Inspected:
    """What a file or folder of ours is.

    Args:
        path: The file or folder.
        kind: What it is, in words.
        about: What it says of itself; of tensors the document about them.
    """

    path: Path
    kind: str
    about: (
        "BundleFacts | ExportsFacts | RunFacts | SearchFacts | SpaceFacts | ModelFacts | ProfileSummary | TrainConfig"
        " | JsonObject"
    )

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the JSON document: `path` and `kind`, then the keys of what it is about."""
        if isinstance(self.about, dict):  # which says itself of what kind it is
            return {"path": str(self.path), **self.about}
        about = self.about
        document = about.model_dump(mode="json", by_alias=True) if isinstance(about, TrainConfig) else about.to_dict()
        return {"path": str(self.path), "kind": self.kind, **document}


@dataclasses.dataclass(frozen=True)
class ExportsFacts(Result):
    """A folder of bundles: what its index says of those that are there.

    Args:
        bundles: What each device class has, and why.
        refused: What was asked for and not made.
    """

    bundles: tuple[IndexedBundle, ...]
    refused: tuple[RefusedBundle, ...]


@dataclasses.dataclass(frozen=True)
class SpaceFacts(Result):
    """A search space.

    Args:
        space: Its name.
        family: Its block family.
        num_architectures: In it.
        smallest: Costs of the smallest subnet, by name.
        largest: Costs of the largest.
    """

    space: str
    family: str
    num_architectures: int
    smallest: dict[str, int]
    largest: dict[str, int]


@dataclasses.dataclass(frozen=True)
class ModelFacts(Result):
    """An ONNX model, of a bundle or by itself.

    Args:
        num_bytes: Size of the file.
        opset: Version of the operators of ONNX; None where the file does not say.
        inputs: Shape of each input by name.
        outputs: The same of each output.
        num_macs: Multiply-accumulates for one image.
        num_params: Weights and biases.
        int8: How it computes in int8; None where it does not, or by no scheme of ours.
    """

    num_bytes: int
    opset: int | None
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    num_macs: int
    num_params: int
    int8: Int8Scheme | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclasses.dataclass(frozen=True)
class RunFacts(Result):
    """A finished run, with the facts of its space.

    Args:
        name: Of its config.
        dataset: That it was trained on.
        strategy: That trained it.
        rounds: That it was trained for.
        supernet_sha256: Of the supernet's file.
        command: The words that made it.
    """

    name: str
    dataset: str
    strategy: str
    rounds: int
    supernet_sha256: str
    space: str
    family: str
    num_architectures: int
    smallest: dict[str, int]
    largest: dict[str, int]
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DeviceFinding:
    """What a search found for one device, in short; the fields are those of `searchers.result.DeviceResult`."""

    profile: str
    method: str
    objective: str
    certified: bool
    num_evaluated: int
    pick: str
    percentile: PercentileRecord | None


@dataclasses.dataclass(frozen=True)
class SearchFacts(Result):
    """A search.

    Args:
        run: Name of the run that was searched.
        run_hash: SHA-256 of its supernet.
        results: One per device.
    """

    run: str
    run_hash: str
    results: tuple[DeviceFinding, ...]


def inspect(path: Path, key: Path | None = None) -> Inspected:
    """Return what a path is.

    Args:
        path: A run, a bundle or a file of one, a folder of bundles that has an index, a search.json, a config, profile
            or space in YAML, an ONNX model, or a safetensors file of ours; where there is no such file, the name of a
            shipped space, config or profile.
        key: Of a bundle the public key, in PEM, that has to have signed it; None leaves its signature unchecked.

    Raises:
        ArtifactError: It is none of these, or damaged; or a bundle is not signed with the key.
        ConfigError: A config, profile or space is wrong, or nothing, or several things, have the name. A key is none,
            or is given for what is no bundle.
        DependencyError: A key was given, and the library `cryptography` is not installed.
    """
    path = path if os.path.lexists(path) else _shipped(str(path))
    found = _folder(path) if path.is_dir() else _part(path) or _file(path)
    if key is None:
        return found
    if not isinstance(found.about, BundleFacts):
        raise ConfigError(f"{path}: a {found.kind} has no signature; --key is for a bundle")
    folder = path if path.is_dir() else path.parent
    return dataclasses.replace(found, about=with_checked_signature(found.about, folder, key))


def _file(path: Path) -> Inspected:
    if path.suffix == ".safetensors":
        document = weights.read_document(path)
        return Inspected(path, str(document["kind"]), document)
    if path.name in {manifests.FILENAME, indexes.FILENAME}:
        return dataclasses.replace(_folder(path.parent), path=path)
    if path.suffix == ".json":
        return Inspected(path, "search", _search(load_result(path)))
    if path.suffix in {".yaml", ".yml"}:
        return _yaml(path)
    if path.suffix == ".onnx":
        return Inspected(path, "ONNX model", _model(path))
    raise ArtifactError(f"{path}: not a file of fedsup-deploy: expected .safetensors, .json, .yaml or .onnx")


def _part(path: Path) -> Inspected | None:
    """Return what a file of a run or bundle is that says little by itself; None of any other file."""
    kinds = [parts[path.name] for whole, parts in _PARTS.items() if path.name in parts and _has(path.parent, whole)]
    if not kinds:
        return None
    command: JsonObject = {"command": [*_command(path)]} if path.name == runs.COMMAND else {}
    return Inspected(path, kinds[0], {"kind": kinds[0], "part_of": str(path.parent), **command})


def _has(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def _shipped(name: str) -> Path:
    """Return the file of what a name stands for.

    Raises:
        ConfigError: For nothing, or for several things.
    """
    names = {kind: resources.known_names(kind) for kind in ("configs/spaces", "configs", "profiles")}
    kinds = [kind for kind, known in names.items() if name in known]
    if not kinds:
        is_a_path = "/" in name or "." in name
        hint = "" if is_a_path else registry.nearest(name, {each for known in names.values() for each in known})
        raise ConfigError(f"no file or folder {name!r}, and no shipped space, config or profile of that name{hint}")
    found = [resources.find(kind, name) for kind in kinds]
    if len(found) > 1:
        raise ConfigError(f"{name!r} stands for several files; give one of {', '.join(map(display, found))}")
    return found[0]


def _model(path: Path) -> ModelFacts:
    try:
        num_bytes = sum(file.stat().st_size for file in (path, *external_files(path).values()))
        graph = read_graph(path, has_all_weights=False)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    return ModelFacts(
        num_bytes=num_bytes,
        opset=graph.opset,
        inputs={**graph.inputs},
        outputs={**graph.outputs},
        num_macs=graph.num_macs,
        num_params=graph.num_params,
        int8=graph.scheme,
    )


def _folder(path: Path) -> Inspected:
    if os.path.lexists(path / manifests.FILENAME):
        return Inspected(path, "bundle", bundle_facts(path))
    if (path / runs.CONFIG).is_file():
        return Inspected(path, "run", _run(path))
    if (index := load_index(path)) is not None:
        return Inspected(path, "bundles", ExportsFacts(index.bundles, index.refused))
    names = f"a run (no {runs.CONFIG}) nor a bundle (no {manifests.FILENAME}), nor a folder of them"
    raise ArtifactError(f"{path}: neither {names} (no {indexes.FILENAME})")


def _run(path: Path) -> RunFacts:
    run = runs.open_run(path)
    return RunFacts(
        name=run.config.name,
        dataset=run.config.data.dataset,
        strategy=run.config.strategy.name,
        rounds=run.config.training.rounds,
        supernet_sha256=run.fingerprint,
        **vars(_space(run.space)),
        command=_command(path / runs.COMMAND),
    )


def _command(path: Path) -> tuple[str, ...]:
    """Return the words of the command that made a run."""
    try:
        document = parse_json(read_bytes(path, MOST_BYTES_OF_JSON))
        return tuple(_COMMAND.validate_python(document, strict=True)["command"])
    except OSError as error:
        raise ArtifactError(f"{path}: missing or damaged ({error.strerror}); restore the file") from error
    except ValueError as error:
        raise ArtifactError(f"{path}: missing or damaged ({first_problem(error)}); restore the file") from error


def _search(found: SearchResult) -> SearchFacts:
    results = tuple(
        DeviceFinding(
            profile=result.profile.name,
            method=result.method,
            objective=result.objective,
            certified=result.certified,
            num_evaluated=result.num_evaluated,
            pick=result.pick,
            percentile=result.percentile,
        )
        for result in found.results
    )
    return SearchFacts(found.run.name, found.run.hash, results)


def _yaml(path: Path) -> Inspected:
    document = load_yaml(path)
    if "family" in document.data:
        return Inspected(path, "search space", _space(validate(document, SearchSpace)))
    if "partition" in document.data:
        return Inspected(path, "training config", validate(document, TrainConfig))
    return Inspected(path, "device profile", summary_of(validate(document, DeviceProfile)))


def _space(space: SearchSpace) -> SpaceFacts:
    corners = cost.costs_of(space, [space.smallest, space.largest])
    return SpaceFacts(space.name, space.family, space.num_architectures, corners.row(0), corners.row(1))
