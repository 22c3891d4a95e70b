"""What the vibration jobs write, each file replaced whole, and where a machine's model lies."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlabeled.core.checkpoints import MANIFEST, put_back, read_manifest, write_atomically
from unlabeled.core.errors import DataError
from unlabeled.pipelines.jobs import plain_folder
from unlabeled.sensors.backtest import Result
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.report import Machine, alarm_episodes
from unlabeled.sensors.stream import UNJUDGED

ENCODER = "encoder"


def folder_name(asset: str) -> str:
    """A machine's name as a plain folder name; two machines never share a folder, nor one an encoder's."""
    return plain_folder(asset, kind="machine", reserved=ENCODER)


def metric_name(text: str) -> str:
    """With the characters that a tracking store takes."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", text)


def first(fleet: Sequence[Recording], rows: Sequence[int]) -> list[Recording]:
    """The first ``rows`` of each."""
    return [r.rows(slice(0, n)) for r, n in zip(fleet, rows, strict=True)]


def scores(tables: Sequence[pd.DataFrame], out: Path) -> dict[str, Path]:
    """``scores.csv`` and ``scores.parquet``: one row a snapshot."""
    table = pd.concat(tables, ignore_index=True)
    new = out / f".scores.parquet.new-{os.getpid()}"
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(new, index=False)
    os.replace(new, out / "scores.parquet")
    return {
        "scores": write_atomically(out / "scores.csv", table.to_csv(index=False)),
        "scores.parquet": out / "scores.parquet",
    }


def alarms(machines: Sequence[Machine], out: Path) -> dict[str, Path]:
    """``alarms.csv``: one row an alarm."""
    rows = [row for machine in machines for row in _alarm_rows(machine)]
    columns = ["asset", "from", "until", "from_hours", "snapshots", "highest_score", "threshold"]
    text = pd.DataFrame(rows, columns=columns).to_csv(index=False)
    return {"alarms": write_atomically(out / "alarms.csv", text)}


def _alarm_rows(machine: Machine) -> list[dict[str, Any]]:
    table, recording = machine.table, machine.recording
    smoothed = table["smoothed"].to_numpy()
    return [
        {
            "asset": recording.asset,
            "from": recording.when(e.start),
            "until": "" if e.stop == len(table) else recording.when(e.stop),
            "from_hours": float(recording.hours[e.start]),
            "snapshots": e.stop - e.start,
            "highest_score": float(np.nanmax(smoothed[e.start : e.stop], initial=0.0)),
            "threshold": machine.monitor.threshold_,
        }
        for e in alarm_episodes(table)
    ]


def unjudged(
    recordings: Sequence[Recording],
    tables: Sequence[pd.DataFrame],
    out: Path,
    left_out: Sequence[tuple[str, str]] = (),
) -> dict[str, Path]:
    """``cannot_judge.csv``: every row and machine that was not judged, and why."""
    rows: list[dict[str, Any]] = [{"asset": asset, "row": "", "time": "", "reason": why} for asset, why in left_out]
    for recording, table in zip(recordings, tables, strict=True):
        rows += [{"asset": recording.asset, **skip._asdict()} for skip in recording.skipped]
        for i in np.flatnonzero(table["state"].isin(UNJUDGED).to_numpy()):
            reason = table["reason"].iloc[i]
            rows.append(
                {
                    "asset": recording.asset,
                    "row": int(recording.index[i]),
                    "time": recording.when(int(i)),
                    "reason": reason,
                }
            )
    text = pd.DataFrame(rows, columns=["asset", "row", "time", "reason"]).to_csv(index=False)
    return {"cannot judge": write_atomically(out / "cannot_judge.csv", text)}


def results(found: Sequence[Result], out: Path) -> dict[str, Path]:
    """``results.csv``: one row a machine and method."""
    table = pd.DataFrame([dataclasses.asdict(r) for r in found])
    return {"results": write_atomically(out / "results.csv", table.to_csv(index=False))}


def plain_result(result: Result) -> dict[str, Any]:
    """For JSON, which has no nan."""
    return {k: None if isinstance(v, float) and v != v else v for k, v in dataclasses.asdict(result).items()}


def operating_of(model: Path) -> list[str]:
    """The operating conditions that the models of a folder (or the folder's own) were fitted with.

    Raises:
        DataError: they were fitted with different ones.
    """
    folders = [model] if (model / MANIFEST).is_file() else sorted(p.parent for p in model.glob(f"*/{MANIFEST}"))
    found = {
        tuple(read_manifest(folder).get("fitted", {}).get("conditions", ()))
        for folder in folders
        if not folder.name.startswith((ENCODER, "."))
    }
    if len(found) > 1:
        said = "; ".join(", ".join(names) or "none" for names in sorted(found))
        raise DataError(
            f"the models in {model} were fitted with different operating conditions ({said}): name one of them"
        )
    return list(next(iter(found), ()))


def model_of(asset: str, model: Path) -> Path:
    """``model`` itself, the folder inside that has the machine's name, or the only one there."""
    named = model / folder_name(asset)
    for path in (model, named):
        put_back(path)
        if (path / MANIFEST).is_file():
            return path
    found = sorted(p.parent for p in model.glob(f"*/{MANIFEST}")) if model.is_dir() else []
    inside = [path for path in found if not path.name.startswith((ENCODER, "."))]
    if len(inside) == 1:
        return inside[0]
    have = ", ".join(p.name for p in inside) or "none"
    raise DataError(f"{model} holds no model for {asset} (it has: {have}): fit it first, or name its own folder")
