"""A file in ORT format whose entries are in one order: onnxruntime writes some as they lie in a hash table.

Those are which types each kind of operation has; they stand before the model, which stays as it is, byte for byte.

Source of the layout: ort.fbs of onnxruntime, version 6 of the format.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from fedsup_deploy.errors import GateError

if TYPE_CHECKING:
    from flatbuffers import Builder
    from flatbuffers.table import Table

_IDENTIFIER: Final = b"ORTM"
#: Fields of the outermost table.
_VERSION, _MODEL, _TYPES = 0, 1, 3
_BYTES_OF_OFFSET: Final = 4
#: Of anything in such a file, and more.
_ALIGNMENT: Final = 16


class _Argument(NamedTuple):
    """An input or output of an operation that has a type."""

    kind: int
    place: int


class _Types(NamedTuple):
    """What is said of one kind of operation, or of one of its types: a name, and what that is of."""

    name: bytes
    of: "tuple[_Types | _Argument, ...]"


def in_one_order(content: bytes) -> bytes:
    """Return a file with the same model and the same types of operations, these by their names.

    Raises:
        GateError: It is of another version of the format.
    """
    from flatbuffers import Builder, encode, packer
    from flatbuffers.table import Table

    root = Table(bytearray(content), encode.Get(packer.uoffset, content, 0))
    if content[4:8] != _IDENTIFIER or not all(root.Offset(4 + 2 * field) for field in (_VERSION, _MODEL, _TYPES)):
        raise GateError("ORT format: got another form than that of version 6; use a tested onnxruntime")
    model = _table(root, _MODEL)
    start = min(model.Pos, model.Pos - encode.Get(packer.soffset, content, model.Pos))
    builder = Builder(2 * len(content))
    builder.Prep(_ALIGNMENT, len(content) - start)
    builder.head -= len(content) - start
    builder.Bytes[builder.head :] = content[start:]
    types = _vector(builder, [_write(builder, each) for each in sorted(_read(_table(root, _TYPES), 0, depth=2))])
    version = builder.CreateString(_text(root, _VERSION))
    fields = {_VERSION: version, _MODEL: len(content) - model.Pos, _TYPES: _object(builder, {0: types}, 1)}
    builder.Finish(_object(builder, fields, 4), _IDENTIFIER)
    return bytes(builder.Output())


def _read(table: "Table", field: int, depth: int) -> "list[_Types]":
    """Return what the tables in a field say, each with what its own second field holds."""
    start, found = table.Vector(table.Offset(4 + 2 * field)), []
    for number in range(table.VectorLen(table.Offset(4 + 2 * field))):
        inner = type(table)(table.Bytes, table.Indirect(start + _BYTES_OF_OFFSET * number))
        of = tuple(sorted(_read(inner, 1, depth - 1))) if depth > 1 else _arguments(inner)
        found.append(_Types(_text(inner, 0), of))
    return found


def _arguments(table: "Table") -> tuple[_Argument, ...]:
    from flatbuffers import number_types

    start, found = table.Vector(table.Offset(6)), []
    for number in range(table.VectorLen(table.Offset(6))):
        inner = type(table)(table.Bytes, table.Indirect(start + _BYTES_OF_OFFSET * number))
        kind = inner.GetSlot(4, 0, number_types.Int8Flags)
        found.append(_Argument(kind, inner.GetSlot(6, 0, number_types.Uint32Flags)))
    return tuple(found)


def _write(builder: "Builder", what: _Types | _Argument) -> int:
    """Add a table; return where it is."""
    if isinstance(what, _Argument):
        builder.StartObject(2)
        builder.PrependInt8Slot(0, what.kind, 0)
        builder.PrependUint32Slot(1, what.place, 0)
        return int(builder.EndObject())
    name = builder.CreateString(what.name)
    return _object(builder, {0: name, 1: _vector(builder, [_write(builder, each) for each in what.of])}, 2)


def _object(builder: "Builder", fields: dict[int, int], num_fields: int) -> int:
    builder.StartObject(num_fields)
    for field, offset in fields.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    return int(builder.EndObject())


def _vector(builder: "Builder", offsets: list[int]) -> int:
    builder.StartVector(_BYTES_OF_OFFSET, len(offsets), _BYTES_OF_OFFSET)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _table(table: "Table", field: int) -> "Table":
    return type(table)(table.Bytes, table.Indirect(table.Pos + table.Offset(4 + 2 * field)))


def _text(table: "Table", field: int) -> bytes:
    return bytes(table.String(table.Pos + table.Offset(4 + 2 * field)))
