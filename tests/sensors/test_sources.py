"""Several sources of one job: none waits for another, none is told of what was not kept."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from monitoring import at_work, events, message, put, readings, same, stamps, wait_for
from mqtt_broker import MOSQUITTO, Mosquitto, publish

from unlabeled.core.checkpoints import MANIFEST
from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines._sensors_message import recording_of
from unlabeled.pipelines._sensors_source import MOST, Inbox, Message, asset_in
from unlabeled.sensors import Recording


def nonsense(number: int) -> Message:
    return Message("fake", "odd", partial(recording_of, b"nonsense"), number)


def test_an_inbox_gives_the_same_until_it_is_acknowledged_and_says_when_there_is_more() -> None:
    came = threading.Event()
    inbox = Inbox(came)
    assert inbox.waiting() == []
    assert inbox.acknowledged() == []
    assert not came.is_set()
    for number in range(MOST + 3):
        assert inbox.put(nonsense(number))
    assert came.is_set()
    came.clear()
    assert [one.receipt for one in inbox.waiting()] == list(range(MOST))
    assert [one.receipt for one in inbox.waiting()] == list(range(MOST))
    assert not came.is_set()
    assert [one.receipt for one in inbox.acknowledged()] == list(range(MOST))
    assert came.is_set()  # three are left
    came.clear()
    assert [one.receipt for one in inbox.waiting()] == [MOST, MOST + 1, MOST + 2]
    inbox.acknowledged()
    assert not came.is_set()


def test_an_inbox_takes_no_more_than_it_has_room_for() -> None:
    inbox = Inbox(threading.Event(), most=2)
    assert inbox.put(nonsense(0))
    assert inbox.put(nonsense(1))
    assert not inbox.put(nonsense(2))
    assert not inbox.put(nonsense(2), seconds=0.01)
    inbox.waiting()
    assert inbox.put(nonsense(2))


def test_an_inbox_takes_no_more_bytes_than_it_has_room_for_nor_less_than_one_message() -> None:
    inbox = Inbox(threading.Event(), most_bytes=100)
    assert inbox.put(nonsense(0)._replace(size=500))
    assert not inbox.put(nonsense(1)._replace(size=1))
    inbox.waiting()
    assert not inbox.put(nonsense(1)._replace(size=1))  # what is being kept still is there
    inbox.acknowledged()
    assert inbox.put(nonsense(1)._replace(size=60))
    assert not inbox.put(nonsense(2)._replace(size=60))
    assert inbox.put(nonsense(2)._replace(size=60), anyway=True)


def test_an_inbox_drops_the_oldest_that_may_be_dropped() -> None:
    inbox = Inbox(threading.Event(), most=3)
    for number in (0, 1, 2):
        inbox.put(nonsense(number))
    assert inbox.put_instead(nonsense(3), lambda old: old.receipt > 0) == 1
    assert inbox.put_instead(nonsense(4), lambda old: old.receipt > 2) == 1
    assert inbox.put_instead(nonsense(5), lambda old: old.receipt > 9) == 1  # itself
    assert [one.receipt for one in inbox.waiting()] == [0, 2, 4]


def test_a_message_names_its_machine_however_wrong_the_rest_is() -> None:
    assert asset_in(b'{"asset": "fan2", "time": 3}') == "fan2"
    for payload in (b"\xff", b"[1]", b'{"asset": 3}', b'{"asset": " "}', b'{"asset": "\\ud800"}', b"[" * 100_000):
        assert asset_in(payload) == ""


class Fake:
    """Gives what it was given, or without an end."""

    def __init__(self, name: str, came: threading.Event, *, endless: bool = False) -> None:
        self.name, self._came, self._endless = name, came, endless
        self._inbox = Inbox(came)
        self.acknowledged, self.closed = 0, False

    def put(self, payload: str) -> None:
        named = partial(asset_in, payload.encode())
        self._inbox.put(Message(self.name, "t", partial(recording_of, payload.encode()), asset=named))

    def waiting(self) -> list[Message]:
        if self._endless:
            self._came.set()
            self.put("nonsense")
        return self._inbox.waiting()

    def acknowledge(self) -> None:
        self.acknowledged += len(self._inbox.acknowledged())

    def close(self) -> None:
        self.closed = True


class Fakes(dict[str, Fake]):
    """Those of a job, by name, once it has begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **endless: bool) -> None:
        super().__init__()
        self._endless = endless
        monkeypatch.setattr(job, "_sources", self._made)

    def _made(self, _: Any, __: Any, came: threading.Event) -> Iterator[Fake]:
        for name, endless in self._endless.items():
            self[name] = Fake(name, came, endless=endless)
            yield self[name]


