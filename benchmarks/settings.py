"""Which value of a task's own setting teaches most? The defaults of the pretext tasks, by kind of data.

    OMP_NUM_THREADS=1 python benchmarks/settings.py --cache FOLDER

Every row trains the same small encoder (64 x 3) on the same data without labels, all values of one setting for the
same training FLOPs (those of the default over ``steps`` steps), three seeds each. Quality is that of frontier.py:
radiographs, validation AUROC of a logistic regression on the frozen mean token with 250 labels; vibration, AUROC of
late against earlier life on bearings that gave no labels, which looks at how runs ended, so no default is chosen by it.
The official test part is not looked at. The budgets differ from setting to setting, so that rows compare within one
setting only. Runs are kept in ``--cache``.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import kinds
import torch
from tables import interval
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unlabeled.core.batches import Batches
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.informed_masking import AdaptiveMask, Salience, SalientMask
from unlabeled.core.masking import BlockMask, RandomMask
from unlabeled.core.pretext import (
    Joint,
    MaskedReconstruction,
    NextPatch,
    NTXent,
    OrderPrediction,
    Pretext,
    Pretraining,
    VICReg,
)
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import TrainingSettings, fit
from unlabeled.core.views import PictureView, SignalView

HERE = Path(__file__).parent
DIM, DEPTH, HEADS, DECODER = 64, 3, 4, {"dim": 32, "depth": 1, "heads": 4}
Make = Callable[[GridPatches, float, int], Pretext]
View = Callable[[Tensor, torch.Generator], Tensor]
SALIENCE: tuple[str, ...] = get_args(Salience)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of one task: the values that are tried, the task's own default, and what a run is given."""

    values: tuple[float, ...]
    default: float
    make: Make
    steps: int = 240  # with the default
    patch: tuple[int, int] | None = None  # where it is not the kind's own
    causal: bool = False
    words: tuple[str, ...] = ()  # what the values stand for, where they are numbers of choices


def masked(
    tokenizer: GridPatches, ratio: float, seed: int, *, raw: bool = False, predicted: float = 1.0
) -> MaskedReconstruction:
    mask = RandomMask(ratio, seed=seed)
    return MaskedReconstruction(tokenizer, mask=mask, normalise=not raw, predicted=predicted, **DECODER)


def gap(shape: Any, blocks: int, *, raw: bool) -> Make:
    def make(tokenizer: GridPatches, ratio: float, seed: int) -> Pretext:
        mask = BlockMask((tokenizer.rows, tokenizer.columns), ratio=ratio, blocks=blocks, shape=shape, seed=seed)
        return MaskedReconstruction(tokenizer, mask=mask, normalise=not raw, **DECODER)

    return make


def decoder(width: float, tokenizer: GridPatches, ratio: float, seed: int, *, raw: bool) -> MaskedReconstruction:
    size = {**DECODER, "dim": int(width)}
    return MaskedReconstruction(tokenizer, mask=RandomMask(ratio, seed=seed), normalise=not raw, **size)


def adaptive(ratio: float, what: str, *, raw: bool) -> Make:
    """``strength``: by how much the draw follows what is hard; ``spread``: how much less of a hard item is hidden."""

    def make(tokenizer: GridPatches, value: float, seed: int) -> Pretext:
        around = (ratio - 0.1, ratio + 0.1)
        mask = AdaptiveMask(tokenizer.tokens, ratio=around, seed=seed, **{what: value})
        return MaskedReconstruction(tokenizer, mask=mask, normalise=not raw, **DECODER)

    return make


def sparse(ratio: float, given: Callable[[float], dict[str, Any]], *, raw: bool) -> Make:
    def make(tokenizer: GridPatches, value: float, seed: int) -> Pretext:
        mask = SalientMask(ratio=ratio, seed=seed, **given(value))
        return MaskedReconstruction(tokenizer, mask=mask, normalise=not raw, **DECODER)

    return make


