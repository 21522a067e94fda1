"""`fedsup-deploy profile build`: time what is needed on a machine, and write its profile. Torch-free."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedsup_deploy import files, places, resources
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.config.section import Name
from fedsup_deploy.device.building.assemble import About, assemble
from fedsup_deploy.device.building.baseline import LeftOut, reasons
from fedsup_deploy.device.building.bench import There
from fedsup_deploy.device.building.plan import plan_build
from fedsup_deploy.device.building.times import times_of
from fedsup_deploy.device.building.workplace import Progress, Workplace
from fedsup_deploy.device.measure import check_threads
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.device.remote.ssh import Access
from fedsup_deploy.device.summary import ProfileSummary, summary_of
from fedsup_deploy.errors import ConfigError, OutputError, as_output_error
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.results import Result
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.variant import Precision

PROFILES = Path("profiles")
SPACE = "fedsup-mobilenet"
#: After a build was cut.
GO_ON = "the same command with --resume goes on after the last whole round"


@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """What a user wants to know of a machine.

    Args:
        name: Of the profile.
        space: Name or file of a search space, or the folder of a run; whose networks it is about.
        out: Where the profile goes; None is `profiles/NAME.yaml`.
        precision: Number format of the networks.
        threads: Threads of the runtime.
        minutes: Time for the measurement, without start and end.
        limits: Default limits of a search, by name.
        seed: Decides which networks are timed.
        resume: Go on with an interrupted build; start anew where there is none.
        access: The machine; None: this one.
    """

    name: str = "host"
    space: str = SPACE
    out: Path | None = None
    precision: Precision = "fp32"
    threads: int = 1
    minutes: float = 4.0
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seed: int = 0
    resume: bool = False
    access: Access | None = None

    @property
    def path(self) -> Path:
        """Where the profile goes."""
        return self.out or PROFILES / f"{self.name}.yaml"

    @property
    def workplace(self) -> Path:
        """The folder the build works in."""
        return self.path.with_name(f".{self.path.stem}.build")


@dataclasses.dataclass(frozen=True)
class WrittenProfile(Result):
    """A profile that was made here.

    Args:
        out: Its file.
        profile: What it says.
        left_out: The latency model it was to have, where a straight line through the MACs predicts better.
    """

    out: Path
    profile: ProfileSummary
    left_out: LeftOut | None


@dataclasses.dataclass(frozen=True)
class BuiltProfile(WrittenProfile):
    """The profile of a machine.

    Args:
        num_parts: Parts of networks that were timed; 0 where whole networks were.
        num_networks: Networks that the latency model was fitted to.
        num_heldout: Networks that it was checked on.
        num_rounds: Visits of each model.
        seconds: Length of the measurement.
        disagreement: Between even and odd rounds of the median network that it was checked on, as a share.
    """

    num_parts: int
    num_networks: int
    num_heldout: int
    num_rounds: int
    seconds: float
    disagreement: float


def build(request: BuildRequest, listeners: Sequence[Listener] = ()) -> BuiltProfile:
    """Build the profile of this machine, or of another, and write it here.

    Raises:
        DeviceError: The other machine cannot be reached, or the connection was cut; what was timed is kept for
            `resume`.
        ConfigError: The space is unknown or too small, or an interrupted build had other settings.
        GateError: The machine was too restless; what was timed is kept for `resume`.
        OutputError: The profile cannot be written, or another process is at work on it.

    Side effects: Works in a folder beside the profile, and removes it at the end.
    """
    check_place(request.path, request.name)
    if request.access is None:
        check_threads(request.threads)
    # The workplace as well: `x.yaml` and `x.yml` have the same.
    with places.hold(request.path, advice=places.CHOOSE_OUT), places.hold(request.workplace, advice=places.CHOOSE_OUT):
        return _build(request, EventLog(None, tuple(listeners)))


def _build(request: BuildRequest, log: EventLog) -> BuiltProfile:
    plan = plan_build(load_space(request.space), seed=request.seed)
    bench = None if request.access is None else There(dataclasses.replace(request.access, again=GO_ON))
    workplace = Workplace(request.workplace, plan, request.threads, request.precision, bench)
    progress = progress_into(log)
    if not (request.resume and workplace.resume()):
        workplace.begin(progress)
    workplace.time_models(request.minutes, progress)
    times = times_of(workplace.events, plan.heldout_models, "go on with --resume and more --minutes")
    about = About(request.name, request.precision, request.limits, workplace.facts.memory_mib)
    profile, error = assemble(plan, times, about)
    files.write_text(request.path, dump(profile))
    workplace.remove()
    disagreement = times.median_disagreement(plan.heldout_models)
    load = times.environment.get("load_average_1m")
    why = reasons(times.of(plan.heldout_models) / 1e3, len(plan.calibration), load, disagreement)
    return BuiltProfile(
        out=request.path,
        profile=summary_of(profile),
        left_out=None if error is None else LeftOut(error, why),
        num_parts=len(plan.parts),
        num_networks=len(plan.calibration),
        num_heldout=len(plan.heldout),
        num_rounds=times.num_rounds,
        seconds=times.seconds,
        disagreement=disagreement,
    )


def load_space(name_or_path: str) -> SearchSpace:
    """Return the search space a user means: a shipped name, a file, or that of a run with its channels and classes."""
    path = resources.expanded(name_or_path)
    if os.path.isdir(path):  # noqa: PTH112  a name that nothing can have is no folder, and no error
        return open_run(Path(path)).space
    return validate(load_yaml(resources.find("configs/spaces", name_or_path)), SearchSpace)


def check_place(out: Path, name: str) -> None:
    """Fail now if a profile cannot be written there, or would not be found again.

    Raises:
        ConfigError: No profile can have the name, or a shipped one has it.
        OutputError: The place is a folder, has another ending, or holds something else than a profile.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        expected = "at most 64 lower case letters and digits, with single hyphens between"
        raise ConfigError(f"--name: got {name!r}, expected {expected}") from error
    # What was built or fitted here may be replaced by another build or fit.
    if (
        name in resources.shipped_names("profiles")
        and not load_profile(resources.shipped_folder("profiles") / f"{name}.yaml").is_made_here
    ):
        raise ConfigError(f"--name: {name} is the name of a shipped profile; choose another")
    with as_output_error(out):
        if out.is_dir():
            raise OutputError(f"cannot write {out}: it is a folder; give --out the name of a file")
    if out.suffix not in {".yaml", ".yml"}:
        raise OutputError(f"cannot write {out}: expected a name that ends in .yaml, by which a profile is found")
    if out.exists() and not _is_profile(out):
        raise OutputError(f"cannot write {out}: it is there and holds no profile; give --out another name")


def _is_profile(path: Path) -> bool:
    """Return whether a file holds a profile, be it one that this version refuses."""
    try:
        return {"latency", "provenance"} <= load_yaml(path).data.keys()
    except ConfigError:
        return False


def progress_into(log: EventLog) -> Progress:
    """Return a function that turns what is done into events."""

    def report(stage: str, done: int, total: int) -> None:
        log.emit("profile", stage=stage, done=done, total=total)

    return report
