"""Which pretext task, which of its settings and which prior of fields teach most about fraud, after as many steps?

    OMP_NUM_THREADS=1 python benchmarks/fraud_tasks.py --data DATA --cache FOLDER   # DATA holds sparkov-sample/

Validation only: habits are learnt without labels from the payments before July 2022, 50 labelled frauds (and twenty
times as many genuine payments) are drawn from the same time, and July and August are judged. The test part, from
September on, is not looked at. All ways have the same encoder, steps, batches and label draws. Results of every
(way, seed) are kept in ``--cache``, so that an interrupted run goes on.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from tables import interval

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import average_precision
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.fraud import FraudDetector, Size, Transactions, history_model, read_table, transactions
from unlabeled.fraud.baselines import LightGBM
from unlabeled.fraud.blend import Blend
from unlabeled.fraud.features import stacked
from unlabeled.fraud.labels import few
from unlabeled.fraud.tasks import Masking, Task, build_task, importance

HERE = Path(__file__).parent
JULY, SEPTEMBER = (np.datetime64(day, "s").astype(np.int64) for day in ("2022-07-01", "2022-09-01"))
FRAUDS, DRAWS = 50, 5


@dataclass(frozen=True, kw_only=True)
class Way:
    """A task and its settings; ``what`` is the weight of the fields that matter, the others as for ``build_task``."""

    task: Task = "events"
    what: float = 1.0
    weight: float = 0.1
    temperature: float = 0.2
    ratio: float = 0.25
    augmentation: float = 1.0
    run: bool = False
    vicreg: tuple[float, float, float] = (25.0, 25.0, 1.0)

    @property
    def masking(self) -> Masking:
        return "run" if self.run else "random" if self.what == 1 else "fields"


# The first is what the others are compared with.
WAYS = {
    "events, random fields": Way(),
    "events, fields that matter first, 3 : 1": Way(what=3.0),
    "events, fields that matter first, 10 : 1": Way(what=10.0),
    "events+contrastive, weight 0.03": Way(task="events+contrastive", weight=0.03),
    "events+contrastive, weight 0.1, temperature 0.2": Way(task="events+contrastive"),
    "events+contrastive, weight 0.3": Way(task="events+contrastive", weight=0.3),
    "events+contrastive, temperature 0.1": Way(task="events+contrastive", temperature=0.1),
    "events+contrastive, temperature 0.5": Way(task="events+contrastive", temperature=0.5),
    "events+contrastive, augmentation 0.5": Way(task="events+contrastive", augmentation=0.5),
    "events+contrastive, augmentation 2": Way(task="events+contrastive", augmentation=2.0),
    "events+order, weight 0.03": Way(task="events+order", weight=0.03),
    "events+order, weight 0.1": Way(task="events+order"),
    "events+order, weight 0.3": Way(task="events+order", weight=0.3),
    "events+tokens, ratio 0.15": Way(task="events+tokens", ratio=0.15),
    "events+tokens, ratio 0.25": Way(task="events+tokens"),
    "events+tokens, ratio 0.5": Way(task="events+tokens", ratio=0.5),
    "events+tokens, a run of payments": Way(task="events+tokens", run=True),
    "events+tokens, a run of payments, ratio 0.5": Way(task="events+tokens", run=True, ratio=0.5),
    "events+vicreg, weight 0.03": Way(task="events+vicreg", weight=0.03),
    "events+vicreg, weight 0.1": Way(task="events+vicreg"),
    "events+vicreg, weight 0.1, 5 : 25 : 1": Way(task="events+vicreg", vicreg=(5.0, 25.0, 1.0)),
    "events+vicreg, augmentation 0.5": Way(task="events+vicreg", augmentation=0.5),
    "events+vicreg, augmentation 2": Way(task="events+vicreg", augmentation=2.0),
}
# What each task's other settings are compared with beside the first row.
USUAL = {
    "events+contrastive": "events+contrastive, weight 0.1, temperature 0.2",
    "events+order": "events+order, weight 0.1",
    "events+tokens": "events+tokens, ratio 0.25",
    "events+vicreg": "events+vicreg, weight 0.1",
}
MEASURES = {"few": f"AP, {FRAUDS} labelled frauds", "none": "AP, no labels"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data/transactions")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    table = read(given.data)
    size = Size(dim=48, length=48, steps=given.steps)
    rows: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        rows += [cached(given.cache, name, seed, size, table) for name in WAYS]
        write(given.out, rows, size, table)


def read(data: Path) -> Transactions:
    """Payments before the test part."""
    table = transactions(read_table(data / "sparkov-sample" / "tx_200cust_2022.parquet"))
    return table.take(table.time < SEPTEMBER)


def cached(cache: Path, name: str, seed: int, size: Size, table: Transactions) -> dict[str, Any]:
    path = cache / f"{name.translate(str.maketrans(' ,:', '---'))}-{size.steps}-s{seed}.json"
    if not path.exists():
        path.write_text(json.dumps(run(name, seed, size, table)))
        print(path.read_text(), flush=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def run(name: str, seed: int, size: Size, table: Transactions) -> dict[str, Any]:
    way = WAYS[name]
    past = table.time < JULY
    known = table.with_labels(np.where(past, table.label, -1))
    detector = FraudDetector(
        size=size, task=way.task, masking=way.masking, mask_ratio=way.ratio, temperature=way.temperature,
        augmentation=way.augmentation, random_state=seed,
    )  # fmt: skip
    settings = {name: getattr(way, name) for name in ("weight", "vicreg")}
    # Which the detector does not offer.
    with (
        patch.object(history_model, "build_task", partial(build_task, **settings)),
        patch.object(history_model, "importance", partial(importance, what=way.what)),
    ):
        detector.pretrain(known.take(past))
    return {
        "name": name,
        "seed": seed,
        "steps": {kind: history.steps for kind, history in detector.history_.items()},
        # LightGBM reads nothing that was learnt: once is enough.
        **judge(detector, table, baseline=(name, seed) == (next(iter(WAYS)), 0)),
    }


def judge(detector: FraudDetector, table: Transactions, *, baseline: bool = False) -> dict[str, list[float]]:
    """Average precisions over July and August: with each draw of few labels, with none, and LightGBM's."""
    past, judged = table.time < JULY, np.flatnonzero(table.time >= JULY)
    known = table.with_labels(np.where(past, table.label, -1))
    # The same draws whatever was learnt.
    draws = [few(known.label, frauds=FRAUDS, seed=draw) for draw in range(DRAWS)]
    wanted = np.union1d(judged, np.flatnonzero(np.any([draw >= 0 for draw in draws], axis=0)))
    hidden = table.with_labels(np.full(len(table), -1))
    learnt, _ = detector.features(hidden, wanted)
    plain = {key: values[wanted] for key, values in detector.plain_columns(hidden).items()}
    rarity, x, x_plain = detector.unsupervised_.score(learnt), stacked(learnt), stacked(plain)
    at = np.searchsorted(wanted, judged)
    truth = table.label[judged]
    ours, theirs = [], []
    for number, draw in enumerate(draws):
        chosen = np.flatnonzero(draw[wanted] >= 0)
        y = draw[wanted][chosen]
        fitted = Blend(seed=number).fit(x[chosen], rarity[chosen], y)
        ours.append(average_precision(truth, fitted.score(x[at], rarity[at])))
        if baseline:
            theirs.append(average_precision(truth, LightGBM(seed=number).fit(x_plain[chosen], y).score(x_plain[at])))
    return {"few": ours, "none": [average_precision(truth, rarity[at])], "lightgbm": theirs}


