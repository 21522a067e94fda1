"""The program of a wire: relays TCP connections from one address to another, late, silent or torn as it is told.

`python -I wire.py LISTEN TO PORT` relays what comes to LISTEN:PORT to TO:PORT, and obeys lines of its standard input,
each of which it answers with one:

    delay SECONDS     every byte arrives so much later, either way
    stall             nothing goes on, either way, and no connection ends
    go                all goes on
    reset             every connection there is ends with a reset
    tear BYTES        the next answer of the server that is larger is lost: the connection ends with a reset instead.
                      On a connection that is new that would be how two sides of TLS meet: one in use is waited for
    torn              whether that has happened: how often
"""

import contextlib
import queue
import socket
import struct
import sys
import threading
import time

#: Pieces from the node after which a connection has carried a question and its answer, and carries another.
ANSWERED = 6
#: SO_LINGER that makes closing a reset.
RESET = struct.pack("ii", 1, 0)


class Wire:
    """What all connections share."""

    def __init__(self) -> None:
        self.delay_s, self.torn = 0.0, 0
        self.goes = threading.Event()
        self.goes.set()
        self.tear_over: int | None = None
        self.pieces: dict[socket.socket, int] = {}
        self.ends: set[socket.socket] = set()
        self.lock = threading.Lock()

    def obey(self, line: str) -> str:
        """Do what a line says."""
        word, _, rest = line.partition(" ")
        if word == "delay":
            self.delay_s = float(rest)
        elif word == "stall":
            self.goes.clear()
        elif word == "go":
            self.goes.set()
        elif word == "reset":
            with self.lock:
                ends, self.ends = self.ends, set()
            for end in ends:
                reset(end)
        elif word == "tear":
            self.tear_over = int(rest)
        elif word == "torn":
            return str(self.torn)
        else:
            return f"no such word: {word}"
        return "done"


def reset(end: socket.socket) -> None:
    """End a connection with a reset."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        end.close()


def pump(wire: Wire, source: socket.socket, target: socket.socket, *, is_up: bool) -> None:
    """Carry what comes from one end to the other until either ends."""
    late: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while True:
                due, chunk = late.get()
                time.sleep(max(0.0, due - time.monotonic()))
                wire.goes.wait()
                if not chunk:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(chunk)

    threading.Thread(target=deliver, daemon=True).start()
    chunk = b"-"
    while chunk:
        try:
            chunk = source.recv(65536)
        except OSError:
            chunk = b""
        if is_up:
            wire.pieces[source] = wire.pieces.get(source, 0) + 1
        elif wire.tear_over is not None and len(chunk) > wire.tear_over and wire.pieces.get(target, 0) >= ANSWERED:
            wire.tear_over, wire.torn = None, wire.torn + 1
            for end in (source, target):
                reset(end)
            return
        late.put((time.monotonic() + wire.delay_s, chunk))


def main() -> None:
    """Relay until standard input ends."""
    here, there, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    wire = Wire()
    listener = socket.create_server((here, port))

    def accept() -> None:
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection((there, port), 60)
            except OSError:
                reset(near)
                continue
            far.settimeout(None)
            with wire.lock:
                wire.ends |= {near, far}
            for source, target, is_up in ((near, far, True), (far, near, False)):
                threading.Thread(target=pump, args=(wire, source, target), kwargs={"is_up": is_up}, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(f"{wire.obey(line.strip())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
