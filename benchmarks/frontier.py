"""What do masks that choose buy? Probe quality against compute: random, adaptive and sparse masks, two kinds of data.

    OMP_NUM_THREADS=1 python benchmarks/frontier.py --cache FOLDER          # short trainings
    OMP_NUM_THREADS=1 python benchmarks/frontier.py --long --cache FOLDER   # the products' own masks

Each way trains from scratch with a budget of its own (a share of what the longest training with random masks costs) and
a schedule of that length. Compute is counted step by step from the tokens that were processed: the encoder's training
FLOPs, and those of tokenizer, encoder and decoder together. Runs are kept in ``--cache``.

Short: radiographs for 10 epochs in batches of 128, vibration for 600 steps. Adaptive: the places hidden follow their
errors, and the share grows as the error falls; share of each: only how much of each sequence is hidden follows its
foretold error.

Long: radiographs for 30 epochs in batches of 64, as in time_to_quality.py, vibration for 1,800 steps; every mask is
built by the product's own function with the product's settings. Adaptive: all three, places, schedule and share of
each. Prior: lungs first, bearing bands first. Sparse: half of the patches take part, half of those at random. Sparse
patches are as many at random.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import kinds
import numpy as np
import torch
from kinds import Kind
from tables import interval
from torch import nn

from unlabeled.core.batches import Batches
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.informed_masking import AdaptiveMask, SalientMask
from unlabeled.core.masking import Mask, RandomMask
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import GridPatches, Tokens
from unlabeled.core.training import TrainingSettings, fit
from unlabeled.medical import tasks as medical_tasks
from unlabeled.sensors import tasks as sensors_tasks

HERE = Path(__file__).parent
FULL, LESS, SPARSE = 1.0, 0.77, 0.35
FEMTO_HZ = 25_600.0
_COSTS = (("flops", "whole"), ("encoder_flops", "whole_encoder"))


class Spent(NamedTuple):
    """Training FLOPs so far."""

    encoder: float
    whole: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--kinds", nargs="+", default=["radiographs", "vibration"])
    parser.add_argument("--long", action="store_true", help="longer trainings with the products' masks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5], help="how many, for each of the kinds")
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    plan = LONG if given.long else SHORT
    rows: list[dict[str, Any]] = []
    for name, seeds in zip(given.kinds, given.seeds, strict=True):
        kind = replace(getattr(kinds, name)(given.data), **plan.longer[name])
        for seed in range(seeds):
            for way, shares in plan.ways.items():
                for share in shares:
                    path = given.cache / f"{plan.kept}{name}-{_slug(way)}-{share}-s{seed}.json"
                    if not path.exists():
                        found = {
                            "kind": name,
                            "way": way,
                            "share": share,
                            "seed": seed,
                            **run(plan, kind, way, share, seed),
                        }
                        write_atomically(path, json.dumps(found))
                    rows.append(json.loads(path.read_text()))
                    print(path.stem, rows[-1]["quality"], flush=True)
    write(given, plan, rows)


def _slug(way: str) -> str:
    return way.replace(", ", "-").replace(" ", "-")


def short_mask(kind: Kind, way: str, tokenizer: GridPatches, seed: int) -> Mask:
    usual, tokens = kind.ratio, tokenizer.tokens
    match way:
        case "random":
            return RandomMask(usual, seed=seed)
        case "adaptive":
            return AdaptiveMask(tokens, ratio=(usual - 0.1, usual + 0.1), spread=0.0, seed=seed)
        case "adaptive, share of each":
            return AdaptiveMask(tokens, ratio=(usual, usual), strength=0.0, seed=seed)
    chance = {"sparse": 0.2, "sparse, half random tokens": 0.5, "sparse, random tokens": 1.0}[way]
    return SalientMask(active=0.5, chance=chance, ratio=usual, seed=seed)


def product_mask(kind: Kind, way: str, tokenizer: GridPatches, seed: int) -> Mask:
    if way == "sparse, random patches":
        return SalientMask(active=0.5, chance=1.0, ratio=kind.ratio, seed=seed)
    radiographs = kind.name == "radiographs"
    masking: Any = {"prior": "lungs" if radiographs else "bearing"}.get(way, way)
    if radiographs:
        return medical_tasks.build_mask(tokenizer, masking=masking, ratio=kind.ratio, seed=seed)
    prior = sensors_tasks.bearing_prior(tokenizer.rows, tokenizer.columns, fs=FEMTO_HZ)
    return sensors_tasks.build_mask(tokenizer, masking=masking, ratio=kind.ratio, prior=prior, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``ways``: of each, the shares of the longest training's compute that it is given."""

    name: str
    kept: str  # before the names of kept runs
    ways: dict[str, tuple[float, ...]]
    mask: Callable[[Kind, str, GridPatches, int], Mask]
    longer: dict[str, dict[str, int]]


