"""Lead time against false alarms as a curve: ours beside plain rules, band-PCA and PyOD's detectors.

    OMP_NUM_THREADS=1 python benchmarks/sensors.py --seeds 5 --tables FOLDER
    OMP_NUM_THREADS=1 python benchmarks/sensors_curve.py --tables FOLDER

The scores of every run are those that ``sensors.py`` keeps. Each method has a threshold of its own on each run, from
the normal period alone (ours: as fitted; plain rules: mean + 3 sigma of it; all others: mean + 5 sigma of its last
third). All of these are multiplied by one factor, the same for all runs of a collection, under one alarm rule; the
table shows the longest mean lead that any one factor gives within a budget of false alarms. That factor is chosen with
hindsight, for every method alike: what is compared is how well scores order the times, not how well thresholds were
set.

An alarm that begins in the first half of a run, or clears again, is false; a failure that is not announced has lead 0.
PCA (95 % of the variance, squared residual) reads the 64 log bands of each axis, PyOD's detectors read the physical
indicators (a trend's own), scaled; both learn from the first two thirds of the normal period.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import machines
import numpy as np
import pandas as pd
from machines import NAB_PRECURSOR, NAB_WINDOW
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from tables import interval

from unlabeled.core import progress
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors._fitting import CALIBRATION_SHARE
from unlabeled.sensors.alarms import HOURS_PER_MONTH, AlarmRule, alarm_states, episodes
from unlabeled.sensors.baselines import indicator_table, three_sigma, usual_rules
from unlabeled.sensors.event_metrics import volume
from unlabeled.sensors.monitor import PARTS
from unlabeled.sensors.outliers import named
from unlabeled.sensors.views import Look, Scaling, look

FACTORS = np.geomspace(0.15, 30, 54)
MONTHLY, PER_RUN = (0.0, 1.0, 3.0, 10.0), (0.0, 0.5, 1.0)
PYOD = ("IForest", "ECOD", "HBOS", "KNN", "LOF", "OCSVM")
TITLES = (
    "FEMTO, six runs of 1.4 to 7.8 hours",
    "IMS test 2, bearing 1 fails after 163.5 hours, three others do not",
    "NAB machine temperature, 79 days",
)
BUFFER = 100  # rows of NAB, about eight hours, as far as a stretch is softened for the volume

HERE = Path(__file__).parent
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: hours, where its normal period ends, and each method's scores in units of its threshold."""

    recording: Recording
    normal_rows: int
    scores: dict[str, list[Floats]]

    @property
    def failed(self) -> bool:
        return machines.failed(self.recording)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True, help="folder that sensors.py --tables filled")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    progress.quiet(True)
    folder = given.data / "vibration"
    kinds = dict(zip(TITLES, machines.kinds(folder).values(), strict=True))
    content: dict[str, Any] = {"hardware": describe_hardware(), "kinds": {}}
    for name, recordings in kinds.items():
        runs = [_run(recording, given.tables) for recording in recordings]
        months = sum(_monitored(run) for run in runs) / HOURS_PER_MONTH
        content["kinds"][name] = {
            "months": months, "runs": len(runs), "seeds": max(len(s) for s in runs[0].scores.values()),
            "methods": {method: _curve(runs, method) for method in runs[0].scores},
        }  # fmt: skip
        if len(runs) == 1:
            content["kinds"][name]["volume"] = {m: _volumes(runs[0], s) for m, s in runs[0].scores.items()}
        print(name, "done", flush=True)
    write_atomically(given.out / "sensors_curve.json", json.dumps(short(content), separators=(",", ":")) + "\n")
    write_atomically(given.out / "sensors_curve.md", markdown(content))


def _run(recording: Recording, tables: Path) -> Run:
    rows = recording.normal_rows()
    kept = [pd.read_parquet(path) for path in sorted(tables.glob(f"{recording.asset}-seed*.parquet"))]
    if not kept:
        raise SystemExit(f"{tables} holds no scores of {recording.asset}: run sensors.py --tables first")
    ours = [table["score"].to_numpy() / float(table["threshold"].iloc[0]) for table in kept]
    bare = [
        table[list(PARTS)].mean(axis=1, skipna=False).to_numpy() / float(table["threshold"].iloc[0]) for table in kept
    ]
    scores = {"ours": ours, "ours, without the level": bare}
    indicators = indicator_table(recording)
    for rule in usual_rules(recording, normal_rows=rows):
        if not _shown(rule.name, recording):
            continue
        for median_of, name in ((1, rule.name), (9, f"{rule.name}, median of 9")):
            values = indicators[rule.name].to_numpy()
            found = three_sigma(values, name=name, normal_rows=rows, two_sided=rule.two_sided, median_of=median_of)
            scores[name] = [found.z / 3]
    seen = look(recording, rows=len(recording), window=MachineMonitor().window)
    for name, fit in _learners(recording).items():
        scores[name] = [learnt(recording, seen, rows, fit)]
    return Run(recording=recording, normal_rows=rows, scores=scores)


