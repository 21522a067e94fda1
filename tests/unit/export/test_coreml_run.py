"""Core ML's files are read without a library of Apple's, computed as they say, and refused where they are damaged.

`tests/data/coreml/model.mlmodel` is what `CoreMLExporter().export(random_network(18)[0], FACTS, FOLDER)` wrote.
"""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import random_network

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export.coreml import FILE, CoreMLExporter
from fedsup_deploy.export.coreml_run import read
from fedsup_deploy.export.parity import check_parity

RECORDED = Path(__file__).parents[2] / "data" / "coreml" / FILE


def varint(number: int) -> bytes:
    """Return a number as protocol buffers write it."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, content: bytes | int) -> bytes:
    """Return a field with a message, or with a whole number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def integers(number: int, *values: int) -> bytes:
    return field(number, b"".join(map(varint, values)))


def padded(number: int, *amounts: tuple[int, int]) -> bytes:
    """Return the field with what is padded, `valid`."""
    edges = (field(10, field(1, before) + field(2, after)) for before, after in amounts)
    return field(number, field(1, b"".join(edges)))


def file_of(layer: bytes, image: tuple[int, ...], logits: tuple[int, ...]) -> bytes:
    """Return a file with one layer."""

    def described(name: bytes, shape: tuple[int, ...]) -> bytes:
        return field(1, name) + field(3, field(5, integers(1, *shape) + field(2, 65568)))

    network = field(1, field(2, b"input") + field(3, b"logits") + layer) + field(5, 1)
    ends = field(1, described(b"input", image)) + field(10, described(b"logits", logits))
    return field(1, 4) + field(2, ends) + field(500, network)


def floats(*values: float) -> bytes:
    return field(1, np.array(values, "<f4").tobytes())


def test_a_recorded_file_computes_what_its_network_does() -> None:
    network, inputs = random_network(18)
    expected = network.module()(torch.from_numpy(inputs)).numpy()
    gate = check_parity(expected, {"it": CoreMLExporter().load(RECORDED)}, inputs, (1,))["it"]
    assert gate.argmax_agreement == 1.0


def test_windows_stand_where_the_format_says() -> None:
    """Height before width, what is added before ahead of what is added after, a kernel's rows before its columns."""
    weights = floats(1, 2, 3, 4, 5, 6)
    layer = field(1, 1) + field(2, 1) + field(10, 1) + integers(20, 2, 3) + integers(30, 1, 2)
    layer += padded(50, (1, 0), (2, 1)) + field(90, weights)
    content = file_of(field(100, layer), (1, 1, 2, 3), (1, 1, 2, 2))
    image = np.array([[[[1, 2, 3], [10, 20, 30]]]], np.float32)
    # Padded: a row of zeros on top, two columns on the left and one on the right.
    above, rows = [0, 0, 0, 0, 0, 0], ([0, 0, 1, 2, 3, 0], [0, 0, 10, 20, 30, 0])
    expected = [
        [np.dot([1, 2, 3], top[at : at + 3]) + np.dot([4, 5, 6], low[at : at + 3]) for at in (0, 2)]
        for top, low in ((above, rows[0]), (rows[0], rows[1]))
    ]
    assert read(content).logits(image).tolist() == [[expected]]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_are_outputs_that_follow_each_other(groups: int) -> None:
    """Four channels, eight outputs, three pixels every two, padded at the end alone."""
    numbers = np.random.Generator(np.random.PCG64(0))
    image, weights, bias = (
        numbers.standard_normal(shape, np.float32) for shape in ((1, 4, 5, 5), (8, 4 // groups, 3, 3), (8,))
    )
    layer = field(1, 8) + field(2, 4 // groups) + field(10, groups) + integers(20, 3, 3) + integers(30, 2, 2)
    layer += padded(50, (0, 1), (0, 1)) + field(70, 1) + field(90, floats(*weights.ravel())) + field(91, floats(*bias))
    found = read(file_of(field(100, layer), image.shape, (1, 8, 2, 2))).logits(image)
    x_BCHW = torch.nn.functional.pad(torch.from_numpy(image), (0, 1, 0, 1))
    expected = torch.conv2d(x_BCHW, torch.from_numpy(weights), torch.from_numpy(bias), stride=2, groups=groups)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_an_average_counts_what_is_padded_where_the_format_says_so() -> None:
    image = np.array([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]], np.float32)
    for excluded, corner in ((1, 9.0), (0, 2.25)):
        layer = field(1, 1) + integers(10, 2, 2) + integers(20, 2, 2) + field(31, b"") + field(50, excluded)
        found = read(file_of(field(120, layer), (1, 1, 3, 3), (1, 1, 2, 2))).logits(image)
        assert found[0, 0, 0, 0] == 3.0
        assert found[0, 0, 1, 1] == corner


def test_what_a_damaged_file_does_is_refused_in_one_line(tmp_path: Path) -> None:
    content, path = RECORDED.read_bytes(), tmp_path / FILE
    _, inputs = random_network(18)
    choose, said = random.Random(0), []
    for index in range(600):
        at = choose.randrange(len(content))
        damaged = content[:at] + bytes([choose.randrange(256)]) + content[at + 1 :] if index % 3 else content[:at]
        path.write_bytes(damaged)
        try:
            CoreMLExporter().load(path)(inputs[:1])
        except ArtifactError as error:
            said.append(str(error))
    assert len(said) > 200, "all that were cut, and some of the others: most bytes are weights"
    assert all(each.startswith(f"{FILE}: not a Core ML file of ours: ") for each in said)
    assert all("\n" not in each and len(each) < 300 for each in said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got the version 0"),
        (b"\x08", "ends within a number"),
        (b"\x08" + b"\xff" * 11, "more than 64 bits"),
        (b"\x12\xff\x01", "ends within a field"),
        (b"\x0b", "kind 3"),
        (field(1, 4) * 2, "it stands there twice"),
        (field(1, 4) * 60_000, "more than 50,000 fields"),
        (field(1, b"4"), "of another kind"),
        (field(1, 4) + field(500, field(1, b"")), "expected input alone"),
        (file_of(field(130, field(10, b"")), (1, 2**14, 2**14, 1), (1, 1)), "larger than any network"),
        (file_of(field(130, field(10, b"")), (1, 2**15, 2**15, 1), (1, 1)), "expected one of float32"),
        (file_of(field(130, field(10, b"")), (2, 1, 1, 1), (2, 1)), "expected one of four dimensions"),
        (file_of(field(130, field(10, b"")) + field(230, b""), (1, 1, 1, 1), (1, 1)), "it is no layer"),
        (file_of(field(500, b""), (1, 1, 1, 1), (1, 1)), "got the field 500"),
        (file_of(field(2, b"\xff"), (1, 1, 1, 1), (1, 1)), "no UTF-8"),
    ],
)
def test_what_is_no_file_of_ours_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        read(content)


@pytest.mark.parametrize("side", [2**16, 2**20, 2**40, 2**62])
def test_windows_larger_than_memory_are_refused_before_anything_is_computed(side: int) -> None:
    padding = padded(30, *[(side // 2, side // 2)] * 2)
    layer = field(1, 1) + integers(10, side, side) + integers(20, 1, 1) + padding
    with pytest.raises(ArtifactError, match="does not fill"):
        read(file_of(field(120, layer), (1, 8, 4, 4), (1, 8, 5, 5)))


def test_an_image_of_another_shape_is_refused() -> None:
    content = file_of(field(130, field(10, b"")), (1, 1, 2, 2), (1, 1, 2, 2))
    with pytest.raises(ValueError, match="got an image of shape"):
        read(content).logits(np.zeros((1, 1, 3, 2), np.float32))
