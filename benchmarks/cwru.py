"""Seeded bearing faults: fault against sound by the normal model, and which rate of the bearing stands out.

    OMP_NUM_THREADS=1 python benchmarks/cwru.py

Data (not part of this repository): seven recordings of the Case Western Reserve University, all of them at 48 kHz,
without load, drive end 6205: one of a sound bearing, and six of bearings with a pit of 0.18 or 0.36 mm in the inner
race, the outer race or a ball, each recording another bearing. Every setting is the library's default, and none was
chosen on these numbers; one default, the length of pieces for the envelope, was once (bearing_faults.md).

Fault against sound: windows of 0.05 s, half as long as the product cuts a record, because it asks for 30 snapshots of a
normal period and all of the sound record holds no more of 0.1 s. The first two thirds of the sound record are declared
normal, as to ``sensors fit``; judged are its last third and the bearings with a fault, of which no method has seen
anything. So no window of a faulty bearing is on both sides; the sound bearing is on both, apart in time, because there
is one: how another sound bearing, or this one mounted anew, would score cannot be known from these data. The encoder
is taught by the normal period itself, or by those of the six FEMTO runs, which are another rig; in some rows for one
step, so that it has learnt nothing. Each window counts by itself: no smoothing, no persistence. Scores are in units of
the method's own threshold: ours as fitted, plain rules mean + 3 sigma (the larger of both axes), PCA and PyOD mean + 5
sigma of the normal period's last third. PCA reads the log bands, PyOD's detectors the physical indicators, one window
at a time.

Diluted: a window with a fault at so many decibels below its own amplitude, added to one of the sound windows that are
held back. No such machine was measured; added when nearly all scores had turned out to be at 1 without it, with a
ladder in halves that was fixed before anything was scored on it. It only shows which scores have room left.

Rates: stretches of nine snapshots of 0.1 s, as ``sensors explain`` takes them, the shaft's speed as recorded, the
larger of both axes. A rate's prominence is its mean level over its surroundings at three harmonics, in decibels; its
certainty the p-value's logarithm. The area under the ROC curve of a rate sets stretches of one bearing whose fault it
is against those of all bearings with other faults (and the sound one, in the last column). Beside the product's
whitened envelope stands the plain one (squared modulus of the analytic signal), with the same statistics.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import machines
import numpy as np
from bearing_faults import EXPECTED, recorded, stretches
from numpy.typing import NDArray
from scipy.signal import hilbert
from sensors_curve import PYOD, Fit, band_pca, learnt, short

from unlabeled.core import progress
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import over_runs, roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.intervals import wilson
from unlabeled.sensors import MachineMonitor, Recording, bearings, features
from unlabeled.sensors.baselines import SIGMAS, three_sigma
from unlabeled.sensors.bearings import Envelope, Evidence
from unlabeled.sensors.monitor import PARTS
from unlabeled.sensors.outliers import named
from unlabeled.sensors.recording import make
from unlabeled.sensors.views import Look, Scaling, look

HERE = Path(__file__).parent
BEARING = bearings.CATALOGUE["6205"]
WINDOWS = 2  # of a snapshot that the product cuts
NORMAL_SHARE = 2 / 3  # of the sound record
SOUND = "normal"
PLAIN = {"RMS": features.rms, "kurtosis": features.excess_kurtosis, "crest factor": features.crest}
VARIANTS = {"without the level": PARTS, "encoder's parts only": PARTS[:3], "indicators only": PARTS[3:]}
INDICATORS = ", indicators only"
DECIBELS = (0, -6, -12, -18, -24)  # halves of the amplitude
SCORED, ENVELOPES = ("prominence", "certainty"), ("whitened", "plain")
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    progress.quiet(True)
    folder = given.data / "vibration"
    records = {path.stem: recorded(path) for path in sorted((folder / "cwru").glob("*.npz"))}
    assert {recording.fs for recording, _ in records.values()} == {48_000.0}
    fleet = machines.kinds(folder)["FEMTO"]
    content = {
        "hardware": describe_hardware(),
        "seeds": given.seeds,
        "faults": fault_against_sound({name: one for name, (one, _) in records.items()}, fleet, given.seeds),
        "rates": {name: rates_of(*one) for name, one in records.items()},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "cwru.json", json.dumps(short(content), separators=(",", ":")) + "\n")
    write_atomically(given.out / "cwru.md", markdown(content))
    print(markdown(content))


# Fault against sound


def fault_against_sound(
    records: Mapping[str, Recording], fleet: Sequence[Recording], seeds: int
) -> dict[str, list[dict[str, Any]]]:
    """For each method, and each seed of those that have any: areas and shares of alarms."""
    every, owner, decibels, normal = windows(records)

    def judged(scores: Floats) -> dict[str, Any]:
        return judge(scores[normal:], owner[normal:], decibels[normal:])

    found = {name: [judged(one)] for name, one in plain_scores(every, normal).items()}
    seen = look(every, rows=len(every), window=MachineMonitor().window)
    learners: dict[str, Fit] = {"band-PCA": band_pca, **{f"PyOD {name}": partial(pyod, name) for name in PYOD}}
    found |= {name: [judged(learnt(every, seen, normal, fit))] for name, fit in learners.items()}
    encoders: dict[str, Callable[[int], MachineMonitor]] = {
        "own encoder": lambda seed: MachineMonitor(random_state=seed),
        "FEMTO's encoder": lambda seed: MachineMonitor(random_state=seed).pretrain(fleet),
        "encoder of one step": lambda seed: MachineMonitor(random_state=seed, steps=1),
    }
    ours: dict[str, list[dict[str, Any]]] = {}
    for encoder, make_one in encoders.items():
        for seed in range(seeds):
            monitor = make_one(seed).fit(every.rows(slice(0, normal)), normal_share=1.0)
            for name, scores in our_scores(monitor, every).items():
                if name == INDICATORS and encoder != "own encoder":
                    continue  # no encoder has a part in them
                ours.setdefault(f"ours, {encoder}{name}", []).append(judged(scores))
            print(encoder, seed, flush=True)
    return ours | found


def windows(
    records: Mapping[str, Recording],
) -> tuple[Recording, NDArray[np.str_], NDArray[np.int64], int]:
    """The sound record in shorter windows, then those with a fault at all strengths; whose each is and how strong
    (sound ones count as whole); and how many are declared normal."""
    (sound,) = [name for name in records if name.startswith(SOUND)]
    first = halved(records[sound].values)
    normal = int(NORMAL_SHARE * len(first))
    parts = [(sound, 0, first)]
    for name, recording in records.items():
        if name != sound:
            parts += [(name, db, diluted(halved(recording.values), first[normal:], db)) for db in DECIBELS]
    values = np.concatenate([one for _, _, one in parts])
    sizes = [len(one) for _, _, one in parts]
    owner = np.repeat([name for name, _, _ in parts], sizes)
    decibels = np.repeat([db for _, db, _ in parts], sizes)
    fs = float(records[sound].fs or 0)
    hours = np.arange(len(values)) * values.shape[1] / fs / 3600
    return make("CWRU", values, hours, names=records[sound].names, fs=fs), owner, decibels, normal


def halved(values_nsa: NDArray) -> NDArray:
    n, samples, axes = values_nsa.shape
    return values_nsa.reshape(n * WINDOWS, samples // WINDOWS, axes)


def diluted(faulty_nsa: NDArray, sound_msa: NDArray, decibels: int) -> NDArray:
    if not decibels:
        return faulty_nsa
    return 10 ** (decibels / 20) * faulty_nsa + sound_msa[np.arange(len(faulty_nsa)) % len(sound_msa)]


def plain_scores(every: Recording, normal: int) -> dict[str, Floats]:
    """The farther of both axes, where mean + 3 sigma is 1."""
    found = {}
    for name, indicator in PLAIN.items():
        axes = np.stack([indicator(one) for one in every.values])
        z = [three_sigma(axis, name=name, normal_rows=normal).z for axis in axes.T]
        found[name] = np.max(z, axis=0) / SIGMAS
    return found


def pyod(name: str, seen: Look, teach: NDArray[np.int64]) -> Floats:
    """One window at a time, as the product asks PyOD's detectors: some rank what they score among itself."""
    scaling = Scaling.of(seen.pictures[teach], seen.indicators[teach])
    z = scaling.indicators(seen.indicators)
    return np.asarray(named(name, seed=0).fit(z[teach]).score(z), dtype=float)


