"""How long does a search take? `python benchmarks/search_time.py RUN`, a run with an accuracy predictor.

Times the whole process of `fedsup-deploy search --accuracy predicted`, from its start to its end, when search.json is
written: for one device profile, and for ten (those shipped, and copies of them up to that number), in turns with a
process that only prints its version. A process of its own tells what is imported on the way, torch above all. Then it
prints how many architectures are priced per second, by the kind of the latency model (`fitted` and `table` with made-up
times, unless profiles of these kinds are given), and on all shipped profiles at once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedsup_deploy.commands.search import target_for
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.building.plan import plan_build
from fedsup_deploy.device.latency import FittedLatency, Latency, TableLatency
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.resources import shipped_names
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import price
from fedsup_deploy.space.search_space import SearchSpace

PROGRAM = Path(sys.executable).with_name("fedsup-deploy")
NUM_PROFILES = 10
PRICING_SECONDS = 2.0
IMPORTED = """
import sys
from fedsup_deploy.cli.main import main
code = main(sys.argv[1:])
print(*sorted({"torch", "onnxruntime", "sklearn", "pymoo"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run; make its predictor with fedsup-deploy fit-accuracy")
    parser.add_argument("--profile", default="jetson-nano", help="the one")
    parser.add_argument("--measured", nargs="*", default=[], help="more profiles to price with, such as host")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    space = open_run(options.run).space
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ten = list(ten_profiles(folder))
        searches = {
            "only --version": ["--version"],
            "search, 1 profile": search_arguments(options.run, folder, [options.profile]),
            f"search, {len(ten)} profiles": search_arguments(options.run, folder, ten),
        }
        report_imports(searches)
        report_times(searches, options.repeats)
    report_pricing(space, [load_profile(item) for item in [options.profile, *options.measured]])


def ten_profiles(folder: Path) -> Iterator[str]:
    """Yield the names of the shipped profiles, and the files of copies of them up to the number wanted."""
    names = shipped_names("profiles")[:NUM_PROFILES]
    yield from names
    for name in names[: NUM_PROFILES - len(names)]:
        copy = load_profile(name).model_copy(update={"name": f"{name}-copy"})
        path = folder / f"{copy.name}.yaml"
        path.write_text(dump(copy), encoding="utf-8")
        yield str(path)


def search_arguments(run: Path, folder: Path, profiles: Sequence[str]) -> list[str]:
    """Return the arguments of a search that ends in a file of its own."""
    named = [argument for profile in profiles for argument in ("--profile", profile)]
    out = str(folder / f"search-{len(profiles)}.json")
    return ["search", "--run", str(run), "--accuracy", "predicted", "--seed", "0", "--out", out, *named]


def report_imports(searches: Mapping[str, Sequence[str]]) -> None:
    """Print which heavy libraries each process imports, and how it searched."""
    for name, arguments in searches.items():
        ran = run_process([sys.executable, "-c", IMPORTED, "--quiet", *arguments])
        heavy = ran.stderr.splitlines()[-1] or "none of torch, onnxruntime, sklearn, pymoo"
        print(f"{name}: imports {heavy}{how_it_searched(arguments)}")


def how_it_searched(arguments: Sequence[str]) -> str:
    """Return the methods of a search, and how many architectures it looked at."""
    if "--out" not in arguments:
        return ""
    results = json.loads(Path(arguments[arguments.index("--out") + 1]).read_bytes())["results"]
    methods = ", ".join(sorted({result["method"] for result in results}))
    certified = sum(result["certified"] for result in results)
    return f"; {methods}, {certified} of {len(results)} certified, {results[0]['num_priced']:,} architectures priced"


def report_times(searches: Mapping[str, Sequence[str]], repeats: int) -> None:
    """Print how long each process takes, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(repeats):
        for name, arguments in searches.items():
            started = time.perf_counter()
            run_process([str(PROGRAM), "--quiet", *arguments])
            seconds[name].append(time.perf_counter() - started)
    print(f"{'seconds of the process':24} {'median':>7} {'min':>7} {'max':>7}   ({repeats} in turns)")
    for name, taken in seconds.items():
        print(f"{name:24} {statistics.median(taken):>7.2f} {min(taken):>7.2f} {max(taken):>7.2f}")


def run_process(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a process.

    Raises:
        SystemExit: It failed; with what it said.
    """
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(ran.stderr.strip() or f"exit code {ran.returncode}")
    return ran


def report_pricing(space: SearchSpace, profiles: Sequence[DeviceProfile]) -> None:
    """Print how many prices of architectures are found per second: layers counted, latency predicted."""
    known = {profile.latency.kind for profile in profiles}
    made_up = [profile for profile in made_up_profiles(space, profiles[0]) if profile.latency.kind not in known]
    compared = {
        f"{profile.latency.kind}: {profile.name}": [target_for(profile, {})] for profile in (*profiles, *made_up)
    }
    shipped = [target_for(load_profile(name), {}) for name in shipped_names("profiles")]
    compared[f"the {len(shipped)} shipped profiles at once"] = shipped
    genes_NG = make_pool(space, 0).genes_NG
    rates: dict[str, list[float]] = {name: [] for name in compared}
    ends = time.perf_counter() + PRICING_SECONDS * len(compared)
    while time.perf_counter() < ends:
        for name, targets in compared.items():
            started = time.perf_counter()
            price(space, genes_NG, targets)
            rates[name].append(len(genes_NG) * len(targets) / (time.perf_counter() - started))
    print(f"prices per second, {len(genes_NG):,} architectures of {space.name}, one on one device counts as one:")
    for name, found in rates.items():
        print(f"{name:34} median {statistics.median(found):>10,.0f}, at best {max(found):>10,.0f}")


def made_up_profiles(space: SearchSpace, profile: DeviceProfile) -> Iterator[DeviceProfile]:
    """Yield a profile of each kind that takes measurements, with costs that mean nothing."""
    number_format = {"dtype": profile.latency.dtype, "bytes_per_element": profile.latency.bytes_per_element}
    cost = {"us_per_mmac": 1.0, "us_per_kelement": 1.0, "us_per_layer": 1.0}
    ops = ("conv", "pointwise", "depthwise", "linear", "pool", "global_pool", "add", "scale")
    cache = {"us_per_kelement": 1.0, "fits_mib": 1.0, "misses_mib": 4.0}
    fitted = {"kind": "fitted", "network_overhead_us": 1.0, "ops": dict.fromkeys(ops, cost), "channel_block": 8}
    latencies: list[Latency] = [
        FittedLatency.model_validate({**number_format, **fitted, "cache": cache, "num_networks": 75})
    ]
    if parts := plan_build(space).parts:
        overheads = dict.fromkeys(("cached_overhead_us", "uncached_overhead_us", "network_overhead_us"), 1.0)
        calibration = {"scale": 1.0, **overheads, "fits_mib": 1.0, "misses_mib": 4.0, "num_networks": 12}
        times = {part: {"cached_us": 5.0, "uncached_us": 9.0} for part in parts}
        table = {"kind": "table", "space": space.name, "parts": times, "calibration": calibration}
        latencies.append(TableLatency.model_validate({**number_format, **table}))
    for latency in latencies:
        yield profile.model_copy(update={"name": "made-up", "latency": latency})


if __name__ == "__main__":
    main()
