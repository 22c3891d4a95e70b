"""The job file of ``unlabeled sensors monitor``: what is watched, who judges, where it is told."""

import dataclasses
import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_secrets import LOOPBACK, secret_of
from unlabeled.pipelines._sensors_source_settings import Kafka, Mqtt, Opcua, OpcuaNode, check_port
from unlabeled.sensors._clock import Dates
from unlabeled.sensors.alarms import AlarmRule
from unlabeled.sensors.stream import NewRegime

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder into which readings are put, a file at a time.

    Attributes:
        path: of the folder; files in it are read and left where they are.
        asset: the machine that all files are of (default: as each file says).
        fs: sampling rate in Hz, where the files do not say.
        signal: arrays or channels that are the vibration, where no usual name tells.
        operating: columns or arrays that say how the machine is run, as for ``sensors fit --operating``.
        dates: ``day-first`` or ``month-first`` of dates such as 05/02/2024, where no row of a file tells.
        settled_seconds: a file that has not changed for so long is whole; 0 where files are renamed into the folder.
    """

    path: Path
    asset: str | None = None
    fs: float | None = None
    signal: tuple[str, ...] = ()
    operating: tuple[str, ...] = ()
    dates: str | None = None
    settled_seconds: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Status:
    """A page to look at, and ``/metrics`` for Prometheus.

    Attributes:
        host, port: where; beyond this machine only with a token, which is in
        token_env, token_file: a variable of the environment, or a file.
    """

    host: str = "localhost"
    port: int = 8750
    token_env: str | None = None
    token_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """When there is an alarm, where that is to be other than the models were fitted with (``sensors dry-run`` says what
    it would have changed).

    Attributes:
        threshold_factor: times each model's own threshold.
        smooth, needed, of, clear_below, clear_after: of :class:`~unlabeled.sensors.alarms.AlarmRule`.
    """

    threshold_factor: float = 1.0
    smooth: int | None = None
    needed: int | None = None
    of: int | None = None
    clear_below: float | None = None
    clear_after: int | None = None

    def rule(self, fitted: AlarmRule) -> AlarmRule:
        """A model's rule with what is to be different.

        Raises:
            DataError: by which no alarm could start or end.
        """
        said = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        del said["threshold_factor"]
        return dataclasses.replace(fitted, **said)


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """A time in which somebody works on a machine: its readings are kept, and neither raise nor clear an alarm.

    Attributes:
        since, until: from the one, up to the other (no zone: as the readings are dated; no end: until one is given).
        asset: the machine (default: all of them).
    """

    since: np.datetime64
    until: np.datetime64 | None = None
    asset: str | None = None

    def covers(self, asset: str, at: np.datetime64) -> bool:
        return self.asset in (None, asset) and bool(self.since <= at) and (self.until is None or bool(at < self.until))


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An address to which each event is posted as JSON, in order and until it is taken.

    Attributes:
        url, url_env, url_file: the address, or, where it is itself a secret, a variable of the environment or a file
            that holds it.
        token_env, token_file: of a bearer token.
        timeout_seconds: after so long an answer is no longer waited for.
    """

    url: str | None = None
    url_env: str | None = None
    url_file: Path | None = None
    token_env: str | None = None
    token_file: Path | None = None
    timeout_seconds: float = 5.0

    def address(self) -> str:
        """Raises a DataError where there is none, or where a token would travel unencrypted."""
        found = self.url or secret_of("[webhook]", self.url_env, self.url_file)
        if found is None:
            raise DataError("[webhook] needs a url, url_env or url_file")
        try:
            parts = urlsplit(found)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable or any(c.isspace() or not c.isprintable() for c in found) or "@" in parts.netloc:
            raise DataError("[webhook] needs an address such as https://host/path, without a name or password in it")
        if parts.scheme == "http" and (self.token_env or self.token_file) and parts.hostname not in LOOPBACK:
            raise DataError("[webhook] would send its token unencrypted: use https://")
        if not self.timeout_seconds:
            raise DataError("[webhook] needs a timeout_seconds above 0")
        return found


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the file says; paths in it count from the file's own folder.

    Attributes:
        models: folder that ``sensors fit`` wrote: a model, or one for each machine.
        folders: what is watched.
        status: where a page shows how the machines are.
        mqtt: a broker from which readings come, and to which events go.
        kafka: a cluster from which readings come.
        opcua: a server whose values are readings.
        webhook: to which events are posted.
        alarms: where alarms are to follow other settings than the models'.
        maintenance: times that are not judged.
        new_regime: ``report``: a machine that is run as its model never saw is neither in alarm nor all clear;
            ``alarm``: such readings count as far from normal.
        new_regime_of: the same of single machines, by name, where it is to be otherwise.
        logbook: SQLite file that remembers all of it.
        lines: file to which each event is written as a line of JSON.
        every_seconds: how often the folders are looked at.
        silent_hours: after so long without a reading a machine is told to be silent.
        ahead_minutes: a reading dated later than so far from now is refused: it would make all others late.
        retry_minutes: a file of which something was refused is read again after so long, even if it has not changed.
    """

    models: Path
    folders: tuple[Folder, ...]
    logbook: Path
    lines: Path
    mqtt: Mqtt | None = None
    kafka: Kafka | None = None
    opcua: Opcua | None = None
    status: Status | None = None
    webhook: Webhook | None = None
    alarms: Alarms = Alarms()
    maintenance: tuple[Maintenance, ...] = ()
    new_regime: str = "report"
    new_regime_of: Mapping[str, str] = dataclasses.field(default_factory=dict)
    every_seconds: float = 5.0
    silent_hours: float | None = None
    ahead_minutes: float = 60.0
    retry_minutes: float = 10.0

    def machines(self) -> tuple[str, ...]:
        """Those that the file names; folders without ``asset``, a broker and Kafka bring others."""
        served = () if self.opcua is None else self.opcua.machines()
        return tuple(dict.fromkeys([*(one.asset for one in self.folders if one.asset is not None), *served]))


SOURCES = ("mqtt", "kafka", "opcua")  # which have no end
_TABLES: dict[str, type] = {
    "mqtt": Mqtt, "kafka": Kafka, "opcua": Opcua, "status": Status, "webhook": Webhook, "alarms": Alarms,
}  # fmt: skip


def read(path: Path) -> Job:
    """Reads and checks a job file.

    Raises:
        DataError: what is missing, unknown or of another kind, by its name in the file.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a job file ({str(error).splitlines()[0]})") from None
    lists = {name: said.pop(name, []) for name in ("folders", "maintenance")}
    for name, found in lists.items():
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise DataError(f"{path}: each of the {name} stands under a [[{name}]] of its own")
    tables = {name: said.pop(name, None) for name in _TABLES}
    for name, table in tables.items():
        if not isinstance(table, dict | None):
            raise DataError(f"{path}: what is said of it stands under [{name}]")
    if not lists["folders"] and all(tables[name] is None for name in SOURCES):
        raise DataError(f"{path}: name at least one watched folder under [[folders]], or a broker or server under "
                        f"{', '.join(f'[{name}]' for name in SOURCES)}")  # fmt: skip
    single = said.pop("new_regime_of", {})
    if not isinstance(single, dict):
        raise DataError(f'{path}: each machine\'s new regime stands under [new_regime_of], as pump7 = "alarm"')
    said = {"logbook": "monitor.sqlite", "lines": "events.jsonl", **said}
    job = _made(Job, {**said, "folders": ()}, path, "")
    watched = tuple(_made(Folder, one, path, "folders.") for one in lists["folders"])
    for one in watched:
        if not one.path.is_dir():
            raise DataError(f"{path}: the watched folder {one.path} does not exist")
        if one.dates is not None and one.dates not in get_args(Dates):
            raise DataError(f"{path}: folders.dates is {' or '.join(get_args(Dates))}, got {one.dates!r}")
    twice = {one.path for one in watched if [other.path for other in watched].count(one.path) > 1}
    if twice:
        raise DataError(f"{path}: {', '.join(sorted(map(str, twice)))} is watched twice")
    inside = [one.path for one in watched if one.path in (job.logbook.parent, job.lines.parent)]
    if inside:
        raise DataError(f"{path}: logbook and lines must not lie in a watched folder ({inside[0]})")
    made: dict[str, Any] = {
        name: _with_nodes(table, path) if name == "opcua" else _made(_TABLES[name], table, path, f"{name}.")
        for name, table in tables.items()
        if table is not None
    }
    windows = tuple(_made(Maintenance, one, path, "maintenance.") for one in lists["maintenance"])
    for window in windows:
        if window.until is not None and window.until <= window.since:
            raise DataError(f"{path}: a maintenance ends at {window.until}, before it begins")
    job = dataclasses.replace(job, folders=watched, maintenance=windows, new_regime_of=single, **made)
    job.alarms.rule(AlarmRule())
    for source in (job.mqtt, job.kafka, job.opcua):
        if source is not None:
            source.check()
    if job.status is not None:
        check_port("status.port", job.status.port)
    if job.mqtt is not None and not job.mqtt.topics and not job.folders and job.kafka is None and job.opcua is None:
        raise DataError(f"{path}: there is nothing to read: name mqtt.topics, a watched folder or another source")
    for name, choice in {"new_regime": job.new_regime, **{f"new_regime_of.{k}": v for k, v in single.items()}}.items():
        if choice not in get_args(NewRegime):
            raise DataError(f"{path}: {name} is {' or '.join(get_args(NewRegime))}, got {choice!r}")
    if job.alarms.threshold_factor <= 0:
        raise DataError(f"{path}: alarms.threshold_factor is above 0")
    return job


