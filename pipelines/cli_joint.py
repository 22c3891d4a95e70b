"""``unlabeled joint <verb>``."""

from pathlib import Path
from typing import Annotated

import typer

from unlabeled.pipelines._cost import DryRun, Price, Watts
from unlabeled.pipelines.jobs import Outcome

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="One encoder for several kinds of data: radiographs, machines and payments teach the same network.",
)


@app.callback()
def group() -> None:
    """Keeps the verb in the command while there is only one."""


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for one model folder a vertical, and the report.")] = Path(
        "joint-pretrained"
    ),
    xrays: Annotated[Path | None, typer.Option(help="Radiographs, as 'medical pretrain' takes them.")] = None,
    machines: Annotated[
        list[Path] | None, typer.Option(help="Machines measured alike, as 'sensors fit' takes them (may be repeated).")
    ] = None,
    payments: Annotated[Path | None, typer.Option(help="Payments, as 'fraud pretrain' takes them.")] = None,
    size: Annotated[int, typer.Option(help="Rows and columns of the radiographs; a multiple of 8.", min=16)] = 64,
    normal_share: Annotated[
        float, typer.Option(help="Share of each machine's record that is declared normal.", min=0.01, max=1.0)
    ] = 0.25,
    fs: Annotated[
        float | None, typer.Option("--fs", help="Sampling rate of the machines in Hz, where the files do not say.")
    ] = None,
    every: Annotated[
        float | None, typer.Option(help="Seconds between snapshots, where the machines' files have no times.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Use payments before this time.")] = None,
    dim: Annotated[int, typer.Option(help="Width of the encoder; a multiple of 16.", min=16)] = 64,
    depth: Annotated[int, typer.Option(help="Blocks of the encoder.", min=1)] = 3,
    steps: Annotated[int, typer.Option(help="Each takes a batch of every kind.", min=1)] = 1500,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.", min=1e-6)] = 1e-3,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Learn from two or three kinds of data at once, without labels. Interrupted, the same command goes on.

    What each vertical does next starts from its folder: 'medical finetune --model', 'sensors fit --encoder', 'fraud
    finetune --model'.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import joint as job

    return job.pretrain(
        out=out, xrays=xrays, machines=machines or (), payments=payments, size=size, normal_share=normal_share,
        fs=fs, every=every, until=until, shape=job.Shape(dim=dim, depth=depth), steps=steps,
        learning_rate=learning_rate, seed=seed, dry_run=dry_run,
        rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip
