"""A read-only page of a monitoring job: machines, levels, trends and cases, and the same for Prometheus.

It binds to this machine unless told otherwise, and to others only with a token (as a password of any user name, for
browsers, or as a bearer token).
"""

import base64
import hmac
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_job_file import Job, Status
from unlabeled.pipelines._sensors_secrets import LOOPBACK, secret_of
from unlabeled.sensors.alarms import HOURS_PER_MONTH, LEVELS
from unlabeled.sensors.alarms import level as level_of
from unlabeled.sensors.logbook import CLEARED, Case, Logbook
from unlabeled.sensors.spares import WITHOUT
from unlabeled.sensors.stream import UNJUDGED

SHOWN = 300  # readings in a trend
WIDTH, HEIGHT = 240.0, 44.0  # of a trend, in pixels


@dataclass(frozen=True)
class Machine:
    """One line of the page.

    Attributes:
        level: ``acceptable``, ``monitor`` (near or above the threshold), ``alarm``, ``danger``, ``cannot judge`` or
            ``new regime``.
        reason: why the last reading cannot be judged, or which broken sensor it was judged without.
        judged: whether it was judged.
        trend, limit: of the smoothed score and the threshold, as an SVG's points and height.
    """

    asset: str
    level: str
    last: str
    smoothed: float | None
    threshold: float
    reason: str
    judged: bool
    trend: str
    limit: float
    case: Case | None


def machines(book: Logbook) -> list[Machine]:
    """Every machine that was ever judged, those in alarm first."""
    order = ("danger", "alarm", *UNJUDGED, "monitor", "acceptable")
    found = [_machine(book, asset, threshold) for asset, threshold in book.thresholds().items()]
    return sorted(found, key=lambda machine: (order.index(machine.level), machine.asset))


def _machine(book: Logbook, asset: str, threshold: float) -> Machine:
    readings = book.readings(asset, last=SHOWN, late=False)
    last = readings[-1]
    smoothed = [one["smoothed"] for one in readings if one["smoothed"] is not None]
    # An alarm that is on stays a level while the machine cannot be judged.
    level = level_of(smoothed[-1] if smoothed else None, threshold, alarm=bool(last["alarm"]))
    if last["state"] in UNJUDGED and not last["alarm"]:
        level = str(last["state"])
    trend, limit = _trend([one["smoothed"] for one in readings], threshold)
    return Machine(
        asset=asset, level=level, last=str(last["time"])[:19], smoothed=smoothed[-1] if smoothed else None,
        threshold=threshold, reason=str(last["reason"]), judged=last["score"] is not None,
        trend=trend, limit=limit, case=book.case_of(asset),
    )  # fmt: skip


def _trend(values: list[float | None], threshold: float) -> tuple[str, float]:
    """Points of a line, and how high the threshold lies; scores below nought are drawn at nought."""
    heights = np.array([0.0 if value is None else max(0.0, value) for value in values])
    top = 1.1 * max(threshold, float(heights.max(initial=0.0)), 1e-9)
    x = np.linspace(0, WIDTH, len(heights)) if len(heights) > 1 else np.array([WIDTH])
    points = [
        f"{a:.1f},{HEIGHT * (1 - h / top):.1f}"
        for a, h, value in zip(x, heights, values, strict=True)
        if value is not None
    ]
    return " ".join(points), round(HEIGHT * (1 - threshold / top), 1)


