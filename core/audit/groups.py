"""Who is served worse: the same numbers for every group of rows, their intervals, and the gaps between groups.

Works on any table of attributes (age band and sex of patients, merchant kind of payments, site of machines...).
fairlearn's ``MetricFrame`` resamples rows; here whole patients (customers, machines) are resampled, and every group
sees the same draws, so that differences between groups are paired.

Shape suffixes: n row, s bootstrap draw, u unit that is resampled.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core import evaluation
from unlabeled.core.audit import _group_metrics as measures
from unlabeled.core.audit._group_metrics import COMPARED, METRICS, Rows
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate

LEAST = 20
# Values of one attribute that are looked at apart from each other; the rarer ones are put together.
MOST_VALUES = 20
NOT_KNOWN, OTHERS = "not known", "all other values"
EVERYBODY = "everybody"


class Rate(NamedTuple):
    """A further share that is measured of every group.

    Attributes:
        hit: (N,) what is counted.
        among: (N,) the rows that it is a share of; ``None``: all.
        compared: whether groups are compared by it.
    """

    hit: ArrayLike
    among: ArrayLike | None = None
    compared: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group.

    Attributes:
        attribute: what it was grouped by; two names joined by " x " for an intersection.
        value: which group; values joined by " x " likewise.
        rows, units, positives, negatives: counts; the last two of rows.
        estimates: by :data:`METRICS` and further rates; empty when there were too few to say.
        note: why there are no estimates.
    """

    attribute: str
    value: str
    rows: int
    units: int
    positives: int
    negatives: int
    estimates: Mapping[str, Estimate]
    note: str = ""


class Gap(NamedTuple):
    """The largest difference in one metric between two groups of one attribute: ``higher`` minus ``lower``.

    ``p`` tests this pair alone; ``adjusted`` is Holm's over all pairs, metrics and attributes that were compared. The
    interval is this pair's own: of a pair picked for being the largest, it looks a little too sure.
    """

    attribute: str
    metric: str
    higher: str
    lower: str
    difference: Estimate
    p: float
    adjusted: float


@dataclass(frozen=True, kw_only=True)
class GroupAudit:
    """What :func:`audit_groups` found.

    Attributes:
        overall: everybody.
        groups: in the order of the attributes, intersections last.
        gaps: one an attribute and compared metric, largest difference each.
        compared: pairs that the gaps' ``adjusted`` is corrected for.
        least: units of either class that a group needed.
        notes: attributes that could not be used, and why.
        metrics: what was measured: :data:`METRICS` and further rates.
    """

    overall: Group
    groups: tuple[Group, ...]
    gaps: tuple[Gap, ...]
    compared: int
    least: int
    notes: tuple[str, ...]
    metrics: tuple[str, ...] = METRICS


