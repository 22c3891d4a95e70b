"""Readings through a real broker: kept before they are acknowledged, whoever is away or killed in between."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pandas as pd
import pytest
from monitoring import at_work, message, readings, same, wait_for
from mqtt_broker import MOSQUITTO, Mosquitto, publish

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines import _sensors_mqtt
from unlabeled.pipelines._sensors_judging import in_order
from unlabeled.pipelines._sensors_message import recording_of
from unlabeled.pipelines._sensors_mqtt import Broker
from unlabeled.pipelines._sensors_secrets import secret_of
from unlabeled.pipelines._sensors_source_settings import Mqtt
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.recording import make

broker_needed = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto (Debian: apt-get install mosquitto)")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(tmp_path / "broker")
    yield found
    found.stop()


def job_of(folder: Path, models: Path, port: int, *more: str) -> Path:
    path = folder / "job.toml"
    path.write_text(
        "\n".join(
            [f'models = "{models}"', "every_seconds = 0.2", "[mqtt]", 'host = "localhost"', f"port = {port}",
             'topics = ["plant/+/vibration"]', 'events = "plant/alarms"', *more]
        )
    )  # fmt: skip
    return path


def expected(plant: list[Recording], fitted: Path) -> pd.DataFrame:
    return MachineMonitor.load(fitted / "pump7").score(plant[3])


@broker_needed
@pytest.mark.integration
def test_what_comes_by_a_broker_is_judged_as_a_whole_record_and_alarms_go_back(
    plant: list[Recording], fitted: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2)
    listener.on_message = lambda _, __, m: heard.append((m.topic, json.loads(m.payload)))
    listener.on_connect = lambda client, *_: client.subscribe("plant/alarms/#", 1)
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    job_file = job_of(tmp_path, fitted, broker.port)
    with at_work(job_file):
        publish_when_there(job_file, broker.port, [message(plant[3], row) for row in range(192)])
        wait_for(lambda: len(readings(job_file)) == 192)
        wait_for(lambda: len(heard) == 2)
    same(readings(job_file), expected(plant, fitted))
    (topic, alarm), (above, danger) = heard
    assert (topic, above) == ("plant/alarms/alarm", "plant/alarms/danger")
    assert danger["case"] == 1
    assert (alarm["asset"], alarm["case"], alarm["id"]) == ("pump7", 1, 1)
    listener.disconnect()
    listener.loop_stop()


def publish_when_there(job_file: Path, port: int, payloads: list[str]) -> None:
    """Sends the first again and again until the job has it: only then its session is known to the broker."""

    def there() -> bool:
        publish(port, payloads[:1])
        return len(readings(job_file)) > 0

    wait_for(there)
    publish(port, payloads[1:])


@broker_needed
@pytest.mark.integration
def test_a_sender_that_wants_no_answer_is_heard_too(
    plant: list[Recording], fitted: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, broker.port)
    with at_work(job_file):
        publish_when_there(job_file, broker.port, [message(plant[3], 0)])
        for row in range(1, 20):
            publish(broker.port, [message(plant[3], row)], qos=0)
            wait_for(lambda row=row: len(readings(job_file)) == row + 1)


@broker_needed
@pytest.mark.integration
def test_a_broker_that_was_away_and_a_job_that_was_lose_nothing(
    plant: list[Recording], fitted: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, broker.port)
    with at_work(job_file):
        publish_when_there(job_file, broker.port, [message(plant[3], row) for row in range(20)])
        wait_for(lambda: len(readings(job_file)) == 20)
        broker.stop()
        broker.start()
        publish(broker.port, [message(plant[3], row) for row in range(20, 60)])
        wait_for(lambda: len(readings(job_file)) == 60)
    publish(broker.port, [message(plant[3], row) for row in range(60, 192)])  # nobody is there
    broker.stop()
    broker.start()
    with at_work(job_file):
        wait_for(lambda: len(readings(job_file)) == 192)
    same(readings(job_file), expected(plant, fitted))


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import paho.mqtt.client
from unlabeled.core.progress import quiet
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.sensors import MachineMonitor
quiet(True)
MachineMonitor.load(sys.argv[2])
draw, killed = random.Random(0), 0
for _ in range(int(sys.argv[3])):
    child = os.fork()
    if not child:
        job.monitor(Path(sys.argv[1]))
        os._exit(0)
    time.sleep(draw.uniform(0.05, 0.4))
    os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(killed)
"""


