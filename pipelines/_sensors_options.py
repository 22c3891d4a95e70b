"""Options that several of ``unlabeled sensors``' commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

SMALLEST = 1e-6  # of what has to be greater than zero
Inputs = Annotated[
    list[Path],
    typer.Argument(help="Files or folders: npz, Parquet, CSV, MAT, HDF5, TDMS, WAV or FLAC.", metavar="INPUT..."),
]
Rate = Annotated[
    float | None, typer.Option("--fs", help="Sampling rate in Hz, where the file does not say.", min=SMALLEST)
]
Every = Annotated[
    float | None, typer.Option(help="Seconds between snapshots, where the file has no times.", min=SMALLEST)
]
AllOf = Annotated[
    str | None,
    typer.Option(
        "--all-of",
        metavar="ASSET",
        help="All files are parts of this machine's record (a file a day, say), whatever they are called: they are put "
        "in order of time and read one after another, never all at once.",
    ),
]
Dates = Annotated[
    Literal["day-first", "month-first"] | None,
    typer.Option(help="What comes first in dates such as 05/02/2024, where no row of a file tells."),
]
Signal = Annotated[
    list[str] | None,
    typer.Option(
        "--signal",
        help="Array or channel of the file that is the vibration, where its name does not tell (may be repeated, once "
        "an axis).",
    ),
]