def audit_groups(
    y: ArrayLike,
    probability: ArrayLike,
    called: ArrayLike,
    attributes: Mapping[str, ArrayLike],
    *,
    units: ArrayLike | None = None,
    rates: Mapping[str, Rate] | None = None,
    least: int = LEAST,
    intersections: bool = True,
    samples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> GroupAudit:
    """:data:`METRICS` of every group and every intersection of two attributes.

    The underdiagnosis rate is the share of the ill that is called healthy (Seyyed-Kalantari et al., Nature Medicine
    2021). Intervals are percentile bootstrap over ``units``; where every draw gives the same rate (nobody missed,
    say) the Wilson interval takes its place, and Newcombe's where every draw gives the same AUROC. Groups are compared
    in pairs within an attribute by the normal approximation with the paired bootstrap's standard error, corrected by
    Holm (1979) over everything compared.

    Args:
        y: (N,) 1 or 0.
        probability: (N,) from 0 to 1.
        called: (N,) whether the operating point calls the row positive.
        attributes: by name (N,) each; ``None``, nan and empty text mean not known. Band numbers beforehand.
        units: (N,) who belongs together (patients); default each row by itself.
        rates: further shares by name.
        least: units of either class that a group needs; smaller ones are listed without numbers.
        intersections: whether every pair of attributes is looked at, too.
        samples: bootstrap draws.
        level: of the intervals.

    Raises:
        DataError: columns or rates of different lengths, labels other than 0 and 1, or probabilities that are not
            finite.
    """
    data = _checked(y, probability, called, units)
    every = evaluation.draws(data.units, samples=samples, seed=seed)
    draws_sn = np.stack([counts.astype(np.float32) for counts in every])
    further = {name: _rows(name, rate, len(data.y)) for name, rate in (rates or {}).items()}
    columns, notes = {}, []
    for name, values in attributes.items():
        column, note = _column(name, values, len(data.y))
        if note:
            notes.append(note)
        if column is not None:
            columns[name] = column
    measure = _Measure(data, draws_sn, further, least, level)
    overall, _ = measure("all", EVERYBODY, np.ones(len(data.y), dtype=bool))
    groups: list[Group] = []
    spread: dict[str, dict[str, measures.Draws]] = {}
    for name, column in columns.items():
        spread[name] = {}
        for value in _values(column):
            group, draws = measure(name, value, column == value)
            groups.append(group)
            if draws is not None and value != NOT_KNOWN:
                spread[name][value] = draws
    if intersections:
        for one, other in itertools.combinations(columns, 2):
            for a, b in itertools.product(_values(columns[one]), _values(columns[other])):
                rows = (columns[one] == a) & (columns[other] == b)
                if rows.any():
                    groups.append(measure(f"{one} x {other}", f"{a} x {b}", rows)[0])
    by = (*COMPARED, *(name for name, rate in (rates or {}).items() if rate.compared))
    gaps, compared = _gaps(spread, by, level)
    return GroupAudit(
        overall=overall, groups=tuple(groups), gaps=gaps, compared=compared, least=least, notes=tuple(notes),
        metrics=(*METRICS, *further),
    )  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979)."""
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    rising = np.minimum(1.0, np.maximum.accumulate(np.asarray(p, dtype=float)[order] * factors))
    corrected = np.empty(len(p))
    corrected[order] = rising
    return [float(value) for value in corrected]


class _Data(NamedTuple):
    y: NDArray[np.bool_]
    p: NDArray[np.float64]
    called: NDArray[np.bool_]
    units: NDArray[np.int64]


def _checked(y: ArrayLike, probability: ArrayLike, called: ArrayLike, units: ArrayLike | None) -> _Data:
    truth, p, calls = np.asarray(y), np.asarray(probability, dtype=float), np.asarray(called).astype(bool)
    who = np.arange(len(truth)) if units is None else np.asarray(units)
    if not len(truth) == len(p) == len(calls) == len(who):
        raise DataError(
            f"one label, probability, call and unit a row are needed, got {len(truth)}, {len(p)}, {len(calls)} and "
            f"{len(who)}"
        )
    if not len(truth):
        raise DataError("there are no rows to audit")
    if not np.isin(truth, (0, 1)).all():
        raise DataError(f"labels must be 0 or 1, got {np.unique(truth)[:5]}: leave unlabelled rows out")
    if not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
        raise DataError("probabilities must be finite numbers from 0 to 1")
    return _Data(truth.astype(bool), p, calls, np.unique(who, return_inverse=True)[1].astype(np.int64))


def _rows(name: str, rate: Rate, rows: int) -> Rows:
    hit = np.asarray(rate.hit).astype(bool)
    among = np.ones(rows, dtype=bool) if rate.among is None else np.asarray(rate.among).astype(bool)
    if not len(hit) == len(among) == rows:
        raise DataError(f"rate {name!r} has {len(hit)} and {len(among)} values for {rows} rows")
    return Rows(hit, among)


def _column(name: str, values: ArrayLike, rows: int) -> tuple[NDArray[np.str_] | None, str]:
    """Values as text, or ``None`` and why they cannot be used."""
    given = list(np.asarray(values, dtype=object))
    if len(given) != rows:
        raise DataError(f"attribute {name!r} has {len(given)} values for {rows} rows")
    text = np.array([NOT_KNOWN if _absent(value) else str(value).strip() for value in given], dtype=np.str_)
    known, counts = np.unique(text[text != NOT_KNOWN], return_counts=True)
    if not len(known):
        return None, f"{name} is not known of anybody: no groups can be made by it"
    if len(known) == 1 and len(known) == len(np.unique(text)):
        return None, f"{name} is '{known[0]}' for everybody: there is nothing to compare"
    if len(known) > MOST_VALUES:
        rare = known[np.argsort(-counts, kind="stable")[MOST_VALUES:]]
        text = np.where(np.isin(text, rare), OTHERS, text)
        return text, f"{name} has {len(known)} values: the {MOST_VALUES} most frequent stand alone, the rest together"
    return text, ""


def _absent(value: object) -> bool:
    return value is None or value != value or not str(value).strip() or str(value).strip().lower() == "nan"


def _values(column: NDArray[np.str_]) -> list[str]:
    """Groups in alphabetical order, those that are no real value last."""
    return sorted(set(column.tolist()), key=lambda value: (value in (NOT_KNOWN, OTHERS), value))


class _Measure:
    """One group's numbers."""

    def __init__(
        self, data: _Data, draws_sn: NDArray[np.float32], rates: Mapping[str, Rows], least: int, level: float
    ) -> None:
        self.data, self.draws_sn, self.rates, self.least, self.level = data, draws_sn, rates, least, level

    def __call__(self, attribute: str, value: str, rows: NDArray[np.bool_]) -> tuple[Group, measures.Draws | None]:
        y, units = self.data.y[rows], self.data.units[rows]
        ill, well = len(np.unique(units[y])), len(np.unique(units[~y]))
        few = min(ill, well) < self.least
        draws = None
        estimates: dict[str, Estimate] = {}
        if not few:
            draws = measures.measure(
                y, self.data.p[rows], self.data.called[rows], self.draws_sn[:, rows], units_n=units,
                rates={name: Rows(hit[rows], among[rows]) for name, (hit, among) in self.rates.items()},
            )  # fmt: skip
            estimates = {name: draws.interval(name, self.level) for name in (*METRICS, *self.rates)}
        note = f"too few to say: {ill} with and {well} without, at least {self.least} of each are needed" if few else ""
        group = Group(
            attribute=attribute, value=value, rows=int(rows.sum()), units=len(np.unique(units)),
            positives=int(y.sum()), negatives=int((~y).sum()), estimates=estimates, note=note,
        )  # fmt: skip
        return group, draws