@pytest.mark.integration
def test_neither_a_source_nor_a_folder_waits_for_one_that_never_rests(
    plant: list[Recording], job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes(monkeypatch, busy=True, calm=False)
    with at_work(job_file):
        wait_for(lambda: len(fakes) == 2 and fakes["busy"].acknowledged > 10)
        fakes["calm"].put(message(plant[3], 0))
        wait_for(lambda: len(readings(job_file)) == 1)
        put(plant[3], slice(1, 3), job_file.parent / "incoming", "r1")
        wait_for(lambda: len(readings(job_file)) == 3)
        fakes["calm"].put(message(plant[3], 3))
        wait_for(lambda: len(readings(job_file)) == 4)
    assert fakes["calm"].acknowledged == 2
    assert fakes["busy"].closed
    assert fakes["calm"].closed


@pytest.mark.integration
def test_a_folder_full_of_files_keeps_no_source_waiting(
    plant: list[Recording], job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes, other = Fakes(monkeypatch, calm=False), replace(plant[3], asset="fan2")
    for row in range(20):
        put(other, slice(row, row + 1), job_file.parent / "incoming", f"r{row:04d}")
    taken = job._Work._take_file
    left: list[int] = []

    def take(work: Any, folder: Any, path: Path, looked: str) -> None:
        if path.name == "r0003.npz":
            fakes["calm"].put("nonsense")
        taken(work, folder, path, looked)
        left.append(fakes["calm"].acknowledged)

    monkeypatch.setattr(job._Work, "_take_file", take)
    with at_work(job_file):
        wait_for(lambda: len(left) == 20)
    assert left == [0] * 4 + [1] * 16  # dealt with between the fourth file and the fifth


@pytest.mark.integration
def test_what_cannot_be_kept_is_tried_at_the_next_look_and_not_at_once(
    plant: list[Recording], job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes(monkeypatch, calm=False)
    kept, tries, full = job._Work._take_message, list[float](), threading.Event()
    full.set()

    def take(work: Any, message: Message) -> None:
        tries.append(time.monotonic())
        if full.is_set():
            raise OSError("no space left on device")
        kept(work, message)

    monkeypatch.setattr(job._Work, "_take_message", take)
    job_file.write_text(job_file.read_text().replace("every_seconds = 0.05", "every_seconds = 0.5"))
    with at_work(job_file):
        wait_for(lambda: len(fakes) == 1)
        fakes["calm"].put(message(plant[3], 0))
        wait_for(lambda: fakes["calm"].put("nonsense") or len(tries) >= 6)  # others come all the while
        assert fakes["calm"].acknowledged == 0
        full.clear()
        wait_for(lambda: fakes["calm"].acknowledged > 0)
    assert tries[5] - tries[0] > 0.9  # in an interval one at the look, and one when something comes
    assert len(readings(job_file)) == 1


def without_model(folder: Path, *assets: str, more: str = "") -> Path:
    """A job that watches a folder for each machine."""
    watched = [f'[[folders]]\npath = "in-{asset}"\nasset = "{asset}"' for asset in assets]
    for asset in assets:
        (folder / f"in-{asset}").mkdir()
    (folder / "models").mkdir()
    (folder / "job.toml").write_text("\n".join(['models = "models"', "every_seconds = 0.05", more, *watched]))
    return folder / "job.toml"


def indicators(asset: str, **changed: Any) -> str:
    return json.dumps({"asset": asset, "time": "2024-03-01", "indicators": {"rms": 1.0}, **changed})


def test_refusals_of_machines_that_take_turns_are_told_once_also_by_a_job_that_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes, job_file = Fakes(monkeypatch, calm=False), without_model(tmp_path, "pump7")
    sent = [indicators("fan1"), indicators("fan2"), "nonsense", indicators("fan1", time="soon")]
    for _ in range(2):
        fakes.clear()
        with at_work(job_file):
            wait_for(lambda: len(fakes) == 1)
            for payload in sent * 3:
                fakes["calm"].put(payload)
            wait_for(lambda: fakes["calm"].acknowledged == 12)
    assert [(event["asset"], event["kind"], event["why"]) for event in events(job_file)] == [
        ("fan1", "refused", "there is no model of fan1 in models"),
        ("fan2", "refused", "there is no model of fan2 in models"),
        ("t", "refused", "the message is no JSON"),
        ("fan1", "refused", "the message's 'time' is no date such as 2024-03-01T06:00:00Z"),
    ]


def test_a_refusal_that_could_not_be_kept_is_told_when_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes, job_file = Fakes(monkeypatch, calm=False), without_model(tmp_path, "pump7")
    kept, tries = job._Work._take_message, []

    def take(work: Any, message: Message) -> None:
        kept(work, message)
        tries.append(True)
        if len(tries) < 3:
            raise OSError("no space left on device")

    monkeypatch.setattr(job._Work, "_take_message", take)
    with at_work(job_file):
        wait_for(lambda: len(fakes) == 1)
        fakes["calm"].put("nonsense")
        wait_for(lambda: fakes["calm"].acknowledged == 1)
    assert [event["why"] for event in events(job_file)] == ["the message is no JSON"]


def test_a_machine_of_which_nothing_ever_came_is_silent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_file = without_model(tmp_path, "pump7", more="silent_hours = 0.0001")
    looks, silence = [], job._Work._silence
    monkeypatch.setattr(job._Work, "_silence", lambda work: looks.append(silence(work)))
    for _ in range(2):
        with at_work(job_file):
            wait_for(lambda: len(events(job_file)) == 1)
            looks.clear()
            wait_for(lambda: len(looks) > 10)
    assert [(one["asset"], one["kind"], one["last"]) for one in events(job_file)] == [("pump7", "silent", None)]


def test_one_model_judges_one_machine_and_not_all_that_are_named(tmp_path: Path) -> None:
    job_file = without_model(tmp_path, "pump7", "pump8")
    (tmp_path / "models" / MANIFEST).write_text("{}")
    why = r"2 machines are configured and there is one model in .*models: give each its own folder models/<asset> \("
    with pytest.raises(DataError, match=why + r"pump7, pump8: none\)"):
        job.monitor(job_file, once=True)
    (tmp_path / "models" / "pump7").mkdir()
    (tmp_path / "models" / "pump7" / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match=why + r"pump8: none\)"):
        job.monitor(job_file, once=True)
    server = '\n[opcua]\nendpoint = "opc.tcp://h:1"\nevery_seconds = 60\n[[opcua.nodes]]\nnode = "i=1"\n'
    text = job_file.read_text().partition('[[folders]]\npath = "in-pump8"')[0]
    job_file.write_text(text)
    assert job.monitor(job_file, once=True).details["judged"] == 0
    job_file.write_text(f'{text}{server}asset = "fan2"\nindicator = "r"')
    with pytest.raises(DataError, match=why + r"fan2: none\)"):
        job.monitor(job_file)


@pytest.mark.parametrize(
    "source",
    ['[mqtt]\nhost = "h"\ntopics = ["t"]', '[kafka]\nbootstrap_servers = ["h:1"]\ntopics = ["t"]',
     '[opcua]\nendpoint = "opc.tcp://h:1"\n[[opcua.nodes]]\nnode = "i=1"\nasset = "a"\naxis = "x"\nfs = 9'],
)  # fmt: skip
def test_once_is_for_folders(tmp_path: Path, source: str) -> None:
    (tmp_path / "job.toml").write_text(f'models = "m"\n{source}')
    name = source.split("\n")[0]
    with pytest.raises(DataError, match=r"--once deals with what lies in folders; what comes by") as found:
        job.monitor(tmp_path / "job.toml", once=True)
    assert name in str(found.value)


def test_when_one_cannot_begin_those_before_it_are_closed(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Fake] = []

    def sources(_: Any, __: Any, came: threading.Event) -> Iterator[Fake]:
        opened.append(Fake("first", came))
        yield opened[0]
        raise DataError("the second has no password")

    monkeypatch.setattr(job, "_sources", sources)
    with pytest.raises(DataError, match="the second has no password"):
        job.monitor(job_file)
    assert opened[0].closed


@pytest.mark.integration
def test_a_broker_kafka_and_a_server_at_once_give_one_record(
    plant: list[Recording], fitted: Path, expected: pd.DataFrame, tmp_path: Path
) -> None:
    pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (extra 'kafka')")
    pytest.importorskip("asyncua", reason="needs asyncua (extra 'opcua')")
    if MOSQUITTO is None:
        pytest.skip("needs mosquitto (Debian: apt-get install mosquitto)")
    from kafka_cluster import Mock, produce
    from opcua_server import Plc

    recording, names = plant[3], plant[3].names
    broker, cluster, plc = Mosquitto(tmp_path / "broker"), Mock("vibration"), Plc(dict.fromkeys(names, np.zeros(0)))
    nodes = [f'[[opcua.nodes]]\nnode = "ns=2;s={name}"\nasset = "pump7"\naxis = "{name}"\nfs = {recording.fs}'
             for name in names]  # fmt: skip
    job_file = tmp_path / "job.toml"
    job_file.write_text(
        "\n".join(
            [f'models = "{fitted}"', "every_seconds = 30", "[mqtt]", 'host = "localhost"', f"port = {broker.port}",
             'topics = ["plant/+/vibration"]', "[kafka]", f'bootstrap_servers = ["{cluster.servers}"]',
             'topics = ["vibration"]', "[opcua]", f'endpoint = "{plc.endpoint}"', "publishing_seconds = 0.04", *nodes]
        )
    )  # fmt: skip

    def by_server(row: int) -> None:
        axes = {name: recording.values[row, :, axis].astype(float) for axis, name in enumerate(names)}
        plc.write(stamps(recording)[row], **axes)

    def sent_by_mqtt(row: int) -> bool:
        publish(broker.port, [message(recording, row)])  # again until the broker knows the job
        return len(readings(job_file)) > row

    by_server(0)
    try:
        with at_work(job_file):
            produce(cluster, [message(recording, 0)])  # as well: a reading that comes twice counts once
            wait_for(lambda: len(readings(job_file)) == 1)
            for row in range(1, 31):
                if row % 3 == 0:
                    wait_for(lambda row=row: sent_by_mqtt(row))
                elif row % 3 == 1:
                    produce(cluster, [message(recording, row)])
                else:
                    by_server(row)
                wait_for(lambda row=row: len(readings(job_file)) == row + 1)
    finally:
        plc.stop()
        cluster.stop()
        broker.stop()
    found = readings(job_file)
    same(found, expected.iloc[:31])
    assert set(found["file"]) == {"mqtt plant/pump7/vibration", "kafka vibration", "opcua pump7"}
