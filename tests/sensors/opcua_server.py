"""An OPC UA server with a machine's variables, as a PLC has them."""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole


class Plc:
    """Runs in a thread of its own until it is stopped; begins again with what its variables held.

    Args:
        variables: names and what they hold at first.
        certificate, key: where it speaks to nobody unencrypted, and to the user ``monitor`` alone.
    """

    def __init__(self, variables: dict[str, Any], *, certificate: Path | None = None, key: Path | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.endpoint = f"opc.tcp://127.0.0.1:{free.getsockname()[1]}"
        self.certificate, self.key = certificate, key
        self._held = {name: ua.DataValue(_variant(value)) for name, value in variables.items()}
        self.start()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._begin())

    def stop(self) -> None:
        self._do(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=30)

    async def _begin(self) -> None:
        users = None if self.certificate is None else _OneUser()
        self._server = Server(user_manager=users)
        await self._server.init()
        self._server.set_endpoint(self.endpoint)
        if self.certificate is None:
            self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            self._server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
            await self._server.load_certificate(self.certificate)
            await self._server.load_private_key(self.key)
        space = await self._server.register_namespace("plant")
        assert space == 2
        self._nodes = {}
        for name, told in self._held.items():
            await self._add(name, told)
        await self._server.start()

    async def _add(self, name: str, told: ua.DataValue) -> None:
        objects = self._server.nodes.objects
        self._nodes[name] = await objects.add_variable(ua.NodeId(name, 2), name, told.Value)
        await self._nodes[name].write_value(told)

    def add(self, name: str, value: Any, at: np.datetime64) -> None:
        """A variable that was not there at first, dated ``at``."""
        when = at.astype("datetime64[us]").item()
        self._do(self._add(name, ua.DataValue(_variant(value), SourceTimestamp=when)))

    def write(self, at: np.datetime64, *, status: int = ua.StatusCodes.Good, **values: Any) -> None:
        """Sets variables, dated ``at``."""
        when = at.astype("datetime64[us]").item()
        for name, value in values.items():
            told = ua.DataValue(_variant(value), ua.StatusCode(ua.UInt32(status)), SourceTimestamp=when)
            self._held[name] = told
            self._do(self._nodes[name].write_value(told))


class _OneUser:
    def get_user(self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None):
        known = (username, password) == ("monitor", "secret")
        return User(role=UserRole.User, name=username) if known else None


def _variant(value: Any) -> ua.Variant:
    if value is None:
        return ua.Variant(None, ua.VariantType.Null)
    return ua.Variant(value.tolist() if isinstance(value, np.ndarray) else value, ua.VariantType.Double)
