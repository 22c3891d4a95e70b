"""Simulated bearings: vibration snapshots over weeks, with or without a growing outer-race fault.

The impulse model follows McFadden and Smith (1984): the rolling elements strike the fault at the outer-race
frequency, each strike rings a structural resonance, and slip makes the strikes irregular (Antoni, 2006).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.seeds import derive
from unlabeled.sensors.recording import Recording, make

AXES = ("horizontal", "vertical")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a machine is measured and how it fails.

    Attributes:
        fs: sampling rate, Hz.
        seconds: length of a snapshot.
        every_h: hours between snapshots.
        days: length of the recording.
        fault_days: how long before the end the fault starts to grow; ``None`` for a machine that stays well.
        rpm: nominal speed.
        bpfo_orders: strikes on an outer-race fault per revolution (a common deep-groove bearing has 3.58).
        resonance: ringing frequency as a share of ``fs / 2``.
    """

    fs: float = 12_800.0
    seconds: float = 0.2
    every_h: float = 3.0
    days: float = 42.0
    fault_days: float | None = 8.0
    rpm: float = 1790.0
    bpfo_orders: float = 3.58
    resonance: float = 0.55


def bearing(asset: str, *, seed: int, plan: Plan | None = None) -> Recording:
    """One machine's run. Machines differ (with the seed) in their harmonics, noise and resonance."""
    plan = plan or Plan()
    rng = np.random.default_rng(derive(seed, "bearing", asset))
    n, samples = round(plan.days * 24 / plan.every_h), round(plan.fs * plan.seconds)
    hours = np.arange(n) * plan.every_h
    t = np.arange(samples) / plan.fs
    harmonics = rng.uniform(0.05, 0.25, size=(6, 2)) / np.arange(1, 7)[:, None]
    tilt = rng.uniform(0.7, 1.3, size=2)
    resonance = plan.resonance * rng.uniform(0.95, 1.05) * plan.fs / 2
    load = _load(hours, rng)
    severity = _severity(hours, plan, rng)
    values = np.empty((n, samples, 2), dtype=np.float32)
    for i in range(n):
        speed = plan.rpm / 60 * (1 + 0.003 * rng.normal())
        phase = rng.uniform(0, 2 * np.pi, size=(6, 2))
        angle = 2 * np.pi * speed * t[:, None] * np.arange(1, 7)
        shaft = np.einsum("skc,kc->sc", np.sin(angle[:, :, None] + phase), harmonics)
        noise = rng.normal(size=(samples, 2)).astype(np.float32)
        coloured = noise + 0.8 * np.roll(noise, 1, axis=0)
        x = load[i] * (shaft + 0.06 * tilt * coloured)
        if severity[i] > 0:
            rate = plan.bpfo_orders * speed
            ringing = _ringing(rng, samples=samples, fs=plan.fs, rate=rate, resonance=resonance)
            x = x + severity[i] * load[i] * ringing[:, None] * np.array([1.0, 0.6])
        values[i] = x
    failure = None if plan.fault_days is None else float(hours[-1])
    return make(asset, values, hours, names=AXES, fs=plan.fs, failure_h=failure)


def fleet(*, healthy: int, failing: int, seed: int, plan: Plan | None = None) -> list[Recording]:
    """Machines of one kind: those that stay well (``healthy-1``...), then those that fail (``failing-1``...)."""
    plan = plan or Plan()
    well = Plan(**{**plan.__dict__, "fault_days": None})
    machines = [bearing(f"healthy-{i + 1}", seed=seed, plan=well) for i in range(healthy)]
    return machines + [bearing(f"failing-{i + 1}", seed=seed, plan=plan) for i in range(failing)]


def write(recording: Recording, folder: Path) -> Path:
    """Writes a machine as the npz file that the reader takes, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{recording.asset}.npz"
    arrays: dict[str, NDArray | np.float64] = {
        "acc": recording.values.astype(np.float16),
        "t_s": recording.hours * 3600,
        "fs": np.float64(recording.fs or 0),
        "axes": np.array(recording.names),
    }
    if recording.failure_h is not None:
        arrays["failure_t_s"] = np.float64(recording.failure_h * 3600)
    np.savez(path, allow_pickle=False, **arrays)
    return path


def _load(hours: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """Slow load variation: day and week, and a wandering part, within about a fifth of the mean."""
    day = 0.08 * np.sin(2 * np.pi * (hours / 24 + rng.uniform()))
    week = 0.05 * np.sin(2 * np.pi * (hours / 168 + rng.uniform()))
    wander = np.empty(len(hours))
    state = 0.0
    for i in range(len(hours)):
        state = 0.95 * state + 0.015 * rng.normal()
        wander[i] = state
    return 1 + day + week + wander


def _severity(hours: NDArray, plan: Plan, rng: np.random.Generator) -> NDArray[np.float64]:
    """Amplitude of the strikes: nothing, then exponential growth to failure, unsteady from snapshot to snapshot."""
    if plan.fault_days is None:
        return np.zeros(len(hours))
    left = hours[-1] - hours
    share = np.clip(1 - left / (plan.fault_days * 24), 0, None)
    growth = np.where(share > 0, 0.06 * np.exp(share * np.log(1.5 / 0.06)), 0.0)
    return growth * rng.lognormal(0, 0.25, size=len(hours))


def _ringing(
    rng: np.random.Generator, *, samples: int, fs: float, rate: float, resonance: float
) -> NDArray[np.float64]:
    """Strikes at ``rate`` Hz with 1 % slip, each a resonance that decays within about a millisecond."""
    count = int(samples / fs * rate) + 3
    gaps = (1 + 0.01 * rng.normal(size=count)) / rate
    starts = np.cumsum(gaps) - rng.uniform() / rate
    strikes = np.zeros(samples)
    at = np.round(starts * fs).astype(int)
    inside = (at >= 0) & (at < samples)
    np.add.at(strikes, at[inside], rng.lognormal(0, 0.2, size=int(inside.sum())))
    decay = np.arange(round(0.006 * fs)) / fs
    impulse = np.exp(-decay / 0.001) * np.sin(2 * np.pi * resonance * decay)
    return np.convolve(strikes, impulse)[:samples]
