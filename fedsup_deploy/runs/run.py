"""`Run`: the folder one training run leaves, read back. Torch-free; the weights are loaded only when asked for."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, NonNegativeInt, PositiveInt, field_validator

from fedsup_deploy import files, places, resources
from fedsup_deploy.artifact import weights
from fedsup_deploy.artifact.document import first_problem
from fedsup_deploy.config.load import apply_overrides, load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, load_dataset
from fedsup_deploy.data.names import alike
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, ConfigError, DataError, FedsupError
from fedsup_deploy.federation.simulation import FederatedData
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, parse_json, read_bytes
from fedsup_deploy.runs.clients import ClientFacts, divided
from fedsup_deploy.runs.images import remembered_fingerprint
from fedsup_deploy.runs.joined import JoinedDevice, with_joined
from fedsup_deploy.runs.own_images import reading_of
from fedsup_deploy.runs.server_images import servers
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace

CONFIG, SPACE, SUPERNET, EVENTS = "config.resolved.yaml", "space.yaml", "supernet.safetensors", "events.jsonl"
DATA = "data.json"
ACCURACY = "accuracy.safetensors"
COMMAND, CHECKPOINT, STATISTICS = "command.json", "checkpoint/state.safetensors", "statistics"
BEST = "checkpoint/best.safetensors"
EVALUATIONS = "evaluations"
RUNS = Path("runs")


#: How clients choose the images that statistics are taken on: what was found with others is found anew.
CALIBRATION_DRAW = "random"


class ImageFacts(BaseModel):
    """What a run says of its images, found out from the clients before the first round.

    Args:
        classes: Names of the classes, in the order of the labels.
        shape: Height, width and channels of an image.
        preprocessing: From pixels to what networks take, at the largest resolution: a document of `Preprocessing`.
        clients: Who the clients are; None where an older version made the run.
        class_counts: How many images of each class the clients train on; None where nobody has asked them, as no
            `training.class_weights` follow from it.
        fingerprint: Of all images as the run was begun, of `FederatedData`; None where an older version began it.
        joined: Devices that have come in since, in the order of their numbers, which follow those of `clients`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    preprocessing: dict[str, JsonValue]
    clients: ClientFacts | None = None
    class_counts: tuple[NonNegativeInt, ...] | None = None
    fingerprint: str | None = None
    joined: tuple[JoinedDevice, ...] = ()

    @property
    def all_clients(self) -> ClientFacts | None:
        """Who the clients are, with those that have come in since; None where an older version made the run."""
        if self.clients is None or not self.joined:
            return self.clients
        return self.clients.and_of([each.device.name for each in self.joined])

    @field_validator("classes")
    @classmethod
    def _are_distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            raise ValueError("two classes of one name")
        return classes

    @field_validator("preprocessing")
    @classmethod
    def _is_preprocessing(cls, document: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            Preprocessing.from_dict(document)
        except FedsupError as error:
            raise ValueError(str(error)) from error
        return document


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training run.

    Args:
        path: Its folder.
        config: What it was trained with.
        space: Its search space, with the channels and classes of its data.
    """

    path: Path
    config: TrainConfig
    space: SearchSpace

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the supernet's file."""
        return files.sha256(self.path / SUPERNET)

    @property
    def rounds(self) -> int:
        """Rounds it was trained for."""
        return self.config.training.rounds

    @functools.cached_property
    def read_only(self) -> str | None:
        """Why what is found out cannot be kept in its folder, as on a read-only disk; None where it can.

        Raises:
            OutputError: It cannot for another reason, such as a full disk.

        Side effects: None that last.
        """
        return places.read_only(self.path / EVALUATIONS) or places.read_only(self.path / STATISTICS)

    @functools.cached_property
    def data(self) -> FederatedData:
        """The images of the simulated federation, read again from where the config says they are."""
        facts = read_image_facts(self.path)
        return load_data(self.config, () if facts is None else facts.joined)

    @functools.cached_property
    def image_facts(self) -> ImageFacts:
        """What is known of the images without reading any.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        facts = read_image_facts(self.path)
        if facts is None:
            raise ArtifactError(f"{self.path / DATA} is missing: the run was made by an older version; train again")
        found = (len(facts.classes), facts.shape[2])
        if found != (expected := (self.space.num_classes, self.space.in_channels)):
            raise ArtifactError(
                f"{self.path / DATA}: got {found[0]} classes and {found[1]} channels, the run's space has "
                f"{expected[0]} and {expected[1]}; train again"
            )
        return facts

    @property
    def preprocessing(self) -> Preprocessing:
        """From pixels to what networks take, at the largest resolution of the space."""
        return Preprocessing.from_dict(self.image_facts.preprocessing)

    @functools.cached_property
    def data_fingerprint(self) -> str:
        """What `data.fingerprint` is, without reading the images again where none of their files has changed.

        Side effects: Remembers it in the run's folder, where that can be written.
        """
        if "data" in vars(self):
            return self.data.fingerprint
        size = max(self.space.resolutions)
        return remembered_fingerprint(self.path / EVALUATIONS, self.config, size, lambda: self.data.fingerprint)

    @property
    def calibration(self) -> dict[str, JsonValue]:
        """What decides on which of the clients' images statistics are taken, and how they are batched.

        Statistics, scores and predictors that were found with another one are not reused.
        """
        settings = self.config.calibration
        return {
            "clients": settings.clients,
            "samples_per_client": settings.samples_per_client,
            "batch_size": settings.batch_size,
            "draw": CALIBRATION_DRAW,
            "seed": self.config.seed,
        }

    def architecture(self, name_or_path: str) -> Architecture:
        """Return the architecture a user means: `largest`, `smallest`, an arch_id, or a JSON / YAML file.

        Raises:
            ConfigError: It is none of these, or not in the run's space.
        """
        if not name_or_path.endswith((".json", ".yaml", ".yml")):
            return self.space.resolve(name_or_path)
        path = Path(resources.expanded(name_or_path))
        if not files.is_file(path):
            raise ConfigError(f"no architecture file {path}")
        # JSON is YAML, so one strict reader serves both.
        document = load_yaml(path)
        try:
            architecture = Architecture.from_dict(document.data)
            self.space.encode(architecture)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        return architecture


def open_run(path: Path, engine: str | None = None) -> Run:
    """Return the run in a folder.

    Args:
        path: The folder.
        engine: What is to run its clients; None is the one that it was trained with.

    Raises:
        ArtifactError: The folder is not a finished run, or a file of it is damaged.
        ConfigError: That engine cannot ask its clients.
    """
    if not (path / CONFIG).is_file():
        raise ArtifactError(f"no run at {path}: no {CONFIG} there; make one with `fedsup-deploy train`")
    if not (path / SUPERNET).is_file():
        if (writer := places.writer_of(path)) is not None:
            raise ArtifactError(f"the run at {path} is not finished: {writer} is training it; wait for its end")
        raise ArtifactError(f"the run at {path} is not finished; continue it with `fedsup-deploy train ... --resume`")
    overrides = () if engine is None else (f"engine.name={engine}",)
    config = validate(apply_overrides(load_yaml(path / CONFIG), overrides), TrainConfig)
    space = validate(load_yaml(path / SPACE), SearchSpace)
    document = weights.read_document(path / SUPERNET, "supernet")
    if weights.checked(path / SUPERNET, document, weights.SupernetRecord).space_hash != files.sha256_of(
        space.to_dict()
    ):
        raise ArtifactError(f"{path}: {SPACE} is not the space {SUPERNET} was trained with")
    return Run(path, config, space)


def newest_run() -> Path:
    """Return the folder below `runs/` whose supernet was written last.

    Raises:
        ArtifactError: There is none.
    """
    finished = sorted(RUNS.glob(f"*/{SUPERNET}"), key=lambda file: file.stat().st_mtime)
    if not finished:
        raise ArtifactError("no finished run below runs/; make one with `fedsup-deploy demo` or name one with --run")
    return finished[-1].parent


def load_space(config: TrainConfig) -> SearchSpace:
    """Return the config's search space as its file has it."""
    return validate(load_yaml(resources.find("configs/spaces", config.space)), SearchSpace)


def read_image_facts(folder: Path) -> ImageFacts | None:
    """Return what a run's folder says of its images; None where it says nothing yet.

    Raises:
        ArtifactError: The file is damaged.
    """
    path = folder / DATA
    if not path.exists():
        return None
    try:
        content = read_bytes(path, MOST_BYTES_OF_JSON)
        facts = ImageFacts.model_validate_json(content)
        parse_json(content)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}; make it readable") from error
    except ValueError as error:
        raise ArtifactError(f"{path}: {first_problem(error)}; put it back or train again") from error
    return facts


