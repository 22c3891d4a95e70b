"""The command line: ``unlabeled <vertical> <verb> INPUT [options]``.

Nothing heavy is imported here; each command imports its job when it is called.
"""

import errno
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from unlabeled.pipelines import cli_fraud, cli_joint, cli_medical, cli_sensors
from unlabeled.pipelines.jobs import Comparison, Outcome, number

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
EVERYWHERE = ("--debug", "--quiet", "--json")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Detectors for chest X-rays, vibration and card payments, learnt mostly from data nobody labelled.",
    epilog="Everywhere: --quiet (no progress), --json (the result as JSON on standard output), --debug (tracebacks). "
    "Exit codes: 0 done, 1 the data or the model failed a check, 2 wrong usage, 130 interrupted (run the same "
    "command again to go on).",
)
app.add_typer(cli_medical.app, name="medical")
app.add_typer(cli_sensors.app, name="sensors")
app.add_typer(cli_fraud.app, name="fraud")
app.add_typer(cli_joint.app, name="joint")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for models, reports and tracked runs.")] = Path("unlabeled-demo"),
    seed: Annotated[int, typer.Option(help="Fixes the simulated data and the training.")] = 0,
) -> Outcome:
    """Run all three verticals on data made on the spot (under three minutes on two cores)."""
    from unlabeled.pipelines import demo as job

    return job.run(out, seed=seed)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    store: Annotated[Path | None, typer.Option(help="Folder with an mlflow.db (default: this one).")] = None,
) -> None:
    """Show the tracked runs in a browser (MLflow, on this machine only)."""
    from unlabeled.pipelines import ui as job

    job.serve(port=port, store=store)


@app.command()
def version() -> None:
    """Print the installed version."""
    from unlabeled import __version__

    typer.echo(__version__)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ends the process with the exit codes above."""
    # Threads that wait by spinning slow a small network twentyfold as soon as anything else runs on the machine; a
    # short spin keeps most of an idle machine's speed. Read when PyTorch is loaded, which no command has done yet.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if threading.current_thread() is threading.main_thread():
        # Said outright: a shell that starts this in the background has Ctrl-C ignored, and so would whoever sends it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug, silent, as_json = (flag in given for flag in EVERYWHERE)
    sys.exit(_run([a for a in given if a not in EVERYWHERE], debug=debug, silent=silent or as_json, as_json=as_json))


def _run(arguments: list[str], *, debug: bool, silent: bool, as_json: bool) -> int:
    from unlabeled.core import progress
    from unlabeled.core.errors import Interrupted

    progress.quiet(silent)
    try:
        _check_out(arguments)
        result = app(arguments, standalone_mode=False, prog_name="unlabeled")
    except typer.TyperException as error:
        show = getattr(error, "show", None)  # usage errors know how to print themselves
        show() if show else _complain(str(error))
        return USAGE
    except Interrupted as error:
        _complain(str(error))
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        _complain(_explain(error))
        return FAILED
    if isinstance(result, Outcome):
        _show(result, as_json=as_json)
        return DONE if result.passed else FAILED
    if result == INTERRUPTED:  # Typer turns Ctrl-C into this
        _complain("interrupted; the same command goes on from the last training state, where there is one")
    return result if isinstance(result, int) else DONE


def _check_out(arguments: list[str]) -> None:
    """A place that cannot be written to is found out before the work, not after it."""
    given = [value for flag, value in pairwise(arguments) if flag == "--out"]
    given += [argument.partition("=")[2] for argument in arguments if argument.startswith("--out=")]
    for value in given:
        path = Path(value).absolute()
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        if not there.is_dir():
            raise typer.BadParameter(f"--out {value}: {there} is a file; name a folder")
        if not _writable(there):
            raise typer.BadParameter(f"--out {value}: {there} cannot be written to; name another folder")


def _writable(folder: Path) -> bool:
    """Tried, not asked: file systems refuse what permissions grant (to root, say)."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unlabeled-"):
            return True
    except OSError:
        return False


def _explain(error: Exception) -> str:
    from unlabeled.core.errors import UnlabeledError

    if isinstance(error, OSError) and error.errno in _FULL:
        return f"{error}; make room and run the same command again: it goes on from its last training state, if any"
    if isinstance(error, UnlabeledError | OSError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)"


def _complain(text: str) -> None:
    print(f"unlabeled: {' '.join(text.split())}", file=sys.stderr)


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.to_json(), allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if outcome.comparisons:
        console.print(comparison_table(outcome.comparisons))
    console.print(outcome.headline, markup=False, soft_wrap=True)
    for line in outcome.lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    for name, path in outcome.files.items():
        console.print(f"  {name}: {path}", markup=False, soft_wrap=True)


def comparison_table(comparisons: list[Comparison]) -> object:
    """Ours and each baseline, one a row, and what ours gains over it (negative: it is better than ours)."""
    from rich.table import Table

    table = Table(show_edge=False)
    for name in ("", "value [95 % interval]"):
        table.add_column(name, overflow="fold")
    table.add_column("ours gains", justify="right")
    for c in comparisons:
        direction = "more" if c.higher_is_better else "less"
        counts = _are_counts([number(value) for value in c.everything().values()])
        table.add_section()
        table.add_row(f"{c.metric} ({direction} is better)", "", "")
        table.add_row("  ours", _text(c.ours, counts=counts), "")
        for name, value in c.baselines.items():
            table.add_row(f"  {name}", _text(value, counts=counts), _signed(c.gain_over(name), counts=counts))
    return table


def _are_counts(values: list[float]) -> bool:
    return all(value.is_integer() for value in values) and max(values) > 1


def _text(value: object, *, counts: bool) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if counts else f"{value:.3f}"
    return str(value)


def _signed(gain: float, *, counts: bool) -> str:
    if gain != gain:
        return "-"
    return f"{gain:+,.0f}" if counts else f"{gain:+.3f}"
