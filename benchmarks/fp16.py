"""How far the outputs of bundles move in half precision, as a GPU may compute them: emulated on this CPU, with torch.

    python benchmarks/fp16.py BUNDLE...

Weights, images and what every layer writes are rounded to half precision. Sums of products are kept in float32 and
rounded once, or rounded to half precision after every product, one after the other: no kernel should do worse. The
recorded inputs of the bundle are computed; differences are scaled as those of its gates.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

Convolution = Callable[[Tensor, Tensor, Tensor, list[int], list[int], int], Tensor]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    print("| bundle | images | sums in float32 | sums in half | other class | largest activation |")
    print("| --- | --- | --- | --- | --- | --- |")
    for bundle in parser.parse_args().bundles:
        model = onnx.load(bundle / "model.onnx")
        with np.load(bundle / "vectors.npz") as vectors:
            images_VCSS, recorded_VK = vectors["inputs"], vectors["outputs"].astype(np.float64)
        computed = [run(model, torch.from_numpy(images_VCSS), convolve) for convolve in (wide, narrow)]
        scale_V1 = np.abs(recorded_VK).max(axis=1, keepdims=True).clip(1)
        wide_off, narrow_off = (float((np.abs(of_VK - recorded_VK) / scale_V1).max()) for of_VK, _ in computed)
        others = [int((of_VK.argmax(axis=1) != recorded_VK.argmax(axis=1)).sum()) for of_VK, _ in computed]
        largest = max(most for _, most in computed)
        row = f"{bundle.name} | {len(recorded_VK)} | {wide_off:.4f} | {narrow_off:.4f} | {others} | {largest:.0f}"
        print(f"| {row} |")


def run(model: onnx.ModelProto, x_VCSS: Tensor, convolve: Convolution) -> tuple[NDArray[np.float64], float]:
    """Return logits (V, K), and the largest number that a layer wrote."""
    values = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in model.graph.initializer}
    values = {name: rounded(value) if value.is_floating_point() else value for name, value in values.items()}
    values["input"], largest, kinds = rounded(x_VCSS), 0.0, convolved(convolve)
    for node in model.graph.node:
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Conv":
            attributes = {"strides": [1, 1], "pads": [0] * 4, "group": 1, **attributes}
        value = rounded(kinds[node.op_type](*(values[name] for name in node.input), **attributes))
        largest = max(largest, float(value.abs().max()))
        values[node.output[0]] = value
    return values[model.graph.output[0].name].numpy().astype(np.float64), largest


def convolved(convolve: Convolution) -> dict[str, Callable[..., Tensor]]:
    """Return what each kind of node of our files computes, by its inputs and attributes."""
    return {
        "Conv": lambda x, w, b, **more: convolve(x, w, b, more["strides"], more["pads"][:2], more["group"]),
        "Gemm": lambda x, w, b, **_: convolve(x[..., None, None], w[..., None, None], b, [1, 1], [0, 0], 1)[..., 0, 0],
        "AveragePool": lambda x, **more: functional.avg_pool2d(
            *(x, more["kernel_shape"], more["strides"], more.get("pads", [0] * 4)[:2]),
            ceil_mode=bool(more["ceil_mode"]),
            count_include_pad=False,
        ),
        "ReduceMean": lambda x, **more: x.mean((2, 3), keepdim=bool(more["keepdims"])),
        "Constant": lambda value: torch.from_numpy(numpy_helper.to_array(value).copy()),
        "Relu": lambda x: x.clamp(min=0),
        "Clip": lambda x, low, high: x.clamp(low, high),
        "Add": lambda x, y: x + y,
        "Mul": lambda x, y: x * y,
    }


def rounded(value: Tensor) -> Tensor:
    """Return a tensor's nearest numbers of half precision, in float32."""
    return value.half().float()


def wide(x: Tensor, weight: Tensor, bias: Tensor, strides: list[int], pads: list[int], groups: int) -> Tensor:
    """Return a convolution with sums in float32."""
    return functional.conv2d(x, weight, bias, strides, pads, 1, groups)


def narrow(x: Tensor, weight: Tensor, bias: Tensor, strides: list[int], pads: list[int], groups: int) -> Tensor:
    """Return a convolution whose sums are rounded to half precision after every product, as of a fused multiply-add."""
    patches = functional.unfold(x, weight.shape[2:], padding=tuple(pads), stride=tuple(strides))
    patches = patches.view(len(x), groups, -1, patches.shape[-1])
    kernels = weight.view(groups, len(weight) // groups, -1)
    sums = torch.zeros(len(x), groups, kernels.shape[1], patches.shape[-1])
    for index in range(patches.shape[2]):
        sums = rounded(sums + patches[:, :, None, index] * kernels[None, :, :, None, index])
    height = (x.shape[2] + 2 * pads[0] - weight.shape[2]) // strides[0] + 1
    return (sums.view(len(x), len(weight), -1) + bias[:, None]).view(len(x), len(weight), height, -1)


if __name__ == "__main__":
    main()
