"""Where a monitoring job's readings come from, beside watched folders: one small interface for all of them."""

import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from unlabeled.sensors.recording import Recording

MOST = 256  # messages of a source that are kept in one transaction
MOMENT = 0.25  # seconds after which whoever waits looks whether it should end


class Message(NamedTuple):
    """A reading on its way.

    Attributes:
        source: by its name.
        topic: under which it came there; a refusal is told of it.
        reading: makes the reading of it, or raises a DataError that says why it is none.
        receipt: what its source needs to acknowledge it.
    """

    source: str
    topic: str
    reading: Callable[[], Recording]
    receipt: Any = None


class Source(Protocol):
    """Gives readings for as long as it lives. It comes back by itself from whatever takes it away, says so, and sets
    the event that it was made with whenever something has come, so that one who waits for several waits for none of
    them in particular."""

    name: str

    def waiting(self) -> list[Message]:
        """What has come and is not acknowledged, in order, at most ``MOST``; the same again until it is."""

    def acknowledge(self) -> None:
        """What :meth:`waiting` gave is kept, and need not come again."""

    def close(self) -> None:
        """Ends its threads and its connection."""


class Inbox:
    """Between the thread in which a source's messages come and the one that keeps them.

    Args:
        came: is set whenever something lies in it.
        most: so many messages have room (default: any number).
    """

    def __init__(self, came: threading.Event, *, most: int = 0) -> None:
        self._came, self._queue = came, queue.Queue[Message](most)
        self._batch: list[Message] = []

    def put(self, message: Message, *, seconds: float = 0.0) -> bool:
        """Whether there was room for it, or has come to be within so many seconds."""
        try:
            self._queue.put(message, block=seconds > 0, timeout=seconds)
        except queue.Full:
            return False
        self._came.set()
        return True

    def waiting(self) -> list[Message]:
        try:
            while len(self._batch) < MOST:
                self._batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return self._batch

    def acknowledged(self) -> list[Message]:
        """Those that are kept now, and leave it."""
        batch, self._batch = self._batch, []
        if not self._queue.empty():
            self._came.set()
        return batch
