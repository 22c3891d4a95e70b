"""Where a monitoring job's readings come from, beside watched folders: one small interface for all of them."""

import json
import threading
import time
from collections import deque
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
        asset: says of which machine it is, as far as it names one: a refusal is told of that machine.
        size: bytes that it holds.
    """

    source: str
    topic: str
    reading: Callable[[], Recording]
    receipt: Any = None
    asset: Callable[[], str] = str
    size: int = 0


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
        most_bytes: so many bytes have (default: any number), those included that are being kept; one message always
            has.
    """

    def __init__(self, came: threading.Event, *, most: int = 0, most_bytes: int = 0) -> None:
        self._came, self._most, self._most_bytes = came, most, most_bytes
        self._changed = threading.Condition()
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._batch: list[Message] = []

    def put(self, message: Message, *, seconds: float = 0.0, anyway: bool = False) -> bool:
        """Whether there was room for it, or has come to be within so many seconds; ``anyway``: it needs none."""
        ends = time.monotonic() + seconds
        with self._changed:
            while not anyway and not self._has_room(message.size):
                left = ends - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            self._waiting.append(message)
            self._bytes += message.size
        self._came.set()
        return True

    def put_instead(self, message: Message, dropped: Callable[[Message], bool]) -> int:
        """In place of the oldest that may be ``dropped``, as many as there is too little room for; so many were, this
        message itself where no other may."""
        count = 0
        with self._changed:
            while not self._has_room(message.size):
                count += 1
                old = next((one for one in self._waiting if dropped(one)), None)
                if old is None:
                    return count
                self._waiting.remove(old)
                self._bytes -= old.size
            self._waiting.append(message)
            self._bytes += message.size
        self._came.set()
        return count

    def _has_room(self, size: int) -> bool:
        if self._most and len(self._waiting) >= self._most:
            return False
        return not self._most_bytes or not self._bytes or self._bytes + size <= self._most_bytes

    def waiting(self) -> list[Message]:
        with self._changed:
            while self._waiting and len(self._batch) < MOST:
                self._batch.append(self._waiting.popleft())
            self._changed.notify_all()
        return self._batch

    def acknowledged(self) -> list[Message]:
        """Those that are kept now, and leave it."""
        with self._changed:
            batch, self._batch = self._batch, []
            self._bytes -= sum(message.size for message in batch)
            self._changed.notify_all()
            left = bool(self._waiting)
        if left:
            self._came.set()
        return batch


def asset_in(payload: bytes) -> str:
    """The machine that a message names, however wrong the rest of it is; empty where it names none."""
    try:
        said = json.loads(payload)
        asset = said.get("asset") if isinstance(said, dict) else None
        return asset if isinstance(asset, str) and asset.strip() and asset.encode() else ""
    except (ValueError, RecursionError):  # no JSON; half a character, which JSON can write, is no text
        return ""
