"""What a training costs, predicted and spent: work, time, memory, energy, money.

Counted are the training's steps, their logging and their saved states. Reading the data, validation that did not
fall into the measured steps, embeddings, baselines and reports are not in it. How it is measured:
:mod:`unlabeled.core.meter`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from unlabeled.core.errors import UnlabeledError

# A run longer than this, and further off than this, is told to the user.
LONG_SECONDS, LARGE_ERROR = 120.0, 0.15

Log = Callable[[dict[str, float], int], None]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the user knows about the machine.

    Attributes:
        watts: power drawn while training, by everything that trains together; ``None`` measures or assumes it.
        price_per_hour: of the same, in any currency.

    Raises:
        UnlabeledError: a number that is negative or not finite.
    """

    watts: float | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UnlabeledError(f"{name} must be a number of at least 0, got {value}")


# Power measured or assumed, no price.
AS_FOUND = Rates()


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """Seconds, and what follows from them."""

    seconds: float
    watts: float
    watts_from: str
    price_per_hour: float | None = None

    @property
    def hours(self) -> float:
        return self.seconds / 3600

    @property
    def kwh(self) -> float:
        return self.hours * self.watts / 1000

    @property
    def money(self) -> float | None:
        return None if self.price_per_hour is None else self.hours * self.price_per_hour

    def at(self, rates: Rates) -> Self:
        """The same with the user's own watts and price, where they are given."""
        changed: dict[str, Any] = {}
        if rates.watts is not None:
            changed |= {"watts": rates.watts, "watts_from": "as given"}
        if rates.price_per_hour is not None:
            changed["price_per_hour"] = rates.price_per_hour
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class Budget(_Cost):
    """A prediction for a whole training (all of its processes together).

    Attributes:
        label: which training.
        steps: optimiser steps.
        tokens: that the tokenizer makes of all batches, without padding, hidden ones included; ``None`` where unknown.
        flops: floating-point operations of forward and backward passes, a multiplication and an addition counting as
            two: matrix products, convolutions and attention (a causal one as if it were full), as one batch has
            them. ``None`` where they were not counted.
        seconds: wall-clock.
        step_seconds: mean of the measured steps, without pauses.
        save_seconds: the part of ``seconds`` that goes into saved states.
        learning_bytes: weights, gradients and AdamW's two moments, of one process.
        peak_bytes: highest memory of one process up to the prediction: on a GPU what PyTorch held there, else the
            resident set, data and libraries included. ``None`` where the system does not tell.
        watts, watts_from: power, and where the number comes from.
        price_per_hour: of the machine; ``None`` where not given.
    """

    label: str
    steps: int
    tokens: float | None
    flops: float | None
    step_seconds: float
    save_seconds: float
    learning_bytes: int
    peak_bytes: int | None

    def times(self, n: int, label: str) -> "Budget":
        """``n`` such trainings one after the other."""
        return total([self] * n, label)

    def lines(self) -> list[str]:
        """For the terminal."""
        steps = f"{self.steps:,} steps of {_seconds(self.step_seconds)}"
        saves = f", {_seconds(self.save_seconds)} of it for saved states" if self.save_seconds >= 0.05 else ""
        each = "" if self.flops is None else f", {_short(self.flops / self.steps)}FLOP a step"
        tokens = "unknown" if self.tokens is None else f"{self.tokens:,.0f}"
        return [
            f"{self.label}: {_seconds(self.seconds)} ({self.hours:.3g} h): {steps}{saves}",
            f"  work: {tokens} tokens, {_short(self.flops)}FLOP{each}",
            f"  memory: {_short(self.peak_bytes)}B at its peak; {_short(self.learning_bytes)}B of it for weights, "
            "gradients and optimiser",
            f"  energy: {self.kwh:.2g} kWh at {self.watts:.0f} W ({self.watts_from})",
            "  price: not known without a price an hour"
            if self.money is None
            else f"  price: {self.money:.4g} at {self.price_per_hour:g} an hour",
        ]

    def metrics(self) -> dict[str, float]:
        """For tracking."""
        return _named(
            {
                "predicted_seconds": self.seconds,
                "predicted_flops": self.flops,
                "flops_per_step": None if self.flops is None else self.flops / self.steps,
                "predicted_tokens": self.tokens,
                "predicted_kwh": self.kwh,
                "predicted_money": self.money,
                "predicted_peak_bytes": self.peak_bytes,
                "seconds_per_step": self.step_seconds,
            }
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "hours": self.hours, "kwh": self.kwh, "money": self.money}


