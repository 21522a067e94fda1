"""`CompareAnswers`: on how many images two files of a network are right, and on which of them only one is."""

import dataclasses
from typing import ClassVar

import torch

from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import Client
from fedsup_deploy.federation.encoding import WireBlob, WireInt
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.ondevice import inference

_BATCH_SIZE = 250
_FIRST, _SECOND = "first", "second"


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The answer. Counts of images, which add up over clients.

    Args:
        both: Both are right about them.
        only_first: The first alone is.
        only_second: The second alone is.
        neither: None is.
    """

    both: WireInt
    only_first: WireInt
    only_second: WireInt
    neither: WireInt

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(*(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)))

    @property
    def share_of_second(self) -> float:
        """Share of the images that the second is right about."""
        return (self.both + self.only_second) / sum(self.counts)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """In the order of the fields."""
        return self.both, self.only_first, self.only_second, self.neither


@dataclasses.dataclass(frozen=True)
class CompareAnswers:
    """Compare two ONNX files, which read the same images, by their right answers.

    Args:
        models: The content of both: see `both_of`.
        images: Which of the client's images, one of `IMAGES`.
        preprocessing: Of the images, for the models' resolution.
    """

    kind: ClassVar[str] = "agreement"
    reply: ClassVar[type] = Agreement

    models: WireBlob
    images: str
    preprocessing: Preprocessing

    def perform(self, client: Client) -> Agreement:
        """Return the counts.

        Raises:
            DataError: The client has none of these images, or a model cannot be run here.
        """
        x_NCHW, labels_N = client.prepared(self.images, self.preprocessing)
        counts = [0, 0, 0, 0]
        try:
            sessions = [
                inference.open_session(self.models.tensors[name].numpy().tobytes(), threads=1)
                for name in (_FIRST, _SECOND)
            ]
            for start in range(0, len(x_NCHW), _BATCH_SIZE):
                x_BCHW, labels_B = x_NCHW[start : start + _BATCH_SIZE], labels_N[start : start + _BATCH_SIZE]
                first_B, second_B = (inference.bind(each, x_BCHW)().argmax(axis=1) == labels_B for each in sessions)
                some = (first_B & second_B, first_B & ~second_B, second_B & ~first_B, ~first_B & ~second_B)
                counts = [count + int(which_B.sum()) for count, which_B in zip(counts, some, strict=True)]
        except inference.runtime_errors() as error:
            raise DataError(f"a model cannot be run: {inference.first_line(error)}") from error
        return Agreement(*counts)


def both_of(first: bytes, second: bytes) -> Blob:
    """Return the contents of two ONNX files as a blob, which travels once."""
    contents = {_FIRST: first, _SECOND: second}
    return Blob({name: torch.frombuffer(bytearray(of), dtype=torch.uint8) for name, of in contents.items()})
