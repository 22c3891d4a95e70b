"""What every job hands back: one sentence, the comparison with its baselines, and where to look."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import Estimate


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One number of ours beside the baselines' on the same unseen data.

    Attributes:
        metric: name with unit, e.g. ``AUROC`` or ``lead time (h)``.
        ours: our value, with its interval where there is one.
        baselines: by name.
        higher_is_better: which direction is a gain.
    """

    metric: str
    ours: Estimate | float
    baselines: Mapping[str, Estimate | float]
    higher_is_better: bool = True

    def gain(self) -> tuple[str, float]:
        """The strongest baseline's name, and ours minus it (positive is better)."""
        name = min(self.baselines, key=self.gain_over)
        return name, self.gain_over(name)

    def gain_over(self, name: str) -> float:
        """Ours minus one baseline (positive is better)."""
        sign = 1.0 if self.higher_is_better else -1.0
        return sign * (number(self.ours) - number(self.baselines[name])) + 0.0  # never -0.0

    def everything(self) -> dict[str, Estimate | float]:
        """Ours and the baselines, by name."""
        return {"ours": self.ours, **self.baselines}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a job.

    Attributes:
        headline: one plain sentence: what was done and what came out, good or bad.
        comparisons: ours beside the baselines; empty where a job compares nothing (a pretraining).
        files: what was written, by name (``report``, ``model``, ``scores``...).
        run_id: the tracked run.
        lines: further plain lines under the headline.
        details: further figures for ``--json``; plain JSON values.
        passed: ``False`` when the data or the model failed a gate (exit code 1).
    """

    headline: str
    comparisons: list[Comparison] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    run_id: str | None = None
    lines: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    passed: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "headline": self.headline,
            "passed": self.passed,
            "comparisons": [
                {
                    "metric": c.metric,
                    "ours": _plain(c.ours),
                    "baselines": {name: _plain(value) for name, value in c.baselines.items()},
                    "higher_is_better": c.higher_is_better,
                }
                for c in self.comparisons
            ],
            "files": {name: str(path) for name, path in self.files.items()},
            "run_id": self.run_id,
            **self.details,
        }


def percentiles(values: NDArray[np.float64]) -> list[float]:
    """The 0th to the 100th percentile of scores: one curve that can be laid over another day's."""
    return [float(value) for value in np.nanpercentile(values, np.arange(101))]


def number(value: Estimate | float) -> float:
    return value.value if isinstance(value, Estimate) else float(value)


def _plain(value: Estimate | float) -> Any:
    """JSON has no nan: an absent bound is null."""

    def finite(x: float) -> float | None:
        return x if x == x and abs(x) != float("inf") else None

    if isinstance(value, Estimate):
        return {"value": finite(value.value), "low": finite(value.low), "high": finite(value.high)}
    return finite(float(value))


def plain_folder(name: str, *, kind: str, reserved: str) -> str:
    """A name that a user gave as a plain folder name, which cannot lead out of the folder that it is put in; one that
    had to be changed ends in a few letters of its digest, so that no two share a folder.

    Args:
        kind: what bears the name, for one of which nothing is left.
        reserved: how no name may begin.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")
    taken = plain.startswith(reserved)
    if plain == name and plain and not taken:
        return plain
    return f"{f'{kind}-' if taken else ''}{plain or kind}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