@broker_needed
@pytest.mark.integration
def test_killed_between_keeping_and_acknowledging_it_loses_nothing_and_tells_nothing_twice(
    plant: list[Recording], fitted: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, broker.port)
    with at_work(job_file):
        publish_when_there(job_file, broker.port, [message(plant[3], 0)])
    sender = threading.Thread(target=publish, args=(broker.port, [message(plant[3], row) for row in range(1, 192)]))
    sender.start()
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(job_file), str(fitted / "pump7"), "60"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    sender.join()
    assert int(done.stdout.split()[-1]) == 60
    with at_work(job_file):
        wait_for(lambda: len(readings(job_file)) == 192)
    same(readings(job_file), expected(plant, fitted))
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["id"], line["kind"]) for line in lines] == [(1, "alarm"), (2, "danger")]


@broker_needed
@pytest.mark.integration
def test_what_is_no_reading_is_refused_once_and_does_not_stand_in_the_way(
    plant: list[Recording], fitted: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, broker.port)
    with at_work(job_file):
        publish_when_there(job_file, broker.port, [message(plant[3], 0)])
        publish(broker.port, ["nonsense"] * 3 + [message(plant[3], 1, fs=99.0)], topic="plant/odd/vibration")
        publish(broker.port, [message(plant[3], 1)])
        wait_for(lambda: len(readings(job_file)) == 2)
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["why"].split(":")[0] for line in lines] == [
        "the message is no JSON", "fitted at 12800 Hz, pump7 is sampled at 99 Hz",
    ]  # fmt: skip


@broker_needed
@pytest.mark.integration
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_broker_that_asks_for_a_password_behind_tls(
    plant: list[Recording], fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                   "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out",
                   str(tmp_path / "ca.pem")]  # fmt: skip
    subprocess.run(["openssl", *certificate], check=True, capture_output=True)
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(tmp_path / "users"), "monitor", "secret"], check=True, capture_output=True
    )
    (tmp_path / "users").chmod(0o600)
    broker = Mosquitto(
        tmp_path / "broker", f"certfile {tmp_path}/ca.pem", f"keyfile {tmp_path}/key.pem", "allow_anonymous false",
        f"password_file {tmp_path}/users",
    )  # fmt: skip
    told = ('username = "monitor"', 'password_env = "BROKER_PASSWORD"', "tls = true", 'ca = "ca.pem"')
    job_file = job_of(tmp_path, fitted, broker.port, *told)
    with pytest.raises(DataError, match="the environment has no BROKER_PASSWORD"):
        job.monitor(job_file)
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.username_pw_set("monitor", "secret")
    client.tls_set(ca_certs=str(tmp_path / "ca.pem"))
    client.connect("localhost", broker.port)
    client.loop_start()
    with at_work(job_file):

        def sent_and_judged() -> bool:
            client.publish("plant/pump7/vibration", message(plant[3], 0), qos=1).wait_for_publish(10)
            return len(readings(job_file)) == 1

        wait_for(sent_and_judged)
    client.disconnect()
    client.loop_stop()
    broker.stop()
    assert b"secret" not in b"".join(p.read_bytes() for p in tmp_path.glob("*") if p.is_file() and p.name != "users")


def test_of_those_that_want_no_answer_the_oldest_are_lost_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(_sensors_mqtt, "say", said.append)
    monkeypatch.setattr(_sensors_mqtt, "_ROOM", 3)
    with socket.socket() as nobody, closing(Broker(Mqtt(host="127.0.0.1", port=free_port(nobody)), Event())) as broker:

        def come(numbers: range, qos: int) -> None:
            for number in numbers:
                found = paho.MQTTMessage(mid=number, topic=b"t")
                found.payload, found.qos = b"{}", qos
                broker._take(None, None, found)

        come(range(2), qos=1)
        come(range(2, 8), qos=0)
        come(range(8, 10), qos=1)
        assert [message.receipt[0] for message in broker.waiting()] == [0, 1, 7, 8, 9]
        assert len([line for line in said if "are lost" in line]) == 1
        broker.acknowledge()
        come(range(10, 20), qos=0)
        assert [message.receipt[0] for message in broker.waiting()] == [17, 18, 19]
        assert len([line for line in said if "are lost" in line]) == 2