def our_scores(monitor: MachineMonitor, every: Recording) -> dict[str, Floats]:
    """The score, and parts of it on their own, where its threshold (mean + 5 sigma of each) is 1."""
    table = monitor.score(every)
    calibration = slice(monitor.period_.calibration, monitor.period_.stop)
    found = {"": table["score"].to_numpy() / monitor.threshold_}
    for name, parts in VARIANTS.items():
        score = table[list(parts)].mean(axis=1, skipna=False).to_numpy()
        held = score[calibration]
        found[f", {name}"] = score / (held.mean() + monitor.sigmas * held.std(ddof=1))
    return found


def judge(scores: Floats, owner: NDArray[np.str_], decibels: NDArray[np.int64]) -> dict[str, Any]:
    """Of each faulty bearing, at each strength, the area against the sound windows held back; and the share of its
    windows, and of theirs, above the threshold."""
    names = sorted(set(owner.tolist()))
    (sound,) = [name for name in names if name.startswith(SOUND)]
    well = scores[owner == sound]
    areas = {
        str(db): {name: _area(scores[(owner == name) & (decibels == db)], well) for name in names if name != sound}
        for db in DECIBELS
    }
    above = {name: float((scores[(owner == name) & (decibels == 0)] > 1).mean()) for name in names}
    return {"areas": areas, "above": above}


