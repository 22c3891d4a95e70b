"""Lead time against false alarms on real runs to failure: ours beside plain 3-sigma rules.

    OMP_NUM_THREADS=1 python benchmarks/sensors.py --seeds 5

Reads ``vibration/femto``, ``ims``, ``nab`` and ``cwru`` below ``--data`` (default: ../shared/data beside the
checkout); writes ``benchmarks/results/sensors.json`` and ``sensors.md``. Every setting is the library's default. They
were fixed before any run was scored past its normal period, from simulated machines and from the normal periods
themselves (``--settings`` repeats that check); nothing was chosen on lead times.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machines
import numpy as np
import pandas as pd
from machines import FEMTO, NAB_PRECURSOR, failed

from unlabeled import __version__
from unlabeled.core import progress
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import Estimate, over_runs
from unlabeled.core.hardware import describe_hardware
from unlabeled.sensors import MachineMonitor, Recording, read, simulate
from unlabeled.sensors.alarms import alarm_states, sustained
from unlabeled.sensors.backtest import Result, judge, ours, plain
from unlabeled.sensors.baselines import indicator_table, three_sigma, usual_rules
from unlabeled.sensors.monitor import PARTS

HERE = Path(__file__).parent
VARIANTS = {
    "ours, without the level": PARTS,
    "ours, encoder parts only": PARTS[:3],
    "ours, indicators part only": PARTS[3:],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tables", type=Path, help="folder outside the repository that keeps every score, for curves")
    parser.add_argument("--go-on", action="store_true", help="keep the seeds that the results already hold")
    parser.add_argument("--settings", action="store_true", help="only the check on normal periods and simulation")
    chosen = parser.parse_args()
    progress.quiet(True)
    began = time.monotonic()
    folder = chosen.data / "vibration"
    kinds = machines.kinds(folder)
    content: dict[str, Any] = {
        "version": __version__,
        "hardware": describe_hardware(),
        "numpy": np.__version__,
        "settings": {k: str(v) for k, v in MachineMonitor().get_params(deep=False).items()},
        "settings_check": settings_check(kinds),
    }
    print(json.dumps(content["settings_check"], indent=1), flush=True)
    if chosen.settings:
        return
    extra = {"FEMTO": read(folder / "cwru" / "normal_0hp_48k_part1.npz")}
    content["baselines"] = [b for recordings in kinds.values() for r in recordings for b in baselines_of(r)]
    earlier = _earlier(content) if chosen.go_on else {"ours": [], "seeds": 0, "seconds": 0}
    content["ours"] = earlier["ours"]
    for seed in range(earlier["seeds"], chosen.seeds):
        for kind, recordings in kinds.items():
            for recording in recordings:
                start = time.monotonic()
                keep = None if chosen.tables is None else chosen.tables / f"{recording.asset}-seed{seed}.parquet"
                found = ours_on(recording, recordings, extra.get(kind, []), seed=seed, keep=keep)
                content["ours"] += [{"kind": kind, "seed": seed, **one} for one in found]
                print(seed, kind, found[0], f"{time.monotonic() - start:.0f} s", flush=True)
        # Kept after every seed: what is on disk is what the command below makes.
        content["command"] = f"OMP_NUM_THREADS=1 python benchmarks/sensors.py --seeds {seed + 1}"
        content["seeds"], content["seconds"] = seed + 1, earlier["seconds"] + round(time.monotonic() - began)
        write_atomically(HERE / "results" / "sensors.json", json.dumps(_plain(content), indent=1, allow_nan=False))
        write_atomically(HERE / "results" / "sensors.md", markdown(content))


def _earlier(content: dict[str, Any]) -> dict[str, Any]:
    """Seeds that an earlier call has finished with the same settings and the same baselines."""
    kept: dict[str, Any] = json.loads((HERE / "results" / "sensors.json").read_text())
    now = _plain(content)
    for name in ("version", "settings", "baselines"):
        if kept[name] != now[name]:
            raise SystemExit(f"the kept results have other {name}: start anew, without --go-on")
    return kept


def ours_on(
    recording: Recording, recordings: Sequence[Recording], extra: Sequence[Recording], *, seed: int, keep: Path | None
) -> list[dict[str, Any]]:
    """Our row on one run, and the parts of the score on their own; the encoder learnt from the other runs only."""
    fleet = [r.rows(slice(0, r.normal_rows())) for r in recordings if r is not recording] + list(extra)
    monitor = MachineMonitor(random_state=seed)
    if fleet:
        monitor.pretrain(fleet, normal_share=1.0)
    table = monitor.fit(recording).score(recording)
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(keep)
    rows, broke = recording.normal_rows(), failed(recording)
    result = ours(recording, table, monitor.threshold_, normal_rows=rows, failed=broke)
    found = [{**dataclasses.asdict(result), **_nab_facts(recording, table["alarm"].to_numpy(dtype=bool), rows)}]
    calibration = slice(monitor.period_.calibration, monitor.period_.stop)
    for name, parts in VARIANTS.items():
        score = table[list(parts)].mean(axis=1, skipna=False).to_numpy()
        threshold = np.nanmean(score[calibration]) + monitor.sigmas * np.nanstd(score[calibration], ddof=1)
        smoothed, alarm = alarm_states(score, float(threshold), monitor.rule)
        exceeds = np.nan_to_num(smoothed, nan=-np.inf) > threshold
        variant = judge(name, recording, alarm=alarm, exceeds=exceeds, normal_rows=rows, failed=broke)
        found.append({**dataclasses.asdict(variant), **_nab_facts(recording, alarm, rows)})
    return found


def baselines_of(recording: Recording) -> list[dict[str, Any]]:
    """Every plain rule on one run, as it comes and behind a causal median of nine."""
    rule, rows = MachineMonitor().rule, recording.normal_rows()
    table = indicator_table(recording)
    found = []
    for usual in usual_rules(recording, normal_rows=rows):
        for median_of in (1, 9):
            name = usual.name if median_of == 1 else f"{usual.name}, median of 9"
            values = table[usual.name].to_numpy()
            rule_of = three_sigma(values, name=name, normal_rows=rows, two_sided=usual.two_sided, median_of=median_of)
            result: Result = plain(recording, rule_of, rule=rule, normal_rows=rows, failed=failed(recording))
            end = recording.end_row()
            twelve = sustained(rule_of.exceeds()[rows:end], rows=12)
            facts = _nab_facts(recording, rule_of.alarm(rule), rows)
            held = None if twelve is None else recording.hours[end - 1] - recording.hours[rows + twelve]
            found.append({**dataclasses.asdict(result), **facts, "twelve_in_a_row_h": held})
    return found


def settings_check(kinds: dict[str, list[Recording]]) -> dict[str, Any]:
    """Alarms where nothing is wrong: within normal periods (fitted on their first three quarters, judged on the
    last) and on simulated machines that stay well."""
    quiet: dict[str, Any] = {}
    for recordings in kinds.values():
        normal = [r.rows(slice(0, r.normal_rows())) for r in recordings]
        for one in normal:
            others = [r for r in normal if r is not one]
            monitor = MachineMonitor()
            if others:
                monitor.pretrain(others, normal_share=1.0)
            table = monitor.fit(one, normal_share=0.75).score(one).iloc[monitor.period_.stop :]
            highest = float(table["smoothed"].max() / monitor.threshold_)
            quiet[one.asset] = {"alarm": bool(table["alarm"].any()), "highest_over_threshold": round(highest, 2)}
    well = simulate.fleet(healthy=12, failing=0, seed=1)
    encoder = MachineMonitor().pretrain(well[:4])
    alarms = 0
    for machine in well[4:]:
        alarms += int(encoder.fit(machine).score(machine)["alarm"].any())
    return {"normal periods": quiet, "simulated well machines with an alarm": f"{alarms} of {len(well) - 4}"}


def markdown(content: dict[str, Any]) -> str:
    """The tables, from what was measured."""
    frame, plain_rows = pd.DataFrame(content["ours"]), pd.DataFrame(content["baselines"])
    lines = [
        "# Vibration and condition trends: lead time against false alarms",
        "",
        f"{content['seeds']} seeds, {content['seconds']} s on {content['hardware']['hardware.processor']}, "
        f"1 thread; torch {content['hardware']['torch']}, numpy {content['numpy']}. `{content['command']}`",
        "",
        "One setting for everything: normal is the first 25 % of each run, its last third calibrates; the encoder that "
        "judges a run has learnt from the other runs' normal periods (FEMTO: and the CWRU normal record); library "
        "defaults, fixed on simulated machines and within normal periods before any run was scored. 'Lead' is from the "
        "start of the alarm that holds until the last running snapshot; alarms follow the same smoothing, persistence "
        "and hysteresis for all methods; one that clears again is false. 'Latched' and 'stretches' are the plain rule "
        "without any of that: from here every snapshot exceeds, and how often it exceeded before (ours: of the "
        "smoothed score). Ours: mean over seeds with Student's 95 % interval. That the overall level is heard as soon "
        "as by its plain rule was added after the plain rule had been seen to do better on these runs; it was kept "
        "because it raised no alarm on 16 simulated well machines and delayed none on 12 that fail (sensors_level.md).",
        "",
        *_in_short(frame, plain_rows),
        "",
        "## FEMTO, six runs of 1.4 to 7.8 hours (h)",
        "",
    ]
    femto = frame[frame["asset"].isin(FEMTO)]
    lines += _table(
        ["run", "ours: lead", "ours: false", "horizontal RMS: lead", "false", "latched", "stretches",
         "horizontal kurtosis: lead", "false"],
        [_femto_row(name, femto, plain_rows) for name in FEMTO] + [_femto_mean(femto, plain_rows)],
    )  # fmt: skip
    lines += [
        "",
        "`*` the alarm began in the first half of the run. Last row: mean and interval over the six bearings.",
        "",
        "Parts of the score on their own, and plain rules behind a median of nine, mean over the six runs:",
        "",
    ]
    lines += _table(
        ["method", "lead (h)", "false alarms a run", "runs with an early alarm"], _femto_methods(femto, plain_rows)
    )
    lines += ["", "## IMS test 2, bearing 1 fails after 163.5 hours (h)", ""]
    lines += _table(["method", "lead", "false", "latched", "stretches"], _single(frame, plain_rows, "B1"))
    lines += [
        "",
        "The plain RMS rule already gives 74.8 h (latched): **a claim of 72 hours' warning is met here by the trivial "
        "rule, so meeting it proves nothing; and this is the only run at hand on which it can be tested at all.**",
        "",
        "Bearings 2 to 4 of the same rig did not fail, though the failing one shakes them near the end. Alarms on them "
        "all count as false here:",
        "",
    ]
    lines += _table(
        ["bearing", "ours: alarms", "share of the time", "RMS 3-sigma: alarms", "share of the time"],
        _others(frame, plain_rows),
    )
    lines += ["", "## NAB machine temperature, failure labelled 2014-02-08 14:30 (h)", ""]
    lines += _table(
        ["method", "lead", "false outside labelled windows", "precursor of 2014-01-28 noticed"],
        _nab_rows(frame, plain_rows),
    )
    lines += [
        "",
        f"The plain rule as published (12 in a row, no hysteresis): {_twelve(plain_rows):.1f} h, precursor missed.",
        "",
        "## How the settings were fixed",
        "",
        "Fitted on the first three quarters of each normal period, judged on its last quarter (highest smoothed score "
        "over the threshold); and simulated machines that stay well.",
        "",
    ]
    check = content["settings_check"]
    lines += _table(
        ["run", "alarm", "highest over threshold"],
        [[k, "yes" if v["alarm"] else "no", v["highest_over_threshold"]] for k, v in check["normal periods"].items()],
    )
    lines += [
        "",
        f"Simulated well machines with an alarm in 42 days: {check['simulated well machines with an alarm']}.",
        "",
    ]
    return "\n".join(lines)


def _in_short(frame: pd.DataFrame, plain_rows: pd.DataFrame) -> list[str]:
    """What a reader takes away, in numbers."""

    def femto(rows: pd.DataFrame) -> pd.Series:
        rows = rows[rows["asset"].isin(FEMTO)].assign(announced=lambda r: r["lead_h"] > 0)
        each = rows.groupby("asset")[["announced", "lead_h", "false_alarms"]].mean()
        return each.mean()

    def said(of: pd.Series) -> str:
        return (
            f"{of['announced'] * len(FEMTO):.1f} of {len(FEMTO)} failures announced, mean lead {of['lead_h']:.2f} h, "
            f"{of['false_alarms']:.2f} false alarms a run"
        )

    own = femto(frame[frame["method"] == "ours"])
    rms = femto(plain_rows[plain_rows["method"] == "horizontal RMS 3-sigma"])
    worse = own["announced"] < rms["announced"] and own["false_alarms"] > rms["false_alarms"]
    lead = {name: float(_mine(frame, name)["lead_h"].mean()) for name in ("B1", "NAB")}
    return [
        f"In short. FEMTO, ours: {said(own)}; horizontal RMS mean + 3 sigma: {said(rms)}. "
        + ("**The plain RMS rule did better there.** " if worse else "")
        + f"IMS 2 bearing 1, lead: ours {lead['B1']:.1f} h, RMS {_pick(plain_rows, 'B1', 'rms')['lead_h']:.1f} h. "
        f"NAB, lead: ours {lead['NAB']:.1f} h, plain rule {_pick(plain_rows, 'NAB', 'value')['lead_h']:.1f} h.",
    ]


def _nab_facts(recording: Recording, alarm: np.ndarray, rows: int) -> dict[str, Any]:
    """Whether the labelled precursor was noticed, and false alarms outside its window."""
    if recording.asset != "NAB":
        return {}
    from unlabeled.sensors.alarms import episodes

    clock, end = recording.clock, recording.end_row()
    assert clock is not None
    low, high = (np.datetime64(t) for t in NAB_PRECURSOR)
    found = [(clock[e.start + rows], clock[min(e.stop + rows, end - 1)], e.stop + rows == end)
             for e in episodes(alarm[rows:end])]  # fmt: skip
    noticed = any(start <= high and stop >= low for start, stop, _ in found)
    outside = [str(start)[:16] for start, stop, holds in found if not holds and not (start <= high and stop >= low)]
    return {"precursor": noticed, "false_outside": len(outside), "false_starts": outside}


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(_text(v) for v in row) + " |" for row in rows]


def _text(value: Any) -> str:
    if isinstance(value, Estimate):
        return f"{value.value:.2f}" + ("" if np.isnan(value.low) else f" [{value.low:.2f}, {value.high:.2f}]")
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.2f}"
    return str(value)


def _pick(rows: pd.DataFrame, asset: str, method: str) -> pd.Series:
    return rows[(rows["asset"] == asset) & (rows["method"] == f"{method} 3-sigma")].iloc[0]


def _mine(frame: pd.DataFrame, asset: str, method: str = "ours") -> pd.DataFrame:
    return frame[(frame["asset"] == asset) & (frame["method"] == method)]


def _femto_row(name: str, frame: pd.DataFrame, plain_rows: pd.DataFrame) -> list[Any]:
    own = _mine(frame, name)
    rms, kurtosis = (_pick(plain_rows, name, f"horizontal {k}") for k in ("RMS", "kurtosis"))
    lead = _text(over_runs(own["lead_h"])) + ("*" if own["early"].mean() > 0.5 else "")
    theirs = [f"{row['lead_h']:.2f}" + ("*" if row["early"] else "") for row in (rms, kurtosis)]
    return [name, lead, float(own["false_alarms"].mean()), theirs[0], int(rms["false_alarms"]),
            float(rms["latched_h"]), int(rms["exceedances"]), theirs[1], int(kurtosis["false_alarms"])]  # fmt: skip


def _femto_mean(frame: pd.DataFrame, plain_rows: pd.DataFrame) -> list[Any]:
    own = frame[frame["method"] == "ours"].groupby("asset")[["lead_h", "false_alarms"]].mean()
    rows: dict[str, Callable[[str], Estimate]] = {
        kind: (lambda column, kind=kind: over_runs([_pick(plain_rows, n, f"horizontal {kind}")[column] for n in FEMTO]))
        for kind in ("RMS", "kurtosis")
    }
    return ["mean", over_runs(own["lead_h"]), over_runs(own["false_alarms"]), rows["RMS"]("lead_h"),
            rows["RMS"]("false_alarms"), rows["RMS"]("latched_h"), rows["RMS"]("exceedances"),
            rows["kurtosis"]("lead_h"), rows["kurtosis"]("false_alarms")]  # fmt: skip


def _femto_methods(frame: pd.DataFrame, plain_rows: pd.DataFrame) -> list[list[Any]]:
    both = pd.concat([frame, plain_rows[plain_rows["asset"].isin(FEMTO)]])
    rows = []
    for method, group in both.groupby("method", sort=False):
        each = group.groupby("asset")[["lead_h", "false_alarms", "early"]].mean(numeric_only=False)
        rows.append([method, over_runs(each["lead_h"].astype(float)), over_runs(each["false_alarms"].astype(float)),
                     float(each["early"].astype(float).sum())])  # fmt: skip
    return rows


def _single(frame: pd.DataFrame, plain_rows: pd.DataFrame, asset: str) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for method in ("ours", *VARIANTS):
        own = _mine(frame, asset, method)
        rows.append([method, *(over_runs(own[c]) for c in ("lead_h", "false_alarms", "latched_h", "exceedances"))])
    for _, row in plain_rows[plain_rows["asset"] == asset].iterrows():
        rows.append([row["method"], float(row["lead_h"]), int(row["false_alarms"]), float(row["latched_h"]),
                     int(row["exceedances"])])  # fmt: skip
    return rows


def _others(frame: pd.DataFrame, plain_rows: pd.DataFrame) -> list[list[Any]]:
    """Alarms on machines that did not fail, and the share of the time spent in them."""
    rows: list[list[Any]] = []
    for name in ("B2", "B3", "B4"):
        own, rms = _mine(frame, name), _pick(plain_rows, name, "rms")
        shares = [f"{own['alarm_share'].mean() * 100:.0f} %", f"{rms['alarm_share'] * 100:.0f} %"]
        rows.append([name, over_runs(own["false_alarms"]), shares[0], int(rms["false_alarms"]), shares[1]])
    return rows


def _nab_rows(frame: pd.DataFrame, plain_rows: pd.DataFrame) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for method in ("ours", *VARIANTS):
        own = _mine(frame, "NAB", method)
        rows.append([method, over_runs(own["lead_h"]), over_runs(own["false_outside"].astype(float)),
                     f"{int(own['precursor'].sum())} of {len(own)} seeds"])  # fmt: skip
    for _, row in plain_rows[plain_rows["asset"] == "NAB"].iterrows():
        rows.append(
            [row["method"], float(row["lead_h"]), int(row["false_outside"]), "yes" if row["precursor"] else "no"]
        )
    return rows


def _twelve(plain_rows: pd.DataFrame) -> float:
    return float(_pick(plain_rows, "NAB", "value")["twelve_in_a_row_h"])


def _plain(value: Any) -> Any:
    """JSON has no nan and no NumPy numbers."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    main()
