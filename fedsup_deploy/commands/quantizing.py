"""Networks made ready for int8: ranges from clients, the file, its gate, and what it answers. Imports torch.

The accuracy gate looks at what networks are chosen by: test images are for reports.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Final

from fedsup_deploy.artifact.store import Vectors
from fedsup_deploy.artifact.variants import Int8Gate
from fedsup_deploy.commands.preparing import Images, Prepared
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.errors import GateError
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.int8_gate import check_int8
from fedsup_deploy.federation.jobs.agreement import Agreement, both_of
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.int8 import collect_ranges, compare_answers
from fedsup_deploy.space.onnx_graph import build_model, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.supernet.deployable import FoldedNetwork, Quantization
from fedsup_deploy.supernet.ranges import ActivationCounts
from fedsup_deploy.variant import MAIN

#: Share of right answers that int8 may lose where nobody says.
MAX_ACCURACY_DROP: Final = 0.01


@dataclasses.dataclass(frozen=True)
class QuantizedNetwork:
    """An int8 form of a network that has passed its gate.

    Args:
        network: What its file is written from.
        gate: What was found.
        accuracy: Its share of right answers on the images that a manifest's accuracies are of.
        outputs_VK: Its logits for the recorded inputs.
    """

    network: FoldedNetwork
    gate: Int8Gate
    accuracy: float
    outputs_VK: Images


class Quantizer:
    """Makes int8 forms of one network; each scheme once, and clients are asked about activations once.

    Args:
        ready: The network.
        federation: Whom to ask.
        max_accuracy_drop: Share of right answers that int8 may lose.
    """

    def __init__(self, ready: Prepared, federation: Federation, max_accuracy_drop: float) -> None:
        self._ready, self._federation, self._max_accuracy_drop = ready, federation, max_accuracy_drop
        self._counts: ActivationCounts | None = None
        self._made: dict[Int8Scheme, QuantizedNetwork | str] = {}

    def quantize(self, scheme: Int8Scheme) -> QuantizedNetwork | str:
        """Return the int8 form of a scheme, or why it has not passed its gate.

        Raises:
            FederationError: Too few clients have answered.
            DataError: Nobody has images to compare answers on.
        """
        if scheme not in self._made:
            try:
                self._made[scheme] = self._quantize(scheme)
            except GateError as error:
                self._made[scheme] = str(error)
        return self._made[scheme]

    def _quantize(self, scheme: Int8Scheme) -> QuantizedNetwork:
        ready = self._ready
        network = dataclasses.replace(ready.network, quantization=Quantization(self._activations(), scheme))
        exporter = exporter_for(MAIN.format)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / exporter.export(each, {}, Path(folder))[0] for each in (ready.network, network)]
            fp32, int8 = (path.read_bytes() for path in files)
            outputs_VK = exporter.load(files[1])(ready.vectors.inputs_VCSS)
        judged, told = self._federation.choosing_split, self._federation.final_split
        answers = {split: self._answers(fp32, int8, split) for split in dict.fromkeys((judged, told))}
        outputs = ready.vectors.outputs_VK, outputs_VK
        gate = check_int8(int8, scheme, answers[judged].counts, judged, outputs, self._max_accuracy_drop)
        return QuantizedNetwork(network, gate, answers[told].share_of_second, outputs_VK)

    def _activations(self) -> ActivationCounts:
        if self._counts is None:
            ready = self._ready
            weights = {name: tensor.numpy() for name, tensor in ready.network.weights.items()}
            sizes = value_sizes(build_model(parts_of(ready.network.plan), weights))
            self._counts = collect_ranges(self._federation, ready.standalone, ready.statistics, sizes)
        return self._counts

    def _answers(self, fp32: bytes, int8: bytes, split: str) -> Agreement:
        preprocessing = self._federation.preprocessing.for_size(self._ready.resolution)
        return compare_answers(self._federation, both_of(fp32, int8), preprocessing, split)


def with_int8(vectors: Vectors, found: QuantizedNetwork | None) -> Vectors:
    """Return a bundle's vectors with what its int8 file computes, where it has one."""
    return vectors if found is None else dataclasses.replace(vectors, int8_outputs_VK=found.outputs_VK)
