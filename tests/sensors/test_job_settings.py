"""Alarm settings, maintenance and webhook of a monitoring job: tried before they are saved, taken up while it runs."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from monitoring import events, put, put_all, readings, stamps, wait_for

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines._sensors_dry_run import ANEW, AS_IT_WAS, dry_run
from unlabeled.pipelines._sensors_history import history
from unlabeled.pipelines._sensors_job_file import Webhook
from unlabeled.pipelines._sensors_webhook import Hook
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.alarms import AlarmRule, alarm_states, episodes
from unlabeled.sensors.logbook import Logbook

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

TOKEN = "a-token-that-nobody-should-see"


@pytest.fixture
def judged(plant: list[Recording], job_file: Path) -> Path:
    """The job file of a job that has judged a failing machine's whole record."""
    put(plant[3], slice(None), job_file.parent / "incoming", "a")
    job.monitor(job_file, once=True)
    return job_file


def told(job_file: Path, kind: str) -> list[dict[str, object]]:
    return [event for event in events(job_file) if event["kind"] == kind]


def test_a_dry_run_under_the_settings_in_force_finds_what_happened(judged: Path, in_tmp: Path) -> None:
    found = dry_run(judged, out=in_tmp / "dry", days=60)
    assert found.details["alarms"] == {AS_IT_WAS: 1, ANEW: 1}
    (machine,) = found.details["machines"]
    (alarm,) = told(judged, "alarm")
    assert machine[f"first {AS_IT_WAS}"] == machine[f"first {ANEW}"] == str(alarm["time"])[:19]
    assert machine[f"hours in alarm {AS_IT_WAS}"] == machine[f"hours in alarm {ANEW}"] > 0


def test_a_dry_run_says_what_a_job_with_those_settings_then_does(
    plant: list[Recording], judged: Path, expected: pd.DataFrame, in_tmp: Path
) -> None:
    before = (judged.read_bytes(), readings(judged), events(judged))
    settings = {"threshold_factor": 0.4, "smooth": 3, "needed": 2, "of": 2, "clear_after": 2}
    found = dry_run(judged, out=in_tmp / "dry", days=60, settings=settings)
    assert (judged.read_bytes(), events(judged)) == (before[0], before[2])
    pd.testing.assert_frame_equal(readings(judged), before[1])

    rule = AlarmRule(smooth=3, needed=2, of=2, clear_after=2)
    _, on = alarm_states(expected["score"], 0.4 * float(expected["threshold"][0]), rule)
    starts = [str(stamps(plant[3])[e.start])[:19] for e in episodes(on)]
    assert found.details["alarms"][ANEW] == len(starts) > 0
    assert found.details["machines"][0][f"first {ANEW}"] == starts[0]

    # The lines that it prints, put into the file of a job that begins anew.
    lines = found.lines[found.lines.index("[alarms]") :]
    judged.write_text(judged.read_text() + "\n".join(lines) + "\n")
    for old in judged.parent.glob("monitor.sqlite*"):
        old.unlink()
    job.monitor(judged, once=True)
    assert readings(judged)["alarm"].tolist() == on.tolist()
    with Logbook(judged.parent / "monitor.sqlite") as book:
        assert book.thresholds()["pump7"] == pytest.approx(0.4 * float(expected["threshold"][0]))


def test_a_dry_run_counts_the_days_that_are_asked_about_alone(judged: Path, in_tmp: Path) -> None:
    (alarm,) = told(judged, "alarm")
    last = np.datetime64(readings(judged)["time"].iloc[-1])
    since = float((last - np.datetime64(str(alarm["time"]))) / np.timedelta64(1, "D"))
    for days, alarms in ((since + 0.2, 1), (since - 0.2, 0)):
        found = dry_run(judged, out=in_tmp / "dry", days=days)
        assert found.details["alarms"][AS_IT_WAS] == alarms
        # It was in alarm all the time until the end: readings come every three hours.
        hours = min(days, since) * 24
        assert hours - 3.1 <= found.details["machines"][0][f"hours in alarm {AS_IT_WAS}"] <= hours


def test_the_page_of_a_dry_run_shows_both(judged: Path, in_tmp: Path, browser: Any) -> None:
    found = dry_run(judged, out=in_tmp / "dry", days=60, settings={"threshold_factor": 1e6})
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.goto(found.files["report"].absolute().as_uri())
    assert "0 alarm(s) in the last 60 days instead of 1, 0.0 h in alarm instead of 60.0" in page.inner_text("body")
    assert page.locator("img").count() == 1
    cells = [row.split("\t") for row in page.inner_text("table").splitlines() if row.startswith("pump7")]
    assert [cells[0][2], cells[0][5]] == ["1", "0"]


