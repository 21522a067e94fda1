"""Every setting of a training run, once: its name, type, default, range, unit and meaning.

Owns the config file's layout and the checks between settings. It reads no data and knows no algorithm: what a dataset
or an architecture name means is decided where it is used.
"""

import errno
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from fedsup_deploy import places, registry, resources
from fedsup_deploy.config.document import Document
from fedsup_deploy.config.images import ImagesConfig, Place, known
from fedsup_deploy.config.load import apply_overrides, load_yaml, validate
from fedsup_deploy.config.partition import PartitionConfig
from fedsup_deploy.config.problems import misfit
from fedsup_deploy.config.reader import KeyPath
from fedsup_deploy.config.registered import Registered
from fedsup_deploy.config.section import Address, Count, Section, Text
from fedsup_deploy.config.strategy import StrategyConfig
from fedsup_deploy.errors import ConfigError

#: Of its images, where the server has none and a config does not say.
_USUALLY_HELD_OUT: Final = 0.2

Images = TypeVar("Images", bound=ImagesConfig)
BatchSize = Annotated[int, Field(ge=1, le=65_536)]


def _version_one(version: int) -> int:
    if version != 1:
        raise ValueError(f"got {version}, expected 1, the layout this version of fedsup-deploy reads")
    return version


class AugmentationConfig(Section):
    """Random changes of training images."""

    crop_padding: Annotated[int, Field(ge=0, le=256)] = 0
    """Pixels of black border, at most 256, before a random crop back to the image's size, before any resizing. 0: no
    crop; 4 is usual for 32x32."""
    flip: bool = False
    """Mirror half of the images left to right. Wrong for digits and text."""


class DataConfig(ImagesConfig):
    """The images and what is held out of training."""

    validation_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """Share of the training images held out, before they are divided among clients, to compare subnets in search. Not
    used where the data set has validation images of its own."""
    server_images: bool | None = None
    """Whether the server has images of its own: validation images, split off those for training, and the data set's
    test images. false: all training images are the clients'; subnets are compared on what these hold out. null: true,
    and false where `partition.kind` is `natural`; there true needs validation and test images that are of no client."""
    client_validation_fraction: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """Share of its images that each client holds out, neither trained on nor calibrated with, so that subnets can be
    compared on clients without an image on the server. A client keeps two; one too small to hold one out does not
    count; one with validation images of its own holds these out instead. 0: none. null: 0 where the server has images,
    and else 0.2."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes of training images; off by default."""
    server: ImagesConfig | None = None
    """Images of the server's own beside those of clients, such as of devices: subnets are compared on its validation
    images, or where it has none on its training images, on which nobody trains; final figures are taken on its test
    images. They must be as those of clients, of the same classes and size. null: as `server_images` says."""


class SupernetConfig(Section):
    """The weight-sharing network."""

    normalization: Literal["batch", "parametric"] = "batch"
    """`batch`: batch normalisation. `parametric`: learned centres, no stored statistics (FedSup, eq. 2)."""