def _shown(name: str, recording: Recording) -> bool:
    if recording.kind == "waveform":
        return True
    return name in ("rms", "exkurt", "value")


Fit = Callable[[Look, NDArray[np.int64]], Floats]


def _learners(recording: Recording) -> Mapping[str, Fit]:
    found: dict[str, Fit] = {"band-PCA": band_pca} if recording.kind == "waveform" else {"PCA of the window": band_pca}
    return found | {f"PyOD {name}": partial(_pyod, name) for name in PYOD}


def learnt(recording: Recording, seen: Look, normal_rows: int, fit: Fit) -> Floats:
    """Scores of all rows in units of mean + 5 sigma of the last third of the normal period."""
    normal = np.flatnonzero(seen.rows < normal_rows)
    cut = int(len(normal) * (1 - CALIBRATION_SHARE))
    score = fit(seen, normal[:cut])
    held = score[normal[cut:]]
    # As far above the mean of the calibration part as five of its deviations are, is 1.
    found = np.full(len(recording), np.nan)
    found[seen.rows] = (score - held.mean()) / (5 * max(float(held.std(ddof=1)), 1e-12))
    return found


def band_pca(seen: Look, teach: NDArray[np.int64]) -> Floats:
    values = seen.pictures.mean(axis=3).reshape(len(seen.rows), -1)
    mean, scale = values[teach].mean(axis=0), np.maximum(values[teach].std(axis=0), 1e-9)
    z = (values - mean) / scale
    pca = PCA(0.95, svd_solver="full").fit(z[teach])
    residual: Floats = np.square(z - pca.inverse_transform(pca.transform(z))).sum(axis=1)
    return residual


def _pyod(name: str, seen: Look, teach: NDArray[np.int64]) -> Floats:
    scaling = Scaling.of(seen.pictures[teach], seen.indicators[teach])
    z = scaling.indicators(seen.indicators)
    # Row by row, as a monitor asks them: some, ECOD among them, rank what is scored together among each other.
    return named(name, seed=0).fit(z[teach]).score(z)


def _monitored(run: Run) -> float:
    hours = run.recording.hours
    return float(hours[run.recording.end_row() - 1] - hours[run.normal_rows])


def _curve(runs: Sequence[Run], method: str) -> list[dict[str, Any]]:
    rule = MachineMonitor().rule
    smoothed = {
        (k, s): _smoothed(scores, rule) for k, run in enumerate(runs) for s, scores in enumerate(run.scores[method])
    }
    for key, values in smoothed.items():
        expected = alarm_states(values, 1.0, replace(rule, smooth=1))[1]
        assert np.array_equal(_on(values, 1.0, rule), expected), (method, key)
    points = []
    for factor in FACTORS:
        seeds = []
        for s in range(len(runs[0].scores[method])):
            judged = [_judged(run, smoothed[k, s], float(factor), rule) for k, run in enumerate(runs)]
            seeds.append(judged)
        failed = [k for k, run in enumerate(runs) if run.failed]
        mean = np.mean([[one[0] for one in judged] for judged in seeds], axis=0)
        life = [run.recording.hours[run.recording.end_row() - 1] - run.recording.hours[0] for run in runs]
        points.append({
            "factor": float(factor),
            "leads_h": [float(mean[k]) for k in failed],
            "shares": [float(mean[k] / life[k]) for k in failed],
            "false": float(np.mean([sum(one[1] for one in judged) for judged in seeds])),
            "noticed": float(np.mean([any(one[2] for one in judged) for judged in seeds])),
        })  # fmt: skip
    return points


def _smoothed(scores: Floats, rule: AlarmRule) -> Floats:
    return alarm_states(scores, np.inf, rule)[0]


def _judged(run: Run, smoothed: Floats, factor: float, rule: AlarmRule) -> tuple[float, int, bool]:
    """Lead in hours, false alarms, and whether NAB's precursor was noticed."""
    end, rows, hours = run.recording.end_row(), run.normal_rows, run.recording.hours
    on = _on(smoothed, factor, rule)[rows:end]
    lead, false, noticed = 0.0, 0, False
    last = float(hours[end - 1])
    for episode in episodes(on):
        start, stop = episode.start + rows, episode.stop + rows
        late = hours[start] - hours[0] >= (last - hours[0]) / 2
        if run.failed and stop == end and late:
            lead = last - float(hours[start])
        elif _in_precursor(run, start, stop):
            noticed = True
        else:
            false += 1
    return lead, false, noticed