def test_a_rule_by_which_no_alarm_could_start_is_refused_by_all_who_could_use_it(judged: Path, in_tmp: Path) -> None:
    with pytest.raises(DataError, match="needed is 7 of the last 6"):
        dry_run(judged, out=in_tmp / "dry", settings={"needed": 7})
    judged.write_text(judged.read_text() + "[alarms]\nneeded = 7\n")
    with pytest.raises(DataError, match="needed is 7 of the last 6"):
        job.monitor(judged, once=True)


def test_a_dry_run_before_the_job_has_run_says_so(job_file: Path, in_tmp: Path) -> None:
    with pytest.raises(DataError, match="has not run yet"):
        dry_run(job_file, out=in_tmp / "dry")


@contextmanager
def at_work(job_file: Path) -> Iterator[threading.Thread]:
    """The job in a thread of its own, which ends with the block."""
    asked = threading.Event()

    @contextmanager
    def until() -> Iterator[threading.Event]:
        yield asked

    asking: Callable[[], AbstractContextManager[threading.Event]] = until
    thread = threading.Thread(target=job.monitor, args=(job_file,), kwargs={"until": asking})
    thread.start()
    try:
        yield thread
    finally:
        asked.set()
        thread.join()


# What somebody may write into the file of a job that runs, and what waits for something outside it.
WRONG = (
    "[alarms]\nneeded = 99\n",
    '[webhook]\nurl = "https://[hooks"\n',
    "[alarms\n",
    '[[folders]]\npath = "later/one"\n',
)


