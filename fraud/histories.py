"""Who paid before: rows grouped by card or merchant in time order, and the windows in which an encoder reads them.

Everything is index arithmetic on one sorted order; there is no loop over rows or cards.

A group's events are cut into windows of 2S events that start every S events. The state of event j (counted from
the group's first) is read in window ``max(0, j // S - 1)``: it has read at least S and fewer than 2S earlier
events (all of them, while there are fewer than S), and which ones depends on j alone, never on what comes later.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Rows (in time order) sorted by group, then time.

    Attributes:
        code: group of each row, (N,).
        order: rows in sorted order, (N,).
        place: where each row stands in ``order``, (N,).
        rank: how many earlier rows its group has, (N,).
        start: first place of each group, (G,).
        size: rows of each group, (G,).
    """

    code: Ints
    order: Ints
    place: Ints
    rank: Ints
    start: Ints
    size: Ints

    @staticmethod
    def of(code: ArrayLike) -> "Groups":
        """From one group number a row, the rows in time order (ties keep the order of the rows)."""
        code = np.asarray(code, dtype=np.int64)
        order = np.argsort(code, kind="stable")
        size = np.bincount(code)
        start = np.cumsum(size) - size
        place = np.empty_like(order)
        place[order] = np.arange(len(code))
        return Groups(code, order, place, place - start[code], start, size)

    def before(self, values: NDArray, *, empty: float = np.nan) -> NDArray:
        """The value of the group's previous row; ``empty`` for its first."""
        sorted_values = np.asarray(values, dtype=float)[self.order]
        shifted = np.concatenate([[empty], sorted_values[:-1]])[self.place]
        return np.where(self.rank == 0, empty, shifted)

    def first_since(self, time: NDArray[np.floating], since: NDArray[np.floating]) -> Ints:
        """The first place in each row's group with a time *after* ``since``, (N,).

        With ``since = time - W``, rows from there to the row itself are the window ``(time - W, time]``.
        """
        low, high = time.min(), time.max()
        span = high - low + 2.0
        # One number that sorts by group, then time: a single binary search serves all groups. Asked in sorted
        # order, so that neighbouring questions read neighbouring memory.
        base = self.code[self.order] * span
        key = base + (time[self.order] - low + 1.0)
        wanted = base + (np.clip(since[self.order], low - 1.0, high) - low + 1.0)
        return np.searchsorted(key, wanted, side="right")[self.place]


@dataclass(frozen=True)
class Windows:
    """Which stretches of the sorted order an encoder reads, and where the wanted rows stand in them.

    Attributes:
        start: first place of each window, (W,).
        size: events in it, (W,).
        window, offset: of each wanted row, (R,): its event is number ``offset`` of that window.
    """

    start: Ints
    size: Ints
    window: Ints
    offset: Ints


def windows_for(groups: Groups, rows: Ints, *, length: int) -> Windows:
    """The windows of ``length`` (even) events that give the states of ``rows``, each window once."""
    stride = length // 2
    skip = np.maximum(groups.rank[rows] // stride - 1, 0) * stride
    start = groups.start[groups.code[rows]] + skip
    unique, window = np.unique(start, return_inverse=True)
    offset = groups.place[rows] - start
    # Nothing after a window's last wanted event is read: it could not matter, and costs time.
    size = np.zeros(len(unique), dtype=np.int64)
    np.maximum.at(size, window, offset + 1)
    return Windows(unique, size, window, offset)


def training_windows(groups: Groups, usable: NDArray[np.bool_], *, length: int) -> Windows:
    """Windows of ``length`` events every half length over the usable rows (a prefix of each group: a period)."""
    return windows_for(groups, np.flatnonzero(usable), length=length)


def gather(codes: NDArray[np.integer], groups: Groups, *, start: Ints, size: Ints) -> NDArray[np.int64]:
    """The events of some windows as a padded batch: codes (N, F) by row -> (W, longest, F), 0 where empty."""
    step = np.arange(size.max(initial=1))
    place = start[:, None] + step
    inside = step < size[:, None]
    batch = codes[groups.order[np.minimum(place, len(groups.order) - 1)]].astype(np.int64)
    batch[~inside] = 0
    return batch


def with_previous(groups: Groups, rows: Ints, *, count: int) -> Ints:
    """``rows`` and up to ``count`` rows before each in its group, sorted, each once."""
    edge = np.zeros(len(groups.code) + 1, dtype=np.int64)
    place = groups.place[rows]
    np.add.at(edge, place - np.minimum(groups.rank[rows], count), 1)
    np.add.at(edge, place + 1, -1)
    return np.sort(groups.order[np.flatnonzero(np.cumsum(edge[:-1]) > 0)])


def last_before(groups: Groups, time: NDArray[np.float64], *, lag: float) -> NDArray[np.int64]:
    """For each row, its group's last row at least ``lag`` seconds earlier; -1 where there is none."""
    place = np.minimum(groups.first_since(time, time - lag), groups.place) - 1
    found = groups.order[np.maximum(place, 0)]
    return np.where(place >= groups.start[groups.code], found, -1)


def running_mean(groups: Groups, rows: NDArray[np.int64], values: NDArray, *, count: int) -> NDArray[np.float32]:
    """Mean over the row and up to ``count - 1`` rows before it in its group.

    ``rows`` must hold those rows for each row that is asked for. Whole-number sums: exact, so that a row does
    not depend on what other groups hold.
    """
    place = np.sort(groups.place[rows])
    at = np.searchsorted(place, groups.place[rows])
    whole = np.zeros(len(rows), dtype=np.int64)
    whole[at] = np.round(np.asarray(values, dtype=float) * 1e4).astype(np.int64)
    total = np.concatenate([[0], np.cumsum(whole)])
    taken = np.minimum(groups.rank[rows] + 1, count)
    first = np.maximum(at + 1 - taken, 0)
    return ((total[at + 1] - total[first]) / 1e4 / taken).astype(np.float32)