SHORT = Plan(
    name="frontier",
    kept="",
    ways={
        "random": (SPARSE, 0.5, LESS, FULL),
        "adaptive": (SPARSE, 0.5, LESS, FULL),
        "adaptive, share of each": (LESS,),
        "sparse": (0.15, SPARSE),
        "sparse, half random tokens": (SPARSE,),
        "sparse, random tokens": (SPARSE,),
    },
    mask=short_mask,
    longer={"radiographs": {}, "vibration": {}},
)
LONG = Plan(
    name="frontier-long",
    kept="long-",
    ways={
        "random": (SPARSE, LESS, FULL),
        "adaptive": (LESS, FULL),
        "prior": (LESS,),
        "sparse": (SPARSE,),
        "sparse, random patches": (SPARSE,),
    },
    mask=product_mask,
    longer={"radiographs": {"batch": 64, "steps": 30 * (4709 // 64)}, "vibration": {"steps": 1800}},
)


class Counted(MaskedReconstruction):
    """Masked reconstruction that adds up what its steps cost in training."""

    encoder_flops = 0.0
    flops = 0.0

    def loss(self, backbone: Backbone, batch: torch.Tensor, step: int) -> Any:
        seen: list[tuple[nn.Module, int, int]] = []

        def note(module: nn.Module, inputs: tuple[Tokens, ...]) -> None:
            seen.append((module, *inputs[0].x.shape[:2]))

        hooks = [m.register_forward_pre_hook(note) for m in (backbone.encoder, self.decoder)]
        found = super().loss(backbone, batch, step)
        for hook in hooks:
            hook.remove()
        for module, b, t in seen:
            assert isinstance(module, Encoder)
            each = 3.0 * b * t * module.depth * (24 * module.dim**2 + 4 * t * module.dim)
            self.flops += each
            self.encoder_flops += each if module is backbone.encoder else 0.0
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, GridPatches)
        self.flops += 6.0 * len(batch) * tokenizer.tokens * tokenizer.numbers * tokenizer.dim
        return found


def built(plan: Plan, kind: Kind, way: str, seed: int) -> tuple[Pretraining, Counted]:
    torch.manual_seed(derive(seed, "network"))
    tokenizer = kind.tokenizer()
    backbone = Backbone(tokenizer, Encoder(**kind.encoder))  # type: ignore[arg-type]
    mask = plan.mask(kind, way, tokenizer, derive(seed, "mask"))
    task = Counted(tokenizer, mask=mask, normalise=kind.normalise, **kind.decoder)
    return Pretraining(backbone, task), task


def cost_of_a_step(plan: Plan, kind: Kind, way: str) -> Spent:
    """Training FLOPs at the start."""
    module, task = built(plan, kind, way, 0)
    with torch.no_grad():
        task.loss(module.backbone, kind.noise(), 0)
    return Spent(task.encoder_flops, task.flops)


def run(plan: Plan, kind: Kind, way: str, share: float, seed: int) -> dict[str, Any]:
    """One training with a share of the compute of the longest: of the encoder's for adaptive masks, which is what they
    save; of all for sparse ones."""
    full = cost_of_a_step(plan, kind, "random")
    own = cost_of_a_step(plan, kind, "random" if way.startswith("adaptive") else way)
    steps = max(1, round(kind.steps * share * (full.whole / own.whole)))
    module, task = built(plan, kind, way, seed)
    untrained = kind.quality(module.backbone)
    batches = Batches(kind.inputs, batch_size=kind.batch, seed=derive(seed, "pretrain"), transform=kind.transform)
    module.train()
    fit(module, batches, settings=TrainingSettings(steps=steps, lr=1e-3, device="cpu"), seed=seed)
    return {
        "steps": steps,
        "encoder_flops": task.encoder_flops,
        "flops": task.flops,
        "whole": full.whole * kind.steps,
        "whole_encoder": full.encoder * kind.steps,
        "untrained": untrained,
        "quality": kind.quality(module.backbone),
    }


def write(given: argparse.Namespace, plan: Plan, rows: list[dict[str, Any]]) -> None:
    options = (
        f"{'--long ' if given.long else ''}--kinds {' '.join(given.kinds)} --seeds {' '.join(map(str, given.seeds))}"
    )
    content = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/frontier.py {options} --cache FOLDER",
        "hardware": describe_hardware(),
        "rows": rows,
        "adaptive_reaches_at": {name: reached(plan, [r for r in rows if r["kind"] == name]) for name in given.kinds},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / f"{plan.name}.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / f"{plan.name}.md", markdown(plan, content))
    print(markdown(plan, content))


def reached(plan: Plan, rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Seed by seed: encoder FLOPs at which adaptive masks reach what random ones end with, as a share of what those
    took, or ``None`` where they never do."""
    found: dict[str, list[float | None]] = {way: [] for way in plan.ways if way.startswith(("random", "adaptive"))}
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        end = next(row for row in own if row["way"] == "random" and row["share"] == FULL)
        for way, shares in found.items():
            curve = sorted((r["encoder_flops"] / end["encoder_flops"], r["quality"]) for r in own if r["way"] == way)
            shares.append(next((x for x, y in curve if y >= end["quality"]), None))
    return found


def markdown(plan: Plan, content: dict[str, Any]) -> str:
    assert __doc__ is not None
    assert kinds.__doc__ is not None
    parts = __doc__.split("\n\n")
    about = [parts[2], parts[3 if plan is SHORT else 4], kinds.__doc__.split("\n\n")[1]]
    lines = ["# Masks that choose: quality against compute", "", f"`{content['command']}`", ""]
    lines += [" ".join(part.split()) for part in about]
    lines += [f"Means with Student's 95 % interval over seeds. Hardware: {content['hardware']}.", ""]
    for name, ways in content["adaptive_reaches_at"].items():
        rows = [row for row in content["rows"] if row["kind"] == name]
        lines += [f"## {name.capitalize()}, {len({row['seed'] for row in rows})} seeds", "", *_table(plan, rows), ""]
        lines += [
            "Where they reach what random masks end with (asked: at 77 % of their encoder FLOPs), by seed; that random "
            "masks are there early themselves shows how much of this is chance:",
            "",
        ]
        for way, shares in ways.items():
            lines.append(f"- {way}: " + ", ".join("never" if x is None else f"at {x:.0%}" for x in shares))
        lines.append("")
    return "\n".join(lines)


def _table(plan: Plan, rows: list[dict[str, Any]]) -> list[str]:
    """Kept is the mean gain as a share of the mean gain of the longest training with random masks, where that gained
    anything."""
    lines = [
        "| masks | compute, all | compute, encoder | quality | minus random's 100 % | "
        "minus random's at the same budget | gain over untrained | kept |",
        "|" + "---|" * 8,
    ]
    first = [r for r in rows if (r["way"], r["share"]) == ("random", FULL)]
    full = np.mean([r["quality"] - r["untrained"] for r in first])
    lines.append(f"| untrained | 0 | 0 | {interval([r['untrained'] for r in first])} | | | | |")
    for way, shares in plan.ways.items():
        for share in shares:
            own = [r for r in rows if (r["way"], r["share"]) == (way, share)]
            whole, encoder = (np.mean([r[n] / r[m] for r in own]) for n, m in _COSTS)
            less = [r["quality"] - end["quality"] for r, end in zip(own, first, strict=True)]
            like = [r for r in rows if (r["way"], r["share"]) == ("random", share)]
            beside = [r["quality"] - other["quality"] for r, other in zip(own, like, strict=False)]
            gains = [r["quality"] - r["untrained"] for r in own]
            lines.append(
                f"| {way} | {whole:.0%} | {encoder:.0%} | {interval([r['quality'] for r in own])} | "
                f"{'' if own == first else interval(less, sign='+')} | "
                f"{interval(beside, sign='+') if like and own != like else ''} | "
                f"{interval(gains, sign='+')} | {f'{np.mean(gains) / full:.0%}' if full > 0 else ''} |"
            )
    if full <= 0:
        lines += [
            "",
            "The longest training with random masks ended below no training at all: to reach it says nothing.",
        ]
    return lines


if __name__ == "__main__":
    main()
