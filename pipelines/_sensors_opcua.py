"""Readings from the variables of an OPC UA server, for ``unlabeled sensors monitor``.

The server is asked to tell changes and knows nothing of acknowledging them: what changes while the job or the
connection is away is lost but for the values that stand when it is back, and so is what a variable was in between when
it changes more than once in a publishing interval.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_opcua_values import AHEAD, Joined, Value, time_of
from unlabeled.pipelines._sensors_secrets import LOOPBACK, secret_of
from unlabeled.pipelines._sensors_source import MOMENT, Inbox, Message
from unlabeled.pipelines._sensors_source_settings import Opcua, OpcuaNode

if TYPE_CHECKING:
    from asyncua import Client
    from asyncua.common.subscription import Subscription

_ROOM, _ROOM_BYTES = 1024, 64 << 20  # of readings that wait to be kept; the server keeps none
_ANSWER_S = 4.0  # after so long an answer is no longer waited for
_SESSION_S = 60.0  # after so long the server forgets a job that was killed
_LONGEST_REST_S = 30.0  # from one try to connect to the next
_MISSING_S = 30.0  # after so long nodes that were not there are asked for again
_PATIENCE_S, _PATIENCE_TIMES = 60.0, 10  # after so long, and so many publishing intervals, a silent node is given up


class Server:
    """A subscription that is made anew whenever it or its connection has gone.

    Args:
        settings: where, and what is asked for.
        came: is set when something has come.
        last: when each machine was last judged: its readings are dated later.
        ahead: so far from now a reading may be dated.

    Raises:
        DataError: asyncua is not installed, or a password, certificate or node's id is of no use.
    """

    name = "opcua"

    def __init__(
        self,
        settings: Opcua,
        came: threading.Event,
        *,
        last: Mapping[str, np.datetime64] | None = None,
        ahead: np.timedelta64 = AHEAD,
    ) -> None:
        try:
            from asyncua import ua
        except ModuleNotFoundError:
            raise DataError("[opcua] needs the package asyncua: pip install 'unlabeled[opcua]'") from None
        self.settings = settings
        self._password = secret_of("[opcua]", settings.password_env, settings.password_file)
        self._application = None if settings.certificate is None else _application(settings)
        self._nodes: dict[Any, list[tuple[Any, Joined]]] = {}
        self._machines: list[Joined] = []
        self._given_up: set[OpcuaNode] = set()
        every, interval = settings.every_seconds, settings.publishing_seconds
        together = interval if settings.together_seconds is None else settings.together_seconds
        patience = max(_PATIENCE_S, _PATIENCE_TIMES * interval, 2 * together)
        for asset, nodes in settings.machines().items():
            self._machines.append(
                Joined(
                    asset, nodes, settle=interval / 2, every=every, together=together, patience=patience,
                    last=None if last is None else last.get(asset), ahead=ahead,
                )
            )  # fmt: skip
            for node in nodes:
                try:
                    id_ = ua.NodeId.from_string(node.node)
                except (ua.UaError, ValueError):
                    raise DataError(
                        f"opcua.nodes: {node.node!r} is no id such as ns=2;s=Pump7.RMS or ns=2;i=7"
                    ) from None
                self._nodes.setdefault(id_, []).append((node, self._machines[-1]))
        if settings.username is not None and settings.security is None and _host(settings) not in LOOPBACK:
            say("the password for OPC UA may go over the network unencrypted: set security and its certificates")
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what matters is said here, once
        self._inbox = Inbox(came, most=_ROOM, most_bytes=_ROOM_BYTES)
        self._ends, self._connected, self._full, self._said = False, False, False, ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stay()), daemon=True)
        self._thread.start()

    async def _stay(self) -> None:
        rest = 1.0
        while not self._ends:
            try:
                await self._session()
            except Exception as error:  # whatever a server does must not end the job
                why = str(error) or type(error).__name__
                if why != self._said and not self._ends:
                    say(f"the OPC UA server at {self.settings.endpoint} is away ({why}); trying again")
                self._said = why
            rest = 1.0 if self._connected else min(2 * rest, _LONGEST_REST_S)
            self._connected = False
            ends = time.monotonic() + rest
            while not self._ends and time.monotonic() < ends:
                await asyncio.sleep(MOMENT)

    async def _session(self) -> None:
        """From connecting to the job's end; raises whatever comes between."""
        from asyncua import Client

        lost = asyncio.Event()
        client = Client(self.settings.endpoint, timeout=_ANSWER_S)
        client.session_timeout = round(1000 * _SESSION_S)
        client.connection_lost_callback = lambda _: _set(lost)
        if self.settings.username is not None:
            client.set_user(self.settings.username)
        if self._password is not None:
            client.set_password(self._password)
        if self.settings.security is not None:
            await self._secure(client, self.settings.security)
        await client.connect()
        try:
            await self._listen(client, lost)
        finally:
            await client.disconnect()
        if not self._ends:
            raise ConnectionError("the connection or the subscription is lost")

    async def _secure(self, client: "Client", policy: str) -> None:
        from asyncua.crypto import security_policies

        if self._application is not None:
            client.application_uri = self._application
        await client.set_security(
            getattr(security_policies, f"SecurityPolicy{policy}"),
            certificate=str(self.settings.certificate),
            private_key=str(self.settings.private_key),
            server_certificate=str(self.settings.server_certificate),
        )

    async def _listen(self, client: "Client", lost: asyncio.Event) -> None:
        """Takes what has changed, and passes readings on when they are due."""
        for machine in self._machines:
            machine.forget()
        self._given_up = set()
        subscription = await client.create_subscription(self._parameters(), _Changes(self._take, lost))
        missing = await self._subscribed(client, subscription, list(self._nodes))
        self._connected, self._said = True, ""
        say(f"connected to the OPC UA server at {self.settings.endpoint}")
        again = time.monotonic() + _MISSING_S
        while not self._ends and not lost.is_set():
            await asyncio.sleep(min(MOMENT, self.settings.publishing_seconds / 4))
            self._pass_on()
            if missing and time.monotonic() > again:
                missing = await self._subscribed(client, subscription, missing, told=missing)
                again = time.monotonic() + _MISSING_S

    def _parameters(self) -> Any:
        """Of a subscription that ends soon after a job that was killed."""
        from asyncua import ua

        seconds = self.settings.publishing_seconds
        alive = max(round(_SESSION_S / 6 / seconds), 1)
        return ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=1000 * seconds, RequestedMaxKeepAliveCount=alive,
            RequestedLifetimeCount=6 * alive, PublishingEnabled=True,
        )  # fmt: skip

    async def _subscribed(
        self, client: "Client", subscription: "Subscription", ids: list[Any], *, told: Sequence[Any] = ()
    ) -> list[Any]:
        """Those that the server does not have, or does not show to this user; each is told of once."""
        from asyncua import ua

        nodes, interval = [client.get_node(id_) for id_ in ids], ua.Double(1000 * self.settings.publishing_seconds)
        given = await subscription.subscribe_data_change(nodes, sampling_interval=interval)
        missing = [(id_, status) for id_, status in zip(ids, given, strict=True) if not isinstance(status, int)]
        for id_, status in missing:
            if id_ not in told:
                say(f"opcua.nodes: the server gives nothing of {id_.to_string()} ({status.name}); trying again")
        return [id_ for id_, _ in missing]

    def _take(self, id_: Any, told: Any) -> None:
        status = told.StatusCode
        flaw = "" if status is None or status.is_good() else str(status.name)
        value = Value(told.Value.Value, time_of(told.SourceTimestamp, told.ServerTimestamp), flaw)
        for node, machine in self._nodes[id_]:
            machine.take(node, value, time.monotonic())

    def _pass_on(self) -> None:
        for machine in self._machines:
            for node in machine.given_up(time.monotonic()):
                if node not in self._given_up:
                    self._given_up.add(node)
                    say(
                        f"{machine.asset}: its readings cannot be judged: {node.node} has told nothing of the same "
                        f"moment for {machine.patience:g} s"
                    )
            reading = machine.reading(time.monotonic())
            if reading is None:
                continue
            full, self._full = self._full, not self._inbox.put(reading)
            if self._full and not full:
                say("readings by OPC UA are lost: those that came before could not be kept yet")

    def waiting(self) -> list[Message]:
        return self._inbox.waiting()

    def acknowledge(self) -> None:
        """The server wants to hear nothing of it."""
        self._inbox.acknowledged()

    def close(self) -> None:
        self._ends = True
        self._thread.join()


