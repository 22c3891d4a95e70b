"""Progress bars and plain messages on standard error; standard output is left to results."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True, highlight=False)


def quiet(on: bool) -> None:
    """Silences bars and notes (errors still come through)."""
    console.quiet = on


def say(text: str) -> None:
    """One plain line for the user."""
    if os.environ.get("RANK", "0") == "0":
        console.print(text, markup=False, soft_wrap=True)


class Bar:
    """A handle on one bar."""

    def __init__(self, shown: Progress, task: int) -> None:
        self._shown, self._task = shown, task

    def advance(self, by: int = 1, *, to: int | None = None, note: str = "") -> None:
        if to is None:
            self._shown.update(self._task, advance=by, note=note)  # type: ignore[arg-type]
        else:
            self._shown.update(self._task, completed=to, note=note)  # type: ignore[arg-type]


@contextmanager
def bar(label: str, total: int, *, done: int = 0, shown: bool = True) -> Iterator[Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not shown or console.quiet) as display:
        yield Bar(display, display.add_task(label, total=total, completed=done, note=""))


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Passes ``items`` through under a bar."""
    with bar(label, total) as handle:
        for item in items:
            yield item
            handle.advance()
