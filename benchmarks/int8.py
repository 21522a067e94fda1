"""What int8 costs and gains: right answers and time of a subnet's int8 file against its fp32 file.

    python benchmarks/int8.py RUN [--arch largest] [--rounds 400]

Ranges come from the run's clients, as `fedsup-deploy export --precision int8` takes them, and to compare from as many
images drawn from all clients' images in one place. Answers are counted on the test images. Times are of one image in
one thread, both files in turn; the ratio is that of the 10th percentiles.
"""

import argparse
from pathlib import Path

import numpy as np
from interleaved import time_in_turn

from fedsup_deploy import rng
from fedsup_deploy.commands.recalibrate import calibrate
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.events import EventLog
from fedsup_deploy.export.int8_gate import accuracy_drop, count_float_convolutions
from fedsup_deploy.federation.jobs.agreement import both_of
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server.federation import calibration_images
from fedsup_deploy.federation.server.int8 import collect_ranges, compare_answers
from fedsup_deploy.federation.simulation import TEST
from fedsup_deploy.ondevice import inference
from fedsup_deploy.runs.federation import load_supernet, open_run_federation
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.space.onnx_graph import build_model, observable, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.quantization import quantized
from fedsup_deploy.supernet import ranges
from fedsup_deploy.supernet.deployable import Quantization
from fedsup_deploy.supernet.fold import fold

SCHEMES = {
    "u8 activations": Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False),
    "u8, 7-bit weights": Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=True),
    "s8 activations": Int8Scheme(activations="s8", is_symmetric=False, per_channel=True, reduce_range=False),
    "s8, symmetric": Int8Scheme(activations="s8", is_symmetric=True, per_channel=True, reduce_range=False),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--arch", default="largest")
    parser.add_argument("--rounds", type=int, default=400)
    options = parser.parse_args()
    run, log = open_run(options.run), EventLog(None, ())
    architecture = run.architecture(options.arch)
    subnet = load_supernet(run).extract(architecture)
    print("| scheme | ranges of | fp32 right | int8 right | drop, points | float convolutions | times as fast | KiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with open_run_federation(run, log) as federation:
        taken = calibrate(run, architecture, subnet, run.config.calibration.schedule, federation, log)
        network = fold(subnet, taken.pooled)
        model = build_model(parts_of(network.plan), {name: of.numpy() for name, of in network.weights.items()})
        fp32, sizes = to_bytes(model), value_sizes(model)
        preprocessing = run.preprocessing.for_size(network.plan.stem.in_size)
        num_images = sum(calibration_images(info, federation.calibration) for info in federation.calibrating)
        drawn = rng.generator(run.config.seed, "pooled").permutation(len(run.data.train))[:num_images]
        found = {
            "clients": collect_ranges(federation, standalone(subnet), taken.pooled, sizes),
            "pooled images": counts_of(model, preprocessing.apply(run.data.train.take(drawn).images_NHWC)),
        }
        for name, scheme in SCHEMES.items():
            for source, counts in found.items():
                int8 = to_bytes(quantized(model, Quantization(counts, scheme).ranges(), scheme))
                answers = compare_answers(federation, both_of(fp32, int8), preprocessing, TEST)
                drop, (low, high) = accuracy_drop(answers.counts)
                share = (answers.both + answers.only_first) / sum(answers.counts)
                accuracy = f"{share:.2%} | {answers.share_of_second:.2%}"
                interval = f"{100 * drop:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
                ratio = f"{speed(fp32, int8, sizes, options.rounds):.2f}" if source == "clients" else ""
                left = count_float_convolutions(int8, scheme)
                print(f"| {name} | {source} | {accuracy} | {interval} | {left} | {ratio} | {len(int8) / 1024:.0f} |")
    print(f"\n{num_images:,} images for ranges, {sum(answers.counts):,} for answers; fp32: {len(fp32) / 1024:.0f} KiB")


def counts_of(model, images_NCHW):  # type: ignore[no-untyped-def]  # an ONNX model, and images
    """Return what is counted of a model's values on images in one place."""
    watched, names = observable(model)
    session = inference.open_session(to_bytes(watched), threads=1)
    total = None
    for start in range(0, len(images_NCHW), 32):
        x = images_NCHW[start : start + 32]
        values = [x, *session.run(list(names), {"input": x})]
        extremes_V2 = np.array([(each.min(), each.max()) for each in values], dtype=np.float32)
        some = ranges.ActivationCounts(np.stack([ranges.count(each) for each in values]), extremes_V2)
        total = some if total is None else total + some
    return total


def speed(fp32: bytes, int8: bytes, sizes: dict[str, int], rounds: int) -> float:
    """Return how many times as fast the int8 file is."""
    sessions = {name: inference.open_session(of, threads=1) for name, of in (("fp32", fp32), ("int8", int8))}
    shape = [1, *sessions["fp32"].get_inputs()[0].shape[1:]]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert x.size == sizes["input"]
    seconds = time_in_turn({name: inference.bind(session, x) for name, session in sessions.items()}, rounds)
    return float(np.percentile(seconds["fp32"], 10) / np.percentile(seconds["int8"], 10))


if __name__ == "__main__":
    main()