def _on(smoothed: Floats, factor: float, rule: AlarmRule) -> NDArray[np.bool_]:
    """As ``alarm_states``, from scores that are smoothed already; quick enough for dozens of factors."""
    rows = np.flatnonzero(np.isfinite(smoothed))
    above, calm = smoothed[rows] > factor, smoothed[rows] < rule.clear_below * factor
    starts = np.flatnonzero(np.convolve(above, np.ones(rule.of, dtype=int))[: len(rows)] >= rule.needed)
    ends = np.flatnonzero(np.convolve(calm, np.ones(rule.clear_after, dtype=int))[: len(rows)] >= rule.clear_after)
    on, at = np.zeros(len(smoothed), dtype=bool), 0
    while at < len(rows):
        start = np.searchsorted(starts, at)
        if start == len(starts):
            break
        end = np.searchsorted(ends, starts[start])
        stop = ends[end] if end < len(ends) else len(rows)
        on[rows[starts[start]] : rows[stop] if stop < len(rows) else len(on)] = True
        at = int(stop) + 1
    return on


def _in_precursor(run: Run, start: int, stop: int) -> bool:
    if run.recording.asset != "NAB" or run.recording.clock is None:
        return False
    low, high = (np.datetime64(t) for t in NAB_PRECURSOR)
    clock = run.recording.clock
    return bool(clock[start] <= high and clock[min(stop, len(clock) - 1)] >= low)


def _volumes(run: Run, scores: Sequence[Floats]) -> list[float]:
    """VUS-PR of the smoothed score against NAB's labelled windows, from the end of the normal period on."""
    clock = run.recording.clock
    assert clock is not None
    after = np.arange(len(clock)) >= run.normal_rows
    truth = np.zeros(len(clock), dtype=bool)
    for low, high in (NAB_PRECURSOR, NAB_WINDOW):
        truth |= (clock >= np.datetime64(low)) & (clock <= np.datetime64(high))
    found = []
    for one in scores:
        smoothed = _smoothed(one, MachineMonitor().rule)
        rows = after & np.isfinite(smoothed)
        found.append(volume(truth[rows], smoothed[rows], buffer=BUFFER).pr)
    return found


def short(value: Any) -> Any:
    """Four digits are more than the curves tell, and fewer than a file of half a megabyte needs."""
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [short(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def markdown(content: Mapping[str, Any]) -> str:
    assert __doc__ is not None
    _, *said = __doc__.strip().split("\n\n")
    lines = [
        "# Lead time against false alarms as a curve",
        "",
        f"```\n{said[0]}\n```",
        "",
        " ".join(said[1].split()),
        "",
    ]
    lines += [" ".join(said[2].split()), "", "PyOD's best row is chosen with hindsight too. Hardware: "
              + ", ".join(str(v) for v in content["hardware"].values()) + "."]  # fmt: skip
    for name, kind in content["kinds"].items():
        several = kind["runs"] > 1
        lines += [
            "",
            f"## {name}",
            "",
            f"{kind['months']:.2g} machine-months after the normal periods; ours: mean over {kind['seeds']} seeds. "
            "Lead: mean in hours, in brackets Student's 95 % interval over the runs that failed where there are "
            "several, then the share of life.",
        ]
        budgets = [(f"{b:g} a month", b * kind["months"]) for b in MONTHLY]
        if kind["months"] < 0.1:  # one false alarm is many a month
            budgets = [("none", 0.0), *((f"{b:g} a run", b * kind["runs"]) for b in PER_RUN[1:])]
        columns = ["method", *(f"lead, {label}" for label, _ in budgets)]
        if several and kind["months"] < 0.1:
            columns.append(f"median lead, {budgets[-1][0]}")
        if "volume" in kind:
            columns += ["precursor noticed at 1 a month", "VUS-PR"]
        lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        for method, curve in kind["methods"].items():
            best = [_best(curve, allowed) for _, allowed in budgets]
            cells = [_cell(point) for point in best]
            if len(columns) > len(budgets) + 1 and "volume" not in kind:
                cells.append(f"{np.median(best[-1]['leads_h']):.2f}" if best[-1] else "-")
            if "volume" in kind:
                cells.append(f"{best[1]['noticed']:.1f}" if best[1] else "-")
                cells.append(f"{np.mean(kind['volume'][method]):.3f}")
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _best(curve: Sequence[Mapping[str, Any]], allowed: float) -> Mapping[str, Any] | None:
    """The point of the longest mean lead within so many false alarms; of equals the most careful one."""
    within = [point for point in curve if point["false"] <= allowed + 1e-9]
    return max(within, key=lambda point: (np.mean(point["leads_h"]), point["factor"])) if within else None


def _cell(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return "-"
    leads = point["leads_h"]
    text = interval(leads, digits=2) if len(leads) > 1 else f"{leads[0]:.1f}"
    return f"{text}, {np.mean(point['shares']):.0%}"


if __name__ == "__main__":
    main()