def _with_nodes(said: Mapping[str, Any], path: Path) -> Opcua:
    nodes = said.get("nodes", [])
    if not isinstance(nodes, list) or not all(isinstance(one, dict) for one in nodes):
        raise DataError(f"{path}: each of opcua's nodes stands under an [[opcua.nodes]] of its own")
    server = _made(Opcua, {**said, "nodes": ()}, path, "opcua.")
    return dataclasses.replace(server, nodes=tuple(_made(OpcuaNode, one, path, "opcua.nodes.") for one in nodes))


def _made(kind: type[_Kind], said: Mapping[str, Any], path: Path, above: str) -> _Kind:
    """One of the settings' classes from a table of the file."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(said) - set(fields))
    if unknown:
        raise DataError(f"{path}: unknown {', '.join(above + name for name in unknown)}; known are {', '.join(fields)}")
    needed = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in said]
    if missing:
        raise DataError(f"{path} does not say {', '.join(above + name for name in missing)}")
    return kind(**{name: _value(value, str(fields[name].type), path, above + name) for name, value in said.items()})


def _value(value: Any, kind: str, path: Path, name: str) -> Any:
    """A setting as its field wants it."""
    base = path.resolve().parent
    if "Path" in kind and isinstance(value, str):
        return base / value
    if "datetime" in kind and isinstance(value, datetime.date):
        return _moment(value, path, name)
    if "bool" in kind and isinstance(value, bool):
        return value
    if "int" in kind and isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if "float" in kind and isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < float("inf"):
            raise DataError(f"{path}: {name} is a number from 0 on, got {value:g}")
        return float(value)
    if "tuple[str" in kind and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if ("str" in kind and "tuple" not in kind and isinstance(value, str)) or value == ():
        return value
    words = {
        "datetime": "a date, or date and time, without quotes",
        "Path": "a path",
        "float": "a number",
        "bool": "true or false",
        "int": "a number above 0",
        "tuple": "a list of names",
        "str": "a text",
    }
    expected = next(said for part, said in words.items() if part in kind)
    raise DataError(f"{path}: {name} is {value!r}, expected {expected}")


def _moment(value: datetime.date, path: Path, name: str) -> np.datetime64:
    try:
        if isinstance(value, datetime.datetime) and value.tzinfo is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    except OverflowError:
        value = datetime.date.max
    if not 1970 <= value.year < 2262:  # what nanoseconds can count
        raise DataError(f"{path}: {name} is before 1970 or after 2261")
    return np.datetime64(value).astype("datetime64[ns]")
