"""Readings from an MQTT broker, and events to it, for ``unlabeled sensors monitor``.

A reading is acknowledged after it has been kept, and the session outlives the connection: what comes while the job or
the broker is away is delivered later (MQTT 3.1.1, quality of service 1). Of those that are sent at quality of service 0
a broker keeps none: where more of them come than can be kept, the oldest are lost.
"""

import threading
from functools import partial
from typing import Any

from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_message import recording_of
from unlabeled.pipelines._sensors_secrets import LOOPBACK, secret_of
from unlabeled.pipelines._sensors_source import MOST, Inbox, Message, asset_in
from unlabeled.pipelines._sensors_source_settings import Mqtt
from unlabeled.sensors.logbook import Logbook

_ROOM, _ROOM_BYTES = 16384, 64 << 20  # of readings that wait to be kept; the broker holds those that it wants answered


class Broker:
    """A connection that comes back by itself.

    Args:
        settings: where, and what is asked for.
        came: is set when something has come.

    Raises:
        DataError: paho-mqtt is not installed, or the password that is named is not there.
    """

    name = "mqtt"

    def __init__(self, settings: Mqtt, came: threading.Event) -> None:
        try:
            import paho.mqtt.client as paho
        except ModuleNotFoundError:
            raise DataError("[mqtt] needs the package paho-mqtt: pip install 'unlabeled[monitor]'") from None
        self.settings = settings
        self._inbox, self._full = Inbox(came, most=_ROOM, most_bytes=_ROOM_BYTES), False
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
        message = Message(
            self.name, found.topic, partial(recording_of, found.payload), (found.mid, found.qos),
            asset=partial(asset_in, found.payload), size=len(found.payload),
        )  # fmt: skip
        if found.qos:
            self._inbox.put(message, anyway=True)
        elif self._inbox.put_instead(message, lambda old: not old.receipt[1]) and not self._full:
            self._full = True
            say("readings by MQTT are lost: more come at quality of service 0 than can be kept; send them at 1")

    def waiting(self) -> list[Message]:
        return self._inbox.waiting()

    def acknowledge(self) -> None:
        """The broker need not keep what :meth:`waiting` gave any longer."""
        kept = self._inbox.acknowledged()
        self._full = self._full and len(kept) >= MOST  # all that waited is kept: another time it is said again
        for message in kept:
            number, qos = message.receipt
            if qos:  # of others it wants to hear nothing, and takes an answer for an error
                self._client.ack(number, qos)

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