@dataclass(frozen=True, kw_only=True)
class Spent(_Cost):
    """What a training took; see :class:`Budget` for the units.

    A resumed training counts as one: the seconds of its earlier processes up to the state that it went on from, and
    each step once.
    """

    label: str
    steps: int
    tokens: float | None
    flops: float | None
    peak_bytes: int | None

    def metrics(self) -> dict[str, float]:
        """For tracking."""
        return _named(
            {
                "spent_seconds": self.seconds,
                "flops": self.flops,
                "tokens": self.tokens,
                "spent_kwh": self.kwh,
                "spent_money": self.money,
                "peak_bytes": self.peak_bytes,
                "watts": self.watts,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Predicted beside spent.

    Attributes:
        error: ``predicted / spent - 1`` of the seconds; negative when it took longer than predicted.
        line: both, for the terminal.
        note: why to look twice; empty when there is no reason to.
    """

    error: float
    line: str
    note: str


def compare(predicted: Budget, spent: Spent) -> Compared:
    """How far off the seconds were."""
    error = predicted.seconds / spent.seconds - 1 if spent.seconds else 0.0
    line = f"{spent.label} took {_seconds(spent.seconds)}, predicted {_seconds(predicted.seconds)} ({error:+.0%})"
    note = ""
    if spent.steps < predicted.steps:
        note = f"it ended after {spent.steps:,} of {predicted.steps:,} steps"
    elif spent.seconds > LONG_SECONDS and abs(error) > LARGE_ERROR:
        note = f"more than {LARGE_ERROR:.0%} off: other work on the machine, or its clock, changed on the way"
    return Compared(error=error, line=f"{line}; {note}" if note else line, note=note)


def total(budgets: Sequence[Budget], label: str) -> Budget:
    """Several trainings on one machine, one after the other."""
    first = budgets[0]
    steps = sum(b.steps for b in budgets)
    return replace(
        first,
        label=label,
        steps=steps,
        tokens=_sum([b.tokens for b in budgets]),
        flops=_sum([b.flops for b in budgets]),
        seconds=sum(b.seconds for b in budgets),
        step_seconds=sum(b.step_seconds * b.steps for b in budgets) / steps,
        save_seconds=sum(b.save_seconds for b in budgets),
        learning_bytes=max(b.learning_bytes for b in budgets),
        peak_bytes=None if first.peak_bytes is None else max(b.peak_bytes or 0 for b in budgets),
    )


def totals(predicted: Sequence[Budget | None], spent: Sequence[Spent | None]) -> dict[str, float]:
    """``budget.total_...`` for a run of several trainings; a total is left out where a part is unknown."""
    return _named(
        {
            "total_predicted_seconds": _sum([None if b is None else b.seconds for b in predicted]),
            "total_spent_seconds": _sum([None if s is None else s.seconds for s in spent]),
            "total_flops": _sum([None if s is None else s.flops for s in spent]),
        }
    )


def priced(log: Log, rates: Rates) -> Log:
    """Passes metrics on to ``log``, with energy and money at the user's own rates beside all predicted and spent
    seconds."""

    def record(values: dict[str, float], step: int) -> None:
        own: dict[str, float] = {}
        for name, seconds in values.items():
            if name.endswith("budget.watts") and rates.watts is not None:
                own[name] = rates.watts
            what = name.removesuffix("_seconds")
            if what == name or "budget." not in name:
                continue
            if rates.watts is not None:
                own[f"{what}_kwh"] = seconds / 3600 * rates.watts / 1000
            if rates.price_per_hour is not None:
                own[f"{what}_money"] = seconds / 3600 * rates.price_per_hour
        log({**values, **own}, step)

    return record


def _sum(values: Sequence[float | None]) -> float | None:
    """Unknown as soon as one is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _named(values: Mapping[str, float | None]) -> dict[str, float]:
    return {f"budget.{name}": float(value) for name, value in values.items() if value is not None}


def _seconds(seconds: float) -> str:
    """1.2 ms, 3.4 s, 5.6 min or 7.8 h."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size or (unit == "s" and seconds >= 0.1):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms"


def _short(number: float | None) -> str:
    """12.3 G (with the space that a unit needs), or ``unknown``."""
    if number is None:
        return "unknown "
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
