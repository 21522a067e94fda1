"""What is said of a network's sizes is looked at before ncnn, which believes it, has it. It needs no ncnn."""

import re

import numpy as np
import pytest

from fedsup_deploy import memory
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export.ncnn_layers import check

#: A network with a layer of every kind, and in every form that there is.
_TEXT = """7767517
14 16
Input input 0 1 input 0=9 1=9 2=3
Convolution stem 1 1 input stem 0=8 1=3 3=2 4=1 5=1 6=216 9=1
Split split 1 2 stem stem.0 stem.1
ConvolutionDepthWise deep 1 1 stem.0 deep 0=8 1=3 3=1 4=1 5=1 6=72 7=8
Split again 1 2 deep deep.0 deep.1
Pooling mean 1 1 deep.0 mean 0=1 4=1
InnerProduct scale 1 1 mean scale 0=8 1=1 2=64
BinaryOp shifted 1 1 scale shifted 0=0 1=1 2=5.00000000e-01
Clip clipped 1 1 shifted clipped 0=0.00000000e+00 1=1.00000000e+00
BinaryOp scaled 2 1 deep.1 clipped scaled 0=2
BinaryOp sum 2 1 scaled stem.1 sum 0=0
ReLU relu 1 1 sum relu
Pooling pool 1 1 relu pool 0=1 1=2 2=2 5=0 6=0
InnerProduct logits 1 1 pool logits 0=4 1=1 2=288 9=1
"""
#: Weights and biases of each layer that has some.
_SIZES = ((216, 8), (72, 8), (64, 8), (288, 4))
_CONTENT = b"".join(bytes(4) + np.ones(weights + biases, "<f4").tobytes() for weights, biases in _SIZES)
_STARTS = [4 * sum(sum(each) + 1 for each in _SIZES[:index]) for index in range(len(_SIZES))]


def test_a_network_of_ours_is_taken_for_images_of_its_own_size() -> None:
    assert check(_TEXT, _CONTENT) == (3, 9)


@pytest.mark.parametrize("start", _STARTS)
@pytest.mark.parametrize("word", [0x000D4B38, 0x01306B47, 0x0002C056, 1], ids=hex)
def test_numbers_that_are_not_marked_as_float32_are_refused(start: int, word: int) -> None:
    """Each of these has ncnn read so many bytes as it likes, of another type."""
    altered = _CONTENT[:start] + word.to_bytes(4, "little") + _CONTENT[start + 4 :]
    with pytest.raises(ArtifactError, match="the numbers in the file beside it are not all float32"):
        check(_TEXT, altered)


def test_a_layer_has_the_numbers_of_ours_and_no_others() -> None:
    """Ncnn has dozens of others, for each kind, which change what a layer reads or writes."""
    for line in _TEXT.splitlines()[2:]:
        left_out = [line.replace(each, "") for each in re.findall(r" \d+=\S+", line)]
        for altered in (f"{line} 11=60000", f"{line} 8=1", f"{line} 19=1", f"{line} -23310=1,0", *left_out):
            if altered.removesuffix(" 9=1") == line or line.removesuffix(" 9=1") == altered:
                continue  # without its ReLU it is another network of ours
            with pytest.raises(ArtifactError):
                check(_TEXT.replace(line, altered), _CONTENT)


def test_a_number_has_the_type_and_the_value_that_ours_have() -> None:
    """Ncnn keeps the bits of a float where it looks for an integer."""
    for line in _TEXT.splitlines()[2:]:
        for word in re.findall(r" \d+=\S+", line):
            at, _, value = word.partition("=")
            others = [str(round(float(value)))] if "." in value else [f"{float(value):.8e}", f"-{value}", "4294967297"]
            for other in others:
                with pytest.raises(ArtifactError):
                    check(_TEXT.replace(line, line.replace(word, f"{at}={other}")), _CONTENT)
    other_values = ("0=1 4=1", "0=0 4=1"), ("5=1 6=216", "5=2 6=216"), ("9=1", "9=2"), ("scaled 0=2", "scaled 0=3")
    for of_ours, other in other_values:
        with pytest.raises(ArtifactError, match="expected one of ours"):
            check(_TEXT.replace(of_ours, other), _CONTENT)


@pytest.mark.parametrize(
    ("of_ours", "other"),
    [
        ("ReLU relu 1 1 sum relu", "ReLU relu 1 2 sum relu beside"),
        ("ReLU relu 1 1 sum relu", "ReLU relu 1 0 sum"),
        ("Clip clipped 1 1 shifted clipped", "Clip clipped 1 1 shifted stem"),
        ("Convolution stem 1 1 input", "Convolution stem\t1 1 1 input"),
        ("Convolution stem 1 1 input", f"Convolution {'s' * 256} 1 1 input"),
    ],
)
def test_a_line_says_to_ncnn_what_it_says_to_us(of_ours: str, other: str) -> None:
    with pytest.raises(ArtifactError):
        check(_TEXT.replace(of_ours, other), _CONTENT)


@pytest.mark.parametrize("sizes", ["0=9 1=900 2=3", "0=9 1=1 2=3", "0=0 1=0 2=3"])
def test_images_are_square(sizes: str) -> None:
    with pytest.raises(ArtifactError):
        check(_TEXT.replace("0=9 1=9 2=3", sizes), _CONTENT)


def test_a_network_that_no_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    num_numbers = 3 * 81 + 8 * 25 * 9 + 8 * 4 + 8 * 9 + 4
    monkeypatch.setattr(memory, "machine_bytes", lambda: 4 * num_numbers)
    assert check(_TEXT, _CONTENT) == (3, 9)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 4 * num_numbers - 4)
    with pytest.raises(ArtifactError, match=f"its layers write {num_numbers:,} numbers, more than there is memory"):
        check(_TEXT, _CONTENT)
