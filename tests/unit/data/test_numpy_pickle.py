"""The restricted unpickler: what it reads, and that nothing in a file is ever run."""

import itertools
import os
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsup_deploy.data.numpy_pickle import read_pickled_dict, uint8_array
from fedsup_deploy.errors import DataError

ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4)
_INDICES = [number.to_bytes(4, "little") for number in range(256, 5256)]
# Operations that leave a list on the stack: 5,000 lists, each within the one before it, and all within the first. It
# is too deep to print, and what follows depths does not see that.
DEEP = b"]r" + _INDICES[0] + b"".join(b"j" + a + b"]r" + b + b"aa" for a, b in itertools.pairwise(_INDICES))


class Calls:
    """Pickles as a call of `function(*arguments)`, which an ordinary unpickler would make."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.fixture
def python2_pickle(repository: Path) -> Callable[[Any], bytes]:
    made: Callable[[Any], bytes] = runpy.run_path(str(repository / "tools" / "unpack_image_sheets.py"))[
        "python2_pickle"
    ]
    return made


def write(folder: Path, content: bytes) -> Path:
    path = folder / "batch"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_protocol_are_read(tmp_path: Path, protocol: int, order: Any) -> None:
    rows = np.array(ROWS, order=order)
    content = read_pickled_dict(write(tmp_path, pickle.dumps({"data": rows, "labels": [1, 2]}, protocol)))
    np.testing.assert_array_equal(uint8_array(content["data"], "here"), ROWS)
    assert content["labels"] == [1, 2]


@pytest.mark.parametrize("protocol", [2, 4])
def test_byte_keys_become_text(tmp_path: Path, protocol: int) -> None:
    content = read_pickled_dict(write(tmp_path, pickle.dumps({b"labels": [1], b"names": [b"cat"]}, protocol)))
    assert content == {"labels": [1], "names": [b"cat"]}


def test_what_python_2_wrote_is_read(tmp_path: Path, python2_pickle: Callable[[Any], bytes]) -> None:
    made = python2_pickle({"data": ROWS, "labels": [3, 1, 2], "label_names": ["cat"]})
    content = read_pickled_dict(write(tmp_path, made))
    np.testing.assert_array_equal(uint8_array(content["data"], "here"), ROWS)
    assert content["labels"] == [3, 1, 2]
    assert content["label_names"] == [b"cat"]


@pytest.mark.parametrize(("encoding", "key"), [("bytes", b"data"), ("latin1", "data")])
def test_what_we_write_as_python_2_is_read_by_an_ordinary_unpickler(
    python2_pickle: Callable[[Any], bytes], encoding: str, key: Any
) -> None:
    """So the files serve other programs too, whichever way they treat Python 2's text."""
    content = pickle.loads(python2_pickle({"data": ROWS, "labels": [-1]}), encoding=encoding)  # noqa: S301  our own
    np.testing.assert_array_equal(content[key], ROWS)
    assert content[key].dtype == np.uint8


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_in_a_file_is_refused_and_not_made(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "made-by-the-pickle"
    hostile = [
        Calls(os.mkdir, str(victim)),
        Calls(eval, f"__import__('os').mkdir({str(victim)!r})"),
        Calls(getattr, ROWS, "tofile"),
        Calls(np.save, str(victim), ROWS),
        Calls(np.frombuffer, b"1"),
    ]
    for call in hostile:
        path = write(tmp_path, pickle.dumps({"data": call}, protocol))
        with pytest.raises(DataError, match="do not trust this file"):
            read_pickled_dict(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["batch"]


def test_the_hostile_pickles_do_run_elsewhere(tmp_path: Path) -> None:
    """Shows that the test above would notice: the ordinary unpickler makes the call."""
    victim = tmp_path / "made-by-the-pickle"
    pickle.loads(pickle.dumps(Calls(os.mkdir, str(victim))))  # noqa: S301  the point of the test
    assert victim.is_dir()


@pytest.mark.parametrize(
    "name", [b"numpy\ndtype.__class__", b"numpy\nload", b"builtins\ngetattr", b"numpy.core.multiarray\nfromfile"]
)
def test_names_beside_the_allowed_are_refused(tmp_path: Path, name: bytes) -> None:
    path = write(tmp_path, pickle.PROTO + b"\x02" + pickle.GLOBAL + name + b"\n" + pickle.STOP)
    with pytest.raises(DataError, match="names "):
        read_pickled_dict(path)


def test_stand_ins_are_not_changed_by_a_file(tmp_path: Path) -> None:
    """BUILD could set attributes of what a file names; the next file must not see any."""
    attack = pickle.PROTO + b"\x02" + pickle.GLOBAL + b"_codecs\nencode\n" + pickle.NONE
    attack += pickle.EMPTY_DICT + b"U\x01xK\x01" + pickle.SETITEM + pickle.TUPLE2 + pickle.BUILD + pickle.STOP
    with pytest.raises(DataError, match="not a readable pickle"):
        read_pickled_dict(write(tmp_path, attack))
    content = read_pickled_dict(write(tmp_path, pickle.dumps({b"a": b"b"}, 2)))
    assert content == {"a": b"b"}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (ROWS.astype(np.int64), "type 'i8', expected uint8"),
        (np.array([{}], dtype=object), "type 'O8', expected uint8"),
        ([1, 2], "got list, expected an array"),
        (None, "got NoneType"),
    ],
)
def test_only_uint8_arrays_are_built(tmp_path: Path, value: Any, complaint: str) -> None:
    content = read_pickled_dict(write(tmp_path, pickle.dumps({"data": value}, 4)))
    with pytest.raises(DataError, match=complaint):
        uint8_array(content["data"], "here")


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        (b"K\x05", r"12 bytes do not fill shape \(5, 4\)"),
        (b"K\x00", "no shape of up to 4 positive sides"),
        (b"J\xff\xff\xff\xff", "no shape of"),
        (b"N", "no shape of"),
        (b"]", "no shape of"),
        (DEEP, "no shape of"),
    ],
)
def test_a_shape_that_does_not_fit_the_bytes_is_refused(tmp_path: Path, shape: bytes, complaint: str) -> None:
    """The first side of (3, 4) is overwritten in the pickle: by 5, 0, -1, None, a list, and one too deep to print."""
    made = pickle.dumps({"data": ROWS}, 3)
    assert made.count(b"K\x03K\x04\x86") == 1
    content = read_pickled_dict(write(tmp_path, made.replace(b"K\x03K\x04\x86", shape + b"K\x04\x86")))
    with pytest.raises(DataError, match=complaint):
        uint8_array(content["data"], "here")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x80\x02Nr\x00\x00\x00\x08.", "memo index"),
        (b"\x80\x02})" + b"\x85" * 2_000_000 + b"Ns.", "nested deeper"),
        (b"\x80\x02}NNs.", "keys are no text"),
        (b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"}.", "not a readable pickle"),
        (b"\x80\x04\x96" + (1 << 62).to_bytes(8, "little") + b"}.", "not a readable pickle"),
    ],
)
def test_programs_that_ask_for_too_much_are_not_run(tmp_path: Path, content: bytes, complaint: str) -> None:
    """The first would take 2 GiB, and the second end the process."""
    with pytest.raises(DataError, match=complaint):
        read_pickled_dict(write(tmp_path, content))


