"""All three verticals, end to end, on data made on the spot."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines import fraud, medical, sensors_replay
from unlabeled.pipelines.jobs import Comparison, Outcome

MARK = ".unlabeled-demo"
ROOMS: dict[str, Callable[..., Outcome]] = {
    "medical": medical.demo,
    "sensors": sensors_replay.demo,
    "fraud": fraud.demo,
}


def run(out: Path, *, seed: int = 0) -> Outcome:
    """Runs each vertical's demo into a folder of its own and gathers what was gained over the baselines.

    Args:
        out: folder for models, scores and reports; what an earlier demo wrote there is replaced.
        seed: fixes the simulated data and the training.

    Raises:
        DataError: the folder holds something else than an earlier demo.
    """
    _claim(out)
    began = time.monotonic()
    comparisons: list[Comparison] = []
    files: dict[str, Path] = {}
    details = {}
    for name, job in ROOMS.items():
        say(f"{name} (synthetic data)")
        outcome = job(out / name, seed=seed)
        say(f"  {outcome.headline}")
        comparisons += [dataclasses.replace(c, metric=f"{name}: {c.metric}") for c in outcome.comparisons]
        files[f"{name} report"] = outcome.files["report"]
        details[name] = outcome.to_json()
    took = time.monotonic() - began
    headline = (
        f"All three verticals ran on synthetic data in {took:.0f} s. Open the reports below in a browser; "
        "'unlabeled ui' shows the tracked runs; 'unlabeled medical --help' (or sensors, fraud) starts on your own data."
    )
    return Outcome(headline=headline, comparisons=comparisons, files=files, details={"seconds": took, "rooms": details})


def _claim(out: Path) -> None:
    """What a demo replaces must have been made by a demo."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).exists())):
        raise DataError(f"{out} exists and was not made by a demo: name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
