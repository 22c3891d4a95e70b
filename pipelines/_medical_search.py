"""``unlabeled medical search``: which settings of a pretraining make the best features for few labels?"""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from unlabeled.core import tracking
from unlabeled.core.budget import AS_FOUND, Rates, priced
from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.search import Range
from unlabeled.core.search import Report as Told
from unlabeled.medical._finetuning import Labelled, fit_probe, usual
from unlabeled.medical._network import summaries
from unlabeled.medical.images import PNEUMONIA, ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import hold_out
from unlabeled.medical.tasks import HIDING, Masking
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _search as shared
from unlabeled.pipelines._medical_input import Parts, divide, read
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines.jobs import Outcome

EXPERIMENT = "unlabeled/medical"
# Of the labelled patients that may be learnt from, where there is no validation part.
JUDGING_SHARE = 1 / 3


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
    leave_out_flagged: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Tries settings of the pretraining, judged by a linear probe on labelled patients that the test leaves over.

    With ``leave_out_flagged``, a store's flagged pictures neither teach nor judge; with ``dry_run``, only says what
    that would cost if no trial ended early.
    """
    check_out(out, source=source)
    model = PneumoniaModel(
        image_size=size, pretrain_epochs=epochs, task=task, masking=masking, finding=finding, random_state=seed
    )
    model.check()
    images = read(source, labels, size=size, framing=None, finding=finding, leave_out_flagged=leave_out_flagged)
    model.set_params(framing=images.framing)
    parts = divide(images, n_labels=None, seed=seed)
    if dry_run:
        return cost.dry_run(
            [model.pretraining_cost(parts.unlabelled).times(trials, f"{trials} trials, none ended early")],
            rates=rates,
            reads=f"{len(parts.unlabelled):,} pictures",
            left_out="reading the pictures, the probes that judge, and the report",
        )
    return _search(model, parts, out=out, trials=trials, source=str(source), rates=rates)


def space_of(model: PneumoniaModel) -> dict[str, Range]:
    """The settings that the model's task has."""
    masking = model.masking if model.task in HIDING else None
    return shared.space_of(masking=masking, contrasts=model.task in ("contrastive", "joint"), views=True)


class _Trials:
    """Pretrains with some settings; a linear probe, fitted on some labelled patients and asked about others, judges."""

    def __init__(
        self, model: PneumoniaModel, unlabelled: ImageSet, taught: ImageSet, asked: ImageSet, rates: Rates
    ) -> None:
        self.model, self.unlabelled, self.rates = model, unlabelled, rates
        self.taught, self.asked = _labelled(taught), _labelled(asked)
        self.others = unlabelled.select(~np.isin(unlabelled.patients, asked.patients)).images
        self.best = shared.Best[PneumoniaModel]()

    def __call__(self, values: Mapping[str, float], report: Told, run: tracking.Run) -> float:
        trial = PneumoniaModel(**{**self.model.get_params(), **values})
        scores: list[float] = []

        def judge(backbone: Backbone) -> float:
            scores.append(self.quality(backbone))
            report(len(scores), scores[-1])
            return scores[-1]

        trial.pretrain(self.unlabelled, log=priced(run.metrics, self.rates), judge=judge)
        return self.best.offer(max(scores), trial)  # pretraining with a judge keeps its best weights

    def quality(self, backbone: Backbone) -> float:
        """AUROC of a probe as it will vote beside the fine-tuned network, on the features as they are."""
        # Where the backbone is trained just now may be a GPU.
        probe = fit_probe(backbone, self.taught, usual(backbone, self.others)).cpu()
        odds = probe(torch.from_numpy(summaries(backbone, self.asked.images)))
        return float(roc_auc(self.asked.labels, odds.numpy()))


def _labelled(part: ImageSet) -> Labelled:
    if part.labels is None or len(np.unique(part.labels)) < 2:
        raise DataError("a search needs labelled patients of both classes to teach and to judge its probe: add labels")
    return Labelled(part.pixels, part.labels)


def _search(model: PneumoniaModel, parts: Parts, *, out: Path, trials: int, source: str, rates: Rates) -> Outcome:
    train, validation = parts.train, parts.validation
    if validation is None:
        train, validation = hold_out(train, share=JUDGING_SHARE, seed=model.random_state)
    trainer = _Trials(model, parts.unlabelled, train, validation, rates)
    space = space_of(model)
    settings = {**model.get_params(), "trials": trials, "images": len(parts.unlabelled), "labels": len(train)}
    asked = shared.Question(
        experiment=EXPERIMENT,
        space=space,
        first={name: getattr(model, name) for name in space},
        trials=trials,
        seed=model.random_state,
        metric="AUROC",
        judged=f"on {len(validation)} pictures",
        then=lambda chosen: (
            f"unlabeled medical pretrain {shlex.quote(source)} --size {model.image_size} "
            f"--task {model.task} --masking {model.masking} {chosen}"
        ),
        settings=settings,
        shown={
            **{name: settings[name] for name in ("task", "images", "labels", "trials")},
            "judged on": len(validation),
        },
        limits="The best of many trials looks better than it is: the pictures that chose it cannot judge it, and may "
        "have been among those pretrained on, without labels. Compare on patients that neither taught nor chose "
        "(unlabeled medical finetune does). The model kept here has had the few passes of a trial only.",
        tags={"data.fingerprint": parts.unlabelled.fingerprint()},
    )

    def save(folder: Path) -> Path:
        assert trainer.best.model is not None
        return trainer.best.model.save(folder)

    return shared.search(asked, trainer, save, out=out)