class TrainingConfig(Section):
    """Rounds, local training and its optimiser."""

    rounds: Annotated[int, Field(ge=1, le=1_000_000)]
    """Rounds of plan, train, aggregate; at most a million."""
    clients_per_round: Count | None = None
    """Clients sampled in each round; at most as many as take part. null: 10, or all where there are fewer."""
    local_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Passes of a sampled client over its images; at most 10,000."""
    batch_size: BatchSize = 32
    """Images per optimiser step; at most 65,536."""
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 0.1
    """Highest step size of SGD, at most 1000, reached after the warm-up."""
    warmup_rounds: Annotated[int, Field(ge=0)] = 3
    """Rounds in which the step size rises linearly; at most `rounds`. 0: none."""
    final_learning_rate: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Step size at the end of the cosine decay; at most 1000."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; starts at rest in each client and round. 0: none."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 1e-4
    """L2 coefficient of SGD, at most 1000. 0: none."""
    clip_value: Annotated[float, Field(gt=0, le=1e6)] | None = 1.0
    """Each entry of a gradient is clipped to plus or minus this, at most a million. null: no clipping."""
    logit_adjustment: bool = True
    """Add the logarithm of a client's own class shares to the logits in its loss, so that skewed labels pull the
    classifier apart less. false: the plain loss of the FedSup paper."""
    class_weights: bool = False
    """Let an image count in the loss by how rare its class is in the whole federation, so that all classes count the
    same. Clients tell how many images of each class they have. It takes the place of `logit_adjustment`, which has to
    be false."""
    checkpoint_every: Count = 5
    """Rounds between checkpoints: what an interrupted run may have to repeat."""
    evaluate_every: Count = 5
    """Rounds between evaluations of the smallest and largest subnet; the last round is always evaluated."""
    keep: Literal["last", "best"] = "last"
    """Which supernet the run ends with: the `last`, or the `best` of those evaluated, by the mean accuracy of their
    smallest and largest subnet on validation images, or on what clients hold out."""


class AveragingConfig(Section):
    """Which of the clients' updates are averaged, and how. Norms are multiples of the median of the last rounds."""

    max_norm: Annotated[float, Field(gt=1, le=1e6)] | None = 10.0
    """An update that has moved more than this many times as far as usual is rejected, or more where honest ones differ
    much, up to the square; at most a million. null: none is."""
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """An update that has moved further than this many times the usual is shortened to it; at most a million. null: none
    is."""
    trim: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Of the clients that hold a weight, the share with the largest and the share with the smallest that its average
    leaves out, rounded up: a trimmed mean. null: all are averaged."""


class EngineConfig(Section):
    """What runs the clients."""

    name: Annotated[str, known("engine")] = "local"
    """A registered engine. `local`: simulated clients on this machine. `flower`: the same carried by Flower."""
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    """Processes that train clients side by side. The result does not depend on it."""
    superlink: Address | None = None
    """Address of a SuperLink, host:port, that runs on this machine: its nodes are the clients. null: clients are
    simulated here."""
    root_certificates: Place | None = None
    """PEM file with the certificate authority of the SuperLink, from where `data.root` starts. null: it is not
    encrypted."""

    @model_validator(mode="after")
    def _can_be_deployed(self) -> "EngineConfig":
        able = registry.names("deployment")
        if self.superlink is not None and self.name not in able:
            raise misfit([(("name",), self.name, f"{' or '.join(able)}, as there is a superlink")])
        return self


class LinkConfig(Section):
    """The link of a device to the server."""

    down_mbit_s: Annotated[float, Field(gt=0, le=1e6)]
    """Megabits per second to the device, at most a million."""
    up_mbit_s: Annotated[float, Field(gt=0, le=1e6)]
    """The same from the device."""
    latency_ms: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Milliseconds that a message takes on its way, either way."""