def _area(ill: Iterable[float], well: Iterable[float]) -> float:
    positive, negative = np.array(list(ill)), np.array(list(well))
    return roc_auc(np.r_[np.ones(len(positive)), np.zeros(len(negative))], np.r_[positive, negative])


# The rate that stands out


def plain_envelope(pieces_ns: NDArray, fs: float) -> Envelope:
    """As :func:`~unlabeled.sensors.bearings.envelope`, of the signal as it is."""
    x = np.asarray(pieces_ns, dtype=np.float64)
    squared = np.abs(hilbert(x - x.mean(axis=1, keepdims=True), axis=1)) ** 2
    power = np.abs(np.fft.rfft(squared - squared.mean(axis=1, keepdims=True), axis=1)) ** 2
    usual = np.median(power[:, 1:], axis=1, keepdims=True) / np.log(2)
    hz = np.fft.rfftfreq(x.shape[1], 1 / fs).astype(np.float64)
    return Envelope(hz, (power / np.maximum(usual, 1e-30)).mean(axis=0), len(x))


def rates_of(recording: Recording, shaft: float) -> dict[str, list[dict[str, Any]]]:
    """For each kind of envelope and each stretch what is said of the rates."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ENVELOPES}
    for stretch in stretches(recording):
        whitened = [one.evidence for one in bearings.repeats(stretch, BEARING, shaft)]
        cut = bearings.pieces(stretch, shaft)
        spectra = [plain_envelope(cut[:, :, axis], float(stretch.fs or 0)) for axis in range(cut.shape[2])]
        plain = [bearings.evidence(spectrum, BEARING, shaft) for spectrum in spectra]
        # As for the whitened one, a p-value is Bonferroni's over the axes.
        fair = [[one._replace(p_value=min(1.0, one.p_value * len(plain))) for one in axis] for axis in plain]
        found["whitened"].append(said(whitened))
        found["plain"].append(said(fair))
    return found


def said(axes: Sequence[Sequence[Evidence]]) -> dict[str, Any]:
    """The rate that is most certain, whether that is certain enough to be named, and both scores of every rate."""
    every = [one for axis in axes for one in axis]
    first = min(every, key=lambda one: one.p_value)
    scores: dict[str, dict[str, float]] = {what: {} for what in SCORED}
    for rate in ("BPFO", "BPFI", "BSF"):
        own = [one for one in every if one.name == rate]
        scores["prominence"][rate] = max(float(np.mean(one.levels)) if one.levels else 0.0 for one in own)
        scores["certainty"][rate] = max(-np.log10(max(one.p_value, 1e-300)) for one in own)
    return {"first": first.name, "named": first.p_value < bearings.CERTAIN, **scores}


def expected(name: str) -> str:
    """The rate at which a record's fault strikes; ``nothing`` for the sound one."""
    return next(rate for start, rate in EXPECTED.items() if name.startswith(start))


def rate_area(
    rates: Mapping[str, Mapping[str, list[dict[str, Any]]]], bearing: str, *, kind: str, what: str, with_sound: bool
) -> float:
    """One bearing's stretches against those of bearings with other faults, by the rate of its own."""
    rate = expected(bearing)
    others = [n for n in rates if expected(n) != rate and (with_sound or not n.startswith(SOUND))]
    ill = [one[what][rate] for one in rates[bearing][kind]]
    return _area(ill, [one[what][rate] for name in others for one in rates[name][kind]])


# The page


def markdown(content: Mapping[str, Any]) -> str:
    assert __doc__ is not None
    _, command, *told = __doc__.strip().split("\n\n")
    lines = ["# Seeded bearing faults: the normal model, and the rate that stands out", "", f"`{command.strip()}`", ""]
    lines += [line for part in told for line in (" ".join(part.split()), "")]
    lines += [
        f"Hardware: {', '.join(str(value) for value in content['hardware'].values())}; "
        f"{content['seeds']} seeds where an encoder is drawn, of which the mean is taken first. In brackets: Student's "
        "95 % interval over the six faulty bearings, cut at 0 and 1; nothing in it speaks of other sound bearings.",
        "",
        "## Fault against sound",
        "",
    ]
    return "\n".join([*lines, *_faults(content["faults"]), *_rates(content["rates"])]) + "\n"


