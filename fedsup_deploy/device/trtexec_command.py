"""The command that a log of trtexec ends with: what trtexec was told to make or load, and to time.

Owns what trtexec's options mean, read off its `samples/common/sampleOptions.cpp`: the shape that it times is that of
`--shapes`, else that of `--optShapes`; a shape stands behind the last colon; a name may be in single quotes.
"""

import re
from collections.abc import Iterator
from typing import Final, Literal

from fedsup_deploy.artifact.manifest import TensorSpec
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.printable import printable

#: What the commands in docs/devices.md call it.
ENGINE: Final = "model.engine"

_MOST_OF_A_COMMAND: Final = 1000
_MOST_OF_A_TEXT: Final = 400
_FOLDER: Final = re.compile(r"(?:(?<!\w)[A-Za-z]:)?[^\s=:,]*[/\\]")
_SHAPES: Final = ("--shapes", "--optShapes", "--minShapes", "--maxShapes")
_SMALLER: Final = frozenset({"--int8", "--int4", "--fp8", "--fp4", "--best", "--calib"})
#: With these, what a layer is computed in is neither that of --fp16 nor fp32.
_OTHER_PRECISIONS: Final = frozenset({"--bf16", "--stronglyTyped"})
#: What makes another measurement of it than that of one image after the other.
_OTHER_TIMING: Final = re.compile(r"--(noDataTransfers|(?:streams|infStreams|batch)=(?!1\b)\S*)(?=\s|$)")


class TrtexecCommand:
    """A command of trtexec.

    Args:
        line: As trtexec prints it.
        where: The log's name, for messages.
    """

    def __init__(self, line: str, where: str) -> None:
        self._line = line
        self._where = where
        self._options = [(name, value) for name, _, value in (word.partition("=") for word in line.split())]
        self._names = {name for name, _ in self._options}

    @property
    def text(self) -> str:
        """The command without folders."""
        text = _FOLDER.sub("", self._line[:_MOST_OF_A_COMMAND]).strip() or "trtexec"
        return printable(text, _MOST_OF_A_TEXT)

    @property
    def is_of_a_loaded_engine(self) -> bool:
        """Whether an engine was loaded, of whose making trtexec knows nothing."""
        return "--loadEngine" in self._names

    @property
    def precision(self) -> Literal["fp32", "fp16"] | None:
        """The lowest that trtexec was told to allow; None where it was told of another, or made no engine."""
        if self.is_of_a_loaded_engine or self._names & _OTHER_PRECISIONS:
            return None
        return "fp16" if "--fp16" in self._names else "fp32"

    def check_measurement(self) -> None:
        """Fail unless one image after the other is timed, with its way to the GPU and back, in fp16 or fp32.

        Raises:
            ArtifactError: Something else is.
        """
        other = _OTHER_TIMING.search(self._line)
        if other:
            raise self._refused(f"--{printable(other[1], 60)}, which times something else; run trtexec without it")
        for name in sorted(self._names & _SMALLER):
            reason = "trtexec has no ranges of your clients for it"
            raise self._refused(f"{name}, expected an engine of --fp16 or fp32: {reason}")

    def check_file(self) -> None:
        """Fail unless it is about a file of the model's name, or an engine.

        Raises:
            ArtifactError: It is not.
        """
        names = set(self._files("--onnx"))
        if names - {bundle_files.MODEL} or not (names or self.is_of_a_loaded_engine):
            got = printable(", ".join(sorted(names)) or "no ONNX file", _MOST_OF_A_TEXT)
            raise self._refused(f"a log about {got}, expected one about this bundle's {bundle_files.MODEL}")

    def check_engine(self, tensor: TensorSpec) -> None:
        """Fail where the engine has another name than ours: for where no shape says that it is of the model.

        Raises:
            ArtifactError: It has.
        """
        others = {*self._files("--loadEngine"), *self._files("--saveEngine")} - {ENGINE}
        if others:
            got = printable(", ".join(sorted(others)), _MOST_OF_A_TEXT)
            expected = f"{ENGINE}, or --shapes={tensor.name}:1x{sizes_of(tensor)} in its command"
            raise self._refused(f"a log about the engine {got}, which says no shape, expected {expected}")

    def timed(self, tensor: TensorSpec) -> str | None:
        """Return the shape of what is timed; None where the command does not say it.

        Args:
            tensor: The model's input.

        Raises:
            ArtifactError: It, or another shape that the engine is made for, is that of another model.
        """
        found: dict[str, set[str]] = {option: set() for option in _SHAPES}
        for option, name, shape in self._shapes():
            check_shape(name, shape, tensor, self._where)
            found[option].add(shape)
        timed = found["--shapes"] or found["--optShapes"]
        return timed.pop() if len(timed) == 1 else None  # of several optimisation profiles any may be timed

    def _shapes(self) -> Iterator[tuple[str, str, str]]:
        for option, value in self._options:
            for each in value.split(",") if option in _SHAPES else ():
                name, _, shape = each.rpartition(":")
                yield option, name.strip("'\""), shape

    def _files(self, option: str) -> list[str]:
        return [re.split(r"[/\\]", value)[-1] for name, value in self._options if name == option]

    def _refused(self, got: str) -> ArtifactError:
        return ArtifactError(f"{self._where}: got {got}")


def sizes_of(tensor: TensorSpec) -> str:
    """Return the sizes of a tensor as trtexec writes them, without that of the batch."""
    return "x".join(str(size) for size in tensor.shape[1:])


def check_shape(name: str, shape: str, tensor: TensorSpec, where: str) -> None:
    """Fail unless an input has the name of the model's, and its sizes but for the batch.

    Raises:
        ArtifactError: It has not.
    """
    _, _, rest = shape.partition("x")
    if (name, rest) != (tensor.name, sizes_of(tensor)):
        got = f"the input {printable(name, 60)} of shape {printable(shape, 60)}"
        expected = f"{tensor.name} of shape 1x{sizes_of(tensor)}"
        raise ArtifactError(f"{where}: got {got}, expected {expected}: it is of another model")
