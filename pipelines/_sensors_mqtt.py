"""Readings from an MQTT broker, and events to it, for ``unlabeled sensors monitor``.

A reading is acknowledged after it has been kept, and the session outlives the connection: what comes while the job or
the broker is away is delivered later (MQTT 3.1.1, quality of service 1).
"""

import json
import queue
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_job_file import LOOPBACK, Mqtt, secret_of
from unlabeled.sensors.logbook import Logbook
from unlabeled.sensors.recording import Recording

MOST = 256  # messages that are kept in one transaction


class Message(NamedTuple):
    """What came; ``number`` is what the broker calls it, where it wants to hear of it (``qos`` above 0)."""

    topic: str
    payload: bytes
    number: int
    qos: int


class Broker:
    """A connection that comes back by itself.

    Args:
        settings: where, and what is asked for.

    Raises:
        DataError: paho-mqtt is not installed, or the password that is named is not there.
    """

    def __init__(self, settings: Mqtt) -> None:
        try:
            import paho.mqtt.client as paho
        except ModuleNotFoundError:
            raise DataError("[mqtt] needs the package paho-mqtt: pip install 'unlabeled[monitor]'") from None
        self.settings = settings
        self._came: queue.Queue[Message] = queue.Queue()
        self._batch: list[Message] = []
        self._sent: list[tuple[int, Any]] = []
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, settings.client, clean_session=False, manual_ack=True
        )
        self._client.reconnect_delay_set(1, 30)
        if settings.username is not None:
            self._client.username_pw_set(
                settings.username, secret_of("[mqtt]", settings.password_env, settings.password_file)
            )
        if settings.tls:
            self._client.tls_set(ca_certs=None if settings.ca is None else str(settings.ca))
        elif settings.username is not None and settings.host not in LOOPBACK:
            say("the broker's password goes over the network unencrypted: set tls = true")
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._away
        self._client.on_message = self._take
        self._client.connect_async(settings.host, settings.port)
        self._client.loop_start()

    def _connected(self, client: Any, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            say(f"the broker at {self.settings.host} refuses: {reason}")
            return
        if self.settings.topics:
            client.subscribe([(topic, 1) for topic in self.settings.topics])
        say(f"connected to the broker at {self.settings.host}:{self.settings.port}")

    def _away(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        if reason.is_failure:
            say(f"the broker at {self.settings.host} is away ({reason}); trying again")

    def _take(self, _: Any, __: Any, found: Any) -> None:
        self._came.put(Message(found.topic, found.payload, found.mid, found.qos))

    def waiting(self, seconds: float) -> list[Message]:
        """What has come and is not acknowledged, in order; waits so long for the first."""
        try:
            if not self._batch:
                self._batch.append(self._came.get(timeout=seconds))
            while len(self._batch) < MOST:
                self._batch.append(self._came.get_nowait())
        except queue.Empty:
            pass
        return self._batch

    def acknowledge(self) -> None:
        """The broker need not keep what :meth:`waiting` gave any longer."""
        for message in self._batch:
            if message.qos:  # of others it wants to hear nothing, and takes an answer for an error
                self._client.ack(message.number, message.qos)
        self._batch = []

    def tell(self, book: Logbook) -> None:
        """Publishes what was not told yet. After a crash an event may come again, under the same id."""
        if self.settings.events is None:
            return
        while self._sent and _taken(self._sent[0][1]):
            book.move_cursor("mqtt", self._sent.pop(0)[0])
        last = self._sent[-1][0] if self._sent else book.cursor("mqtt")
        for event in book.events(after=last) if self._client.is_connected() else ():
            # Where the connection breaks, the client holds it and sends it again.
            sent = self._client.publish(f"{self.settings.events}/{event.kind}", event.line(), qos=1)
            self._sent.append((event.id, sent))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _taken(sent: Any) -> bool:
    """Whether the broker has taken an event."""
    try:
        return bool(sent.is_published())
    except (RuntimeError, ValueError):  # as long as it is not connected
        return False


def recording_of(payload: bytes) -> Recording:
    """One reading as JSON: ``asset``, ``time`` (ISO 8601; without a zone: UTC), and either ``fs`` (Hz) and ``values``
    (a list for each axis; ``axes`` names them) or ``indicators`` (numbers by name); ``operating`` says by name how the
    machine is run.

    Raises:
        DataError: what is missing or of another kind.
    """
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        raise DataError("the message is no JSON") from None
    if not isinstance(said, dict):
        raise DataError("the message is no JSON object")
    asset, indicators = said.get("asset"), said.get("indicators")
    if not isinstance(asset, str) or not asset.strip() or not _is_text(asset):
        raise DataError("the message does not name its 'asset'")
    if isinstance(indicators, dict) and indicators:
        names, fs = tuple(indicators), None
        values = _numbers(list(indicators.values()), "indicators")[None]
    else:
        signal = said.get("values")
        if not isinstance(signal, list) or not signal or not all(isinstance(axis, list) for axis in signal):
            raise DataError("the message holds neither 'values', a list for each axis, nor 'indicators' by name")
        if len({len(axis) for axis in signal}) > 1:
            raise DataError("the axes in 'values' are of different lengths")
        fs = said.get("fs")
        if not isinstance(fs, int | float) or isinstance(fs, bool) or not 0 < fs < 1e12:
            raise DataError("the message does not say its sampling rate: 'fs', in Hz")
        axes = said.get("axes") or list(range(1, len(signal) + 1))
        if not isinstance(axes, list):
            raise DataError("'axes' is no list of names")
        names = tuple(str(axis) for axis in axes)
        if len(names) != len(signal):
            raise DataError(f"{len(names)} names in 'axes' for {len(signal)} lists in 'values'")
        values = np.stack([_numbers(axis, "values") for axis in signal], axis=1)[None]
    conditions = said.get("operating") or {}
    if not isinstance(conditions, dict):
        raise DataError("'operating' is no object of numbers by name")
    return Recording(
        asset=asset,
        conditions=_numbers(list(conditions.values()), "operating").astype(np.float64)[None] if conditions else None,
        condition_names=tuple(conditions),
        values=values,
        names=names,
        hours=np.zeros(1),
        fs=fs,
        clock=np.array([_time(said.get("time"))]),
        running=np.array([said.get("running") is not False]),
        flaws=np.full(1, "", dtype="<U120"),
    )


def _numbers(values: Sequence[Any], name: str) -> np.ndarray:
    if not all(isinstance(value, int | float) or value is None for value in values):
        raise DataError(f"not all of '{name}' are numbers")
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise DataError(f"a number in '{name}' is too large") from None


def _is_text(text: str) -> bool:
    """Half a character, which JSON can write, is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(text: Any) -> np.datetime64:
    try:
        stamp = datetime.fromisoformat(text)
        if stamp.tzinfo is not None:
            stamp = stamp.astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        raise DataError("the message's 'time' is no date such as 2024-03-01T06:00:00Z") from None
    if not 1970 <= stamp.year < 2262:  # what nanoseconds can count
        raise DataError("the message's 'time' is before 1970 or after 2261")
    return np.datetime64(stamp, "ns")