def _faults(found: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    names = list(next(iter(found.values()))[0]["areas"]["0"])
    low = wilson(1.0, len(names), 0.95)[0]
    ones = sum(min(_areas(seeds, 0)) == 1 for seeds in found.values())
    yield f"| score | macro-AUROC | {_heads(names)} | sound windows in alarm | windows with a fault in alarm |"
    yield "|---|---|" + "---|" * (len(names) + 2)
    for method, seeds in found.items():
        areas = _areas(seeds, 0)
        above = {name: float(np.mean([one["above"][name] for one in seeds])) for name in seeds[0]["above"]}
        sound = next(share for name, share in above.items() if name.startswith(SOUND))
        cells = [_bounded(areas), *(f"{area:.3f}" for area in areas), f"{sound:.0%}"]
        yield f"| {method} | {' | '.join(cells)} | {np.mean([above[name] for name in names]):.0%} |"
    yield from (
        "",
        "AUROC: each faulty bearing's windows against the sound windows held back; the macro mean is over bearings. "
        f"Where all six are 1 the interval has no width, which says little: six of six allow that only {low:.0%} of "
        f"such bearings would be told apart (Wilson). {ones} of {len(found)} scores are at 1: "
        "on these records this question hardly tells methods apart. The encoder's parts, kurtosis, crest factor and "
        "band-PCA do not see the level, which may differ between two recordings for other reasons than a fault.",
        "",
        "Macro-AUROC of diluted faults:",
        "",
        f"| score | {' | '.join(f'{db} dB' for db in DECIBELS[1:])} |",
        "|---|" + "---|" * len(DECIBELS[1:]),
    )
    for method, seeds in found.items():
        yield f"| {method} | {' | '.join(_bounded(_areas(seeds, db)) for db in DECIBELS[1:])} |"
    yield ""


def _areas(seeds: Sequence[Mapping[str, Any]], decibels: int) -> list[float]:
    """Of each bearing, mean over seeds."""
    return np.mean([list(one["areas"][str(decibels)].values()) for one in seeds], axis=0).tolist()


def _bounded(values: Sequence[float], digits: int = 3) -> str:
    """Mean and Student's interval over bearings, cut at 0 and 1."""
    found = over_runs(values)
    return f"{found.value:.{digits}f} [{max(0.0, found.low):.{digits}f}, {min(1.0, found.high):.{digits}f}]"


def _heads(names: Sequence[str]) -> str:
    return " | ".join(name.partition("_")[0] for name in names)


def _rates(found: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> Iterator[str]:
    faulty = [name for name in found if not name.startswith(SOUND)]
    (sound,) = [name for name in found if name.startswith(SOUND)]
    yield from (
        "## The rate that stands out",
        "",
        f"| envelope | {_heads(faulty)} | named rightly, mean | another rate named | foremost rightly, mean | "
        "sound stretches with a name |",
        "|---|" + "---|" * (len(faulty) + 4),
    )
    for kind in ENVELOPES:
        right = {n: [one["named"] and one["first"] == expected(n) for one in found[n][kind]] for n in faulty}
        wrong = [one["named"] and one["first"] != expected(n) for n in faulty for one in found[n][kind]]
        foremost = [float(np.mean([one["first"] == expected(n) for one in found[n][kind]])) for n in faulty]
        cells = [f"{sum(right[n])} of {len(right[n])}" for n in faulty]
        cells += [_bounded([float(np.mean(right[n])) for n in faulty], 2), f"{sum(wrong)} of {len(wrong)}"]
        calls = [one["named"] for one in found[sound][kind]]
        cells += [_bounded(foremost, 2), f"{sum(calls)} of {len(calls)}"]
        yield f"| {kind} | {' | '.join(cells)} |"
    yield from (
        "",
        f"Named: the most certain of four rates, where its p-value is below {bearings.CERTAIN:g}; foremost: whatever "
        "its p-value.",
        "",
        f"| envelope, score of a rate | macro-AUROC | {_heads(faulty)} | macro-AUROC, the sound bearing among the "
        "others |",
        "|---|---|" + "---|" * (len(faulty) + 1),
    )
    for kind in ENVELOPES:
        for what in SCORED:
            areas, more = (
                [rate_area(found, name, kind=kind, what=what, with_sound=with_sound) for name in faulty]
                for with_sound in (False, True)
            )
            cells = [_bounded(areas), *(f"{area:.3f}" for area in areas), _bounded(more)]
            yield f"| {kind}, {what} | {' | '.join(cells)} |"
    yield f"\nStretches: {', '.join(f'{_heads([n])} {len(one[ENVELOPES[0]])}' for n, one in found.items())}: a handful."


if __name__ == "__main__":
    main()