def page(book: Logbook) -> str:
    """The whole page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("unlabeled.pipelines", ".")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.get_template("sensors_status.html.j2").render(
        machines=machines(book), cases=book.cases()[:50], width=WIDTH, height=HEIGHT
    )


def metrics(book: Logbook) -> bytes:
    """In Prometheus's text format.

    Raises:
        DataError: prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    except ModuleNotFoundError:
        raise DataError("metrics need the package prometheus-client: pip install 'unlabeled[monitor]'") from None

    class Found:
        def collect(self) -> Iterator[Any]:
            known = machines(book)
            gauges = {
                "smoothed_score": ("Smoothed score, the last that could be judged", lambda m: m.smoothed),
                "threshold": ("Threshold of the smoothed score", lambda m: m.threshold),
                "alarm": ("1 while the alarm is on", lambda m: float(m.level in ("alarm", "danger"))),
                "level": (
                    f"{', '.join(f'{n}: {name}' for n, name in enumerate(LEVELS))}; none where it cannot be judged",
                    lambda m: None if m.level in UNJUDGED else float(LEVELS.index(m.level)),
                ),
                "cannot_judge": ("1 where the last reading cannot be judged", lambda m: float(not m.judged)),
                "sensor_broken": (
                    "1 where a sensor was broken at the last reading, and the others are listened to",
                    lambda m: float(m.reason.startswith(WITHOUT)),
                ),
                "last_reading_timestamp_seconds": (
                    "Date of the last reading",
                    lambda m: float(np.datetime64(m.last, "s").astype(np.int64)),
                ),
            }
            for name, (about, value) in gauges.items():
                gauge = GaugeMetricFamily(f"unlabeled_machine_{name}", about, labels=["asset"])
                for machine in known:
                    if value(machine) is not None:
                        gauge.add_metric([machine.asset], value(machine))
                yield gauge
            counted = CounterMetricFamily(
                "unlabeled_machine_readings", "Readings by what was said of them", labels=["asset", "state"]
            )
            for asset, state, count in book.counts():
                counted.add_metric([asset, state], count)
            yield counted
            cases = book.cases()
            still = sum(case.state != CLEARED for case in cases)
            yield GaugeMetricFamily("unlabeled_open_cases", "Cases that have not cleared", value=still)
            over = len(cases) - still
            yield CounterMetricFamily("unlabeled_cleared_cases", "Alarms that cleared again", value=over)
            months = sum(book.monitored_h().values()) / HOURS_PER_MONTH
            yield GaugeMetricFamily(
                "unlabeled_machine_months", "Machine-months in which readings were judged", value=months
            )

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Found())  # type: ignore[arg-type]
    return generate_latest(registry)


@contextmanager
def served(job: Job) -> Iterator[int | None]:
    """The page, as long as it lasts; its port, or ``None`` where the job file asks for none.

    Raises:
        DataError: an address beyond this machine without a token, or one that is taken.
    """
    status = job.status
    if status is None:
        yield None
        return
    token = secret_of("[status]", status.token_env, status.token_file)
    if token is None and status.host not in LOOPBACK:
        raise DataError("[status] beyond this machine needs a token: set token_env or token_file, or host 'localhost'")
    try:
        server = _Server((status.host, status.port), _handler(job.logbook, status, token))
    except OSError as error:
        raise DataError(f"[status] cannot have {status.host}:{status.port} ({error.strerror})") from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    port = int(server.server_address[1])
    say(f"status page: http://{status.host}:{port}")
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)


def _handler(logbook: Path, status: Status, token: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "unlabeled"
        timeout = 10  # a connection that says nothing holds a thread no longer
        sys_version = ""

        def do_GET(self) -> None:
            if not self._allowed():
                return
            made = {"/": ("text/html; charset=utf-8", lambda book: page(book).encode()),
                    "/metrics": ("text/plain; version=0.0.4; charset=utf-8", metrics)}.get(self.path)  # fmt: skip
            if made is None:
                self._answer(404, "text/plain", b"there is / and /metrics\n")
                return
            kind, make = made
            try:
                with Logbook(logbook, read_only=True) as book:
                    self._answer(200, kind, make(book))
            except (DataError, sqlite3.Error) as error:
                self._answer(503, "text/plain; charset=utf-8", f"{error}\n".encode())

        def _allowed(self) -> bool:
            if token is None:
                # A page elsewhere must not read this one under a name of its own (DNS rebinding).
                host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host") or ""
                if host.strip("[]") in LOOPBACK:
                    return True
                self._answer(403, "text/plain", b"only as localhost\n")
                return False
            if hmac.compare_digest(_given(self.headers.get("Authorization") or "").encode(), token.encode()):
                return True
            self._answer(401, "text/plain", b"a token is needed\n", ask=True)
            return False

        def _answer(self, code: int, kind: str, content: bytes, *, ask: bool = False) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
            self.send_header("X-Content-Type-Options", "nosniff")
            if ask:
                self.send_header("WWW-Authenticate", 'Basic realm="unlabeled"')
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: who looked at what is nobody's business."""

    return Handler


def _given(header: str) -> str:
    """The token in an Authorization header: a bearer's, or the password of any user name."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    try:
        return base64.b64decode(rest).decode().partition(":")[2] if scheme.lower() == "basic" else ""
    except ValueError:  # no base64, no text
        return ""
