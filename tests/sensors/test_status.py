"""The status page: what a real browser shows of it, what Prometheus reads, and who may look."""

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_job_file import Job, Status
from unlabeled.pipelines._sensors_status import machines, metrics, served
from unlabeled.sensors.alarms import LEVELS
from unlabeled.sensors.logbook import Logbook

START = np.datetime64("2024-03-01T00:00:00", "ns")
ODD = '<script>alert("x")</script>'
DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana-dashboard.json"


def judged(score: float | None, *, alarm: bool = False, reason: str = "") -> dict[str, Any]:
    state = "cannot judge" if reason else "alarm" if alarm else "normal"
    return {"state": state, "alarm": alarm, "score": score, "smoothed": score, "reason": reason}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Logbook]:
    """Five machines, one of each level and one with a broken sensor, and a case that is over."""
    with Logbook(tmp_path / "monitor.sqlite") as found:
        for asset, last in {
            "well": judged(1.0), "near": judged(3.5), ODD: judged(None, reason="flat-lined <b>(axis 1)</b>"),
            "ill": judged(9.0, alarm=True), "half": judged(None, reason="without vertical: flat-lined"),
        }.items():  # fmt: skip
            for hour, one in enumerate([judged(0.5), judged(-0.2), last]):
                found.reading(asset, START + np.timedelta64(hour, "h"), one, file="f")
            found.remember(asset, "m", START + np.timedelta64(2, "h"), threshold=4.0, memory={})
        old = found.open_case("well", START, 5.0, {"words": ["an old one"]})
        found.clear(old, START + np.timedelta64(1, "h"))
        found.open_case("ill", START + np.timedelta64(2, "h"), 9.0, {"words": [f"RMS rose {ODD}"]})
        yield found


def job(tmp_path: Path, **status: Any) -> Job:
    return Job(
        models=tmp_path, folders=(), logbook=tmp_path / "monitor.sqlite", lines=tmp_path / "e.jsonl",
        status=Status(port=0, **status),
    )  # fmt: skip


