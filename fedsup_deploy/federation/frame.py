"""The bytes of a message: a JSON document beside arrays, in the safetensors format, and which protocol it is of.

Owns what the two sides have to agree on before either reads what the other says. Knows neither jobs nor clients.
"""

import json
from typing import Any, Final

import numpy as np
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedsup_deploy.errors import DataError, FedsupError
from fedsup_deploy.version import __version__

#: Any: of whatever element type and shape a message has.
Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

#: What both sides have to speak; it changes with every job or answer whose fields do.
PROTOCOL: Final = 2
#: Longest text of a reason, and longest name of an array.
MAX_TEXT: Final = 300
#: Begins the reason of a client whose answer is of other types, or cannot be read.
MALFORMED_ANSWER: Final = "malformed answer"
#: What is raised for a document that is not what it should be, whatever it holds.
MALFORMED: Final = (FedsupError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

#: Entries of a message's metadata: its JSON, its protocol, and the version of what wrote it.
_DOCUMENT: Final = "document"
_PROTOCOL: Final = "protocol"
_VERSION: Final = "version"


class OtherProtocolError(DataError):
    """A message is of another protocol: whoever has written it has another version installed, and is not at fault."""


def pack(document: dict[str, JsonValue], arrays: Arrays) -> bytes:
    """Return a document and arrays as a message."""
    metadata = {_DOCUMENT: json.dumps(document), _PROTOCOL: str(PROTOCOL), _VERSION: __version__}
    message: bytes = save(arrays, metadata=metadata)
    return message


def unpack(message: bytes) -> tuple[dict[str, JsonValue], Arrays]:
    """Return the document and the arrays of a message.

    Raises:
        OtherProtocolError: It is of another protocol.
        DataError: It is malformed.
    """
    try:
        arrays = load(message)
        length = int.from_bytes(message[:8], "little")
        metadata = json.loads(message[8 : 8 + length])["__metadata__"]
        protocol, version = str(metadata[_PROTOCOL]), str(metadata[_VERSION])
        document = json.loads(metadata[_DOCUMENT]) if protocol == str(PROTOCOL) else {}
    except (SafetensorError, *MALFORMED) as error:
        raise DataError(f"message: {one_line(error)}") from error
    if protocol != str(PROTOCOL):
        theirs = f"protocol {protocol} (fedsup-deploy {version})"
        here = f"here it is {PROTOCOL} (fedsup-deploy {__version__}); install the same version on both sides"
        raise OtherProtocolError(f"message: {short(theirs)}, {here}")
    if not isinstance(document, dict):
        raise DataError(f"message: got {type(document).__name__}, expected an object")
    return document, arrays


def one_line(error: Exception) -> str:
    """Return what an error says, as `short` has it."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return short(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    try:
        return short(str(error))
    except Exception:  # noqa: BLE001  a client's own error may not even be printable
        return type(error).__name__


def short(text: str) -> str:
    """Return a text as a line of moderate length, without what a terminal would obey."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 3]}..."
