"""Where images are and how they are read: what configs of servers and of devices have in common."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedsup_deploy import places, registry
from fedsup_deploy.config.section import Section


def known(kind: str) -> AfterValidator:
    """Return what refuses a name that is not registered."""

    def check(name: str) -> str:
        if name not in registry.names(kind):
            raise ValueError(f"unknown {kind} {name!r}{registry.nearest(name, registry.names(kind))}")
        return name

    return AfterValidator(check)


def _expanded(path: Path) -> Path:
    return Path(places.expanded(str(path)))


#: A path as a user means it: `~` is a home folder.
Place = Annotated[Path, AfterValidator(_expanded)]


class ImagesConfig(Section):
    """A data set, and how its images are read."""

    dataset: Annotated[str, known("dataset")]
    """A registered dataset, such as `digits`, `cifar10` or `image-folder`."""
    root: Place | None = None
    """Folder (or file) of the images. A relative path starts at the config file's folder, or, given by `--set`, at the
    working folder; `~` is a home folder. null for datasets that bring their own."""
    image_size: Annotated[int, Field(ge=1, le=2048)] | None = None
    """Side in pixels, at most 2048, of the square that each image is made, of whatever size and shape it is; devices
    then do the same. null: images are used as they are, and must all be square and of one size."""
    resize: Literal["crop", "pad", "stretch"] = "crop"
    """How an image is made a square of `image_size`, antialiased. `crop`: the central square of it. `pad`: all of it,
    with black bars. `stretch`: all of it, whatever its shape."""
    cache_mib: Annotated[int, Field(ge=0, le=2**24)] | None = None
    """MiB of decoded images that are kept in a temporary file at most, of images in files; what is not kept is decoded
    again in each pass. null: a quarter of the machine's memory, or half of the free room there if that is less."""

    @property
    def made_square(self) -> str | None:
        """How images are made squares; None where they are used as they are."""
        return None if self.image_size is None else self.resize
