"""Learning on somebody's word: a regime that the normal period did not have, or a machine that was repaired.

A new regime is added beside what is known: encoder, scales, distances and threshold stay, so that under conditions that
were known before every score stays what it was (of a trend, while its window holds no row of the new regime; with a
``drift``, while no snapshot of it has been followed). Snapshots of the stretch under unknown conditions are learnt. The
first two thirds of these say what is usual under which conditions and how far it spreads, and are put on the scale of
the normal period (:class:`~unlabeled.sensors.regimes.Addition`). The last third is held out, as in a normal period:
where mean + ``sigmas`` standard deviations of its scores lies farther out than those of the normal period's own
held-out part, scores in the regime are multiplied by what brings it back (also where the threshold meets a budget of
false alarms, for which one stretch rarely holds enough).

After a repair a machine is another one: the encoder stays, and all else is learnt anew from the stretch alone.

Shape suffixes: n snapshot, i indicator.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors import _checks
from unlabeled.sensors._fitting import CALIBRATION_SHARE, MIN_CALIBRATION
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.regimes import Addition, Conditional
from unlabeled.sensors.stream import UNJUDGED, fused
from unlabeled.sensors.views import MIN_REFERENCE, Look, Seen, View, conditional, departure, look

# A stretch of which the last third reaches so many times as far as a normal period's is not steady: a dozen scores
# leave mean + 5 standard deviations uncertain by a factor of two or three, no reason to refuse a well machine.
_UNSTEADY = 4.0
# A few snapshots that happen to be alike make no finer scale than the normal period's by this factor.
_FINER = 10.0


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """What was learnt, on what, and when: kept in the saved model.

    Attributes:
        since, until: first and last snapshot of the stretch, as the file dates them.
        snapshots: of the stretch.
        learnt: thereof learnt from.
        replaced: nothing of what was normal before counts any longer.
        beyond: snapshots under known conditions that were beyond the threshold, and were vouched for all the same.
        files: names of the files.
        data: fingerprint of the stretch (:func:`~unlabeled.core.fingerprint.of_array` of its values).
        model: fingerprint of the model that learnt it; empty for one that was never saved.
        at: when it was learnt (ISO 8601, UTC).
        gain: what scores in a regime that was added are multiplied by.
    """

    since: str
    until: str
    snapshots: int
    learnt: int
    replaced: bool
    beyond: int
    files: tuple[str, ...]
    data: str
    model: str
    at: str
    gain: float = 1.0


def learn(
    monitor: MachineMonitor, stretch: Recording, *, word: Vouched, anew: bool = False, beyond_too: bool = False
) -> MachineMonitor:
    """A monitor that knows the stretch as normal; the one that is given stays as it is.

    Args:
        monitor: a fitted one.
        stretch: snapshots that somebody vouches for.
        word: its provenance; what is counted here is filled in.
        anew: forget what was normal before, as after a repair.
        beyond_too: learn although snapshots under known conditions are beyond the threshold.

    Raises:
        DataError: too few snapshots, nothing in them that is new, a fault that would be learnt, or an unsteady stretch.
    """
    stretch = _checks.ordered(monitor, stretch)
    _checks.fits(monitor, stretch)
    beyond = _beyond(monitor, stretch, allowed=beyond_too)
    word = replace(word, snapshots=len(stretch), since=stretch.when(0), until=stretch.when(len(stretch) - 1),
                   beyond=beyond, replaced=anew)  # fmt: skip
    learnt = copy.copy(monitor)
    if anew:
        seen = look(stretch, rows=len(stretch), window=monitor.window)
        _enough(stretch, len(seen.rows), "can be judged")
        learnt = copy.deepcopy(monitor)
        learnt.pretrained_ = True  # also where 'fit' itself taught the encoder, which is to stay
        learnt.fit(stretch, normal_share=1.0)
        word = replace(word, learnt=len(seen.rows))
    else:
        learnt.conditional_, count = _extended(monitor, stretch, unsteady_too=beyond_too)
        word = replace(word, learnt=count, gain=learnt.conditional_.additions[-1].gain)
    learnt.vouched_ = (*monitor.vouched_, word)
    return learnt


def _beyond(monitor: MachineMonitor, stretch: Recording, *, allowed: bool) -> int:
    """How many snapshots under known conditions are in alarm or beyond the threshold once smoothed."""
    table = monitor.score(stretch)
    wrong = ~table["state"].isin(UNJUDGED) & (table["alarm"] | (table["smoothed"] > monitor.threshold_))
    count = int(wrong.sum())
    if count and not allowed:
        first = stretch.when(int(np.flatnonzero(wrong.to_numpy())[0]))
        raise DataError(
            f"{stretch.asset}: {count} of {len(stretch)} snapshots are beyond the threshold under conditions that the "
            f"model knows, the first at {first}: a fault may be learnt as normal. See why with 'sensors explain', "
            "leave them out of the stretch, or say --beyond-too if they are known to be well"
        )
    return count


def _enough(stretch: Recording, count: int, what: str) -> None:
    least = MIN_REFERENCE * 3 // 2
    if count < least:
        raise DataError(
            f"{stretch.asset}: {count} of the {len(stretch)} snapshots of the stretch {what}, at least {least} are "
            "needed: give a longer one"
        )


def _extended(monitor: MachineMonitor, stretch: Recording, *, unsteady_too: bool) -> tuple[Conditional, int]:
    """What is normal under which conditions, with the stretch's new ones, and how many snapshots these are."""
    known = monitor.conditional_
    if known is None:
        raise DataError(
            f"the model of {monitor.asset_} knows no operating conditions, by which a new regime could be told from a "
            "known one: say --replace to learn the machine anew from this stretch, or fit it with --operating"
        )
    raw = look(stretch, rows=len(stretch), window=1)
    new = np.array([_is_new(monitor, known, stretch, int(row)) for row in raw.rows], dtype=bool)
    rows = raw.rows[new]
    if not len(rows):
        raise DataError(
            f"{stretch.asset}: all conditions of the stretch are known already, or none of its snapshots can be "
            "judged: there is nothing to add. Say --replace to learn the machine anew from it, as after a repair"
        )
    _enough(stretch, len(rows), "are of a new regime")
    cut = int(len(rows) * (1 - CALIBRATION_SHARE))
    found = conditional(stretch, _of(raw, new), until=int(rows[cut]))
    assert found is not None
    addition = _scaled(monitor, _of(raw, new), stretch, Addition(found[0], np.ones(1), None, 1.0, 1.0))
    extended = replace(known, additions=(*known.additions, addition))
    scores = _scores(monitor, extended, stretch, held_out=rows[cut:])
    if len(scores) < MIN_CALIBRATION:
        raise DataError(
            f"{stretch.asset}: only {len(scores)} snapshots of the last third of the new regime are under conditions "
            f"that its first two thirds had, and {MIN_CALIBRATION} are needed: give a stretch that goes through all of "
            "its conditions from its beginning, or learn one regime after another"
        )
    usual, reach = _reach(_calibration(monitor), monitor.sigmas), _reach(scores, monitor.sigmas)
    if reach > _UNSTEADY * usual > 0 and not unsteady_too:
        raise DataError(
            f"{stretch.asset}: the last third of the new regime lies up to {reach / usual:.1f} times as far from its "
            "first two thirds as well snapshots do: something changes within it. Give a steady stretch, or say "
            "--beyond-too if it is known to be well"
        )
    gain = min(1.0, usual / reach) if reach > 0 else 1.0
    return replace(known, additions=(*known.additions, replace(addition, gain=gain))), len(rows)


