"""``unlabeled sensors learn``."""

from pathlib import Path
from typing import Annotated

import typer

from unlabeled.pipelines._sensors_options import Dates, Every, Inputs, Rate, Signal
from unlabeled.pipelines.jobs import Outcome


def learn(
    inputs: Inputs,
    since: Annotated[
        str, typer.Option("--from", help="First moment that somebody vouches for: a date, or hours in a single file.")
    ],
    model: Annotated[Path, typer.Option(help="Folder that 'fit' or 'learn' wrote.")] = Path("machine-model"),
    out: Annotated[
        Path, typer.Option(help="Folder for the model and the report; the model's own folder replaces it there.")
    ] = Path("machine-model-learnt"),
    until: Annotated[str | None, typer.Option(help="Last moment of it (default: the end of the readings).")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget what was normal before: after a repair a machine is another one.")
    ] = False,
    beyond_too: Annotated[
        bool,
        typer.Option("--beyond-too", help="Learn also where the model finds a fault or the stretch is not steady."),
    ] = False,
    asset: Annotated[str | None, typer.Option(help="The machine, where the files are of several.")] = None,
    all_of: Annotated[
        str | None, typer.Option(metavar="ASSET", help="All files are of this machine, whatever they are called.")
    ] = None,
    fs: Rate = None,
    every: Every = None,
    signal: Signal = None,
    dates: Dates = None,
) -> Outcome:
    """Learn a stretch that somebody vouches for: a new regime beside what is known, or a machine after its repair."""
    from unlabeled.pipelines import _sensors_learn as job

    return job.learn_stretch(
        inputs, model=model, out=out, stretch=job.Stretch(since=since, until=until, asset=asset, all_of=all_of),
        anew=replace, beyond_too=beyond_too, fs=fs, every=every, signal=signal or (), dates=dates,
    )  # fmt: skip
