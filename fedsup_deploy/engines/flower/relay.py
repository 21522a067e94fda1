"""A courier in one process, used from another: the command asks, and the app that Flower runs for it carries.

So a command over Flower is the same command: it alone trains, reports, stops and goes on. It is connected to the
app by a socket in a folder that only its user can enter; the end of either is seen by the other at once.
"""

import contextlib
import json
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Collection, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from fedsup_deploy.engines.flower.courier import Courier, Delivery, FlowerNode, Letter, Ticket
from fedsup_deploy.errors import FederationError

#: Seconds that the app waits for the command to say something between looks for answers: at first, and at most.
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5


class RelayCourier:
    """The command's end.

    Args:
        connection: To the app; a socket. It is the courier's, which closes it.
        why_ended: Says why the other end is gone, for the message.
    """

    def __init__(self, connection: Connection, why_ended: Callable[[], str]) -> None:
        self._connection, self._why_ended, self._number = connection, why_ended, 0
        self._come: queue.SimpleQueue[Delivery | list[FlowerNode] | None] = queue.SimpleQueue()
        self._early: list[Delivery] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def nodes(self) -> Sequence[FlowerNode]:
        """Return the nodes that can be asked at present."""
        self._write({"nodes": True})
        while not isinstance(item := self._next(None), list):
            self._early.append(item)
        return item

    def send(self, letter: Letter) -> Ticket:
        """Send a message on its way."""
        self._number += 1
        ticket = str(self._number)
        header = {"send": ticket, "node": letter.node, "population": letter.population, "ttl_s": letter.ttl_s}
        self._write(header, letter.message)
        return ticket

    def receive(self, wait_s: float) -> Sequence[Delivery]:
        """Return what has come since."""
        found, self._early = self._early, []
        try:
            while not isinstance(item := self._next(0 if found else wait_s), list):
                found.append(item)
        except queue.Empty:
            pass
        return found

    def forget(self, tickets: Collection[Ticket]) -> None:
        """Wait no longer for some answers."""
        if tickets:
            self._write({"forget": list(tickets)})

    def end(self) -> None:
        """Let the app end, as one whose work is done."""
        self._write({"end": True})

    def close(self) -> None:
        """Close the connection, once nobody reads of it: its number is soon that of another, whose bytes would go."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._connection.close()

    def _next(self, wait_s: float | None) -> Delivery | list[FlowerNode]:
        item = self._come.get(timeout=wait_s) if wait_s is None or wait_s > 0 else self._come.get_nowait()
        if item is None:
            self._come.put(None)
            raise FederationError(self._why_ended())
        return item

    def _write(self, header: dict[str, Any], message: bytes | None = None) -> None:
        try:
            _send(self._connection, header, message)
        except OSError as error:
            raise FederationError(self._why_ended()) from error

    def _read(self) -> None:
        """Take in all that comes at once: were both sides to write and neither to read, both would wait for ever."""
        try:
            while True:
                header, message = _receive(self._connection)
                if "nodes" in header:
                    self._come.put([FlowerNode(node, name) for node, name in header["nodes"]])
                else:
                    self._come.put(Delivery(header["ticket"], message, header["lost"], header["is_worth_another"]))
        except (EOFError, OSError):
            self._come.put(None)


def user_of(connection: Connection) -> int:
    """Return the number of the user at the other end."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        told = same.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", told)
    return int(user)


def serve(connection: Connection, courier: Courier) -> None:
    """Carry for the other end until it says that it is done.

    Raises:
        EOFError: It has gone before.
    """
    theirs: dict[Ticket, Ticket] = {}
    pause_s = _FIRST_PAUSE_S
    while True:
        # With nothing under way there is nothing to look for.
        if connection.poll(pause_s if theirs else None):
            header, message = _receive(connection)
            if "end" in header:
                return
            _carry_out(header, message, connection, courier, theirs)
            pause_s = _FIRST_PAUSE_S
            continue
        found = courier.receive(0)
        for delivery in found:
            ticket = theirs.pop(delivery.ticket, None)
            if ticket is not None:
                header = {"ticket": ticket, "lost": delivery.lost, "is_worth_another": delivery.is_worth_another}
                _send(connection, header, delivery.message)
        pause_s = _FIRST_PAUSE_S if found else min(1.5 * pause_s, _LONGEST_PAUSE_S)


def _carry_out(
    header: dict[str, Any],
    message: bytes | None,
    connection: Connection,
    courier: Courier,
    theirs: dict[Ticket, Ticket],
) -> None:
    """Do what the command asks for."""
    if "nodes" in header:
        _send(connection, {"nodes": [[found.node, found.name] for found in courier.nodes()]})
    elif "forget" in header:
        forgotten = set(header["forget"])
        ours = [ticket for ticket, their in theirs.items() if their in forgotten]
        courier.forget(ours)
        for ticket in ours:
            del theirs[ticket]
    else:
        letter = Letter(header["node"], header["population"], message or b"", header["ttl_s"])
        theirs[courier.send(letter)] = header["send"]


def _send(connection: Connection, header: dict[str, Any], message: bytes | None = None) -> None:
    connection.send_bytes(json.dumps({**header, "has_message": message is not None}).encode())
    if message is not None:
        connection.send_bytes(message)


def _receive(connection: Connection) -> tuple[dict[str, Any], bytes | None]:
    header: dict[str, Any] = json.loads(connection.recv_bytes())
    return header, connection.recv_bytes() if header.pop("has_message") else None
