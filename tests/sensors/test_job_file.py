"""What a job file says, and what is wrong with it by the name in it."""

import re
import shutil
from pathlib import Path

import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_job_file import read

KAFKA = 'models = "m"\n[kafka]\nbootstrap_servers = ["h:9092"]\n'
OPCUA = 'models = "m"\n[opcua]\nendpoint = "opc.tcp://h:4840"\n'
NODE = '\n[[opcua.nodes]]\nnode = "ns=2;s=x"\nasset = "a"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models = ", "cannot be read as a job file"),
        ("", r"at least one watched folder under \[\[folders\]\], or a broker or server under \[mqtt\], \[kafka\], \["),
        ('[[folders]]\npath = "in"', "does not say models"),
        ('models = "m"\n[[folders]]\nasset = "a"', "does not say folders.path"),
        ('models = "m"\nfolder = 1\n[[folders]]\npath = "in"', "unknown folder; known are models, folders"),
        ('models = "m"\n[[folders]]\npath = "in"\nrate = 3', "unknown folders.rate"),
        (
            'models = "m"\nevery_seconds = "often"\n[[folders]]\npath = "in"',
            "every_seconds is 'often', expected a number",
        ),
        ('models = "m"\nevery_seconds = -1\n[[folders]]\npath = "in"', "is a number from 0 on, got -1"),
        ('models = 3\n[[folders]]\npath = "in"', "models is 3, expected a path"),
        ('models = "m"\n[[folders]]\npath = "none"', "none does not exist"),
        ('models = "m"\n[[folders]]\npath = "in"\n[[folders]]\npath = "in"', "is watched twice"),
        ('models = "m"\n[[folders]]\npath = "in"\ndates = "iso"', "dates is day-first or month-first, got 'iso'"),
        ('models = "m"\n[mqtt]\nport = 1', "does not say mqtt.host"),
        ('models = "m"\n[mqtt]\nhost = "h"\nport = "x"', "mqtt.port is 'x', expected a number above 0"),
        ('models = "m"\n[mqtt]\nhost = "h"\ntls = 1', "mqtt.tls is 1, expected true or false"),
        ('models = "m"\n[mqtt]\nhost = "h"\npassword = "p"', "unknown mqtt.password"),
        ('models = "m"\n[kafka]\ntopics = ["t"]', "does not say kafka.bootstrap_servers"),
        (KAFKA + "topics = []", "kafka.topics names none"),
        (KAFKA + 'topics = ["t"]\npassword = "p"', "unknown kafka.password"),
        (KAFKA + 'topics = ["t"]\nusername = "u"', "kafka.username needs kafka.password_env or kafka.password_file"),
        (KAFKA + 'topics = ["t"]\nmechanism = "GSSAPI"', "kafka.mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
        ('models = "m"\n[opcua]\npublishing_seconds = 1', "does not say opcua.endpoint"),
        ('models = "m"\n[opcua]\nendpoint = "opc.tcp://u:p@h:4840"', "opcua.endpoint is an address such as"),
        ('models = "m"\n[opcua]\nendpoint = "http://h"', "opcua.endpoint is an address such as"),
        (OPCUA, r"opcua names no node: each stands under an \[\[opcua.nodes\]\]"),
        (OPCUA + "publishing_seconds = 0", "opcua.publishing_seconds is above 0"),
        (OPCUA + "nodes = 3", r"each of opcua's nodes stands under an \[\[opcua.nodes\]\]"),
        (OPCUA + 'security = "None"', "opcua.security is Basic256Sha256, Aes128Sha256RsaOaep or Aes256Sha256RsaPss"),
        (
            OPCUA + 'security = "Basic256Sha256"',
            "security, certificate, private_key and server_certificate go together",
        ),
        (OPCUA + 'private_key = "k"', "security, certificate, private_key and server_certificate go together"),
        (KAFKA + 'topics = ["v", "v"]', "kafka.topics names v twice"),
        ('models = "m"\n[mqtt]\nhost = "h"', "there is nothing to read: name mqtt.topics, a watched folder or another"),
        ('models = "m"\n[mqtt]\nhost = "h"\ntopics = [""]', "mqtt.topics: one of them is empty"),
        (
            'models = "m"\n[mqtt]\nhost = "h"\nport = 65536\n[[folders]]\npath = "in"',
            "mqtt.port is a port, 1 to 65535, got 65536",
        ),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[status]\nport = 99999',
            "status.port is a port, 1 to 65535, got 99999",
        ),
        ('models = "m"\n[[folders]]\npath = "in"\n[status]\nport = 0', "status.port is 0, expected a number above 0"),
        (OPCUA.replace("4840", "99999") + NODE, "opcua.endpoint is an address such as"),
        (OPCUA + 'username = "u"', "opcua.username needs opcua.password_env or opcua.password_file"),
        (
            OPCUA + NODE + 'indicator = "r"',
            "every_seconds is 0: machines of indicators need it, at least 1, as far apart as the readings that",
        ),
        (OPCUA + "every_seconds = 0.5" + NODE + 'indicator = "r"', "every_seconds is 0.5: machines of indicators"),
        (OPCUA + NODE, "opcua.nodes: ns=2;s=x is one of indicator, axis, operating or running"),
        (OPCUA + NODE + 'indicator = "r"\nrunning = true', "ns=2;s=x is one of indicator, axis, operating or running"),
        (OPCUA + NODE + 'axis = "x"', "ns=2;s=x needs both an axis and its fs in Hz, or neither"),
        (OPCUA + NODE + 'indicator = "r"\nfs = 100', "ns=2;s=x needs both an axis and its fs in Hz, or neither"),
        (OPCUA + NODE + 'operating = "speed"', "opcua.nodes: a needs either indicators or axes"),
        (OPCUA + NODE + 'indicator = "r"' + NODE + 'axis = "x"\nfs = 9', "a needs either indicators or axes"),
        (OPCUA + NODE + 'axis = "x"\nfs = 9' + NODE + 'axis = "y"\nfs = 8', "the axes of a are of different fs"),
        (OPCUA + NODE + 'indicator = "r"' + NODE + 'indicator = "r"', "opcua.nodes: a has indicator 'r' twice"),
        (OPCUA + '[[opcua.nodes]]\nasset = "a"', "does not say opcua.nodes.node"),
        (OPCUA + NODE + "rate = 3", "unknown opcua.nodes.rate"),
        ('models = "m"\nmaintenance = 3\n[[folders]]\npath = "in"', r"maintenance stands under a \[\[maintenance\]\]"),
        ('models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nasset = "a"', "does not say maintenance.since"),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = "2024-01-01"',
            "maintenance.since is '2024-01-01', expected a date, or date and time, without quotes",
        ),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = 2024-01-02\nuntil = 2024-01-01',
            "ends at 2024-01-01T00:00:00.000000000, before it begins",
        ),
        ('models = "m"\nalarms = 3\n[[folders]]\npath = "in"', r"stands under \[alarms\]"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nneeded = 7', "needed is 7 of the last 6"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nclear_below = 2', "at most 1, got 2"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nthreshold_factor = 0', "threshold_factor is above 0"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nthreshold_factor = nan', "is a number from 0 on, got nan"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nthreshold_factor = inf', "is a number from 0 on, got inf"),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = 2024-01-01\nuntil = 2600-01-01',
            "maintenance.until is before 1970 or after 2261",
        ),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = 9999-12-31T23:59:59-05:00',
            "maintenance.since is before 1970 or after 2261",
        ),
        ('models = "m"\n[[folders]]\npath = "in"\n[webhook]\ntoken = "x"', "unknown webhook.token"),
        ('models = "m"\nlogbook = "in/l.sqlite"\n[[folders]]\npath = "in"', "must not lie in a watched folder"),
    ],
)
def test_a_wrong_job_file_is_told_by_the_name_in_it(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(DataError, match=why):
        read(tmp_path / "job.toml")


def test_waveforms_of_a_server_need_no_spacing_and_a_broker_that_only_hears_no_topics(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    text = OPCUA + NODE + 'axis = "x"\nfs = 9\n[mqtt]\nhost = "h"\n[[folders]]\npath = "in"\nasset = "b"'
    (tmp_path / "job.toml").write_text(text)
    assert read(tmp_path / "job.toml").machines() == ("b", "a")


def test_the_example_is_a_job_file(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "examples" / "monitor.toml", tmp_path)
    (tmp_path / "incoming").mkdir()
    found = read(tmp_path / "monitor.toml")
    assert found.models == tmp_path / "pump7-model"
    assert (found.folders[0].path, found.folders[0].asset) == (tmp_path / "incoming", "pump7")


def test_what_the_example_shows_of_sources_is_right_too(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "examples" / "monitor.toml").read_text()
    shown = re.findall(r"^# (\[.+|\w+ = .+)", text[text.index("# [mqtt]") :], flags=re.MULTILINE)
    (tmp_path / "job.toml").write_text("\n".join(['models = "m"', *shown]))
    found = read(tmp_path / "job.toml")
    assert found.mqtt is not None
    assert found.mqtt.events == "plant/alarms"
    assert found.kafka is not None
    assert found.kafka.bootstrap_servers == ("kafka1.plant.example:9093", "kafka2.plant.example:9093")
    assert found.opcua is not None
    assert {asset: len(nodes) for asset, nodes in found.opcua.machines().items()} == {"pump7": 3, "fan2": 1}
