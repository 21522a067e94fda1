"""Devices that come to a training between its rounds: who is there, who fits, and who takes part from then on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.devices import AnnouncedDevice, Form
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation.batches import check_can_be_normalized
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.announce import Announce, Announcement
from fedsup_deploy.federation.messages import Engine, Entrance
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.simulation import NEWCOMERS, FederatedData
from fedsup_deploy.run_events import Joined, NotJoined
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.announced import device_of
from fedsup_deploy.runs.federation import terms_of
from fedsup_deploy.runs.joined import JoinedDevice
from fedsup_deploy.supernet.layout import Layout


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What a device has to be like.

    Args:
        form: Of the images that the run was begun with.
        config: Of the run.
        layout: Of its supernet.
        batches: Each setting that bounds the images of a batch, with its value.
    """

    form: Form
    config: TrainConfig
    layout: Layout
    batches: Mapping[str, int]

    @classmethod
    def of(cls, config: TrainConfig, data: FederatedData, layout: Layout, batches: Mapping[str, int]) -> "Conditions":
        """Return the conditions of a run."""
        train = data.train
        return cls(Form(train.classes, train.image_shape, train.pixel_dtype, data.made_square), config, layout, batches)

    def why_unfit(self, device: AnnouncedDevice) -> str | None:
        """Return in one line why a device cannot take part: what it has, and what is expected; None where it can."""
        if (difference := device.form.differs_from(self.form)) is not None:
            return difference
        if device.tier >= (tiers := self.config.strategy.num_tiers):
            return f"tier {device.tier}, the strategy has {tiers}, numbered from 0"
        if sum(device.trained) < (fewest := self.config.partition.min_samples):
            return f"{sum(device.trained)} images to train on, partition.min_samples is {fewest}"
        try:
            check_can_be_normalized(self.layout, [info_of(0, device)], self.batches)
        except ConfigError as error:
            return str(error)
        return None


def info_of(number: ClientId, device: AnnouncedDevice) -> ClientInfo:
    """Return what a device has announced, as a client of a number."""
    held_out, tested = sum(device.held_out), sum(device.tested)
    return ClientInfo(number, sum(device.trained), held_out, device.tier, tested, device.name)


class Doorkeeper:
    """Lets in who is there and fits. Who does not is told of once, and again where the reason is another.

    Args:
        entrance: To the clients.
        conditions: What a device has to be like.
        folder: Of the run, which says who has come in.
        num_clients: How many clients have numbers, seen or not.
        terms: How long a device has to answer.
        log: Takes events.
    """

    def __init__(
        self, entrance: Entrance, conditions: Conditions, folder: Path, num_clients: int, terms: Terms, log: EventLog
    ) -> None:
        self._entrance, self._conditions, self._folder, self._terms = entrance, conditions, folder, terms
        self._next, self._log = num_clients, log
        self._unfit: dict[str, str] = {}
        self._told: dict[str, str] = {}

    def let_in(self, rounds_done: int) -> bool:
        """Let those in that have come; return whether there are any.

        Args:
            rounds_done: They take part from the round of this number on.

        Raises:
            FederationError: Nobody can be asked any more.
        """
        there = {info.client: str(info.name) for info in self._entrance.clients()}
        # Who has gone meanwhile may come back mended.
        self._unfit = {name: reason for name, reason in self._unfit.items() if name in there.values()}
        asked = {client: name for client, name in there.items() if name not in self._unfit}
        devices, absent = self._ask(asked)
        for name, device in list(devices.items()):
            if (reason := self._conditions.why_unfit(device)) is not None:
                self._unfit[name] = reason
                del devices[name]
        self._tell_refused(rounds_done, absent | self._unfit)
        if devices:
            self._admit(rounds_done, [device for _, device in sorted(devices.items())])
        return bool(devices)

    def _ask(self, asked: Mapping[ClientId, str]) -> tuple[dict[str, AnnouncedDevice], dict[str, str]]:
        """Return by name what those have that have answered, and why the others have not."""
        devices: dict[str, AnnouncedDevice] = {}

        def take(client: ClientId, said: Announcement) -> str | None:
            try:
                devices[asked[client]] = device_of(asked[client], said)
            except DataError as error:
                return str(error)
            return None

        absent = {}
        if asked:
            absent = cohort.gather(self._entrance, dict.fromkeys(asked, Announce()), take, self._terms).absent
        return devices, {asked[client]: reason for client, reason in absent.items()}

    def _tell_refused(self, rounds_done: int, reasons: Mapping[str, str]) -> None:
        new = {name: reason for name, reason in sorted(reasons.items()) if self._told.get(name) != reason}
        self._told |= new
        if new:
            self._log.record(NotJoined(round=rounds_done - 1, devices=new))

    def _admit(self, rounds_done: int, devices: list[AnnouncedDevice]) -> None:
        infos = [info_of(self._next + place, device) for place, device in enumerate(devices)]
        facts = runs.read_image_facts(self._folder)
        assert facts is not None
        joined = (*facts.joined, *(JoinedDevice(since=rounds_done, device=device) for device in devices))
        runs.write_image_facts(self._folder, facts.model_copy(update={"joined": joined}))
        self._entrance.admit(infos)
        self._next += len(infos)
        names = {str(info.client): str(info.name) for info in infos}
        num_images = sum(info.num_samples + info.num_held_out for info in infos)
        self._log.record(Joined(round=rounds_done - 1, since_round=rounds_done, names=names, num_images=num_images))


def doorkeeper(
    engines: Mapping[str, Engine], conditions: Conditions, folder: Path, num_clients: int, log: EventLog
) -> Doorkeeper | None:
    """Return who lets devices in, where that is asked for; None where the clients are those of the list."""
    if not conditions.config.federation.joining:
        return None
    entrance = engines[NEWCOMERS]
    assert isinstance(entrance, Entrance), "where there is a SuperLink"
    return Doorkeeper(entrance, conditions, folder, num_clients, terms_of(conditions.config), log)
