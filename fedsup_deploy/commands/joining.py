"""Devices that come to a training between its rounds: who is there, who fits, and who takes part from then on."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.devices import AnnouncedDevice, Form
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation.batches import check_can_be_normalized
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.announce import Announce, Announcement
from fedsup_deploy.federation.messages import Engine, Entrance, Patience, Reply
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.simulation import NEWCOMERS, FederatedData
from fedsup_deploy.run_events import Joined, NotJoined
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.announced import device_of
from fedsup_deploy.runs.federation import terms_of
from fedsup_deploy.runs.joined import JoinedDevice
from fedsup_deploy.supernet.layout import Layout

#: Seconds for which a training waits for what a device announces, and after which its answer is of no use any more.
_ANSWER_S: Final = 30.0
_LATE_S: Final = 600.0


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


class _Question(Patience[Announcement]):
    """What was asked of some devices at once, each of which may answer after the exchange.

    Args:
        names: Who was asked, by the numbers of the exchange.
        waited_for: Those of them for whom it waits.
        take: Takes the answer of one.
    """

    late_s = _LATE_S

    def __init__(
        self, names: Mapping[ClientId, str], waited_for: Collection[str], take: Callable[[str, Announcement], None]
    ) -> None:
        self._names, self._waited_for, self._take = names, waited_for, take
        self.expected = set(names.values())

    def is_enough(self) -> bool:
        """Return whether nobody is waited for any more."""
        return self.expected.isdisjoint(self._waited_for)

    def awaits(self, client: ClientId) -> bool:
        """Return whether an answer of a device would still be heard."""
        return self._names[client] in self.expected

    def take_late(self, reply: Reply[Announcement]) -> None:
        """Take what came of the question to one, also in time."""
        if self.awaits(reply.client):
            self.expected.discard(self._names[reply.client])
            if reply.value is not None:
                self._take(self._names[reply.client], reply.value)


class Doorkeeper:
    """Lets in who is there and fits. Who does not is told of once, and again where the reason is another.

    Training waits once for an answer, and not for long: who is slow is let in when its answer has come.

    Args:
        entrance: To the clients.
        conditions: What a device has to be like.
        folder: Of the run, which says who has come in.
        num_clients: How many clients have numbers, seen or not.
        terms: Of exchanges: nobody is waited for beyond their deadline.
        log: Takes events.
    """

    def __init__(
        self, entrance: Entrance, conditions: Conditions, folder: Path, num_clients: int, terms: Terms, log: EventLog
    ) -> None:
        self._entrance, self._conditions, self._folder = entrance, conditions, folder
        self._within_s = _ANSWER_S if terms.deadline_s is None else min(_ANSWER_S, terms.deadline_s)
        self._next, self._log = num_clients, log
        self._questions: list[_Question] = []
        self._answers: dict[str, Announcement] = {}
        self._slow: set[str] = set()
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
        self._forget_all_but(set(there.values()))
        known = {*self._unfit, *self._answers, *(name for each in self._questions for name in each.expected)}
        absent = self._ask({client: name for client, name in there.items() if name not in known})
        devices = self._fit()
        self._tell_refused(rounds_done, absent | self._unfit)
        if devices:
            self._admit(rounds_done, devices)
        return bool(devices)

    def _forget_all_but(self, there: Collection[str]) -> None:
        """Forget who has gone meanwhile, and may come back mended."""
        self._unfit = {name: reason for name, reason in self._unfit.items() if name in there}
        self._answers = {name: said for name, said in self._answers.items() if name in there}
        self._slow.intersection_update(there)
        for question in self._questions:
            question.expected.intersection_update(there)
        self._questions = [question for question in self._questions if question.expected]

    def _ask(self, asked: Mapping[ClientId, str]) -> dict[str, str]:
        """Ask some; return those who were waited for and have not answered, and the reason."""
        waited_for = set(asked.values()) - self._slow
        question = _Question(asked, waited_for, self._take)
        self._questions.append(question)
        absent = {}
        jobs = dict.fromkeys(asked, Announce())
        for reply in self._entrance.ask(jobs, self._within_s, question) if jobs else ():
            question.take_late(reply)
            if reply.value is None:
                absent[asked[reply.client]] = reply.absent or "no answer"
        self._slow |= question.expected
        return {**absent, **dict.fromkeys(question.expected & waited_for, f"no answer within {self._within_s:g} s")}

    def _take(self, name: str, said: Announcement) -> None:
        self._answers[name] = said

    def _fit(self) -> list[AnnouncedDevice]:
        """Return those of the devices that have answered that fit."""
        answers, self._answers = self._answers, {}
        devices = []
        for name, said in sorted(answers.items()):
            try:
                device = device_of(name, said)
                reason = self._conditions.why_unfit(device)
            except DataError as error:
                reason = str(error)
            if reason is None:
                devices.append(device)
            else:
                self._unfit[name] = reason
        return devices

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