class FederationConfig(Section):
    """What the server expects of clients that it asks, for training, statistics and evaluations alike."""

    quorum: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of those asked that must answer, at least one; of a round, share of `training.clients_per_round`. With
    fewer the command ends, but a round of training, or an evaluation after one, is skipped: `skipped_rounds`."""
    deadline_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    """Seconds they have, at most a year, from when the first is asked: in a round of training, and in each exchange for
    statistics or an evaluation. Nothing else ends one: messages are void and nobody is waited for from then on. What
    comes later is late, so the result depends on clients' speed. null: no limit."""
    oversample: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Share of `training.clients_per_round` that a round asks beyond it, rounded up to whole clients: 0.2 asks 12 for
    10. The round ends when 10 have answered; whoever has come by then counts, all others are late. Simulated clients of
    the engine `local` all answer, and all count. 0: nobody."""
    skipped_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = 2
    """Rounds of training in a row that may miss the quorum; they change no weight, and last until their deadline. One
    more ends the command, and --resume repeats them all. 0: the first does."""
    stale: Literal["discard", "accept"] = "discard"
    """What becomes of an update that comes after its round: `discard`, or `accept`: it joins the next average if it
    comes within 4 rounds. Those under way when a run is stopped are lost."""
    stale_weight: Annotated[float, Field(gt=0, le=1)] | None = None
    """What the move of an accepted late update counts beside one in time. null: (1 + s)^-0.5 after s rounds, 0.71 for
    one (FedBuff, arXiv 2106.06639)."""
    links: Annotated[tuple[LinkConfig, ...], Field(min_length=1, max_length=64)] | None = None
    """How fast devices' links are, one for each tier of the strategy in its order, or one for all. With them and
    `deadline_s`, `train` refuses what could not travel in time. null: not known."""
    joining: bool = False
    """Whether devices that are connected and not in the list take part, from the round after they were found fit to:
    the result depends on when they came. Late updates that are under way then are lost. Needs `engine.superlink`.
    false: the clients are those of the list."""


class CalibrationConfig(Section):
    """How the normalisation statistics of a subnet are taken from clients."""

    clients: Count | None = None
    """Clients that take part, and in evaluations by clients: the same sample throughout a run. null: up to 100."""

    pixel_clients: Count | None = None
    """Clients whose pixels tell the mean and the deviation that images are normalised with, before the first round.
    Fewer than all spare the others of a folder of photographs to decode all of theirs for it. null: all."""
    samples_per_client: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Images each client uses at most; not more than a million."""
    batch_size: BatchSize = 64
    """Images per forward pass; at most 65,536."""
    schedule: Literal["one-shot", "layer-wise"] = "layer-wise"
    """`one-shot`: all layers in one exchange. `layer-wise`: exact, one exchange per layer."""


class TrainConfig(Section):
    """A training run."""

    schema_version: Annotated[int, AfterValidator(_version_one)] = Field(alias="schema")
    """Version of this file's layout: 1."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=64)]
    """Short name of at most 64 lower-case letters, digits and hyphens; the run's folder is called so."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides every random choice of the run."""
    space: Annotated[Text, AfterValidator(places.expanded)]
    """A shipped search space (`digits`), or the path of a YAML file; a relative path starts where `data.root` does."""
    data: DataConfig
    """The images."""
    partition: Annotated[SerializeAsAny[PartitionConfig], Registered("partition")]
    """Who holds which images."""
    supernet: SupernetConfig = SupernetConfig()
    """The weight-sharing network."""
    strategy: Annotated[SerializeAsAny[StrategyConfig], Registered("strategy", key="name")]
    """What clients train and how it is averaged."""
    training: TrainingConfig
    """Rounds, local training and its optimiser."""
    averaging: AveragingConfig = AveragingConfig()
    """Which updates are averaged, and how."""
    engine: EngineConfig = EngineConfig()
    """What runs the clients."""
    federation: FederationConfig = FederationConfig()
    """What the server expects of clients."""
    calibration: CalibrationConfig = CalibrationConfig()
    """How a subnet's statistics are taken from clients."""

    @property
    def server_has_images(self) -> bool:
        """Whether the server has images of its own."""
        stated = True if self.data.server is not None else self.data.server_images
        return self.partition.server_has_images if stated is None else stated

    @property
    def held_out_fraction(self) -> float:
        """Share of its images that a client holds out that has no validation images of its own."""
        stated = self.data.client_validation_fraction
        if stated is None:
            return 0.0 if self.server_has_images else _USUALLY_HELD_OUT
        return stated

    @property
    def clients_may_hold_out(self) -> bool:
        """Whether a client may have images to evaluate subnets on; whether it brings any, only the data says."""
        return self.held_out_fraction > 0 or self.partition.stated_clients is None

    def misfits_of_clients(self, clients: int, counted_by: str) -> list[tuple[KeyPath, object, str]]:
        """Return which settings do not fit to so many clients: for each its path, its value, and what was expected.

        Args:
            clients: How many there are.
            counted_by: What decides that, for the message.
        """
        of_strategy = self.strategy.misfits(clients)
        misfits: list[tuple[KeyPath, object, str]] = [
            (("strategy", *path), value, expected) for path, value, expected in of_strategy
        ]
        able, decided_by = (clients, None) if of_strategy else self.strategy.able_clients(clients)
        wanted = self.training.clients_per_round
        if wanted is not None and wanted > able:
            expected = f"<= {decided_by or counted_by} ({able})"
            misfits.append((("training", "clients_per_round"), wanted, expected))
        return misfits

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        training, clients = self.training, self.partition.stated_clients
        misfits = [] if clients is None else self.misfits_of_clients(clients, "partition.num_clients")
        if training.warmup_rounds > training.rounds:
            # Whoever asks for fewer rounds of a config that ships cannot mend it at the line that is named.
            expected = f"<= training.rounds ({training.rounds}), as of --set training.warmup_rounds={training.rounds}"
            misfits.append((("training", "warmup_rounds"), training.warmup_rounds, expected))
        links, tiers = self.federation.links, self.strategy.num_tiers
        if links is not None and len(links) not in {1, tiers}:
            expected = "one link" if tiers == 1 else f"one link, or {tiers}, one for each tier of the strategy"
            misfits.append((("federation", "links"), links, expected))
        if training.class_weights and training.logit_adjustment:
            expected = "false, or training.logit_adjustment false: both let rare classes count for more"
            misfits.append((("training", "class_weights"), True, expected))
        if self.data.server is not None and self.data.server_images is False:
            misfits.append((("data", "server_images"), False, "true or null, as there is data.server"))
        if self.federation.joining and self.engine.superlink is None:
            misfits.append((("federation", "joining"), True, "false: without engine.superlink nobody can join"))
        if misfits:
            raise misfit(misfits)
        return self