def _gaps(
    spread: Mapping[str, Mapping[str, measures.Draws]], by: Sequence[str], level: float
) -> tuple[tuple[Gap, ...], int]:
    pairs: list[Gap] = []
    for attribute, groups in spread.items():
        for (one, a), (other, b) in itertools.combinations(groups.items(), 2):
            both = [metric for metric in by if np.isfinite([a.value[metric], b.value[metric]]).all()]
            pairs += [_gap(attribute, metric, (one, a), (other, b), level) for metric in both]
    corrected = [pair._replace(adjusted=p) for pair, p in zip(pairs, holm([pair.p for pair in pairs]), strict=True)]
    largest: dict[tuple[str, str], Gap] = {}
    for pair in corrected:
        key = (pair.attribute, pair.metric)
        if key not in largest or pair.difference.value > largest[key].difference.value:
            largest[key] = pair
    return tuple(largest.values()), len(pairs)


def _gap(
    attribute: str, metric: str, one: tuple[str, measures.Draws], other: tuple[str, measures.Draws], level: float
) -> Gap:
    from scipy import stats

    if one[1].value[metric] < other[1].value[metric]:
        one, other = other, one
    difference = one[1].value[metric] - other[1].value[metric]
    error = measures.error_of_difference(one[1], other[1], metric)
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    p = float(2 * stats.norm.sf(difference / error)) if error > 0 else float(difference == 0)
    return Gap(attribute, metric, one[0], other[0], Estimate(difference, difference - half, difference + half), p, p)