def write_image_facts(folder: Path, facts: ImageFacts) -> None:
    """Write what is known of a run's images into its folder."""
    left_out = {name for name in ("class_counts", "fingerprint", "joined") if not getattr(facts, name)}
    files.write_json(folder / DATA, facts.model_dump(mode="json", exclude=left_out))


def load_data(config: TrainConfig, joined: Sequence[JoinedDevice] = ()) -> FederatedData:
    """Return the images of a federation, divided as the config says.

    Args:
        config: Which images, what is held out, who holds what.
        joined: Devices that have come in since.
    """
    listed = config.partition.client_list(config.data.root)
    splits = load_dataset(config.data.dataset, config.data.root, reading_of(config.data), listed)
    if len(splits.train.classes) < 2:
        raise DataError(f"{config.data.dataset}: got one class, {splits.train.classes[0]!r}, expected at least two")
    empty = set(range(len(splits.train.classes))) - set(splits.train.labels_N.tolist())
    if empty:
        names = ", ".join(splits.train.classes[label] for label in sorted(empty))
        raise DataError(f"{config.data.dataset}: no training image of class {names}; remove the class or add images")
    notes = (*splits.notes, *_alike(splits))
    if config.data.image_size is None and "resize" in config.data.model_fields_set:
        notes = (*notes, "data.resize is not used: there is no data.image_size")
    train, validation, test, server_notes = servers(config, splits)
    data = divided(config, splits, train, validation, test, (*notes, *server_notes))
    return with_joined(data, [each.device for each in joined])


def _alike(splits: DatasetSplits) -> list[str]:
    """Return notes on names of classes and of clients that look the same."""
    named = {"classes": splits.train.classes, "clients": splits.owners.names if splits.owners is not None else ()}
    found = {what: alike(names) for what, names in named.items()}
    how, advice = "whose names differ only in case or spaces", "if they are one, give them one name"
    return [f"{what} {how}: {source.counted(names)}; {advice}" for what, names in found.items() if names]