def of_both(view: Callable[[float], View], ratio: float, *, raw: bool, unit: Any) -> dict[str, Setting]:
    """What both kinds of data are asked alike."""

    def vicreg(weight: float, seed: int) -> Pretext:
        return VICReg(DIM, view=view(1.0), invariance=weight, variance=weight, covariance=1.0, seed=seed)

    return {
        "masked: target standardised": Setting(
            values=(0.0, 1.0), default=float(not raw), make=lambda t, yes, seed: masked(t, ratio, seed, raw=not yes)
        ),
        "masked: width of the decoder": Setting(
            values=(16, 32, 64), default=32, make=lambda t, width, seed: decoder(width, t, ratio, seed, raw=raw)
        ),
        "masked: share of the hidden patches that is predicted": Setting(
            values=(0.25, 0.5, 1.0),
            default=1.0,
            make=lambda t, share, seed: masked(t, ratio, seed, raw=raw, predicted=share),
        ),
        "adaptive: strength": Setting(values=(0.0, 0.5, 1.0), default=0.5, make=adaptive(ratio, "strength", raw=raw)),
        "adaptive: spread": Setting(values=(0.0, 0.1, 0.3), default=0.1, make=adaptive(ratio, "spread", raw=raw)),
        "sparse: share that takes part": Setting(
            values=(0.25, 0.5, 0.75), default=0.5, make=sparse(ratio, lambda share: {"active": share}, raw=raw)
        ),
        "sparse: salience": Setting(
            values=tuple(range(len(SALIENCE))),
            default=0,
            make=sparse(ratio, lambda number: {"salience": SALIENCE[int(number)]}, raw=raw),
            words=SALIENCE,
        ),
        "VICReg: invariance and variance to 1 of covariance": Setting(
            values=(5.0, 25.0, 100.0), default=25.0, make=lambda _, weight, seed: vicreg(weight, seed), steps=100
        ),
        "order: share that changes places": Setting(
            values=(0.25, 0.5, 1.0),
            default=0.5,
            make=lambda _, share, seed: OrderPrediction(DIM, unit=unit, share=share, seed=seed),
            steps=100,
            patch=(8, 1) if unit == "segment" else None,
        ),
    }


def two_views(view: Callable[[float], View], strengths: tuple[float, ...]) -> dict[str, Setting]:
    """The contrastive tasks, with views by their strength (1: the default)."""
    return {
        "NT-Xent: temperature": Setting(
            values=(0.1, 0.2, 0.5),
            default=0.2,
            make=lambda _, t, seed: NTXent(DIM, view=view(1.0), temperature=t, seed=seed),
            steps=100,
        ),
        "NT-Xent: strength of the views": Setting(
            values=strengths,
            default=1.0,
            make=lambda _, s, seed: NTXent(DIM, view=view(s), temperature=0.2, seed=seed),
            steps=100,
        ),
        "VICReg: strength of the views": Setting(
            values=strengths, default=1.0, make=lambda _, s, seed: VICReg(DIM, view=view(s), seed=seed), steps=100
        ),
    }


def beside(name: str, ratio: float, second: Callable[[int], Pretext], *, raw: bool) -> Setting:
    """Masked reconstruction and a second task, by the weight of the second."""
    return Setting(
        values=(0.03, 0.1, 0.3),
        default=0.1,
        make=lambda tokenizer, weight, seed: Joint(
            {"masked": (masked(tokenizer, ratio, seed, raw=raw), 1.0), name: (second(seed), weight)}
        ),
        steps=100,
    )


RADIOGRAPHS = {
    "masked: share hidden": Setting(values=(0.5, 0.6, 0.75, 0.85, 0.9), default=0.75, make=masked),
    "inpainting, two blocks: share hidden": Setting(
        values=(0.25, 0.4, 0.6, 0.75), default=0.4, make=gap("block", 2, raw=False)
    ),
    **two_views(PictureView.of_strength, (0.5, 1.0, 1.5)),
    "masked and NT-Xent: weight of the second": beside(
        "contrastive", 0.75, lambda seed: NTXent(DIM, view=PictureView(), temperature=0.2, seed=seed), raw=False
    ),
    **of_both(PictureView.of_strength, 0.75, raw=False, unit="patch"),
}
VIBRATION = {
    "masked: share hidden": Setting(
        values=(0.4, 0.6, 0.75, 0.85), default=0.6, make=lambda t, r, seed: masked(t, r, seed, raw=True)
    ),
    "gap in time: share hidden": Setting(
        values=(0.2, 0.4, 0.6), default=0.6, make=gap("time", 1, raw=True), patch=(8, 1)
    ),
    "gap in frequency: share hidden": Setting(values=(0.2, 0.4, 0.6), default=0.6, make=gap("band", 1, raw=True)),
    **two_views(SignalView.of_strength, (0.5, 1.0, 2.0)),
    "NT-Xent: largest shift in time": Setting(
        values=(0.0, 0.25, 0.5),
        default=0.5,
        make=lambda _, shift, seed: NTXent(DIM, view=SignalView(shift=shift), temperature=0.2, seed=seed),
        steps=100,
    ),
    "masked and VICReg: weight of the second": beside(
        "vicreg", 0.6, lambda seed: VICReg(DIM, view=SignalView(), seed=seed), raw=True
    ),
    **of_both(SignalView.of_strength, 0.6, raw=True, unit="segment"),
    "next patch: target standardised": Setting(
        values=(0.0, 1.0),
        default=0.0,
        make=lambda t, normalise, seed: NextPatch(t, order="time", normalise=bool(normalise)),
        patch=(8, 1),
        causal=True,
        steps=120,
    ),
}
KINDS: dict[str, dict[str, Setting]] = {"radiographs": RADIOGRAPHS, "vibration": VIBRATION}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for kind_name in given.kinds:
        kind = getattr(kinds, kind_name)(given.data)
        usual = kind.tokenizer()
        for seed in range(given.seeds):
            for name, setting in KINDS[kind_name].items():
                kind = replace(kind, tokenizer=_narrow(usual, setting.patch or usual.patch))
                for value in setting.values:
                    about = {"kind": kind_name, "setting": name, "value": value, "seed": seed}
                    path = given.cache / f"{kind_name}-{_slug(name)}-{value:g}-s{seed}.json"
                    if not path.exists():
                        write_atomically(path, json.dumps({**about, **run(kind, setting, value, seed)}))
                    rows.append(json.loads(path.read_text()))
                    print(kind_name, name, value, seed, rows[-1]["quality"], flush=True)
    write(given, rows)


