"""What an exporter is, and what all of them share.

An exporter turns a folded network into files that answer for any batch size, or for one image where a runtime takes no
other and the format knows such files, and loads them back into their real
runtime for the gate. Two exports of equal weights give equal bytes, in any process. Nothing here decides which variants
a bundle has.

Shape suffixes: B batch, C channels, H W spatial, K classes.
"""

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import registry
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import DependencyError, GateError
from fedsup_deploy.ondevice.bundle_outputs import BATCHES
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    import torch

    from fedsup_deploy.supernet.deployable import FoldedNetwork

#: What a file says of itself beside what it computes, so that it can be used where it lies alone: texts by name.
Facts = Mapping[str, str]
Runnable = Callable[[NDArray[np.float32]], NDArray[np.float32]]
#: How many images files take at once: any number; one, where a network is to be `is_static`; one, always.
Batch = Literal["dynamic", "either", "static"]

# A path of this machine: two components or more after a slash that starts a word, or a Windows drive.
_MACHINE_PATH = re.compile(rb"(?<![\w.:/)\]-])/[\w.+-]+/[\w.+-]+|(?<!\w)[A-Za-z]:\\[\w.]")

Layout = Literal["nchw", "nhwc"]


class Exporter(Protocol):
    """One file format.

    Attributes:
        name: The registered name, such as `onnx`.
        precisions: What it writes.
        needs: Libraries beyond the core that it uses, by their names in Python, and the extra that installs each. It
            imports them when it exports or loads, not before, as it does torch.
        runtime: The library that runs its files, by its name in Python; one of those above, or of the core. It is
            `THIS_PROGRAM` where none can here, and `load` reads a file back and computes what it says.
        batch: How many images its files take at once.
        needs_signature: Whether `verify` runs its files only where a key has proved who made them: they may hold code,
            or its runtime is no place for a stranger's file.
        tolerance: Largest scaled difference of a logit in fp32, from the network and between an image alone and in a
            batch: `TOLERANCE`, or more where the runtime is known to compute with fewer digits.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[Precision, ...]]
    needs: ClassVar[Mapping[str, str]]
    runtime: ClassVar[str]
    batch: ClassVar[Batch]
    needs_signature: ClassVar[bool]
    tolerance: ClassVar[float]

    def refusal(self, accepts: Accepts) -> str | None:
        """Return why a runtime that accepts so much would not load what is written here; None where it would."""

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network.

        Args:
            network: From images to logits, in float32.
            facts: What the files say of themselves.
            folder: Where files and folders go; other formats write there as well.

        Returns:
            The names of the files, below `folder` and with `/` between folders; first the one a runtime is given.

        Raises:
            GateError: What a converter has written would hold a path of this machine; of LiteRT, whose values are named
                anew, nothing looks for one.
            OutputError: A file cannot be written.

        Side effects: Writes each file atomically.
        """

    def load(self, path: Path) -> Runnable:
        """Return images to logits as computed by the format's own runtime.

        For files that this process has just written or whose hash was checked; a format may carry code.

        Args:
            path: The first of the files; the others lie where they were written.

        Raises:
            ArtifactError: The runtime does not accept the file.
        """


def layout_of(exporter: Exporter) -> Layout:
    """Return the order of the dimensions of images that files of an exporter take: its `layout`, where it has one."""
    layout: Layout = getattr(exporter, "layout", "nchw")
    return layout


@runtime_checkable
class Counting(Protocol):
    """An exporter that says how its files came out, in numbers that a manifest keeps."""

    def counted(self, path: Path) -> Mapping[str, int]:
        """Return what is counted in a file that was written, by name, such as convolutions that a delegate computes."""


def counted_in(exporter: Exporter, path: Path) -> dict[str, int]:
    """Return what an exporter counts in a file of its own; nothing where it counts nothing.

    Args:
        exporter: It.
        path: The first of the files.
    """
    return dict(exporter.counted(path)) if isinstance(exporter, Counting) else {}


def exporter_for(name: str) -> Exporter:
    """Return the exporter registered as `name`.

    Raises:
        ConfigError: No such exporter; the message names the nearest one.
        DependencyError: A library that it needs is not installed; the message says how to install it.
    """
    exporter: Exporter = registry.resolve("exporter", name)()
    missing = missing_libraries(exporter)
    if missing:
        what = f"format {name}: {', '.join(missing)} is not installed"
        raise DependencyError(f"{what}; run: {_installing(exporter, missing)}")
    return exporter


def missing_libraries(exporter: Exporter) -> list[str]:
    """Return the libraries that an exporter needs and that are not installed."""
    return [library for library in exporter.needs if not _is_installed(library)]


def how_to_run(exporter: Exporter) -> str | None:
    """Return the command that installs what runs the files of an exporter; None where it is there."""
    return None if _is_installed(exporter.runtime) else _installing(exporter, [exporter.runtime])


def _installing(exporter: Exporter, libraries: Sequence[str]) -> str:
    extras = sorted({exporter.needs[library] for library in libraries if library in exporter.needs})
    of_core = sorted(library for library in libraries if library not in exporter.needs)
    return " ".join(["pip install", *of_core, *([f"'fedsup-deploy[{','.join(extras)}]'"] if extras else [])])


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def is_static(exporter: Exporter, *, is_asked: bool) -> bool:
    """Return whether the files of an exporter take one image at a time.

    Args:
        exporter: It.
        is_asked: Whether the device's runtime takes no more.
    """
    return exporter.batch == "static" or (is_asked and exporter.batch == "either")


def batches_for(exporter: Exporter, *, is_asked: bool) -> tuple[int, ...]:
    """Return with how many images at once its files are checked; see `is_static`."""
    return (1,) if is_static(exporter, is_asked=is_asked) else BATCHES


def unfit_layout(accepts: Accepts) -> str | None:
    """Return why a runtime would not take images as files of ours want them, N C H W; None if it would."""
    if accepts.layout == "nhwc":
        return "its runtime takes images as NHWC, and files of this format take them as NCHW"
    return None


def trace_input(network: "FoldedNetwork") -> "torch.Tensor":
    """Return zeros shaped like two images: a batch of one would make tracers fix the batch size."""
    import torch

    stem = network.plan.stem
    return torch.zeros(2, stem.in_channels, stem.in_size, stem.in_size)


def refuse_machine_paths(where: str, content: bytes) -> None:
    """Fail if text that goes into a file names a path of the machine that writes it.

    Args:
        where: The file, and the part of it, for the message.
        content: Everything but tensor values, whose bytes may look like anything.

    Raises:
        GateError: It does.
    """
    found = _MACHINE_PATH.search(content)
    if found is not None:
        shown = found.group().decode("ascii", "replace")
        raise GateError(f"{where}: got the machine path {shown!r}, expected none; use a tested torch version")


def runnable(module: "Callable[[torch.Tensor], torch.Tensor]") -> Runnable:
    """Return a torch module as a function from arrays to arrays, without gradients and on one thread.

    One thread, like the other runtimes of the gate: sums do not depend on the number of cores, and small networks do
    not wait for threads on a busy machine.
    """
    import torch

    def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad(), _one_thread():
            logits_BK: NDArray[np.float32] = module(torch.tensor(images_BCHW)).numpy()
        return logits_BK

    return run


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
