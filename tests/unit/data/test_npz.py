"""Archives of strangers: what is read of them, and what is refused before it is read."""

import io
import os
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fedsup_deploy.data.npz import Archive, read_npz

MAX_BYTES = 1 << 20


def archive_of(**arrays: Any) -> bytes:
    stored = io.BytesIO()
    np.savez_compressed(stored, **arrays)
    return stored.getvalue()


def read(content: bytes, *wanted: str, max_bytes: int = MAX_BYTES) -> Archive:
    return read_npz(io.BytesIO(content), wanted, max_bytes)


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    stored = io.BytesIO()
    np.lib.format.write_array_header_1_0(stored, {"descr": descr, "fortran_order": False, "shape": shape})
    return stored.getvalue()


def members(method: int = zipfile.ZIP_DEFLATED, **contents: bytes) -> bytes:
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return stored.getvalue()


@given(
    array=st_numpy.arrays(
        st.sampled_from(["u1", "i8", "f4", ">i2", "?", "U3", "S2"]), st_numpy.array_shapes(min_dims=0, min_side=0)
    ),
    is_fortran=st.booleans(),
    is_compressed=st.booleans(),
)
def test_what_numpy_writes_is_read(array: "np.ndarray[Any, Any]", is_fortran: bool, is_compressed: bool) -> None:
    stored = io.BytesIO()
    save = np.savez_compressed if is_compressed else np.savez
    save(stored, a=np.asfortranarray(array) if is_fortran else array, b=[1])
    arrays, unread = read(stored.getvalue(), "a", "absent")
    assert list(arrays) == ["a"]
    assert unread == ("b",)
    assert arrays["a"].dtype == array.dtype
    np.testing.assert_array_equal(arrays["a"], array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (members(a=b"hello"), "a is no array of NumPy's format 1.0"),
        (members(a=b""), "a is no array of NumPy's format 1.0"),
        (members(a=header((1 << 32, 1 << 10))), r"a has 0 bytes, expected 4,398,046,511,104 for \(4294967296, 1024\)"),
        (members(a=header((-1,))), "a is uint8 of shape"),
        (members(a=header((1 << 62,), "<U0")), "a is <U0 of shape"),
        (members(a=header((2,)) + b"123"), r"a has 3 bytes, expected 2"),
        (members(a=b"\x93NUMPY\x01\x00\xff\xff"), "a has a header of 65,535 bytes, expected at most 10,000"),
        (members(a=b"\x93NUMPY\x01\x00\x70\x17" + b"(" * 6000), "garbled header|Cannot parse header"),
        (members(a=b"\x93NUMPY\x01\x00\x03\x00'''"), "garbled header|Cannot parse header"),
        (members(zipfile.ZIP_BZIP2, a=header((1,)) + b"1"), "compressed by method 12"),
        (archive_of(a=np.array([{}], dtype=object)), "a holds Python objects, and allow_pickle=False"),
        (archive_of(a=np.zeros(2 * MAX_BYTES, np.uint8)), "its arrays take 2,097,152 bytes, more than 1,048,576"),
    ],
)
def test_what_is_no_plain_array_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read(content, "a")


def test_all_wanted_arrays_share_the_limit() -> None:
    content = archive_of(a=np.zeros(60, np.uint8), b=np.zeros(60, np.uint8), c=np.zeros(60, np.uint8))
    assert read(content, "a", "b", max_bytes=120).unread == ("c",)
    with pytest.raises(ValueError, match="its arrays take 120 bytes, more than 119"):
        read(content, "a", "b", max_bytes=119)


def test_an_encrypted_member_is_refused() -> None:
    content = bytearray(archive_of(a=[1]))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    with pytest.raises(ValueError, match="a is encrypted"):
        read(bytes(content), "a")


def test_two_members_of_one_name_are_refused() -> None:
    content = members(a=header((1,)) + b"1", b=header((1,)) + b"2").replace(b"b.npy", b"a.npy")
    with pytest.raises(ValueError, match="two arrays have one name"):
        read(content, "a")


def test_a_member_that_unfolds_to_more_than_it_says_is_cut_off() -> None:
    """The directory and the header say one byte; a bomb follows. Its checksum is not that of one byte."""
    content = bytearray(members(a=header((1,)) + bytes(MAX_BYTES)))
    said = struct.pack("<I", len(header((1,))) + MAX_BYTES)
    shorter = struct.pack("<I", len(header((1,))) + 1)
    assert content.count(said) == 2
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read(bytes(content.replace(said, shorter)), "a")


def test_no_memory_is_taken_for_what_is_refused(tmp_path: Path) -> None:
    """3 GiB of zeros in 4 MiB, read by a process that may have 1 GiB. Its wrong checksum nobody comes to see."""
    path = tmp_path / "bomb.npz"
    pressed = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = header((3 << 30,))
    body = pressed.compress(start) + pressed.flush(zlib.Z_FULL_FLUSH)
    # After such a flush what follows is compressed on its own, so the same bytes can be there again and again.
    body += (pressed.compress(bytes(1 << 20)) + pressed.flush(zlib.Z_FULL_FLUSH)) * (3 << 10) + pressed.flush()
    size = len(start) + (3 << 30)
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(body), size, 5, 0)
    directory = b"PK\x01\x02" + struct.pack("<H", 20) + fields + bytes(14) + b"a.npy"
    local = b"PK\x03\x04" + fields + b"a.npy"
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), len(local) + len(body), 0)
    path.write_bytes(local + body + directory + end)
    assert path.stat().st_size < 4 << 20
    code = (
        "import sys; from fedsup_deploy.data.npz import read_npz\n"
        "try: read_npz(open(sys.argv[1], 'rb'), ['a'], 1 << 29)\n"
        "except ValueError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert ran.stdout == "its arrays take 3,221,225,472 bytes, more than 536,870,912\n", ran.stderr


@given(place=st.integers(0, 700), removed=st.integers(0, 8), inserted=st.binary(max_size=8))
@settings(max_examples=200)
def test_damage_leads_to_no_other_exception(place: int, removed: int, inserted: bytes) -> None:
    content = archive_of(a=np.arange(50, dtype=np.uint8), b=np.array(["x", "yy"]))
    damaged = content[:place] + inserted + content[place + removed :]
    try:
        arrays, _ = read(damaged, "a", "b")
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile):
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