def free_port(nobody: socket.socket) -> int:
    """Held and not listened to."""
    nobody.bind(("127.0.0.1", 0))
    return int(nobody.getsockname()[1])


def test_a_password_comes_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "word").write_text("secret\n")
    (tmp_path / "empty").write_text("\n")
    assert secret_of("[mqtt]", None, tmp_path / "word") == "secret"
    assert secret_of("[mqtt]", None, None) is None
    with pytest.raises(DataError, match=r"the file that \[mqtt\] names cannot be read"):
        secret_of("[mqtt]", None, tmp_path / "none")
    with pytest.raises(DataError, match="is empty"):
        secret_of("[mqtt]", None, tmp_path / "empty")
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(DataError, match="the environment has no EMPTY"):
        secret_of("[mqtt]", "EMPTY", None)


def test_indicators_are_told_by_their_names_not_their_order() -> None:
    draw = np.random.default_rng(0)
    values = np.stack([draw.normal(1, 0.1, 200), draw.normal(40, 1, 200)], axis=1)
    model = MachineMonitor(steps=5, dim=16, depth=1).fit(make("p", values, np.arange(200.0), names=["rms", "celsius"]))
    said = {"asset": "p", "time": "2024-03-01", "indicators": {"celsius": 41.0, "rms": 2.0}}
    (found,) = in_order(recording_of(json.dumps(said).encode()), model).values
    assert found.tolist() == [2.0, 41.0]


def test_once_is_for_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--once deals with what lies in folders"):
        job.monitor(job_of(tmp_path, tmp_path, 1), once=True)


def test_a_message_of_indicators_and_one_of_a_machine_that_stands() -> None:
    said = {"asset": "p", "time": "2024-03-01T07:00:00+01:00", "indicators": {"rms": 1.5, "temperature": None}}
    one = recording_of(json.dumps(said).encode())
    assert (one.kind, one.names, one.asset) == ("trend", ("rms", "temperature"), "p")
    assert one.clock is not None
    assert one.clock[0] == np.datetime64("2024-03-01T06:00:00")
    assert one.values[0, 0] == 1.5
    assert np.isnan(one.values[0, 1])
    assert one.running[0]
    assert not recording_of(json.dumps({**said, "running": False}).encode()).running[0]


WHOLE = {"asset": "p", "time": "2024-03-01", "fs": 1000, "values": [[1.0, 2.0]]}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\xff", "is no JSON"),
        (b"[1]", "no JSON object"),
        ({**WHOLE, "asset": " "}, "does not name its 'asset'"),
        ({**WHOLE, "asset": 3}, "does not name its 'asset'"),
        ({**WHOLE, "time": None}, "'time' is no date"),
        ({**WHOLE, "time": "yesterday-ish"}, "'time' is no date"),
        ({**WHOLE, "time": "now"}, "'time' is no date"),
        ({**WHOLE, "time": "3000-01-01"}, "before 1970 or after 2261"),
        ({**WHOLE, "time": "1600-01-01"}, "before 1970 or after 2261"),
        (b"[" * 100_000, "is no JSON"),
        ({**WHOLE, "asset": "\ud800"}, "does not name its 'asset'"),
        ({**WHOLE, "axes": 5}, "'axes' is no list"),
        ({**WHOLE, "fs": 10**400}, "does not say its sampling rate"),
        ({**WHOLE, "values": [[10**400]]}, "too large"),
        ({**WHOLE, "fs": None}, "does not say its sampling rate"),
        ({**WHOLE, "fs": True}, "does not say its sampling rate"),
        ({**WHOLE, "fs": -1}, "does not say its sampling rate"),
        ({**WHOLE, "values": [1.0]}, "holds neither 'values'"),
        ({**WHOLE, "values": []}, "holds neither 'values'"),
        ({**WHOLE, "values": [[1.0], [1.0, 2.0]]}, "of different lengths"),
        ({**WHOLE, "values": [["a"]]}, "not all of 'values' are numbers"),
        ({**WHOLE, "axes": ["x", "y"]}, "2 names in 'axes' for 1 lists"),
        ({"asset": "p", "time": "2024-03-01", "indicators": {}}, "holds neither 'values'"),
        ({"asset": "p", "time": "2024-03-01", "indicators": {"rms": "high"}}, "not all of 'indicators' are numbers"),
    ],
)
def test_a_message_that_is_no_reading_is_told_why(payload: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        recording_of(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