class _Changes:
    """What the client calls, in its own thread."""

    def __init__(self, take: Callable[[Any, Any], None], lost: asyncio.Event) -> None:
        self._take, self._lost = take, lost

    def datachange_notification(self, node: Any, _: Any, data: Any) -> None:
        self._take(node.nodeid, data.monitored_item.Value)

    def status_change_notification(self, _: Any) -> None:
        self._lost.set()


async def _set(event: asyncio.Event) -> None:
    event.set()


def _host(settings: Opcua) -> str | None:
    return urlsplit(settings.endpoint).hostname


def _application(settings: Opcua) -> str | None:
    """By which name of an application the job's certificate lets it speak: a server compares it.

    Raises:
        DataError: a certificate or key is not there, or is none.
    """
    from cryptography import x509

    for name in ("certificate", "private_key", "server_certificate"):
        if not getattr(settings, name).is_file():
            raise DataError(f"opcua.{name}: {getattr(settings, name)} does not exist")
    content = settings.certificate.read_bytes() if settings.certificate is not None else b""
    try:
        is_text = content.startswith(b"-----")
        certificate = x509.load_pem_x509_certificate(content) if is_text else x509.load_der_x509_certificate(content)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except ValueError:
        raise DataError(f"opcua.certificate: {settings.certificate} is no certificate") from None
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), None)