def test_a_running_job_takes_its_file_up_when_it_has_changed_and_goes_on_when_it_is_wrong(
    plant: list[Recording], job_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    incoming, usual = job_file.parent / "incoming", job_file.read_text()
    with at_work(job_file) as thread:
        put(plant[3], slice(0, 8), incoming, "a")
        wait_for(lambda: (job_file.parent / "monitor.sqlite").exists() and len(readings(job_file)) == 8)
        said = ""
        for count, wrong in enumerate(WRONG, 2):
            job_file.write_text(usual + wrong)
            put(plant[3], slice(8 * count - 8, 8 * count), incoming, f"b{count}")
            wait_for(lambda count=count: len(readings(job_file)) == 8 * count)  # type: ignore[misc]
            before = said
            while said == before:
                said += capfd.readouterr().err
        assert said.count("is not taken up") == len(WRONG)
        assert told(job_file, "settings") == []
        job_file.write_text(usual + "[alarms]\nthreshold_factor = 0.001\nneeded = 1\n[status]\nport = 1\n")
        wait_for(lambda: bool(told(job_file, "settings")))
        put(plant[3], slice(40, 192), incoming, "c")
        wait_for(lambda: len(readings(job_file)) == 192)
        assert thread.is_alive()
    (event,) = told(job_file, "settings")
    assert event["changed"] == ["alarms"]
    alarms = readings(job_file)["alarm"]
    assert not alarms[:40].any()
    assert alarms[40:].any()
    assert "is not taken up: no alarm could start" in said
    assert "later/one does not exist" in said
    assert "status will count when the job is started again" in capfd.readouterr().err


def test_readings_of_a_maintenance_are_kept_and_neither_raise_nor_clear_an_alarm(
    plant: list[Recording], job_file: Path, expected: pd.DataFrame
) -> None:
    failing = plant[3]
    first = int(np.flatnonzero(expected["alarm"])[0])
    window = stamps(failing)[first - 3], stamps(failing)[first + 5]
    # TOML's own dates, of another zone: it is UTC that readings are dated in.
    since, until = (f"{(at + np.timedelta64(1, 'h')).astype('datetime64[s]')}+01:00" for at in window)
    job_file.write_text(
        job_file.read_text() + f'[[maintenance]]\nasset = "pump7"\nsince = {since}\nuntil = {until}\n'
        f'[[maintenance]]\nasset = "fan2"\nsince = {since}\n'
    )
    put_all(failing, job_file.parent / "incoming")
    job.monitor(job_file, once=True)
    found = readings(job_file)
    inside = slice(first - 3, first + 5)
    assert set(found["state"][inside]) == {"cannot judge"}
    assert set(found["reason"][inside]) == {"maintenance"}
    assert (found["reason"] == "maintenance").sum() == 8
    assert not found["alarm"][: first + 5].any()
    # What comes afterwards is judged as if nothing had come in between.
    rest = expected.drop(index=range(first - 3, first + 5))
    _, on = alarm_states(rest["score"], float(expected["threshold"][0]), AlarmRule())
    assert found.drop(index=range(first - 3, first + 5))["alarm"].tolist() == on.tolist()


def test_danger_is_told_once_a_case(judged: Path, expected: pd.DataFrame) -> None:
    over = expected["alarm"] & (expected["smoothed"] > 2 * expected["threshold"])
    assert over.sum() > 1
    (event,) = told(judged, "danger")
    assert event["case"] == 1
    assert event["time"] == readings(judged)["time"][int(np.flatnonzero(over)[0])]


class Receiver(HTTPServer):
    """Takes what is posted; answers with the statuses that it is given, then 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.took: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.seen = 0

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.seen += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        if code == 204:
            self.server.took.append((self.path, body, dict(self.headers)))
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def hooked(job_file: Path, receiver: Receiver, more: str = "") -> None:
    job_file.write_text(job_file.read_text() + f'[webhook]\nurl = "{receiver.url()}"\n{more}')


def test_events_are_posted_in_order_and_again_until_they_are_taken(
    plant: list[Recording], job_file: Path, receiver: Receiver, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    hooked(job_file, receiver, 'token_env = "HOOK_TOKEN"\n')
    elsewhere = {"Location": receiver.url("/elsewhere")}
    receiver.answers = [(500, {}), (302, elsewhere), (307, elsewhere)]
    put(plant[3], slice(None), job_file.parent / "incoming", "a")
    for _ in range(4):
        job.monitor(job_file, once=True)
    kinds = [body["kind"] for _, body, _ in receiver.took]
    assert kinds == [event["kind"] for event in events(job_file)] == ["alarm", "danger"]
    assert [body for _, body, _ in receiver.took] == events(job_file)
    assert {path for path, _, _ in receiver.took} == {"/hook"}
    assert [headers["Idempotency-Key"] for _, _, headers in receiver.took] == ["1", "2"]
    assert {headers["Authorization"] for _, _, headers in receiver.took} == {f"Bearer {TOKEN}"}
    assert receiver.seen == 5
    said = capfd.readouterr().err
    assert "the webhook has not taken event 1 (HTTP 500)" in said
    assert TOKEN not in said
    assert "/hook" not in said


def test_a_receiver_that_never_answers_holds_nothing_up_and_another_gets_everything(
    plant: list[Recording], job_file: Path, receiver: Receiver
) -> None:
    usual = job_file.read_text()
    put_all(plant[3], job_file.parent / "incoming", each=4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        job_file.write_text(usual + f'[webhook]\nurl = "{url}"\ntimeout_seconds = 0.2\n')
        assert job.monitor(job_file, once=True).details["judged"] == 192
        silent.accept()[0].close()
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):  # asked once, not once a file
            silent.accept()
    job.monitor(job_file, once=True)  # nobody there
    job_file.write_text(usual)
    hooked(job_file, receiver)
    job.monitor(job_file, once=True)
    assert [body["kind"] for _, body, _ in receiver.took] == ["alarm", "danger"]


def test_a_receiver_that_does_not_speak_http_does_not_end_the_job(
    plant: list[Recording], job_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def garble() -> None:
        talker = server.accept()[0]
        talker.recv(1 << 16)
        talker.sendall(b"SSH-2.0-x\r\n")
        talker.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=garble)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        job_file.write_text(job_file.read_text() + f'[webhook]\nurl = "{url}"\n')
        put(plant[3], slice(None), job_file.parent / "incoming", "a")
        assert job.monitor(job_file, once=True).details["judged"] == 192
        thread.join()
    assert "the webhook has not taken event 1 (BadStatusLine)" in capfd.readouterr().err


def test_an_event_that_is_refused_for_good_does_not_stand_in_the_way(
    plant: list[Recording], job_file: Path, receiver: Receiver
) -> None:
    hooked(job_file, receiver)
    receiver.answers = [(422, {})]
    put(plant[3], slice(None), job_file.parent / "incoming", "a")
    job.monitor(job_file, once=True)
    assert [body["kind"] for _, body, _ in receiver.took] == ["danger"]


def test_a_webhook_that_was_away_for_a_time_is_not_told_of_it(
    plant: list[Recording], job_file: Path, receiver: Receiver
) -> None:
    usual, incoming = job_file.read_text(), job_file.parent / "incoming"
    hooked(job_file, receiver)
    job.monitor(job_file, once=True)
    job_file.write_text(usual)
    put(plant[3], slice(None), incoming, "a")
    job.monitor(job_file, once=True)
    hooked(job_file, receiver)
    (incoming / "bad.npz").write_bytes(b"garbage")
    job.monitor(job_file, once=True)
    assert [body["kind"] for _, body, _ in receiver.took] == ["refused"]


def test_another_file_for_lines_is_appended_to_and_nothing_is_told_twice(judged: Path) -> None:
    usual, there = judged.read_text(), judged.parent / "other.jsonl"
    there.write_text("what stands there\n" * 500)
    before = (judged.parent / "events.jsonl").read_bytes()
    judged.write_text('lines = "other.jsonl"\n' + usual)
    (judged.parent / "incoming" / "bad.npz").write_bytes(b"garbage")
    job.monitor(judged, once=True)
    text = there.read_text()
    assert text.startswith("what stands there\n" * 500)
    (line,) = text.splitlines()[500:]
    assert json.loads(line)["kind"] == "refused"
    # And back again.
    judged.write_text(usual)
    (judged.parent / "incoming" / "worse.npz").write_bytes(b"garbage")
    job.monitor(judged, once=True)
    after = (judged.parent / "events.jsonl").read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["file"] for line in after[len(before) :].splitlines()] == ["incoming/worse.npz"]


def test_a_webhook_that_comes_later_is_not_told_of_the_past(judged: Path, receiver: Receiver) -> None:
    hooked(judged, receiver)
    (judged.parent / "incoming" / "bad.npz").write_bytes(b"garbage")
    job.monitor(judged, once=True)
    assert [body["kind"] for _, body, _ in receiver.took] == ["refused"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Webhook(), "needs a url"),
        (Webhook(url="ftp://plant"), "such as https://host/path"),
        (Webhook(url="file:///etc/passwd"), "such as https://host/path"),
        (Webhook(url="https://[hooks"), "such as https://host/path"),
        (Webhook(url="https://plant:99999/x"), "such as https://host/path"),
        (Webhook(url="https://plant/secret path"), "such as https://host/path"),
        (Webhook(url="https://me:secret@plant/x"), "without a name or password"),
        (Webhook(url="https://plant/x", timeout_seconds=0), "timeout_seconds above 0"),
        (Webhook(url="http://plant.example/x", token_env="PATH"), "unencrypted"),
        (Webhook(url_env="NO_SUCH_VARIABLE_HERE"), "NO_SUCH_VARIABLE_HERE"),
    ],
)
def test_a_webhook_that_cannot_be_or_would_tell_a_secret_is_refused(settings: Webhook, why: str) -> None:
    with pytest.raises(DataError, match=why):
        Hook(settings)


def test_the_history_is_every_reading_as_the_logbook_has_it(judged: Path, in_tmp: Path) -> None:
    done = history(judged, out=in_tmp / "history.parquet")
    found, kept = pd.read_parquet(done.files["history"]), readings(judged)
    assert list(found["asset"].unique()) == ["pump7"]
    assert found["time"].tolist() == pd.to_datetime(kept["time"]).tolist()
    np.testing.assert_array_equal(found["score"].to_numpy(), kept["score"].to_numpy(dtype=float))
    assert found["state"].tolist() == kept["state"].tolist()
    assert not list(in_tmp.glob(".history*"))


def test_the_commands_say_all_of_it(judged: Path, in_tmp: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "unlabeled.pipelines.cli", "sensors", *arguments]
        command[1:3] = ["-c", "from unlabeled.pipelines.cli import main; main()"]
        done = subprocess.run(command, cwd=in_tmp, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout

    said = run("dry-run", str(judged), "--threshold-factor", "1000", "--days", "60")
    assert "0 alarm(s) in the last 60 days instead of 1" in said
    assert "[alarms]\n" in said
    assert "threshold_factor = 1000" in said
    assert "192 readings of 1 machine(s)" in run("history", str(judged))


def test_a_model_with_a_rule_of_its_own_keeps_what_the_job_file_does_not_say(fitted: Path) -> None:
    from unlabeled.pipelines._sensors_job_file import Alarms

    model = MachineMonitor.load(fitted / "pump7")
    own = AlarmRule(smooth=5, needed=3, of=4)
    assert Alarms(of=3).rule(own) == AlarmRule(smooth=5, needed=3, of=3)
    assert Alarms().rule(model.rule) == model.rule
