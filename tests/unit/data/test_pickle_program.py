"""Programs of pickles: those of data pass, and those that ask for too much are refused before they run."""

import pickle
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.data import pickle_program
from fedsup_deploy.data.pickle_program import check_pickle

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [{b"data": ARRAY, b"labels": [1, 300, 70000, -1]}, {"a": [b"x"] * 3, 1: (1, (2, 3))}, {}, [None, True, 0.5]],
)
def test_what_data_is_pickled_as_passes(protocol: int, value: Any) -> None:
    check_pickle(pickle.dumps(value, protocol))


def text_made_again_and_again(times: int) -> bytes:
    """A mebibyte of text in the memo, and calls that each encode it anew."""
    text = b"\x8d" + (1 << 20).to_bytes(8, "little") + b"a" * (1 << 20) + b"\x94"
    return b"\x80\x04]" + text + b"(" + b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R" * times + b"ee."


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x80\x02Nr\x00\x00\x00\x08.", "memo index 134217728, expected at most 2,000,000"),
        (b"\x80\x02})" + b"\x85" * 2_000_000 + b"Ns.", "nested deeper than 10"),
        (b"\x80\x02})" + b"\x85" * 1_000 + b"Ns.", "nested deeper than 10"),
        (b"\x80\x02})\x85Ns.", "a key of a dictionary is a tuple"),
        (b"\x80\x02()\x85Nd.", "a key of a dictionary is a tuple"),
        (b"\x80\x02}(NNN\x85Nu.", "a key of a dictionary is a tuple"),
        (b"\x80\x02" + b"]" * 12 + b"a" * 11 + b".", "nested deeper than 10"),
        (b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"x.", "expected .* bytes"),
        (b"\x80\x02h\x05.", "memo index 5 was never set"),
        (b"\x80\x02Ne.", "no mark on the stack"),
        (b"\x80\x02(a.", "too little on the stack"),
        (b"\x80\x02N2.", "operation DUP is none that data needs"),
        (b"\x80\x04\x8f.", "operation EMPTY_SET is none that data needs"),
        (b"\x80\x02Pabc\n.", "operation PERSID is none that data needs"),
        (b"(S'x'\nios\nmkdir\n.", "operation INST is none that data needs"),
        (b"\x80\x02N", "pickle exhausted"),
        (b"", "pickle exhausted"),
    ],
)
def test_other_programs_are_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_pickle(content)


def test_the_number_of_operations_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_program, "_MAX_OPERATIONS", 100)
    check_pickle(b"\x80\x02](" + b"N" * 95 + b"e.")
    with pytest.raises(ValueError, match="more than 100 operations"):
        check_pickle(b"\x80\x02](" + b"N" * 96 + b"e.")


def test_text_of_the_memo_cannot_be_multiplied() -> None:
    with pytest.raises(ValueError, match="makes more than 1,073,741,824 bytes of text"):
        check_pickle(text_made_again_and_again(1025))
