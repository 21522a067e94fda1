"""The updates of one round: which are used, which are rejected and why, and how many bytes they had."""

import dataclasses
from collections.abc import Mapping

from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.frame import MALFORMED_ANSWER
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate
from fedsup_deploy.federation.messages import num_bytes
from fedsup_deploy.federation.server.late import LateUpdate
from fedsup_deploy.federation.server.norms import NormGate, Norms
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.layout import Layout


class RoundUpdates:
    """Takes in the updates of a round, one at a time: none is kept, but of those that wait for the others.

    Args:
        gate: Lets updates into the average of the round.
        layout: Of the supernet.
        infos: What clients have announced, also those of earlier rounds.
        plan: What each that is asked trains.
        epochs: How often a client goes through its images.

    Attributes:
        used: The updates that are in the average, without their weights.
        num_bytes: Size of the tensors that have come.
        where: For each client the part of the supernet that it was sent.
    """

    def __init__(
        self,
        gate: NormGate,
        layout: Layout,
        infos: Mapping[ClientId, ClientInfo],
        plan: Mapping[ClientId, Assignment],
        epochs: int,
    ) -> None:
        self._gate, self._layout, self._infos, self._plan, self._epochs = gate, layout, infos, plan, epochs
        self.used: dict[ClientId, ClientUpdate] = {}
        self.num_bytes = 0
        self.where = {client: part_of(layout, assignment) for client, assignment in plan.items()}
        self._rejected: set[ClientId] = set()

    @property
    def norms(self) -> Norms:
        """What the next round compares its updates with."""
        return self._gate.norms

    def take(self, client: ClientId, update: ClientUpdate) -> str | None:
        """Take the update of a client that was asked; return why it is rejected, or None."""
        self.num_bytes += num_bytes(update.weights)
        reason = self._miscounted(client, update, self._plan[client])
        if reason is None:
            reason = self._gate.add(client, update, self.where[client])
        if reason is None:
            self.used[client] = dataclasses.replace(update, weights={})
        else:
            self._rejected.add(client)
        return reason

    def drop(self) -> None:
        """Forget all: the round broke off."""
        self._gate.drop()

    def close(self) -> dict[ClientId, str]:
        """Return those whose update is rejected now that all have come, with the reason."""
        rejected = self._gate.close()
        self._rejected |= rejected.keys()
        for client in rejected:
            del self.used[client]
        return rejected

    def take_late(self, client: ClientId, late: LateUpdate) -> str | None:
        """Take an update of an earlier round, once those of this one have come; return why it is not used, or None."""
        update = late.update
        self.num_bytes += num_bytes(update.weights)
        if client in self.used:
            return "has answered in time since"
        reason = self._miscounted(client, update, late.job.assignment)
        if reason is None:
            reason = self._gate.add_late(update, late.where, late.job.weights.tensors, late.weight)
        if reason is None:
            self.used[client] = dataclasses.replace(update, weights={})
        return reason

    def has_rejected(self, client: ClientId, reason: str) -> bool:
        """Return whether it was an update that an absent client lacks, and not an answer."""
        return client in self._rejected or reason.startswith(MALFORMED_ANSWER)

    def _miscounted(self, client: ClientId, update: ClientUpdate, assignment: Assignment) -> str | None:
        """Return what a client counts that it cannot have, by what it has announced."""
        if update.num_samples > self._infos[client].num_samples:
            return "more images than it has announced"
        macs = self._layout.num_macs
        if assignment.architecture is None:
            of_image = assignment.num_subnets * self._layout.most_macs
        else:
            of_image = sum(map(macs, (assignment.architecture, *assignment.inner)))
        if update.num_macs > self._epochs * self._infos[client].num_samples * of_image:
            return "more multiply-accumulates than its images take"
        return None


def part_of(layout: Layout, assignment: Assignment) -> rule.Slices:
    """Return the part of the supernet that a client is sent."""
    return layout.slices(assignment.architecture) if assignment.architecture else layout.whole
