"""Write docs/terminal.md: what commands print, at 80 and at 120 columns. Run: python tools/terminal_page.py."""

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fedsup_deploy.cli import demo, profile_build
from fedsup_deploy.cli.main import cli
from fedsup_deploy.cli.output import Output, page_of
from fedsup_deploy.cli.tables import Page
from fedsup_deploy.commands.demo import DemonstratedDevice, Demonstration
from fedsup_deploy.commands.fleet_init import MadeAuthority
from fedsup_deploy.commands.fleet_kit import DeviceKit, DeviceKits
from fedsup_deploy.commands.fleet_list import DeviceListing, ListedDevice
from fedsup_deploy.commands.fleet_register import RegisteredDevices
from fedsup_deploy.commands.fleet_unregister import UnregisteredDevices
from fedsup_deploy.commands.profile_build import BuiltProfile
from fedsup_deploy.commands.profile_fit import FittedProfile
from fedsup_deploy.commands.sign import SignedBundle
from fedsup_deploy.device.building.baseline import LeftOut, reasons
from fedsup_deploy.device.heldout import PredictionError, SummarizedError
from fedsup_deploy.device.percentiles import HIGHER
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.device.summary import summary_of

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "terminal.md"
WIDTHS = (80, 120)

HEAD = """# What commands print

Written by `tools/terminal_page.py`: one small run on the digits that come with scikit-learn, and each command once, as
on terminals of 80 and of 120 columns. Times, versions and the processor stand for those of your machine. `demo` is told
of the same run, for it trains longer; `profile build` and `profile fit`, which measure for minutes, of made-up times,
and `fleet` and `sign` of made-up devices and keys.

Where a table is too wide for the terminal, or for what the variable `COLUMNS` says, its rows are blocks with a field
per line. Text is wrapped between words. Names, paths and commands are never broken, so that they can be copied. Output
to a pipe or a file has no width unless `COLUMNS` says one; programs read `--json`.
"""

# In the order of a user's way. BUNDLE is the bundle that `export` made for the Jetson.
COMMANDS = (
    "train --config digits --set training.rounds=2 --set training.warmup_rounds=0",
    "watch runs/digits --once",
    "evaluate runs/digits --arch largest --per-client",
    "search --profile jetson-nano --profile raspberry-pi-4 --max-latency-ms 0.7 --evaluations 6",
    "export --search runs/digits/search.json --refine",
    "inspect runs/digits/search.json",
    "fit-accuracy --evaluations 30",
    "deploy --profile jetson-nano --profile x86-laptop --max-latency-ms 0.7 --max-artifacts 1 --out deployed",
    "extract runs/digits --arch smallest --out smallest.safetensors",
    "recalibrate runs/digits --arch smallest",
    "measure BUNDLE",
    "verify BUNDLE",
    "report runs/digits/search.json BUNDLE runs/digits",
    "inspect BUNDLE",
    "inspect BUNDLE/model.onnx",
    "inspect runs/digits",
    "inspect fedsup-mobilenet",
    "inspect photographs --resolution 96,160,224 --profile jetson-nano --profile raspberry-pi-4",
    "profile list",
    "profile validate PROFILES/jetson-nano.yaml",
    "profile check jetson-nano",
    "profile diff jetson-nano raspberry-pi-4",
)

# What differs from one machine, day or version to the next, by the names of fields.
STANDING_FOR = {
    "seconds": 12.3,
    "seconds_a_round": 6.1,
    "seconds_silent": 1.0,
    "latency_ms_measured_here": 0.0213,
    "load_ms": 1.4,
    "first_run_ms": 4.8,
    "peak_rss_mib": 81.9,
    "min_ms": 0.0201,
    "p10_ms": 0.0205,
    "p50_ms": 0.0213,
    "p90_ms": 0.0302,
    "num_runs": 100_000,
    "disagreement": 0.002,
    "drift": 0.001,
    "spread": 0.006,
    "cpu": "Your Processor",
    "stability.verdict": "stable",
    "versions": {"fedsup-deploy": "1.2.3", "torch": "1.2.3", "onnx": "1.2.3", "onnxruntime": "1.2.3", "numpy": "1.2.3"},
}


class Keeping(Output):
    """Keeps pages instead of printing them."""

    def emit(self, result: Any, render: Any = None) -> None:
        """Keep the result of a command, and its page with what stands for the figures of this machine."""
        results.append(result)
        emitted.append(page_of(standing(result), render))


results: list[Any] = []
emitted: list[Page] = []


def pages(folder: Path) -> dict[str, Page]:
    """Run all commands in an empty folder and return what each prints, by its words."""
    results.clear()
    emitted.clear()
    before = Path.cwd()
    os.chdir(folder)
    try:
        for line in COMMANDS:
            run(line)
        found = dict(zip(COMMANDS, emitted, strict=True))
        return {"demo": demo_page(), **found, **profile_pages(), **signed_pages(), **fleet_pages()}
    finally:
        os.chdir(before)


def run(line: str) -> None:
    """Run one command."""
    bundle = next(iter(sorted(Path("exports/jetson-nano").glob("a*[0-9a-f]"))), Path())
    line = line.replace("BUNDLE", str(bundle)).replace("PROFILES", str(REPOSITORY / "profiles"))
    words = [*line.split(), "--quiet"]
    with cli.make_context("fedsup-deploy", list(words), obj=Keeping(tuple(words), is_quiet=True)) as context:
        cli.invoke(context)


