"""Readings from a Kafka cluster, for ``unlabeled sensors monitor``.

The job reads all partitions of its topics by itself, so that it goes on at once after it was killed: it is no member of
its group, which only names what the cluster remembers. How far it is in each partition is stored after a reading has
been kept, and the cluster is told within a second and at the end: after a crash some readings come again, which is
harmless, and none is passed over. Within a partition readings come in order: a machine's name as their key keeps all of
them in one.
"""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_message import recording_of
from unlabeled.pipelines._sensors_secrets import LOOPBACK, secret_of
from unlabeled.pipelines._sensors_source import MOMENT, MOST, Inbox, Message, asset_in
from unlabeled.pipelines._sensors_source_settings import Kafka

_TOLD_S = 1.0  # after so long the cluster knows what was kept
_ASKED_S = 1.0  # for so long an answer about topics is waited for; after so long it is asked for again
_AGAIN_S = 30.0  # after so long topics may have new partitions


class Cluster:
    """A consumer that finds its brokers again by itself. One thread alone calls it: calls from two can wait for each
    other for ever.

    Args:
        settings: where, and what is asked for.
        came: is set when something has come.

    Raises:
        DataError: confluent-kafka is not installed, the password that is named is not there, or a setting is of no use.
    """

    name = "kafka"

    def __init__(self, settings: Kafka, came: threading.Event) -> None:
        try:
            import confluent_kafka as client
        except ModuleNotFoundError:
            raise DataError("[kafka] needs the package confluent-kafka: pip install 'unlabeled[kafka]'") from None
        self.settings, self._client = settings, client
        self._where = ", ".join(settings.bootstrap_servers)
        self._inbox = Inbox(came, most=MOST)
        self._kept: queue.SimpleQueue[tuple[str, int, int]] = queue.SimpleQueue()
        self._there, self._look_at = False, 0.0
        self._said: set[str] = set()
        self._places: list[tuple[str, int]] = []
        self._ends = threading.Event()
        try:
            self._consumer = client.Consumer({**_configuration(settings), "error_cb": self._trouble})
        except client.KafkaException as error:
            raise DataError(f"[kafka] cannot be used: {error.args[0].str()}") from None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ends.is_set():
            try:
                self._poll()
            except self._client.KafkaException as error:
                self._trouble(error.args[0])
                self._ends.wait(MOMENT)
        self._store()
        self._consumer.close()

    def _poll(self) -> None:
        if time.monotonic() >= self._look_at:
            self._look_for_partitions()
        found = self._consumer.poll(MOMENT)
        if found is not None and found.error():
            self._trouble(found.error())
        elif found is not None:
            self._take(found)
        self._store()

    def _take(self, found: Any) -> None:
        payload = found.value() or b""
        place = (found.topic(), found.partition(), found.offset())
        message = Message(
            self.name, found.topic(), partial(recording_of, payload), place, asset=partial(asset_in, payload)
        )
        while not self._inbox.put(message, seconds=MOMENT):  # the cluster holds the others until there is room
            if self._ends.is_set():
                return

    def _look_for_partitions(self) -> None:
        """Takes all that the topics have, each from where the job was."""
        self._look_at = time.monotonic() + _ASKED_S
        try:
            topics = self._consumer.list_topics(timeout=_ASKED_S).topics
        except self._client.KafkaException:
            return
        if not self._there:
            say(f"connected to the Kafka brokers at {self._where}")
            self._there, self._said = True, set()
        places, missing = places_of(topics, self.settings.topics, before=self._places)
        for why in missing:
            self._say(f"kafka.topics: {why}")
        if places != self._places:
            stored = self._client.OFFSET_STORED
            self._consumer.assign([self._client.TopicPartition(topic, n, stored) for topic, n in places])
            self._places = places
        if not missing:
            self._look_at = time.monotonic() + _AGAIN_S

    def _trouble(self, error: Any) -> None:
        if error.code() in (self._client.KafkaError._TRANSPORT, self._client.KafkaError._RESOLVE):
            return  # one broker, of which others may do
        away = error.code() == self._client.KafkaError._ALL_BROKERS_DOWN
        if away:
            self._there, self._look_at = False, 0.0
        self._say(f"the Kafka brokers at {self._where} are away" if away else f"Kafka: {error.str()}")

    def _say(self, why: str) -> None:
        """Once, until the brokers answer again."""
        if why not in self._said:
            say(f"{why}; trying again")
            self._said.add(why)

    def waiting(self) -> list[Message]:
        return self._inbox.waiting()

    def acknowledge(self) -> None:
        """A job that begins anew begins after what :meth:`waiting` gave."""
        for message in self._inbox.acknowledged():
            self._kept.put(message.receipt)

    def _store(self) -> None:
        """How far what is kept reaches: what the client tells the cluster."""
        reached: dict[tuple[str, int], int] = {}
        with suppress(queue.Empty):
            while True:
                topic, partition, offset = self._kept.get_nowait()
                reached[topic, partition] = offset + 1
        for (topic, partition), offset in reached.items():
            with suppress(self._client.KafkaException):  # the partition is gone
                self._consumer.store_offsets(offsets=[self._client.TopicPartition(topic, partition, offset)])

    def close(self) -> None:
        self._ends.set()
        self._thread.join()


def places_of(
    topics: Mapping[str, Any], wanted: Sequence[str], *, before: Sequence[tuple[str, int]]
) -> tuple[list[tuple[str, int]], list[str]]:
    """All partitions of the topics that are wanted, in order, and which topics have none and why. While a topic cannot
    be told of, as in the election of a leader, it has those that it had ``before``."""
    places, missing = list[tuple[str, int]](), []
    for topic in wanted:
        found = topics.get(topic)
        if found is not None and found.error is None and found.partitions:
            places += [(topic, number) for number in found.partitions]
            continue
        places += [place for place in before if place[0] == topic]
        missing.append(
            f"{topic} is not there yet" if found is None or found.error is None else f"{topic}: {found.error.str()}"
        )
    return sorted(places), missing


def _configuration(settings: Kafka) -> dict[str, Any]:
    password = secret_of("[kafka]", settings.password_env, settings.password_file)
    chosen: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.bootstrap_servers),
        "group.id": settings.group,
        "client.id": "unlabeled",
        "auto.offset.reset": "earliest",
        "enable.auto.offset.store": False,
        "auto.commit.interval.ms": round(1000 * _TOLD_S),
        "security.protocol": ("SASL_" if settings.username else "") + ("SSL" if settings.tls else "PLAINTEXT"),
        "log_level": 0,  # what matters comes as an error
    }
    if settings.ca is not None:
        chosen["ssl.ca.location"] = str(settings.ca)
    if settings.username is not None:
        chosen |= {"sasl.mechanism": settings.mechanism, "sasl.username": settings.username, "sasl.password": password}
        away = [one for one in settings.bootstrap_servers if one.rpartition(":")[0] not in LOOPBACK]
        if settings.mechanism == "PLAIN" and not settings.tls and away:
            say("the password for Kafka goes over the network unencrypted: set tls = true")
    return chosen