def get(port: int, path: str = "/", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_those_in_alarm_come_first_and_each_has_its_level(book: Logbook) -> None:
    found = machines(book)
    assert [(m.asset, m.level) for m in found] == [
        ("ill", "danger"), (ODD, "cannot judge"), ("half", "cannot judge"), ("near", "monitor"),
        ("well", "acceptable"),
    ]  # fmt: skip
    ill = found[0]
    assert ill.case is not None
    assert (ill.case.id, ill.smoothed, ill.threshold) == (2, 9.0, 4.0)
    # 1.1 times the highest is the top: 0.5, -0.2 (drawn at nought) and 9 of 9.9, the threshold at 4.
    assert ill.trend == "0.0,41.8 120.0,44.0 240.0,4.0"
    assert ill.limit == pytest.approx(44 * (1 - 4 / 9.9), abs=0.05)


def test_a_browser_shows_machines_and_cases_and_runs_nothing(book: Logbook, tmp_path: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with served(job(tmp_path)) as port:
        page.goto(f"http://localhost:{port}/", wait_until="load")
        rows = page.eval_on_selector_all("#machines tr", "rows => rows.map(row => row.innerText)")
        assert [row.split("\t")[0] for row in rows] == ["machine", "ill", ODD, "half", "near", "well"]
        assert "without vertical: flat-lined" in rows[3]
        assert "9.00 / 4.00" in rows[1]
        assert "flat-lined <b>(axis 1)</b>" in rows[2]
        assert page.locator("section.case").count() == 2
        assert f"RMS rose {ODD}" in page.inner_text("section.case >> nth=0")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        colour = "getComputedStyle(document.querySelector('.level.danger')).backgroundColor"
        assert page.evaluate(colour) == "rgb(213, 94, 0)"  # the style sheet is let in
    assert complaints == []
    assert {url.rstrip("/") for url in asked} <= {f"http://localhost:{port}", f"http://localhost:{port}/favicon.ico"}
    page.close()


def test_an_empty_logbook_has_a_page(tmp_path: Path) -> None:
    Logbook(tmp_path / "monitor.sqlite").close()
    with served(job(tmp_path)) as port:
        assert port is not None
        assert "No reading has been judged yet." in get(port)[1]
        assert get(port, "/other")[0] == 404


def samples(text: str) -> dict[tuple[str, str], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, "/".join(sample.labels.values())] = sample.value
    return found


def test_prometheus_reads_what_the_page_shows(book: Logbook, tmp_path: Path) -> None:
    with served(job(tmp_path)) as port:
        assert port is not None
        found = samples(get(port, "/metrics")[1])
    assert found["unlabeled_machine_smoothed_score", "ill"] == 9.0
    assert found["unlabeled_machine_threshold", "well"] == 4.0
    assert {a: found["unlabeled_machine_alarm", a] for a in ("ill", "near", "well")} == {"ill": 1, "near": 0, "well": 0}
    assert found["unlabeled_machine_cannot_judge", ODD] == 1
    assert found["unlabeled_machine_sensor_broken", ODD] == 0
    assert found["unlabeled_machine_cannot_judge", "half"] == 1
    assert found["unlabeled_machine_sensor_broken", "half"] == 1
    assert found["unlabeled_machine_last_reading_timestamp_seconds", "ill"] == 1709258400
    assert found["unlabeled_machine_readings_total", "ill/alarm"] == 1
    assert found["unlabeled_machine_readings_total", "ill/normal"] == 2
    assert found["unlabeled_open_cases", ""] == 1
    assert found["unlabeled_cleared_cases_total", ""] == 1
    assert found["unlabeled_machine_months", ""] == pytest.approx((3 * 2 + 1 + 1) / 730.5)


def test_the_dashboard_asks_for_metrics_that_there_are(book: Logbook) -> None:
    known = {name for name, _ in samples(metrics(book).decode())}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 4
    for expression in asked:
        names = re.findall(r"unlabeled_\w+", expression)
        assert names
        assert set(names) <= known
    (levels,) = (p for p in dashboard["panels"] if p["targets"][0]["expr"] == "unlabeled_machine_level")
    (mapping,) = levels["fieldConfig"]["defaults"]["mappings"]
    assert [mapping["options"][str(n)]["text"] for n in range(len(LEVELS))] == list(LEVELS)


def test_beyond_this_machine_a_token_is_needed(book: Logbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="beyond this machine needs a token"), served(job(tmp_path, host="0.0.0.0")):
        pass
    monkeypatch.setenv("STATUS_TOKEN", "right: one")
    with served(job(tmp_path, host="0.0.0.0", token_env="STATUS_TOKEN")) as port:
        assert port is not None
        basic = base64.b64encode(b"anybody:right: one").decode()
        wrong = base64.b64encode(b"anybody:wrong").decode()
        answers = {
            given: get(port, Authorization=given, Host="plant.example")[0]
            for given in (
                "",
                "Bearer right: one",
                "Bearer right",
                f"Basic {basic}",
                f"Basic {wrong}",
                "Basic %%%",
                "Basic \xe9",
            )
        }
        assert get(port, "/metrics")[0] == 401
    assert answers == {
        "": 401, "Bearer right: one": 200, "Bearer right": 401, f"Basic {basic}": 200, f"Basic {wrong}": 401,
        "Basic %%%": 401, "Basic \xe9": 401,
    }  # fmt: skip


@pytest.mark.parametrize(("host", "code"), [("localhost", 200), ("127.0.0.1:1", 200), ("evil.example", 403)])
def test_without_a_token_it_answers_under_its_own_names_alone(
    book: Logbook, tmp_path: Path, host: str, code: int
) -> None:
    with served(job(tmp_path)) as port:
        assert port is not None
        assert get(port, Host=host)[0] == code


def test_it_takes_nothing_and_a_port_that_is_taken_is_told(book: Logbook, tmp_path: Path) -> None:
    with served(job(tmp_path)) as port:
        assert port is not None
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=b"x", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == 501
        refused.value.close()
        taken = Job(models=tmp_path, folders=(), logbook=book.path, lines=tmp_path / "e", status=Status(port=port))
        with pytest.raises(DataError, match=rf"cannot have localhost:{port}"), served(taken):
            pass