def load_train_config(name_or_path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> TrainConfig:
    """Return a training config with its paths resolved.

    A shipped space keeps its name; the path of any other space and `data.root` become absolute.

    Args:
        name_or_path: A shipped config (`digits`) or the path of a YAML file.
        overrides: `key.path=value` assignments, as of `--set`.

    Raises:
        ConfigError: No such config or space, or anything in it is wrong; names the file and line, or the `--set`.
    """
    document = apply_overrides(load_yaml(resources.find("configs", name_or_path)), overrides)
    config = validate(document, TrainConfig)
    data = _found(config.data, document, ("data",))
    if data.server is not None:
        data = data.model_copy(update={"server": _found(data.server, document, ("data", "server"))})
    engine = config.engine
    if engine.root_certificates is not None:
        beside = _folder(document, ("engine", "root_certificates"))
        engine = engine.model_copy(update={"root_certificates": _resolved(beside / engine.root_certificates)})
    return config.model_copy(update={"data": data, "engine": engine, "space": _space(config.space, document)})


def _found(images: Images, document: Document, path: KeyPath) -> Images:
    """Return images with an absolute root."""
    if images.root is None:
        return images
    return images.model_copy(update={"root": _resolved(_folder(document, (*path, "root")) / images.root)})


def _resolved(path: Path) -> Path:
    """Return the absolute path, which stands in the config of a run."""
    resources.check_name(str(path))
    resolved = path.resolve()
    resources.check_name(str(resolved))
    try:
        resolved.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{resolved}: no file can have this name") from error
        # Whether it has to be there, and what, is for those to say who read it.
    return resolved


def _folder(document: Document, path: KeyPath) -> Path:
    """Return what a relative path is relative to, which depends on who wrote it."""
    return Path.cwd() if document.is_overridden(path) else document.path.parent


def _space(space: str, document: Document) -> str:
    """Return the name of a shipped space, or the absolute path of another one."""
    try:
        path = resources.find("configs/spaces", space, beside=_folder(document, ("space",)))
    except ConfigError as error:
        raise ConfigError(f"{document.where(('space',))}: space: {error}") from error
    path = _resolved(path)
    is_shipped = path.parent == resources.shipped_folder("configs/spaces").resolve()
    return path.stem if is_shipped else str(path)
