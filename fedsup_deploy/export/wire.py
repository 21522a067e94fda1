"""Protocol buffers of strangers, read without their library: what is not expected is refused before it takes memory.

A library that reads any message makes objects of what a file says, a hundred times its size if a stranger wants that.
Here a message is cut into its fields, of which only the known ones may stand there, and an array of floats takes what
it does in the file.

Source of the encoding: protobuf.dev, "Encoding".
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice.printable import printable

#: Of one message; more than the layers of any network.
_MOST_FIELDS: Final = 50_000
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_MOST_BYTES_OF_VARINT: Final = 10

#: Numbers of the fields that a message may have, by name.
Known = Mapping[str, int]


class Message:
    """One message: each getter returns a field, or what the format says of one that is left out.

    Args:
        content: Its bytes.
        known: Its fields.
        what: What it is, for messages.

    Raises:
        ArtifactError: It has another field, or is no message. Getters raise it where a field is of another kind, or a
            single one stands there twice.
    """

    def __init__(self, content: memoryview, known: Known, what: str) -> None:
        self._known, self._what = known, what
        self._found: dict[int, list[tuple[int, memoryview]]] = {}
        numbers = {*known.values()}
        for count, (number, kind, value) in enumerate(self._fields(content)):
            if number not in numbers:
                raise self.wrong(f"got the field {number}, expected {', '.join(known)} alone")
            if count >= _MOST_FIELDS:
                raise self.wrong(f"got more than {_MOST_FIELDS:,} fields")
            self._found.setdefault(number, []).append((kind, value))

    def wrong(self, what: str) -> ArtifactError:
        """Return the error that says what is wrong with it."""
        return ArtifactError(f"{printable(self._what)}: {what}")

    def has(self, name: str) -> bool:
        """Return whether a field stands there."""
        return self._known[name] in self._found

    def integer(self, name: str) -> int:
        """Return a whole number, without a sign; 0 where it is left out."""
        value = self._single(name, _VARINT)
        return 0 if value is None else self._varint(value, 0)[0]

    def real(self, name: str) -> np.float32:
        """Return a float; 0 where it is left out."""
        value = self._single(name, _FOUR_BYTES)
        return np.float32(0) if value is None else np.frombuffer(value, "<f4")[0]

    def text(self, name: str) -> str:
        """Return a text; nothing where it is left out."""
        value = self._single(name, _BYTES)
        return "" if value is None else self._text(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return texts."""
        return tuple(self._text(value) for value in self._all(name))

    def integers(self, name: str) -> tuple[int, ...]:
        """Return whole numbers, which stand there as one array."""
        value = self._single(name, _BYTES)
        found: list[int] = []
        at = 0
        while value is not None and at < len(value) and len(found) < _MOST_FIELDS:
            number, at = self._varint(value, at)
            found.append(number)
        return tuple(found)

    def reals(self, name: str) -> NDArray[np.float32]:
        """Return floats, which stand there as one array."""
        value = self._single(name, _BYTES)
        if value is None:
            return np.zeros(0, np.float32)
        if len(value) % 4:
            raise self.wrong(f"{name}: got {len(value):,} bytes, expected floats")
        return np.frombuffer(value, "<f4").astype(np.float32)

    def message(self, name: str, known: Known) -> "Message":
        """Return a message in it; one without fields where it is left out."""
        value = self._single(name, _BYTES)
        return Message(memoryview(b"") if value is None else value, known, f"{self._what}: {name}")

    def messages(self, name: str, known: Known) -> Iterator["Message"]:
        """Yield messages in it."""
        for index, value in enumerate(self._all(name)):
            yield Message(value, known, f"{self._what}: {name}[{index}]")

    def _single(self, name: str, kind: int) -> memoryview | None:
        values = self._found.get(self._known[name], [])
        if len(values) > 1 or any(its != kind for its, _ in values):
            raise self.wrong(f"{name}: it stands there twice, or is of another kind")
        return values[0][1] if values else None

    def _all(self, name: str) -> list[memoryview]:
        values = self._found.get(self._known[name], [])
        if any(kind != _BYTES for kind, _ in values):
            raise self.wrong(f"{name}: it is of another kind")
        return [value for _, value in values]

    def _text(self, value: memoryview) -> str:
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError:
            raise self.wrong("a text is no UTF-8") from None

    def _fields(self, content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """Yield the fields of a message: number, kind, and the bytes of the value."""
        at = 0
        while at < len(content):
            tag, start = self._varint(content, at)
            kind = tag & 7
            if kind == _VARINT:
                _, at = self._varint(content, start)
            elif kind == _BYTES:
                size, start = self._varint(content, start)
                at = start + size
            elif kind in {_FOUR_BYTES, _EIGHT_BYTES}:
                at = start + (4 if kind == _FOUR_BYTES else 8)
            else:
                raise self.wrong(f"got a field of the kind {kind}, which the format has no longer")
            if at > len(content):
                raise self.wrong("it ends within a field")
            yield tag >> 3, kind, content[start:at]

    def _varint(self, content: memoryview, at: int) -> tuple[int, int]:
        """Return a number of seven bits in each byte, and where it ends."""
        number = 0
        for index, byte in enumerate(content[at : at + _MOST_BYTES_OF_VARINT]):
            number |= (byte & 127) << (7 * index)
            if byte < 128:
                return number, at + index + 1
        raise self.wrong("it ends within a number, or has one of more than 64 bits")
