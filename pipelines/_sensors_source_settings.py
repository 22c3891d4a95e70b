"""What a job file says of the sources of readings: an MQTT broker, Kafka, an OPC UA server."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from unlabeled.core.errors import DataError

SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
POLICIES = ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")


@dataclass(frozen=True, kw_only=True)
class Mqtt:
    """A broker.

    Attributes:
        host, port: where it is.
        topics: on which readings come (filters such as ``plant/+/vibration``).
        client: the name under which the broker keeps what came while the job was away; one a job.
        username: for a broker that asks; its password is in
        password_env, password_file: a variable of the environment, or a file.
        tls: encrypt; and
        ca: by which authorities the broker is known (default: the system's).
        events: topic below which events are published, by their kind (``plant/alarms/alarm``).
    """

    host: str
    topics: tuple[str, ...] = ()
    port: int = 1883
    client: str = "unlabeled-monitor"
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    events: str | None = None

    def check(self) -> None:
        """Raises a DataError that names what is wrong with them."""
        check_port("mqtt.port", self.port)
        if not all(self.topics):
            raise DataError("mqtt.topics: one of them is empty")


@dataclass(frozen=True, kw_only=True)
class Kafka:
    """A cluster.

    Attributes:
        bootstrap_servers: brokers that are asked first for all others, such as ``kafka1.plant.example:9093``.
        topics: on which readings come, keyed by their machine, so that they stay in order.
        group: the consumer group under which the cluster remembers how far this job is; one a job, of which no others
            are members.
        username: for a cluster that asks; its password is in
        password_env, password_file: a variable of the environment, or a file.
        mechanism: of SASL, by which the password is proved.
        tls: encrypt; and
        ca: by which authorities the brokers are known (default: the system's).
    """

    bootstrap_servers: tuple[str, ...]
    topics: tuple[str, ...]
    group: str = "unlabeled-monitor"
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    mechanism: str = "SCRAM-SHA-512"
    tls: bool = False
    ca: Path | None = None

    def check(self) -> None:
        """Raises a DataError that names what is wrong with them."""
        for name in ("bootstrap_servers", "topics"):
            if not all(getattr(self, name)) or not getattr(self, name):
                raise DataError(f"kafka.{name} names none")
        twice = sorted({topic for topic in self.topics if self.topics.count(topic) > 1})
        if twice:
            raise DataError(f"kafka.topics names {', '.join(twice)} twice: once is enough")
        if self.username is not None and self.password_env is None and self.password_file is None:
            raise DataError("kafka.username needs kafka.password_env or kafka.password_file")
        if self.mechanism not in SASL:
            raise DataError(f"kafka.mechanism is {', '.join(SASL[:-1])} or {SASL[-1]}, got {self.mechanism!r}")


@dataclass(frozen=True, kw_only=True)
class OpcuaNode:
    """A variable of the server, and what its value is of a machine: one of ``indicator``, ``axis``, ``operating`` and
    ``running``.

    Attributes:
        node: its id, such as ``ns=2;s=Pump7.Vibration.RMS``.
        asset: the machine.
        indicator: the value is a number: this indicator.
        axis: the value is an array: a waveform of this axis, sampled at
        fs: in Hz.
        operating: the value says how the machine is run: this operating condition.
        running: the value says whether the machine runs.
    """

    node: str
    asset: str
    indicator: str | None = None
    axis: str | None = None
    fs: float | None = None
    operating: str | None = None
    running: bool = False

    def check(self) -> None:
        """Raises a DataError that names what is wrong with it."""
        if [self.indicator, self.axis, self.operating, self.running or None].count(None) != 3:
            raise DataError(f"opcua.nodes: {self.node} is one of indicator, axis, operating or running")
        if (self.axis is None) != (not self.fs):
            raise DataError(f"opcua.nodes: {self.node} needs both an axis and its fs in Hz, or neither")


@dataclass(frozen=True, kw_only=True)
class Opcua:
    """An OPC UA server.

    Attributes:
        endpoint: its address, such as ``opc.tcp://plc7.plant.example:4840``.
        nodes: whose values are subscribed to.
        publishing_seconds: how often the server is to tell what has changed.
        every_seconds: a machine has at most one reading in so long: as those were spaced that its model was fitted on.
            Machines of indicators need it, at least 1; waveforms by default have one each time that all axes have come.
        together_seconds: axes of one waveform are joined where their dates lie no further apart (default:
            ``publishing_seconds``).
        username: for a server that asks; its password is in
        password_env, password_file: a variable of the environment, or a file.
        security: the policy by which messages are signed and encrypted; with
        certificate, private_key: of this job, DER or PEM, and
        server_certificate: of the server, by which it is known.
    """

    endpoint: str
    nodes: tuple[OpcuaNode, ...]
    publishing_seconds: float = 1.0
    every_seconds: float = 0.0
    together_seconds: float | None = None
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    security: str | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    server_certificate: Path | None = None

    def machines(self) -> dict[str, list[OpcuaNode]]:
        """The nodes of each."""
        found: dict[str, list[OpcuaNode]] = {}
        for node in self.nodes:
            found.setdefault(node.asset, []).append(node)
        return found

    def check(self) -> None:
        """Raises a DataError that names what is wrong with them."""
        try:
            parts = urlsplit(self.endpoint)
            usable = parts.scheme == "opc.tcp" and bool(parts.hostname) and (parts.port or 1) > 0
            usable = usable and "@" not in parts.netloc
        except ValueError:
            usable = False
        if not usable:
            raise DataError(
                "opcua.endpoint is an address such as opc.tcp://host:4840, without a name or password in it"
            )
        if not self.publishing_seconds:
            raise DataError("opcua.publishing_seconds is above 0")
        if self.username is not None and self.password_env is None and self.password_file is None:
            raise DataError("opcua.username needs opcua.password_env or opcua.password_file")
        if self.security not in (None, *POLICIES):
            raise DataError(f"opcua.security is {', '.join(POLICIES[:-1])} or {POLICIES[-1]}, got {self.security!r}")
        keys = (self.certificate, self.private_key, self.server_certificate)
        if keys.count(None) != (3 if self.security is None else 0):
            raise DataError("opcua.security, certificate, private_key and server_certificate go together")
        if not self.nodes:
            raise DataError("opcua names no node: each stands under an [[opcua.nodes]] of its own")
        for node in self.nodes:
            node.check()
        for asset, nodes in self.machines().items():
            _check_machine(asset, nodes)
        if self.every_seconds < 1 and any(node.indicator for node in self.nodes):
            raise DataError(
                f"opcua.every_seconds is {self.every_seconds:g}: machines of indicators need it, at least 1, as far "
                "apart as the readings that their models were fitted on. A server tells each change, and with a "
                "reading for each an indicator that rests while others change would be called flat-lined"
            )


def _check_machine(asset: str, nodes: list[OpcuaNode]) -> None:
    if not asset.strip():
        raise DataError("opcua.nodes: asset is empty")
    indicators, axes = ([node for node in nodes if getattr(node, kind)] for kind in ("indicator", "axis"))
    if bool(indicators) == bool(axes):
        raise DataError(f"opcua.nodes: {asset} needs either indicators or axes")
    if len({node.fs for node in axes}) > 1:
        raise DataError(f"opcua.nodes: the axes of {asset} are of different fs")
    said = [(kind, getattr(node, kind)) for node in nodes for kind in ("indicator", "axis", "operating", "running")]
    for kind, name in said:
        if name and said.count((kind, name)) > 1:
            raise DataError(f"opcua.nodes: {asset} has {kind} {'twice' if name is True else f'{name!r} twice'}")


def check_port(name: str, port: int) -> None:
    """Raises a DataError where there is no such port."""
    if not 1 <= port <= 65535:
        raise DataError(f"{name} is a port, 1 to 65535, got {port}")
