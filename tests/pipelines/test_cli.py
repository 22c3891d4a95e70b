import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from unlabeled.core.evaluation import Estimate
from unlabeled.pipelines import cli
from unlabeled.pipelines.jobs import Comparison, Outcome


def unlabeled(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from unlabeled.pipelines.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_help_names_every_vertical_and_the_exit_codes(tmp_path: Path) -> None:
    done = unlabeled("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("demo", "ui", "medical", "sensors", "fraud", "--debug", "--quiet", "--json", "130 interrupted"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("room", "verbs"),
    [
        ("medical", ("pretrain", "finetune", "predict", "export")),
        ("sensors", ("fit", "score", "backtest")),
        ("fraud", ("pretrain", "finetune", "score", "backtest")),
    ],
)
def test_each_vertical_has_its_verbs_and_each_verb_explains_itself(
    room: str, verbs: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in verbs:
        with pytest.raises(SystemExit) as ended:
            cli.main([room, verb, "--help"])
        assert ended.value.code == 0
        assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["frob"], ["medical", "frob"], ["demo", "--nope"], [], ["medical"]])
def test_wrong_usage_ends_with_two(arguments: list[str], tmp_path: Path) -> None:
    done = unlabeled(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    "arguments",
    [
        ["medical", "pretrain", "nowhere"],
        ["medical", "predict", "nowhere", "--model", "no-model"],
        ["sensors", "fit", "nowhere.npz"],
        ["sensors", "score", "nowhere.npz", "--model", "no-model"],
        ["fraud", "pretrain", "nowhere.parquet"],
        ["fraud", "score", "nowhere.parquet", "--model", "no-model"],
        ["ui"],
    ],
)
def test_an_input_that_is_not_there_is_one_plain_line(arguments: list[str], tmp_path: Path) -> None:
    done = unlabeled(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line.startswith("unlabeled: ")]
    assert len(last) == 1
    assert "no-model" in last[0] or "nowhere" in last[0] or "no runs" in last[0]
    assert "Traceback" not in done.stderr
    assert "unexpected" not in last[0]


def test_debug_shows_where(tmp_path: Path) -> None:
    done = unlabeled("sensors", "fit", "nowhere.npz", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_place_that_cannot_be_written_to_is_wrong_usage_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for given in (["--out", "mine.txt"], ["--out=mine.txt/deeper"]):
        done = unlabeled("sensors", "fit", "nowhere.npz", *given, cwd=tmp_path)
        assert done.returncode == 2
        assert "is a file; name a folder" in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses even root")
def test_a_place_that_only_trying_finds_out_is_wrong_usage_too(tmp_path: Path) -> None:
    done = unlabeled("sensors", "fit", "nowhere.npz", "--out", "/proc/model", cwd=tmp_path)
    assert done.returncode == 2
    assert "/proc cannot be written to; name another folder" in " ".join(done.stderr.split())


def test_a_full_disk_says_what_helps() -> None:
    said = cli._explain(OSError(errno.ENOSPC, "No space left on device", "m/weights"))
    assert "No space left on device: 'm/weights'; make room and run the same command again" in said


def outcome(*, passed: bool = True) -> Outcome:
    better = Comparison(metric="AUROC", ours=Estimate(0.9, 0.88, 0.92), baselines={"pca": 0.8, "scratch": 0.85})
    worse = Comparison(metric="false alarms", ours=7.0, baselines={"rms": 5.0}, higher_is_better=False)
    return Outcome(headline="It ran.", comparisons=[better, worse], files={"report": Path("r.html")}, passed=passed)


def test_the_gain_is_over_the_strongest_baseline_and_a_loss_is_negative() -> None:
    better, worse = outcome().comparisons
    assert better.gain() == ("scratch", pytest.approx(0.05))
    assert worse.gain() == ("rms", -2.0)


def test_json_is_one_object_with_nulls_for_absent_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    one_run = Outcome(
        headline="h", comparisons=[Comparison(metric="m", ours=Estimate(1.0, nan, nan), baselines={"b": 2.0})]
    )
    cli._show(one_run, as_json=True)
    read = json.loads(capsys.readouterr().out)
    assert read["comparisons"][0]["ours"] == {"value": 1.0, "low": None, "high": None}
    assert read["passed"] is True


def test_the_table_shows_a_loss_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    cli._show(outcome(), as_json=False)
    shown = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines()]
    assert ["scratch", "0.850", "+0.050"] in cells
    assert ["pca", "0.800", "+0.100"] in cells
    assert ["rms", "5", "-2"] in cells
    assert ["false alarms (less is better)", "", ""] in cells
    assert "report: r.html" in shown