def test_an_odd_escape_in_text_is_no_warning(tmp_path: Path) -> None:
    """In protocol 0, which writes text with escapes."""
    assert read_pickled_dict(write(tmp_path, b"(dS'\\q'\nI1\ns.")) == {r"\q": 1}


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, b"")
    os.truncate(path, (1 << 30) + 1)
    with pytest.raises(DataError, match="batch: has 1,073,741,825 bytes, expected at most 1,073,741,824"):
        read_pickled_dict(path)


def test_what_stands_for_the_type_of_an_array_may_be_too_deep_to_print(tmp_path: Path) -> None:
    made = pickle.dumps({"data": ROWS}, 2)
    assert made.count(b"X\x02\x00\x00\x00u1") == 1
    content = read_pickled_dict(write(tmp_path, made.replace(b"X\x02\x00\x00\x00u1", DEEP)))
    with pytest.raises(DataError, match="got an array of type list, expected uint8"):
        uint8_array(content["data"], "here")


def test_a_pickle_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got a pickled list"):
        read_pickled_dict(write(tmp_path, pickle.dumps([1])))


@given(
    base=st.sampled_from(range(6)).map(lambda protocol: pickle.dumps({"data": ROWS, b"x": [b"y"]}, protocol)),
    start=st.integers(0, 250),
    removed=st.integers(0, 8),
    inserted=st.binary(max_size=8),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_damage_leads_to_anything_but_a_data_error(
    tmp_path: Path, base: bytes, start: int, removed: int, inserted: bytes
) -> None:
    path = write(tmp_path, base[:start] + inserted + base[start + removed :])
    try:
        array = uint8_array(read_pickled_dict(path).get("data"), "here")
    except DataError as error:
        complaint = str(error)
    else:
        complaint = ""
        assert array.dtype == np.uint8
    assert "\n" not in complaint
