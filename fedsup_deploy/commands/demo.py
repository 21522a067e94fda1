"""`fedsup-deploy demo`: the whole road on bundled images. Imports torch."""

import dataclasses
import time
from pathlib import Path

from fedsup_deploy import places
from fedsup_deploy.commands.deploy import DeployedBundle, deploy
from fedsup_deploy.commands.report import check_out, report
from fedsup_deploy.commands.search import SearchRequest
from fedsup_deploy.commands.train import train
from fedsup_deploy.commands.training_summary import Trained
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import OutputError
from fedsup_deploy.events import Listener
from fedsup_deploy.report import library
from fedsup_deploy.results import Result
from fedsup_deploy.runs import run as runs

CONFIG = "digits"
#: Latency limits in ms for 8x8 images, which are faster than the profiles' own limits for 32x32 images expect. They
#: are tight where the device is weak, so that the devices get different subnets.
FLEET = {"raspberry-pi-4": 0.65, "jetson-nano": 0.8, "pixel-class-phone": 0.16, "x86-laptop": 0.05}


@dataclasses.dataclass(frozen=True)
class DemonstratedDevice(DeployedBundle):
    """The bundle of one device class.

    Args:
        latency_ms_limit: What the search held it to, in ms.
    """

    latency_ms_limit: float


@dataclasses.dataclass(frozen=True)
class Demonstration(Result):
    """What the whole road came to.

    Args:
        training: What training came to.
        search: The file of the search.
        devices: The bundle of each device class.
        report: The page that shows all of it; None where what it needs is not installed.
        next: Commands to try.
        seconds: Of everything.
    """

    training: Trained
    search: Path
    devices: tuple[DemonstratedDevice, ...]
    report: Path | None
    next: tuple[str, ...]
    seconds: float


def demo(out: Path, listeners: tuple[Listener, ...] = ()) -> Demonstration:
    """Train a federated supernet, pick a subnet per device class, export and check it, and time it here.

    Args:
        out: Where `runs/demo`, `exports` and `report.html` go. A former demo run and page there are replaced.
        listeners: Called with all events.

    Raises:
        OutputError: Nothing can be written at `out`, something else stands where the run goes, or another process is
            writing there.
    """
    started = time.perf_counter()
    run, exports, page = out / runs.RUNS / "demo", out / "exports", out / "report.html"
    places.check_writable(exports, places.CHOOSE_OUT)
    check_out(page)
    with places.hold(run, inside=True, advice=places.CHOOSE_OUT):
        _clear(run)
        return _demo(run, exports, page, listeners, started)


def _demo(run: Path, exports: Path, page: Path, listeners: tuple[Listener, ...], started: float) -> Demonstration:
    training = train(load_train_config(CONFIG), run, listeners=listeners, command=("fedsup-deploy", "demo"))
    fleet = [_limited(name, latency_ms) for name, latency_ms in FLEET.items()]
    made = deploy(SearchRequest(fleet, run=run), exports, listeners=listeners)
    limits = {profile.name: profile.limits.given()["latency_ms"] for profile in fleet}
    devices = tuple(
        DemonstratedDevice(**vars(bundle), latency_ms_limit=limits[bundle.profile]) for bundle in made.bundles
    )
    has_page = not library.missing()
    if has_page:
        report([made.search, *(each.folder for each in devices), run], page, listeners=listeners)
    return Demonstration(
        training=training,
        search=made.search,
        devices=devices,
        report=page if has_page else None,
        next=(
            f"python {devices[0].folder}/run.py",
            f"fedsup-deploy verify {devices[0].folder}",
            f"fedsup-deploy search --run {run} --profile jetson-nano --max-latency-ms 0.7",
            f"fedsup-deploy evaluate {run} --arch largest --per-client",
        ),
        seconds=round(time.perf_counter() - started, 1),
    )


def _limited(name: str, latency_ms: float) -> DeviceProfile:
    profile = load_profile(name)
    return profile.model_copy(update={"limits": profile.limits.model_copy(update={"latency_ms": latency_ms})})


def _clear(run: Path) -> None:
    if not places.is_empty(run) and not (run / runs.CONFIG).is_file():
        raise OutputError(f"{run} is in the way and is not a run of ours; move it, or choose another --out")
    places.clear(run)
