"""The server's images: split off those of a data set that clients share, or a data set of its own. Torch-free."""

from collections.abc import Iterable

from fedsup_deploy.config.images import ImagesConfig
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.dataset import DatasetSplits, LabelledImages, load_dataset, split_off
from fedsup_deploy.data.devices import Form
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.runs.own_images import reading_of


def servers(
    config: TrainConfig, splits: DatasetSplits
) -> tuple[LabelledImages, LabelledImages | None, LabelledImages | None, list[str]]:
    """Return the training images that are left for clients, the server's validation and test images, and notes.

    Raises:
        ConfigError: The server is to have images, and all are of clients.
        DataError: Images of its own are missing or damaged, or are not as those of clients.
    """
    if config.data.server is not None:
        brought = load_dataset(config.data.server.dataset, config.data.server.root, reading_of(config.data.server))
        return splits.train, *_own(config.data.server, brought, splits, config.data.made_square)
    owned = splits.owners.clients_N if splits.owners is not None else {}
    # What is some client's own is never the server's.
    validation, test = (
        None if split in owned else images
        for split, images in (("validation", splits.validation), ("test", splits.test))
    )
    can_have = test is not None and (validation is not None or splits.owners is None)
    if not config.server_has_images:
        unused = {kind: len(part) for kind, part in (("validation", validation), ("test", test)) if part}
        cures = ([_how_to_own(config, unused)] if splits.owners else []) + ["set data.server_images: true"] * can_have
        told = ", ".join(f"{kind} ({count:,})" for kind, count in unused.items())
        of_nobody = "images of no client are not used, as the server has none (data.server_images)"
        return splits.train, None, None, [f"{of_nobody}: {told}; {' or '.join(cures)}"] if unused else []
    if test is None or not can_have:
        raise ConfigError("data.server_images: got true, but all images are of clients; expected false or null")
    if validation is not None:
        notes = []
        if "validation_fraction" in config.data.model_fields_set:
            own = f"{config.data.dataset} brings validation images of its own ({len(validation):,})"
            notes = [f"data.validation_fraction is not used: {own}"]
        return splits.train, validation, test, notes
    return *split_off(splits.train, config.data.validation_fraction, config.seed), test, []


def _own(
    config: ImagesConfig, own: DatasetSplits, clients: DatasetSplits, clients_made_square: str | None
) -> tuple[LabelledImages, LabelledImages | None, list[str]]:
    """Return the validation and test images of a data set of the server's own, and notes.

    Raises:
        DataError: They are not as those of clients.
    """
    squares = clients.made_square if clients.made_square is not None else clients_made_square
    theirs = Form(clients.train.classes, clients.train.image_shape, clients.train.pixel_dtype, squares)
    ours = Form(own.train.classes, own.train.image_shape, own.train.pixel_dtype, config.made_square)
    if (difference := ours.differs_from(theirs)) is not None:
        raise DataError(f"data.server: {difference}; subnets are compared on images as those of clients")
    notes = [f"data.server: {note}" for note in own.notes]
    if own.validation is None:
        return own.train, own.test, notes
    return own.validation, own.test, [*notes, f"data.server: training images that nobody uses: {len(own.train):,}"]


def _how_to_own(config: TrainConfig, splits: Iterable[str]) -> str:
    """Return how to say whose the images of splits are, of which the data set does not say it."""
    listed = config.partition.client_list(config.data.root)
    if listed is not None and listed.path is not None:
        return f"list them in {listed.path.name}"
    keys = {"validation": "val_clients", "test": "test_clients"}
    return f"say whose they are in {' and '.join(keys[split] for split in splits)}"
