"""Tables that the medical jobs write."""

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from unlabeled.core.checkpoints import write_atomically
from unlabeled.medical.images import Skip

if TYPE_CHECKING:
    import pandas as pd


def write_skips(out: Path, skipped: tuple[Skip, ...]) -> dict[str, Path]:
    """What could not be used and why, where there is such."""
    return {"skipped": write_csv(out / "skipped.csv", ("input", "reason"), skipped)} if skipped else {}


def write_csv(path: Path, header: tuple[str, ...], rows: object) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # type: ignore[arg-type]
    return write_atomically(path, text.getvalue())


def write_predictions(out: Path, table: "pd.DataFrame") -> dict[str, Path]:
    """What a model says of each picture (:func:`~unlabeled.medical._decisions.decide`), as CSV and as Parquet."""
    text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    files = {"predictions": write_atomically(out / "predictions.csv", text), "table": out / "predictions.parquet"}
    new = files["table"].with_name(f".{files['table'].name}.new-{os.getpid()}")
    table.to_parquet(new, index=False)
    os.replace(new, files["table"])
    return files
