"""The program of a worker process: carries out requests until nobody is left who could send one.

`pool` starts it as a script, `python -I worker.py CONNECTION WORK`, with the numbers of two descriptors that it
inherits: a connection for requests and replies, and a file that says what the work is (`write_work`). As a script it
imports the standard library only, until that file has told it where other modules are.
"""

import mmap
import os
import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import IO, Final

#: Takes a request, returns the reply.
Work = Callable[[object], object]

_ALIGNMENT: Final = 64
_LENGTH_BYTES: Final = 8


def write_work(file: IO[bytes], open_work: Callable[[], object], module_folders: Sequence[str]) -> None:
    """Write what a worker needs to know; every worker maps the same file, so that its arrays are in memory once.

    Args:
        file: Empty, open for reading and writing.
        open_work: Returns a `Work`; called once in every worker, so it must pickle. Its arrays are read-only there.
        module_folders: The worker's `sys.path`.
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(open_work, protocol=5, buffer_callback=buffers.append)
    places = []
    for buffer in buffers:
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
        begin = file.tell()
        file.write(buffer.raw())
        places.append((begin, file.tell()))
    num_bytes = file.write(pickle.dumps((list(module_folders), pickled, places)))
    file.write(num_bytes.to_bytes(_LENGTH_BYTES, "little"))
    file.flush()


def main() -> None:
    """Answer requests one after the other.

    Side effects: Ends the process when the other end of the connection is closed, whatever it is doing.
    """
    connection, work_file = Connection(int(sys.argv[1])), int(sys.argv[2])
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    work: Work | None = None
    while True:
        request = requests.get()
        try:
            work = work or _open_work(work_file)
            reply = pickle.dumps((work(pickle.loads(request)), None, ""), protocol=5)  # noqa: S301  from our starter
        except Exception as error:  # noqa: BLE001  whatever it is, the starter raises it
            reply = _pickled_error(error)
        try:
            connection.send_bytes(reply)
        except OSError:
            os._exit(0)


def _receive(connection: Connection, requests: "queue.SimpleQueue[bytes]") -> None:
    """Pass requests on; reading all the time is how the end of the other process is noticed."""
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _open_work(descriptor: int) -> Work:
    sys.path[:], read_open_work = read_work(descriptor)
    work = read_open_work()()
    assert callable(work)
    return work


def read_work(descriptor: int) -> "tuple[list[str], Callable[[], Callable[[], object]]]":
    """Return where modules are that the work needs, and what reads `open_work`, once they can be imported.

    Args:
        descriptor: Of a file by `write_work`, of our own: what is in it is code.
    """
    # Mapped, and not read: other workers hold the same descriptor, and with it one position to read from.
    view = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    end = len(view) - _LENGTH_BYTES
    begin = end - int.from_bytes(view[end:], "little")
    module_folders, pickled, places = pickle.loads(view[begin:end])  # noqa: S301  from our starter

    def read_open_work() -> Callable[[], object]:
        buffers = [view[begin:end] for begin, end in places]
        open_work: Callable[[], object] = pickle.loads(pickled, buffers=buffers)  # noqa: S301
        return open_work

    return module_folders, read_open_work


def _pickled_error(error: Exception) -> bytes:
    trace = traceback.format_exc()
    try:
        reply = pickle.dumps((None, error, trace))
        pickle.loads(reply)  # noqa: S301  written a line above
    except Exception:  # noqa: BLE001  an error can hold anything
        reply = pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}"), trace))
    return reply


if __name__ == "__main__":
    main()
