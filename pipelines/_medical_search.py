"""``unlabeled medical search``: which settings of a pretraining make the best features for few labels?"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from unlabeled.core import tracking
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.report import OURS, Report, Verdict, new_figure
from unlabeled.core.search import Range, Tried
from unlabeled.core.search import Report as Told
from unlabeled.core.search import search as search_core
from unlabeled.medical._finetuning import NUISANCE, Labelled, fit_probe
from unlabeled.medical._network import embeddings
from unlabeled.medical.images import PNEUMONIA, ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import hold_out
from unlabeled.medical.tasks import Masking
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines._medical_input import Parts, divide, read
from unlabeled.pipelines.jobs import Outcome

EXPERIMENT = "unlabeled/medical"
# Of the labelled patients that may be learnt from, where there is no validation part.
JUDGING_SHARE = 1 / 3
SPACE = {
    "mask_ratio": Range(0.4, 0.9),
    "temperature": Range(0.05, 1.0, log=True),
    "augmentation": Range(0.25, 1.75),
}
OPTIONS = {"mask_ratio": "--mask-ratio", "temperature": "--temperature", "augmentation": "--augmentation"}


def search(
    source: Path,
    *,
    out: Path,
    labels: Path | None = None,
    size: int = 64,
    epochs: int = 10,
    trials: int = 20,
    task: str = "masked",
    masking: Masking = "random",
    finding: str = PNEUMONIA,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Tries settings of the pretraining, judged by a linear probe on labelled patients that the test leaves over.

    With ``dry_run``, only says what that would cost if no trial ended early.
    """
    model = PneumoniaModel(
        image_size=size, pretrain_epochs=epochs, task=task, masking=masking, finding=finding, random_state=seed
    )
    model.check()
    images = read(source, labels, size=size, framing=None, finding=finding)
    model.set_params(framing=images.framing)
    parts = divide(images, n_labels=None, seed=seed)
    if dry_run:
        return cost.dry_run(
            [model.pretraining_cost(parts.unlabelled).times(trials, f"{trials} trials, none ended early")],
            rates=rates,
            reads=f"{len(parts.unlabelled):,} pictures",
            left_out="reading the pictures, the probes that judge, and the report",
        )
    return _search(model, parts, out=out, trials=trials, source=str(source))


def space_of(model: PneumoniaModel) -> dict[str, Range]:
    """The settings that the model's task has."""
    masks, contrasts = model.task in ("masked", "joint"), model.task in ("contrastive", "joint")
    unused = {name for name, has in (("mask_ratio", masks), ("temperature", contrasts)) if not has}
    return {name: where for name, where in SPACE.items() if name not in unused}


class _Trials:
    """Pretrains with some settings; a linear probe, fitted on some labelled patients and asked about others, judges.

    Attributes:
        best: the score and the model of the best trial that came to its end.
    """

    def __init__(self, model: PneumoniaModel, unlabelled: ImageSet, taught: Labelled, asked: Labelled) -> None:
        self.model, self.unlabelled, self.taught, self.asked = model, unlabelled, taught, asked
        self.best: tuple[float, PneumoniaModel] | None = None

    def __call__(self, values: Mapping[str, float], report: Told, run: tracking.Run) -> float:
        trial = PneumoniaModel(**{**self.model.get_params(), **values})
        scores: list[float] = []

        def judge(backbone: Backbone) -> float:
            scores.append(self.quality(backbone))
            report(len(scores), scores[-1])
            return scores[-1]

        trial.pretrain(self.unlabelled, log=run.metrics, judge=judge)
        score = max(scores)  # pretraining with a judge keeps its best weights
        if self.best is None or score > self.best[0]:
            self.best = (score, trial)
        return score

    def quality(self, backbone: Backbone) -> float:
        """AUROC of a probe as it will vote beside the fine-tuned network, on the features as they are."""
        probe = fit_probe(backbone, self.taught, nuisance=NUISANCE)
        odds = probe(torch.from_numpy(embeddings(backbone, self.asked.images)))
        return float(roc_auc(self.asked.labels, odds.numpy()))


