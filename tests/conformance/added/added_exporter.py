"""A file format of several files in a folder: layers as JSON beside their tensors, run by torch as they stand."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import TypeAdapter

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.export.exporter import Batch, Facts, Runnable, runnable
from fedsup_deploy.ondevice.bundle_outputs import TOLERANCE
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet.deployable import FoldedNetwork
from fedsup_deploy.supernet.forward import forward
from fedsup_deploy.supernet.normalization import FixedAffine
from fedsup_deploy.variant import Precision

_PLAN = TypeAdapter(NetworkPlan)


class PlainExporter:
    """`model.plain/`."""

    name: ClassVar[str] = "plain"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    needs: ClassVar[Mapping[str, str]] = {}
    runtime: ClassVar[str] = "torch"
    batch: ClassVar[Batch] = "dynamic"
    needs_signature: ClassVar[bool] = True
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:
        """Refuse what knows of a newer ONNX than ours, for want of anything else to ask."""
        return "too new" if accepts.onnx_opset == 99 else None

    def export(self, network: FoldedNetwork, facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write three files."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: tensor.numpy() for name, tensor in network.weights.items()})
        content = {
            "layers.json": _PLAN.dump_json(network.plan),
            "tensors/all.npz": buffer.getvalue(),
            "facts.json": TypeAdapter(dict[str, str]).dump_json(dict(facts)),
        }
        for name, text in content.items():
            path = folder / "model.plain" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, text)
        return tuple(f"model.plain/{name}" for name in content)

    def load(self, path: Path) -> Runnable:
        """Return the network, from its layers and from the tensors beside them."""
        plan = _PLAN.validate_json(path.read_bytes())
        with np.load(path.parent / "tensors" / "all.npz", allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return runnable(lambda x_BCHW: forward(plan, weights, x_BCHW, FixedAffine({})))


class MissingExporter(PlainExporter):
    """The same, with the need of a library that nobody has."""

    name: ClassVar[str] = "missing"
    needs: ClassVar[Mapping[str, str]] = {"no_such_runtime": "nothing", "json": "unused"}


class HarmlessExporter(PlainExporter):
    """The same, which anybody's is run of."""

    needs_signature: ClassVar[bool] = False


class ElsewhereExporter(HarmlessExporter):
    """The same, with a runtime that nobody has."""

    needs: ClassVar[Mapping[str, str]] = {"no_such_runtime": "nothing"}
    runtime: ClassVar[str] = "no_such_runtime"
