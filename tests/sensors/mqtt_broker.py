"""An MQTT broker that a test starts, and a sender."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import paho.mqtt.client as paho
from monitoring import wait_for

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Mosquitto:
    """A broker on a free port that remembers sessions on disk."""

    def __init__(self, folder: Path, *more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir()
        self.config = folder / "mosquitto.conf"
        lines = ["per_listener_settings false", f"listener {self.port} 127.0.0.1", "persistence true",
                 f"persistence_location {folder}/", "max_queued_messages 0", "autosave_interval 1",
                 *(more or ("allow_anonymous true",))]  # fmt: skip
        if os.getuid() == 0:
            lines.append("user root")
        self.config.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self.running = subprocess.Popen([MOSQUITTO, "-c", str(self.config)], stderr=subprocess.DEVNULL)
        wait_for(self.answers)

    def answers(self) -> bool:
        with socket.socket() as there:
            return there.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.running.send_signal(signal.SIGTERM)  # it writes down what it holds
        self.running.wait()


def publish(port: int, payloads: list[str], *, topic: str = "plant/pump7/vibration", qos: int = 1) -> None:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1)  # as a careful sender: in order, whatever breaks
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [client.publish(topic, payload, qos=qos) for payload in payloads]
    for one in sent:
        one.wait_for_publish(30)
        assert one.is_published()
    client.disconnect()
    client.loop_stop()