def _labelled(part: ImageSet) -> Labelled:
    if part.labels is None or len(np.unique(part.labels)) < 2:
        raise DataError("a search needs labelled patients of both classes to teach and to judge its probe: add labels")
    return Labelled(part.images, part.labels)


def _search(model: PneumoniaModel, parts: Parts, *, out: Path, trials: int, source: str) -> Outcome:
    train, validation = parts.train, parts.validation
    if validation is None:
        train, validation = hold_out(train, share=JUDGING_SHARE, seed=model.random_state)
    trainer = _Trials(model, parts.unlabelled, _labelled(train), _labelled(validation))
    space = space_of(model)
    settings = {**model.get_params(), "trials": trials, "images": len(parts.unlabelled), "labels": len(train)}
    with tracking.run(
        EXPERIMENT, f"search {out.name}", params=settings, tags={"data.fingerprint": parts.unlabelled.fingerprint()}
    ) as run:
        first = {name: getattr(model, name) for name in space}
        tried = search_core(
            trainer, space, trials=trials, experiment=EXPERIMENT, run=run, first=first, seed=model.random_state
        )
        best = tried[0]
        before = next(trial for trial in tried if trial.number == 0)
        for trial in sorted(tried, key=lambda trial: trial.number):
            run.metrics({"score": trial.score}, trial.number)
        run.metrics({f"best.{name}": value for name, value in {**best.values, "score": best.score}.items()})
        chosen = " ".join(f"{OPTIONS[name]} {value:.3g}" for name, value in best.values.items())
        headline = (
            f"Best of {trials} trials: AUROC {best.score:.3f} on {len(validation)} pictures (the defaults: "
            f"{before.score:.3f}). Next: unlabeled medical pretrain {source} --size {model.image_size} "
            f"--task {model.task} --masking {model.masking} {chosen}"
        )
        page = _page(tried, headline, facts={**settings, "judged on": len(validation)}, run_id=run.run_id)
        table = pd.DataFrame([{"trial": t.number, "state": t.state, "auroc": t.score, **t.values} for t in tried])
        files = {
            "trials": write_atomically(out / "trials.csv", table.to_csv(index=False)),
            "report": page.write(out / "report.html"),
        }
        for path in files.values():
            run.artifact(path)
        assert trainer.best is not None
        files["model"] = trainer.best[1].save(out / "model")
        run.artifact(files["model"], "model")
    details = {"best": best.values, "score": best.score, "defaults": before.score, "trials": len(tried)}
    return Outcome(headline=headline, files=files, run_id=run.run_id, details=details)


def _page(tried: list[Tried], headline: str, *, facts: Mapping[str, object], run_id: str) -> Report:
    best = tried[0]
    shown = {name: facts[name] for name in ("task", "images", "labels", "judged on", "trials")}
    page = Report(
        "Search for settings", "Pretraining, judged by a linear probe", Verdict(headline), shown, run_id=run_id
    )
    names = list(best.values)
    figure, axes = new_figure(columns=len(names))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        for ended, look in ((False, {"color": "#c3ccd4"}), (True, {"color": OURS})):
            shown_here = [t for t in tried if (t.state == "complete") == ended and np.isfinite(t.score)]
            axis.plot([t.values[name] for t in shown_here], [t.score for t in shown_here], "o", **look)
        where = SPACE[name]
        axis.set(xlabel=name.replace("_", " "), ylabel="AUROC", xlim=(where.low, where.high))
        axis.set_xscale("log" if where.log else "linear")
    page.section("Score over each setting").figure(
        figure, "Each dot is a trial; grey ones ended early, at the score they had then."
    )
    rows = [[t.number, t.state, f"{t.score:.4f}", *(f"{t.values[name]:.3g}" for name in names)] for t in tried]
    page.section("Trials").table(["trial", "ended", "AUROC", *names], rows, ours=(0,))
    page.section("Limits").note(
        "The best of many trials looks better than it is: the pictures that chose it cannot judge it, and may have "
        "been among those pretrained on, without labels. Compare on patients that neither taught nor chose "
        "(unlabeled medical finetune does). The model kept here has had the few passes of a trial only."
    )
    return page
