"""Names to implementations. A variant is one module plus one row here; it is imported only when it is asked for."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from fedsup_deploy.errors import ConfigError

TABLES: dict[str, dict[str, str]] = {
    "family": {
        "mobilenet": "fedsup_deploy.space.families.mobilenet:MobileNetFamily",
        "resnet": "fedsup_deploy.space.families.resnet:ResNetFamily",
    },
    "layer": {
        "conv": "fedsup_deploy.space.layers.convolution:ConvolutionKind",
        "depthwise": "fedsup_deploy.space.layers.convolution:DepthwiseKind",
        "pointwise": "fedsup_deploy.space.layers.convolution:ConvolutionKind",
        "squeeze_excite": "fedsup_deploy.space.layers.squeeze_excite:SqueezeExciteKind",
        "pool": "fedsup_deploy.space.layers.plain:PoolKind",
        "add": "fedsup_deploy.space.layers.plain:AddKind",
        "global_pool": "fedsup_deploy.space.layers.plain:GlobalPoolKind",
        "linear": "fedsup_deploy.space.layers.plain:LinearKind",
    },
    "computation": {
        "conv": "fedsup_deploy.supernet.layers.convolution:Convolution",
        "depthwise": "fedsup_deploy.supernet.layers.convolution:Depthwise",
        "pointwise": "fedsup_deploy.supernet.layers.convolution:Pointwise",
        "squeeze_excite": "fedsup_deploy.supernet.layers.squeeze_excite:SqueezeExcite",
        "pool": "fedsup_deploy.supernet.layers.pool:AveragePool",
    },
    "dataset": {
        "digits": "fedsup_deploy.data.digits:load_digits",
        "fashion-mnist": "fedsup_deploy.data.idx:load_fashion_mnist",
        "cifar10": "fedsup_deploy.data.cifar:load_cifar10",
        "cifar100": "fedsup_deploy.data.cifar:load_cifar100",
        "medmnist": "fedsup_deploy.data.arrays:load_medmnist",
        "npz": "fedsup_deploy.data.arrays:load_npz",
        "image-folder": "fedsup_deploy.data.image_folder:load_image_folder",
        "devices": "fedsup_deploy.data.devices:load_devices",
    },
    "partition": {
        "iid": "fedsup_deploy.data.partition:IidPartition",
        "shards": "fedsup_deploy.data.partition:ShardsPartition",
        "dirichlet": "fedsup_deploy.data.partition:DirichletPartition",
        "natural": "fedsup_deploy.data.partition:NaturalPartition",
    },
    "strategy": {
        "fedavg": "fedsup_deploy.federation.server.fedavg_config:FedAvgConfig",
        "fedavgm": "fedsup_deploy.federation.server.fedavgm_config:FedAvgMConfig",
        "fedsup": "fedsup_deploy.federation.server.fedsup_config:FedSupConfig",
        "e-fedsup": "fedsup_deploy.federation.server.fedsup_config:EFedSupConfig",
    },
    "engine": {
        "local": "fedsup_deploy.engines.workers:open_local",
        "flower": "fedsup_deploy.engines.flower.simulation:open_simulation",
    },
    # Of an engine, what asks clients that are elsewhere.
    "deployment": {
        "flower": "fedsup_deploy.engines.flower.deployment:open_deployment",
    },
    "job": {
        "train": "fedsup_deploy.federation.jobs.train:Train",
        "statistics": "fedsup_deploy.federation.jobs.statistics:TakeStatistics",
        "counts": "fedsup_deploy.federation.jobs.counts:CountAnswers",
        "moments": "fedsup_deploy.federation.jobs.moments:CountPixels",
        "classes": "fedsup_deploy.federation.jobs.classes:CountClasses",
        "ranges": "fedsup_deploy.federation.jobs.ranges:TakeRanges",
        "agreement": "fedsup_deploy.federation.jobs.agreement:CompareAnswers",
        "announce": "fedsup_deploy.federation.jobs.announce:Announce",
    },
    "latency": {
        "roofline": "fedsup_deploy.device.predictor:RooflinePredictor",
        "table": "fedsup_deploy.device.predictor:TablePredictor",
        "fitted": "fedsup_deploy.device.predictor:FittedPredictor",
    },
    "accuracy": {
        "ridge": "fedsup_deploy.searchers.scoring.predictor:ridge",
        "boosting": "fedsup_deploy.searchers.scoring.predictor:boosting",
        "mlp": "fedsup_deploy.searchers.scoring.predictor:mlp",
    },
    "searcher": {
        "exact": "fedsup_deploy.searchers.methods.exact:ExactSearcher",
        "evolution": "fedsup_deploy.searchers.methods.evolution:EvolutionSearcher",
        "random": "fedsup_deploy.searchers.methods.random:RandomSearcher",
    },
    "exporter": {
        "onnx": "fedsup_deploy.export.onnx:OnnxExporter",
        "torchscript": "fedsup_deploy.export.torchscript:TorchScriptExporter",
        "pt2": "fedsup_deploy.export.exported_program:ExportedProgramExporter",
        "ort": "fedsup_deploy.export.ort_format:OrtExporter",
        "openvino": "fedsup_deploy.export.openvino_ir:OpenVinoExporter",
        "ncnn": "fedsup_deploy.export.ncnn:NcnnExporter",
        "executorch": "fedsup_deploy.export.executorch:ExecuTorchExporter",
        "litert": "fedsup_deploy.export.litert:LiteRTExporter",
        "coreml": "fedsup_deploy.export.coreml:CoreMLExporter",
    },
    "tracker": {
        "tensorboard": "fedsup_deploy.runs.tensorboard:TensorBoard",
    },
    # What can be exported, and what an export of it has to pass.
    "gate": {
        "fp32": "fedsup_deploy.export.parity:check_parity",
        "int8": "fedsup_deploy.export.int8_gate:check_int8",
    },
}


def names(kind: str) -> list[str]:
    """Return the registered names of a kind, in the order of the table."""
    return list(TABLES[kind])


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint such as `; did you mean 'digits'?`, or the known names when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


# Any: each kind of row is another type, which whoever asks for one names.
def resolve(kind: str, name: str) -> Any:
    """Import and return what `name` stands for.

    Raises:
        ConfigError: No such name; the message names the nearest one.
    """
    table = TABLES[kind]
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}{nearest(name, table)}")
    return load(table[name])


def load(path: str) -> Any:
    """Import and return what `module:attribute` stands for."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