def standing(value: Any, name: str = "", around: str = "") -> Any:
    """Return a result with what stands for the figures of this machine, and no path of it."""
    for key in (f"{around}.{name}", name):
        # Releases that fail on a device are not of this machine.
        if key in STANDING_FOR and value is not None and around != "known_bad":
            return STANDING_FOR[key]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{each: standing(getattr(value, each), each, name) for each in fields})
    if isinstance(value, BaseModel):
        fields = list(type(value).model_fields)
        return value.model_copy(update={each: standing(getattr(value, each), each, name) for each in fields})
    if isinstance(value, Mapping):
        return {key: standing(each, str(key), name) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)([standing(each, name, around) for each in value])
    is_ours = isinstance(value, Path) and value.is_absolute() and value.is_relative_to(REPOSITORY)
    return value.relative_to(REPOSITORY) if is_ours else value


def demo_page() -> Page:
    """Return what `demo` would say of the run and of the bundles of `deploy`: the demo trains for longer."""
    trained = results[0]
    deployed = next(result for result in results if hasattr(result, "fleet") and hasattr(result, "bundles"))
    devices = tuple(DemonstratedDevice(**vars(bundle), latency_ms_limit=0.7) for bundle in deployed.bundles)
    following = (f"python {devices[0].folder}/run.py", f"fedsup-deploy verify {devices[0].folder}")
    return page_of(
        standing(Demonstration(trained, deployed.search, devices, Path("report.html"), following, 62.0)), demo.table
    )


def profile_pages() -> dict[str, Page]:
    """Return what `profile build` and `fit` say, of made-up times: measuring takes minutes, and never ends the same."""
    macs_only = PredictionError(acc5=0.3, acc10=0.625, spearman=0.981, mape=0.082)
    good = SummarizedError(
        acc5=0.95, acc10=1, spearman=0.998, mape=0.016, method="held-out", num_heldout=40, macs_only=macs_only
    )
    bad = SummarizedError(acc5=0.1, acc10=0.4, spearman=0.84, mape=0.131, method="held-out", num_heldout=40)
    line = SummarizedError(**vars(macs_only), method="held-out", num_heldout=40, macs_only=macs_only)
    summary = summary_of(load_profile("x86-laptop"))
    percentile = dataclasses.replace(summary.percentile, ratios=dict.fromkeys(HIGHER, 1.04))
    made = dataclasses.replace(summary, name="host", error=good, percentile=percentile)
    out = Path("profiles/host.yaml")
    built = BuiltProfile(out, made, None, 28, 12, 40, 57, 240.0, 0.004)
    import numpy as np

    left_out = LeftOut(bad, reasons(np.array([0.2, 0.9]), 5, 3.2, 0.061))
    fitted = FittedProfile(out, dataclasses.replace(made, error=line), left_out, "raspberry-pi-4", None, 5)
    return {
        "profile build --space runs/digits": profile_build.built_page(built, 4.0),
        "profile fit raspberry-pi-4 --here --name host": profile_build.fitted_page(fitted, 0.5),
    }


def fleet_pages() -> dict[str, Page]:
    """Return what the commands for fleets say, of made-up devices."""
    devices = (
        ListedDevice("camera-north", 1, "jetson-nano", 1_240, 310, 0),
        ListedDevice("phone-anna", 0, None, 96, 24, 0),
    )
    refused = {
        "camera-old": "message: protocol 0 (fedsup-deploy 0.0.9), here it is 1 (fedsup-deploy 1.2.3); install "
        "the same version on both sides"
    }
    listing = DeviceListing(Path("devices.json"), devices, refused)
    kits = tuple(
        DeviceKit(name, Path("kits") / name, Path(f"kits/{name}/{name}.key.pub"))
        for name in ("camera-north", "phone-anna")
    )
    register = (
        "fleet register --config server.yaml kits/camera-north/camera-north.key.pub kits/phone-anna/phone-anna.key.pub"
    )
    make = "fleet kit camera-north phone-anna --config server.yaml --out kits --set superlink=server.example:9092"
    authority = MadeAuthority(Path("fleet"), ("server.example",), 825, is_new_authority=True)
    return {
        "fleet init --server server.example --out fleet": page_of(authority),
        make: page_of(DeviceKits(kits, f"fedsup-deploy {register}")),
        register: page_of(RegisteredDevices(("camera-north", "phone-anna"))),
        "fleet unregister phone-anna --config server.yaml": page_of(
            UnregisteredDevices(("phone-anna",), ("camera-north", "camera-south"))
        ),
        "fleet list --config server.yaml": page_of(listing),
    }


def signed_pages() -> dict[str, Page]:
    """Return what `sign` says, of a made-up key."""
    bundle = Path("exports/raspberry-pi-4/a12d0108d544")
    signed = SignedBundle(bundle, bundle / "model.sig", 7, "6f" * 32, 12, is_key_readable_by_others=False)
    return {f"sign {bundle} --key key.pem --version 7": page_of(signed)}


def page(found: Mapping[str, Page]) -> str:
    """Return the text of the page."""
    parts = [HEAD]
    for line, shown in found.items():
        parts.append(f"## `fedsup-deploy {line}`\n".replace("PROFILES", "profiles"))
        by_text: dict[str, list[str]] = {}
        for width in WIDTHS:
            by_text.setdefault("\n".join(shown(width)).rstrip(), []).append(str(width))
        for text, widths in by_text.items():
            parts.append(f"{' and '.join(widths)} columns:\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        PAGE.write_text(page(pages(Path(name))), encoding="utf-8")