def write(out: Path, rows: list[dict[str, Any]], size: Size, table: Transactions) -> None:
    seeds = 1 + max(row["seed"] for row in rows)
    past = table.time < JULY
    content = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/fraud_tasks.py "
        f"--steps {size.steps} --seeds {seeds} --data DATA --cache FOLDER",
        "hardware": describe_hardware() | {name: version(name) for name in ("lightgbm", "numpy", "unlabeled")},
        "size": asdict(size),
        "payments": {"learnt from": int(past.sum()), "judged": int((~past).sum())},
        "frauds": {"to draw from": int(table.label[past].sum()), "judged": int(table.label[~past].sum())},
        "label_draws": DRAWS,
        "rows": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "fraud_tasks.json", json.dumps(content, indent=1) + "\n")
    write_atomically(out / "fraud_tasks.md", markdown(content, seeds))


def markdown(content: dict[str, Any], seeds: int) -> str:
    size, payments, frauds = content["size"], content["payments"], content["frauds"]
    rows: list[dict[str, Any]] = content["rows"]
    steps = ", ".join(f"{count} for {kind}" for kind, count in rows[0]["steps"].items())
    hardware = content["hardware"]
    lines = [
        "# Pretext tasks on card payments after the same number of steps",
        "",
        f"`{content['command']}`",
        "",
        f"sparkov-sample, validation: habits from {payments['learnt from']:,} payments before July 2022 without "
        f"labels, {payments['judged']:,} payments of July and August judged ({frauds['judged']} frauds); the test part "
        f"was not looked at. Encoder of width {size['dim']}, depth {size['depth']}, windows of {size['length']} "
        f"payments, {size['batch_size']} a batch; steps: {steps}. A short training: it says which way teaches early, "
        f"not which ends highest. Average precision (AP); with labels, each seed is the mean over "
        f"{content['label_draws']} label draws, the same for every seed and way. Mean over {seeds} seeds with "
        "Student's 95 % interval over seeds (it leaves out how much the draws differ), and differences to the first "
        "row, seed by seed. "
        f"{hardware['hardware.processor']}, {hardware['hardware.threads']} thread of "
        f"{hardware['hardware.cores']} cores; Python {hardware['python']}, torch {hardware['torch']}, "
        f"lightgbm {hardware['lightgbm']}.",
        "",
        "| task | " + " | ".join(f"{title} | difference" for title in MEASURES.values()) + " |",
        "|" + "---|" * (1 + 2 * len(MEASURES)),
    ]
    first = {key: _values(rows, next(iter(WAYS)), key) for key in MEASURES}
    for name in WAYS:
        cells = []
        for key in MEASURES:
            own = _values(rows, name, key)
            cells += [interval(own), "" if name == next(iter(WAYS)) else interval(own - first[key], sign="+")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    plain = np.mean(rows[0]["lightgbm"])
    lines += ["", f"LightGBM on the plain features with the same labels, mean over the draws: {plain:.3f}."]
    lines += ["", "Beside each task's own default, differences seed by seed:", ""]
    lines += ["| task | " + " | ".join(MEASURES.values()) + " |", "|" + "---|" * (1 + len(MEASURES))]
    for name, way in WAYS.items():
        if (usual := USUAL.get(way.task, name)) != name:
            gains = [_values(rows, name, key) - _values(rows, usual, key) for key in MEASURES]
            lines.append(f"| {name} | " + " | ".join(interval(gain, sign="+") for gain in gains) + " |")
    return "\n".join(lines) + "\n"


def _values(rows: list[dict[str, Any]], name: str, key: str) -> NDArray[np.float64]:
    return np.array([np.mean(row[key]) for row in rows if row["name"] == name])


if __name__ == "__main__":
    main()
