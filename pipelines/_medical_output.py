"""Tables that the medical jobs write."""

import csv
import io
from pathlib import Path

from unlabeled.core.checkpoints import write_atomically
from unlabeled.medical.images import Skip


def write_skips(out: Path, skipped: tuple[Skip, ...]) -> dict[str, Path]:
    """What could not be used and why, where there is such."""
    return {"skipped": write_csv(out / "skipped.csv", ("input", "reason"), skipped)} if skipped else {}


def write_csv(path: Path, header: tuple[str, ...], rows: object) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # type: ignore[arg-type]
    return write_atomically(path, text.getvalue())
