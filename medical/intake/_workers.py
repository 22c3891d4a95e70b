"""Processes that read films: decoding holds the interpreter's lock, so that threads would wait for each other."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from typing import NamedTuple

from unlabeled.core.errors import DataError
from unlabeled.medical.intake._film import Film, Finding, Found, Reader, file_key
from unlabeled.medical.intake.reasons import REFUSED

_MODULE = "unlabeled.medical.intake._film"


class Batch(NamedTuple):
    number: int
    films: list[Film]


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_all(reader: Reader, batches: Sequence[tuple[int, Sequence[Found]]], *, workers: int) -> Iterator[Batch]:
    """Films of each (number, files), in order, a few batches ahead of who asks.

    A file that ends the process which reads it (a decoder's crash, the system's want of memory) is refused, and the
    others are read once more.
    """
    waiting = deque(batches)
    running: deque[tuple[int, Sequence[Found], Future[list[Film]]]] = deque()
    pool = _pool(reader, workers)
    try:
        while waiting or running:
            try:
                while waiting and len(running) < 2 * workers:
                    running.append((*waiting[0], pool.submit(_read, waiting[0][1])))
                    waiting.popleft()
                number, _, future = running[0]
                yield Batch(number, future.result())
                running.popleft()
            except BrokenProcessPool:
                pool.shutdown(wait=True, cancel_futures=True)
                # The first that is not done is looked at file by file; those behind it simply again.
                suspect = running.popleft() if running else (*waiting.popleft(), None)
                waiting.extendleft((number, files) for number, files, _ in reversed(running))
                running.clear()
                yield Batch(suspect[0], _one_by_one(reader, suspect[1]))
                pool = _pool(reader, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(reader: Reader, files: Sequence[Found]) -> list[Film]:
    films: list[Film] = []
    pool = _pool(reader, 1)
    for found in files:
        try:
            films += pool.submit(_read, [found]).result()
        except BrokenProcessPool:
            films.append(Film(Finding(file_key(reader.stand_in, found.path), state=REFUSED, reason="crash")))
            pool.shutdown(wait=True)
            pool = _pool(reader, 1)
    pool.shutdown(wait=True)
    return films


def _pool(reader: Reader, workers: int) -> ProcessPoolExecutor:
    # Not forked from this process, which has threads, but from a server that has loaded the libraries once.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([_MODULE, "pydicom.pixels"])
    together = context.Barrier(workers)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(reader, together))
    try:
        # All of them before there is work: a pool starts the next one when it is given something, and where another one
        # ends just then, it waits for the new one for ever (Python 3.11).
        for started in [pool.submit(_meet) for _ in range(workers)]:
            started.result()
    except BrokenProcessPool:  # otherwise each file would seem to be at fault
        raise DataError("no process that reads files could be started here: is there memory for one a core?") from None
    return pool


_reader: Reader | None = None
_together: Barrier | None = None


def _begin(reader: Reader, together: Barrier) -> None:
    """A worker says nothing (libraries quote what they read), leaves Ctrl-C to its parent and ends with it."""
    global _reader, _together
    _reader, _together = reader, together
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Workers of a parent that was killed would wait for work for ever.
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _meet() -> None:
    """Ends once every worker has begun this."""
    assert _together is not None
    _together.wait()


def _read(files: Sequence[Found]) -> list[Film]:
    assert _reader is not None
    return [_reader(found) for found in files]
