"""What a node does with a message. Knows no Flower: bytes come in, bytes go out."""

from collections.abc import Mapping

from fedsup_deploy.engines.inprocess import perform_discreetly
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation import encoding, frame
from fedsup_deploy.federation.messages import HeldBlobs
from fedsup_deploy.federation.simulation import Population

#: The message that asks a node who it is.
HELLO = b""


class ClientNode:
    """Answers messages for the clients that it stands for.

    Args:
        name: What it is called among the nodes; where Flower knows a name, that one counts.
        populations: Who does the jobs, by the name of what they were asked as.
        blobs: What it holds.
    """

    def __init__(self, name: str, populations: Mapping[str, Population], blobs: HeldBlobs) -> None:
        self._name, self._populations, self._blobs = name, populations, blobs

    def answer(self, population: str, message: bytes) -> bytes:
        """Return the answer to a message, whatever it is. Nothing in it quotes an image.

        Args:
            population: Which of the populations is asked.
            message: Of `encoding.encode_request`, or `HELLO`.
        """
        if message == HELLO:
            return frame.pack({"name": self._name}, {})
        try:
            jobs = encoding.decode_request(message, self._blobs)
        except DataError as error:
            return encoding.encode_refusal(error)
        if isinstance(jobs, encoding.Missing):
            return encoding.encode_missing(jobs)
        if population not in self._populations:
            return encoding.encode_refusal(DataError("no such clients here"))
        asked = self._populations[population]
        replies = [perform_discreetly(asked, client, job) for client, job in jobs.items()]
        return encoding.encode_replies(replies, jobs)


def name_in(introduction: bytes) -> str:
    """Return what a node calls itself.

    Raises:
        DataError: Its answer is malformed, or of another protocol.
    """
    document, _ = frame.unpack(introduction)
    return frame.short(str(document.get("name", "")))