def _is_new(monitor: MachineMonitor, known: Conditional, stretch: Recording, row: int) -> bool:
    """Whether a sound snapshot is under conditions that are stated and were never seen."""
    assert stretch.conditions is not None
    one = stretch.conditions[row]
    moved = monitor.offset_ is not None and monitor.offset_.flaw(stretch.values[row])
    return bool(np.isfinite(one).all()) and known.strange(one) is not None and not moved


def _of(raw: Look, chosen: NDArray[np.bool_]) -> Look:
    overall = None if raw.overall is None else raw.overall[chosen]
    return Look(raw.pictures[chosen], raw.indicators[chosen], overall, raw.rows[chosen])


def _scaled(monitor: MachineMonitor, new: Look, stretch: Recording, addition: Addition) -> Addition:
    """With the spreads of the known snapshots, none compared with itself, on the normal period's scale."""
    assert stretch.conditions is not None
    left, pictures, departed = [], [], []
    for number in range(len(addition.normal.regimes.known)):
        conditions = stretch.conditions[new.rows[number]]
        left.append(addition.residual_row(new.indicators[number], conditions, without=number))
        if monitor.kind_ == "waveform":
            assert new.overall is not None
            one = Seen(new.pictures[number], new.indicators[number], float(new.overall[number]))
            picture, share = addition.residual_picture(one, conditions, without=number)
            pictures.append(picture)
            departed.append(share)
    scaling, level = monitor.scaling_, monitor.level_
    ratio = _ratio(scaling.indicator_scale, np.std(left, axis=0, ddof=1))
    if monitor.kind_ == "trend":
        return replace(addition, indicator_ratio=ratio)
    picture_ratio = _ratio(scaling.picture_scale[..., 0], np.std(pictures, axis=(0, 3)))
    usual = 1.0 if level is None else level.scale / level.mean
    overall = 1.0 if level is None else float(_ratio(np.array(usual), np.std(departed, ddof=1)))
    return replace(addition, indicator_ratio=ratio, picture_ratio=picture_ratio, overall_ratio=overall)


def _ratio(usual: NDArray[np.float64], here: Any) -> NDArray[np.float64]:
    return np.asarray(usual / np.maximum(here, usual / _FINER))


def _scores(
    monitor: MachineMonitor, normal: Conditional, stretch: Recording, *, held_out: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of those held-out snapshots that the extended model can judge; the level has a scale of its own."""
    view = View(monitor.kind_, monitor.names_, monitor.fs_, monitor.window, normal)
    wanted, found = set(held_out.tolist()), []
    for row in range(len(stretch)):
        seen = view.push(
            stretch.values[row], flaw=str(stretch.flaws[row]), running=bool(stretch.running[row]),
            conditions=stretch.conditions_at(row),
        )  # fmt: skip
        if row in wanted and isinstance(seen, Seen):
            embedding, error = monitor.see(monitor.scaling_.picture(seen.picture))
            outside = float(departure(monitor.scaling_.indicators(seen.indicators), monitor.kind_))
            found.append(fused(monitor.parts(embedding, error, outside), None))
    return np.array(found)


def _calibration(monitor: MachineMonitor) -> NDArray[np.float64]:
    """Scores of the normal period's own held-out part."""
    held_out = (monitor.reference_[name].numpy()[monitor.cut_ :] for name in ("embedding", "error", "outside"))
    return np.array([fused(monitor.parts(*one), None) for one in zip(*held_out, strict=True)])


def _reach(scores: NDArray[np.float64], sigmas: float) -> float:
    return float(scores.mean() + sigmas * scores.std(ddof=1))
