"""``unlabeled sensors history``: what a monitoring job has judged, as Parquet, for whoever works it up elsewhere."""

import os
from pathlib import Path

import pandas as pd

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_job_file import read
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors.logbook import Logbook


def history(job_file: Path, *, out: Path) -> Outcome:
    """Writes every reading, a machine after the other (one is in memory at a time).

    Raises:
        DataError: the job has not run yet, or has judged nothing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    job = read(job_file)
    if not job.logbook.exists():
        raise DataError(f"{job.logbook} does not exist: the job has not run yet")
    schema = pa.schema([
        ("asset", pa.string()), ("time", pa.timestamp("ns")), ("state", pa.string()), ("alarm", pa.bool_()),
        ("score", pa.float64()), ("smoothed", pa.float64()), ("reason", pa.string()), ("file", pa.string()),
    ])  # fmt: skip
    new, rows = out.with_name(f".{out.name}.new"), 0
    with Logbook(job.logbook, read_only=True) as book:
        assets = list(book.thresholds())
        if not assets:
            raise DataError(f"{job.logbook} holds no reading that was judged")
        out.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(new, schema) as writer:
            for asset in assets:
                table = pd.DataFrame(book.readings(asset)).assign(asset=asset)
                table["time"] = pd.to_datetime(table["time"])
                table["alarm"] = table["alarm"].astype(bool)
                writer.write_table(pa.Table.from_pandas(table[schema.names], schema=schema, preserve_index=False))
                rows += len(table)
    os.replace(new, out)
    return Outcome(
        headline=f"{rows:,} readings of {len(assets)} machine(s).", files={"history": out}, details={"readings": rows}
    )