def _narrow(tokenizer: GridPatches, patch: tuple[int, ...]) -> Callable[[], GridPatches]:
    (height, width), (high, wide) = tokenizer.grid, patch
    return lambda: GridPatches(grid=(height, width), patch=(high, wide), dim=DIM, channels=tokenizer.channels)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def build(kind: kinds.Kind, setting: Setting, value: float, seed: int) -> Pretraining:
    torch.manual_seed(derive(seed, "network"))
    tokenizer = kind.tokenizer()
    backbone = Backbone(tokenizer, Encoder(dim=DIM, depth=DEPTH, heads=HEADS, causal=setting.causal))
    return Pretraining(backbone, setting.make(tokenizer, value, derive(seed, "task")))


def flops_of(kind: kinds.Kind, setting: Setting, value: float) -> float:
    """Training FLOPs of one step: three times the forward pass's."""
    module = build(kind, setting, value, 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module((kind.noise(),), 0)
    return 3.0 * counter.get_total_flops()


class Reader(torch.nn.Module):
    """A backbone as its task reads it: in the order that was learnt."""

    def __init__(self, module: Pretraining) -> None:
        super().__init__()
        self.module = module

    def embed(self, batch: Tensor) -> Tensor:
        return self.module.pretext.embed(self.module.backbone, batch)


def run(kind: kinds.Kind, setting: Setting, value: float, seed: int) -> dict[str, Any]:
    steps = round(setting.steps * flops_of(kind, setting, setting.default) / flops_of(kind, setting, value))
    module = build(kind, setting, value, seed)
    read: Any = Reader(module) if setting.causal else module.backbone
    untrained = kind.quality(read)
    batches = Batches(kind.inputs, batch_size=kind.batch, seed=derive(seed, "pretrain"), transform=kind.transform)
    module.train()
    fit(module, batches, settings=TrainingSettings(steps=steps, lr=1e-3, device="cpu"), seed=seed)
    return {"steps": steps, "untrained": untrained, "quality": kind.quality(read)}


def write(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    content = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/settings.py --kinds {' '.join(given.kinds)} "
        f"--seeds {given.seeds} --cache FOLDER",
        "hardware": describe_hardware(),
        "rows": rows,
    }
    assert __doc__ is not None
    lines = ["# Settings of the pretext tasks", "", f"`{content['command']}`", ""]
    lines += [" ".join(__doc__.split("\n\n")[2].split()), ""]
    lines += [f"Mean and Student's 95 % interval over seeds. Hardware: {content['hardware']}.", ""]
    for kind in given.kinds:
        own = [row for row in rows if row["kind"] == kind]
        lines += [f"## {kind.capitalize()}", ""]
        lines += ["| setting | value | steps | quality | minus the default, seed by seed |", "|" + "---|" * 5]
        first = [row["untrained"] for row in own if row["setting"] == next(iter(KINDS[kind]))]
        lines.append(f"| untrained | | 0 | {interval(first[:: len(next(iter(KINDS[kind].values())).values)])} | |")
        for name, setting in KINDS[kind].items():
            found = {v: [r for r in own if (r["setting"], r["value"]) == (name, v)] for v in setting.values}
            for value, runs in found.items():
                quality = [row["quality"] for row in runs]
                usual = [row["quality"] for row in found[setting.default]]
                better = [q - u for q, u in zip(quality, usual, strict=True)]
                shown = "default" if value == setting.default else interval(better, sign="+")
                named = setting.words[int(value)] if setting.words else f"{value:g}"
                lines.append(f"| {name} | {named} | {runs[0]['steps']} | {interval(quality)} | {shown} |")
        lines.append("")
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "settings.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / "settings.md", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
