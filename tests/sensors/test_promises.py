"""What fits, what calibrates, what cannot be judged, and verdicts that say a loss."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from unlabeled.core.errors import DataError
from unlabeled.core.report import Verdict
from unlabeled.pipelines import _sensors_files, _sensors_summary, cli, sensors_replay
from unlabeled.pipelines import sensors as jobs
from unlabeled.sensors import MachineMonitor, Recording, make, read
from unlabeled.sensors import report as pages
from unlabeled.sensors.backtest import Result, backtest
from unlabeled.sensors.baselines import indicator_table, three_sigma
from unlabeled.sensors.health import FLAT_ROWS, TrendHealth, waveform_flaw
from unlabeled.sensors.monitor import PARTS
from unlabeled.sensors.views import departure

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def trend(n: int = 160) -> Recording:
    values = np.random.default_rng(0).normal(size=(n, 2))
    values[int(n * 0.8) :, 0] += np.linspace(0, 12, n - int(n * 0.8))
    return make("m", values, np.arange(n) / 6, names=("rms", "temperature"))


def replaced(recording: Recording, rows: slice) -> Recording:
    values = recording.values.copy()
    values[rows] = 1.5 * values[rows] + 0.3
    return dataclasses.replace(recording, values=values)


def small() -> MachineMonitor:
    return MachineMonitor(steps=10, dim=32, depth=1)


def same_weights(one: MachineMonitor, other: MachineMonitor) -> bool:
    pairs = zip(one.backbone_.parameters(), other.backbone_.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_calibration_part_calibrates_and_teaches_nothing() -> None:
    recording = trend()
    one = small().fit(recording, normal_share=0.5)
    period = slice(one.period_.calibration, one.period_.stop)
    other = small().fit(replaced(recording, period), normal_share=0.5)
    assert same_weights(one, other)
    for name in ("picture_mean", "picture_scale", "indicator_mean", "indicator_scale"):
        np.testing.assert_array_equal(getattr(one.scaling_, name), getattr(other.scaling_, name))
    for part, learnt in (("mahalanobis", "precision_"), ("nearest", "points_")):
        a, b = (getattr(m.normal_.detectors[part], learnt) for m in (one, other))
        np.testing.assert_array_equal(a, b)
    assert one.threshold_ != other.threshold_


def test_the_threshold_is_mean_plus_sigmas_of_the_calibration_scores_alone() -> None:
    monitor = small().fit(trend(), normal_share=0.5)
    table = monitor.score(trend()).iloc[monitor.period_.calibration : monitor.period_.stop]
    scores = table[list(PARTS)].mean(axis=1)
    assert monitor.threshold_ == pytest.approx(scores.mean() + monitor.sigmas * scores.std())


def test_pretraining_reads_normal_periods_only() -> None:
    recording = trend()
    later = replaced(recording, slice(80, None))
    assert same_weights(small().pretrain([recording], normal_share=0.5), small().pretrain([later], normal_share=0.5))


def test_half_a_percent_at_the_end_of_the_range_is_clipped() -> None:
    x = np.random.default_rng(0).normal(size=(2560, 1))
    for stuck, clipped in ((12, False), (13, True)):
        signal = x.copy()
        signal[100 : 100 + stuck] = 9.0
        assert waveform_flaw(signal).startswith("clipped") == clipped


def test_marked_and_standing_rows_cannot_be_judged_and_leave_the_alarm_on() -> None:
    recording = trend()
    monitor = small().fit(recording, normal_share=0.5)
    assert monitor.score(recording)["alarm"].iloc[154]
    flaws, running = recording.flaws.copy(), recording.running.copy()
    flaws[100], running[155:] = "sampled at 500 Hz instead of 1000 Hz", False
    table = monitor.score(dataclasses.replace(recording, flaws=flaws, running=running))
    assert table["reason"].iloc[100] == "sampled at 500 Hz instead of 1000 Hz"
    assert (table["reason"].iloc[155:] == "the machine was not running").all()
    assert (table["state"].iloc[[100, *range(155, 160)]] == "cannot judge").all()
    assert table["alarm"].iloc[155:].all()
    plain = indicator_table(dataclasses.replace(recording, flaws=flaws, running=running))
    assert np.flatnonzero(plain["rms"].isna()).tolist() == [100, 155, 156, 157, 158, 159]


def test_plain_rules_are_three_sigma_of_the_normal_period() -> None:
    values = np.r_[np.tile([1.0, 3.0], 10), 4.5, 5.5]  # mean 2, spread 1.026: 4.5 is 2.4 of them away, 5.5 is 3.4
    assert three_sigma(values, name="x", normal_rows=20).exceeds()[-2:].tolist() == [False, True]
    recording = trend()
    rule = backtest(small(), recording, normal_share=0.5).baselines[0]
    normal = recording.values[:80, 0].astype(float)
    assert (rule.rule.mean, rule.rule.scale) == pytest.approx((normal.mean(), normal.std(ddof=1)))


def test_only_rises_count_in_waveforms() -> None:
    z = np.array([-3.0, 0.0, 0.0])
    assert departure(z, "waveform") == 0
    assert departure(z, "trend") == pytest.approx(np.sqrt(3))


def result(method: str, lead: float, wrong: int, *, failed: bool = True) -> Result:
    nothing: dict[str, Any] = {"early": False, "alarm_share": 0.0, "latched_h": 0.0, "sustained_h": 0.0}
    return Result(
        method=method, asset="m", lead_h=lead, false_alarms=wrong, exceedances=0, monitored_h=730.5, failed=failed,
        **nothing,
    )  # fmt: skip


def replayed(results: list[Result], failure_h: float | None = 1.0) -> Any:
    return SimpleNamespace(results=results, recording=SimpleNamespace(failure_h=failure_h))


@pytest.mark.parametrize(
    ("ours", "theirs", "words", "tone", "gains"),
    [
        ((2, 1), (5, 0), "3.00 h LATER than", "bad", (-3, -0.5)),
        ((5, 0), (2, 1), "3.00 h earlier than", "good", (3, 0.5)),
    ],
)
def test_a_loss_is_called_a_loss(
    ours: tuple[float, int], theirs: tuple[float, int], words: str, tone: str, gains: tuple[float, float]
) -> None:
    runs = [[result("ours", *ours), result("rule", *theirs)]]
    runs += [[result("ours", 0, 0, failed=False), result("rule", 0, 0, failed=False)]]
    compared = _sensors_summary.comparisons(runs)
    assert (compared[0].gain()[1], compared[-1].gain()[1]) == gains
    text, colour = _sensors_summary.verdict([replayed(r) for r in runs], compared, [])
    assert words in text
    assert colour == tone


def test_a_missed_failure_leads_the_verdict_and_counts_as_no_lead() -> None:
    runs = [[result("ours", 9, 0), result("RMS 3-sigma", 2, 0)], [result("ours", 0, 0), result("RMS 3-sigma", 1, 0)]]
    text, tone = _sensors_summary.verdict([replayed(r) for r in runs], _sensors_summary.comparisons(runs), [])
    assert text.startswith("1 of 2 failure(s) announced, RMS 3-sigma announced 2;")
    assert "A missed failure counts as a lead of 0 h." in text
    assert "RMS 3-sigma heard 1 failure(s) more than the monitor." in text
    assert "--healthy" not in text
    assert tone == "flat"


def test_machines_taken_as_failed_are_said_to_be() -> None:
    runs = [[result("ours", 9, 0), result("rule", 2, 0)] for _ in range(2)]
    compared = _sensors_summary.comparisons(runs)
    text, _ = _sensors_summary.verdict([replayed(runs[0]), replayed(runs[1], None)], compared, [])
    assert "1 machine(s) came without a time of failure: each is taken to have failed at its end" in text
    assert "--healthy" in text


def test_the_page_says_what_is_explained_and_plots_in_plain_numbers() -> None:
    recording = trend()
    machine = _sensors_summary.machine(backtest(small(), recording, normal_share=0.5))
    start = [e.start for e in pages.alarm_episodes(machine.table)][-1]
    assert machine.explained.startswith(f"a little into the last alarm (which began at {recording.when(start)}): ")
    page = pages.build(title="t", subtitle="", verdict=Verdict("v"), facts={}, machines=[machine]).html()
    assert "is taken to have failed at the end of its record" in page
    figure = pages.timeline(machine)
    figure.canvas.draw()
    for axis in figure.axes:
        labels = [label.get_text() for label in axis.get_yticklabels()]
        assert labels
        assert not any("mathdefault" in label for label in labels)
        legend = axis.get_legend()
        assert legend is not None
        assert legend.get_window_extent().y0 >= axis.bbox.y1 - 1
    assert "log" in figure.axes[0].get_yscale()


def test_a_loss_of_one_part_is_one_curve() -> None:
    curves = {"loss": [(0, 1.0), (1, 0.5)], "masked_mse": [(0, 1.0), (1, 0.5)], "other": [(0, 2.0)]}
    assert list(pages.without_twins(curves)) == ["loss", "other"]


def test_two_machines_never_share_a_folder() -> None:
    names = ["a/b", "a_b", "a:b", "encoder", "encoder-pump", "machine-encoder", "..", ".", "", "machine"]
    folders = [_sensors_files.folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert not any(folder.startswith("encoder") for folder in folders)
    assert _sensors_files.folder_name("pump-7") == "pump-7"


@pytest.mark.parametrize("asset", ["../../evil", "..", "/etc/passwd", "a/b", ".", ""])
def test_a_machine_s_name_never_leads_out_of_the_folder(asset: str, tmp_path: Path) -> None:
    assert (tmp_path / _sensors_files.folder_name(asset)).resolve().parent == tmp_path.resolve()


def plant(path: Path, *, change: slice = slice(0, 0)) -> Path:
    """Two machines in one table; one row comes twice."""
    tables = []
    for name, seed in (("pump", 0), ("../fan", 1)):
        values = np.random.default_rng(seed).normal(size=(160, 2))
        values[change] *= 1.5
        tables.append(pd.DataFrame(values, columns=["rms", "kurt"]).assign(asset=name, t_s=np.arange(160) * 600.0))
    table = pd.concat([*tables, tables[0].tail(1)])
    table.to_csv(path, index=False)
    return path


@pytest.mark.integration
def test_the_job_s_encoder_does_not_see_the_calibration_part(in_tmp: Path) -> None:
    for name, rows in (("a", slice(0, 0)), ("b", slice(60, 80))):
        jobs.fit(
            [plant(in_tmp / f"{name}.csv", change=rows)],
            out=in_tmp / name,
            normal_share=0.5,
            template=MachineMonitor(steps=5),
        )
    one, other = ((in_tmp / name / "encoder" / "weights.safetensors").read_bytes() for name in "ab")
    assert one == other


@pytest.mark.integration
def test_a_normal_period_given_in_hours_keeps_its_calibration_part_too(in_tmp: Path) -> None:
    for name, rows in (("a", slice(0, 0)), ("b", slice(60, 80))):
        table = plant(in_tmp / f"{name}.csv", change=rows)
        jobs.fit([table], out=in_tmp / name, normal_until=str(79 / 6), template=MachineMonitor(steps=5))
    one, other = ((in_tmp / name / "encoder" / "weights.safetensors").read_bytes() for name in "ab")
    assert one == other


@pytest.mark.integration
def test_a_replayed_run_is_judged_by_an_encoder_that_never_saw_it(in_tmp: Path) -> None:
    done = sensors_replay.replay(
        [plant(in_tmp / "t.csv")], out=in_tmp / "out", normal_share=0.5, template=MachineMonitor(steps=5)
    )
    fleets = {
        p.name: json.loads((p / "manifest.json").read_text())["fleet"] for p in (in_tmp / "out").glob("encoder-*")
    }
    assert fleets == {"encoder-pump": ["../fan"], f"encoder-{_sensors_files.folder_name('../fan')}": ["pump"]}
    listed = pd.read_csv(done.files["cannot judge"])
    assert ("pump", "timestamp seen before") in set(zip(listed["asset"], listed["reason"], strict=True))
    inside = (in_tmp / "out").resolve()
    assert all(inside in path.resolve().parents for path in done.files.values())


def test_json_is_all_that_stands_on_standard_output(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(in_tmp / "t.csv")
    with pytest.raises(SystemExit) as ended:
        cli.main(["sensors", "fit", "t.csv", "--normal-share", "0.5", "--steps", "5", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


@pytest.mark.parametrize(
    ("option", "value"),
    [("--normal-share", "2"), ("--normal-share", "0"), ("--steps", "0"), ("--steps", "-5"), ("--fs", "0"),
     ("--every", "-1")],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["fit", "backtest"])
def test_a_value_out_of_range_is_a_wrong_command(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], verb: str, option: str, value: str
) -> None:
    plant(in_tmp / "t.csv")
    with pytest.raises(SystemExit) as ended:
        cli.main(["sensors", verb, "t.csv", option, value])
    assert ended.value.code == 2
    assert "Input should be " in capsys.readouterr().err


@pytest.mark.parametrize("share", [2.0, 0.0, -0.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="greater than 0 and at most 1"):
        small().fit(trend(), normal_share=share)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_an_object_array_in_an_npz_is_never_unpickled(tmp_path: Path) -> None:
    acc = np.random.default_rng(0).normal(size=(6, 600, 2))
    trap = np.array([Trap(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "a.npz", acc=acc, fs=1000, t_s=np.arange(6.0), note=trap)
    read(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_a_trend_is_flat_from_exactly_its_24th_equal_row() -> None:
    health = TrendHealth(("temperature",))
    reasons = [health.flaw(np.array([20.0])) for _ in range(FLAT_ROWS)]
    assert reasons[:-1] == [""] * (FLAT_ROWS - 1)
    assert reasons[-1].startswith("flat-lined")


def test_an_alarm_that_clears_later_was_an_alarm_all_the_same() -> None:
    """What comes later changes no alarm: neither whether the table goes on, nor what the machine does then."""
    values = np.random.default_rng(0).normal(size=(200, 2))
    values[100:130] += 15
    recording = make("m", values, np.arange(200) / 6, names=("rms", "temperature"))
    monitor = small().fit(recording, normal_share=0.4)
    whole, start = monitor.score(recording), monitor.score(recording.rows(slice(0, 120)))
    assert start["alarm"].iloc[-1]
    assert not whole["alarm"].iloc[-1]
    pd.testing.assert_frame_equal(whole.iloc[:120], start, check_exact=True)
    stream = monitor.stream()
    pushed = [stream.push(row)["alarm"] for row in recording.values]
    assert pushed == whole["alarm"].tolist()
