"""What a :class:`~unlabeled.medical.model.PneumoniaModel` will do: settings checked, trainings laid out and priced."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.core import fingerprint
from unlabeled.core.audit.watch import Watch
from unlabeled.core.batches import Batches
from unlabeled.core.budget import Budget
from unlabeled.core.dry_run import estimate
from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import CollapseError, DataError
from unlabeled.core.finetuning import Tuning
from unlabeled.core.informed_masking import around
from unlabeled.core.masking import check_hides, count_hidden
from unlabeled.core.pretext import Pretraining
from unlabeled.core.seeds import derive
from unlabeled.core.store import Store, unmapped
from unlabeled.core.training import History, Log, TrainingSettings, fit
from unlabeled.core.views import PictureView
from unlabeled.medical import _network as network
from unlabeled.medical import _start as starting
from unlabeled.medical._finetuning import (
    USUAL,
    Held,
    Labelled,
    Usual,
    distil,
    fit_probe,
    prepare,
    train_classifier,
    usual,
)
from unlabeled.medical._network import Member
from unlabeled.medical.images import ImageSet
from unlabeled.medical.tasks import HIDING, SPARSE
from unlabeled.medical.transforms import Augment, standardise

if TYPE_CHECKING:
    from unlabeled.medical.model import PneumoniaModel

# Filling in learnt more from smaller batches (shift.md in benchmarks/results); contrasts want many pictures a step.
PRETRAIN_BATCH, MASKED_BATCH, FINETUNE_BATCH = 128, 64, 32
# Another look at the same film, of one strength in every run, so that alignments compare from run to run.
VIEW = PictureView()
# Small collections get smaller batches: an epoch is then at least so many steps.
STEPS_AN_EPOCH = 16
# A judge is asked so often in a pretraining.
JUDGED = 8
# Many labels are each seen at least so often in fine-tuning.
PASSES = 4
# A student sees more pictures than its teacher had labels, for so many times its steps.
STUDENT_STEPS = 2
# Highest learning rate of fine-tuning: those of adapters and head were best of three (benchmarks/finetuning.py).
RATES: dict[Tuning, float] = {"full": 5e-4, "adapters": 1e-2, "head": 1e-2}


def check(model: "PneumoniaModel") -> None:
    """Raises a DataError where a setting is out of its range, or the patches do not divide the pictures."""
    if model.tuning not in RATES:
        raise DataError(f"there is no tuning '{model.tuning}': choose one of {', '.join(RATES)}")
    for what, value, fits, said in (
        ("layer decay", model.layer_decay, 0 < model.layer_decay <= 1, "above 0 and at most 1"),
        ("mask ratio", model.mask_ratio, 0 < model.mask_ratio < 1, "between 0 and 1"),
        ("learning rate", model.lr, model.lr > 0, "above 0"),
        ("temperature", model.temperature, model.temperature > 0, "above 0"),
        ("strength of the augmentation", model.augmentation, 0 <= model.augmentation <= 2, "between 0 and 2"),
        ("number of networks", model.ensemble, model.ensemble >= 1, "at least 1"),
    ):
        if not fits:
            raise DataError(f"a {what} must be {said}, got {value:g}")
    check_finding(model.finding)
    if model.image_size < model.patch or model.image_size % model.patch:
        below = model.image_size // model.patch * model.patch
        nearest = " or ".join(str(size) for size in (below, below + model.patch) if size)
        raise DataError(
            f"pictures of {model.image_size} pixels do not fall into patches of {model.patch}: "
            f"the nearest sizes that do are {nearest}"
        )
    check_hides(model.task, model.masking, hiding=HIDING)
    if model.masking == "adaptive":
        around(model.mask_ratio)
    elif model.task in HIDING:
        tokens = (model.image_size // model.patch) ** 2
        count_hidden(max(2, round(tokens * SPARSE)) if model.masking.startswith("sparse") else tokens, model.mask_ratio)


def check_finding(finding: str) -> None:
    """Raises a DataError where calls could not be told from one another."""
    if not finding.strip() or finding.lower() in ("refer", "no call") or finding.lower().startswith("no "):
        raise DataError(f"a finding is called by a word or two, such as 'effusion'; got '{finding}'")


def check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any], *, size: int) -> None:
    """Raises a DataError where pictures are not 8-bit squares of this size, or there are none."""
    if len(shape) != 3 or shape[1:] != (size, size) or dtype != np.uint8:
        raise DataError(
            f"expected 8-bit pictures of shape (N, {size}, {size}), got {dtype} {shape}: "
            f"read them with read_images(..., size={size})"
        )
    if not shape[0]:
        raise DataError("there are no pictures")


def check_framing(given: str, asked: str) -> None:
    """Raises a DataError where pictures were made square in another way than a model's own."""
    if given != asked:
        raise DataError(
            f"the model takes pictures that are {asked} to a square, these are {given}: read them with "
            f"read_images(..., framing={asked!r}), or make the model with framing={given!r}"
        )


def fresh(model: "PneumoniaModel") -> Pretraining:
    """The network and its pretext task, with random weights.

    Raises:
        DataError: a setting is out of its range.
        CheckpointError: a parameter is no longer that of the encoder from which the model started.
    """
    check(model)
    if model.architecture_ is not None:
        starting.check_kept(model, model.architecture_)
        backbone = network.build_like(model.architecture_, seed=model.random_state)
    else:
        backbone = network.build_backbone(
            image_size=model.image_size,
            patch=model.patch,
            dim=model.dim,
            depth=model.depth,
            heads=model.heads,
            class_token=model.class_token,
            seed=model.random_state,
        )
    return network.build_pretraining(
        backbone,
        task=model.task,
        masking=model.masking,
        seed=model.random_state,
        mask_ratio=model.mask_ratio,
        temperature=model.temperature,
        augmentation=model.augmentation,
    )


def started(model: "PneumoniaModel") -> Pretraining:
    """The same with the weights that the model starts from, where there are any.

    Raises:
        DataError: they were trained on in an earlier process, and are gone.
    """
    module = fresh(model)
    if model.start_ is not None:
        module.backbone.load_state_dict(starting.weights_of(model.start_))
    return module


def pretraining(model: "PneumoniaModel", pixels: NDArray[np.uint8] | Store) -> tuple[Batches, TrainingSettings]:
    """How pictures (N, S, S) are pretrained on."""
    largest = MASKED_BATCH if model.task == "masked" else PRETRAIN_BATCH
    batches = Batches(
        unmapped(pixels),
        batch_size=min(largest, max(8, len(pixels) // STEPS_AN_EPOCH)),
        seed=derive(model.random_state, "pretrain"),
        transform=Augment.of_strength(model.augmentation),
    )
    steps = model.pretrain_epochs * batches.per_epoch
    return batches, TrainingSettings(steps=steps, lr=model.lr, checkpoint_every=max(1, min(200, steps // 10)))


def train(
    model: "PneumoniaModel",
    pixels: NDArray[np.uint8] | Store,
    *,
    asked: Labelled | None,
    state: Path | None,
    log: Log | None,
    judge: Callable[[Backbone], float] | None,
) -> tuple[Pretraining, History]:
    """See :meth:`PneumoniaModel.pretrain`; the model itself stays as it is, unless the training collapses: then it
    has the last healthy weights."""
    module, (batches, settings) = started(model), pretraining(model, pixels)
    start = {} if model.start_ is None else {"start": str(model.start_)}
    try:
        history = fit(
            module,
            batches,
            settings=settings,
            seed=model.random_state,
            state=state,
            describe={
                "model": _without_finding(model), "images": fingerprint.of_array(pixels), **start, **described(asked)
            },
            validate=None if judge is None else lambda: judge(module.backbone),
            validate_every=max(1, settings.steps // JUDGED),
            watch=watch(batches, asked),
            log=log,
            label="pretraining",
        )  # fmt: skip
    except CollapseError as error:
        if error.kept is not None and error.history is not None:
            model.learnt(module, pixels, error.history)
        raise
    return module, history


def _without_finding(model: "PneumoniaModel") -> dict[str, Any]:
    """Settings that matter to a pretraining: what labels will say does not."""
    return {name: value for name, value in model.get_params().items() if name != "finding"}


def described(asked: Labelled | None) -> dict[str, str]:
    """What an interrupted pretraining must have looked at to go on: curves over two samples would say nothing."""
    return {} if asked is None else {"looked at": fingerprint.of_array(asked.images, asked.labels)}


def watch(batches: Batches, asked: Labelled | None) -> Watch | None:
    """A watch over pictures that are trained on, or over the labelled ones whose labels are to be looked at."""
    known = None if asked is None else (standardise(torch.from_numpy(asked.images)), asked.labels)
    return Watch.over(batches, view=VIEW, asked=known)


def finetuning(model: "PneumoniaModel", labels: int) -> TrainingSettings:
    """How each network is fine-tuned on so many labels."""
    return TrainingSettings(
        steps=max(model.finetune_steps, PASSES * labels // FINETUNE_BATCH),
        lr=RATES[model.tuning],
        layer_decay=model.layer_decay,
    )


def train_members(
    model: "PneumoniaModel",
    data: Labelled,
    part: int,
    *,
    of: int,
    held: Held,
    unlabelled: ImageSet | None,
    log: Log | None,
) -> tuple[list[Member], list[History]]:
    """The networks that learn part number ``part`` of ``of``, each with the same probe, and all of their trainings.

    Args:
        held: who will judge them; with ``early_stop``, which moment of their training is kept too.
        unlabelled: for the probe and for ``self_training``; those patients are left out.
        log: of the first network's fine-tuning.
    """
    backbone, probe = model.module_.backbone, None
    if model.has_learnt:
        probe = fit_probe(backbone, data, known(model, data, unlabelled, held.patients))
    untold = None
    if model.self_training and unlabelled is not None:
        untold = model._drawn(unlabelled.select(~np.isin(unlabelled.patients, held.patients)))
    members, histories = [], []
    for number in numbers(model, part):
        seed, name = derive(model.random_state, "finetune", number), numbered(model, number, of)
        network, history = train_classifier(
            backbone,
            data,
            settings=finetuning(model, len(data.labels)),
            batch_size=FINETUNE_BATCH,
            seed=seed,
            tuning=model.tuning,
            judges=held.data if model.early_stop else None,
            log=log if number == 0 else None,
            label=f"fine-tuning{name}",
        )
        histories.append(history)
        if untold is not None:
            network, another = distil(
                backbone,
                Member(network, probe),
                untold,
                settings=self_training(model),
                batch_size=FINETUNE_BATCH,
                seed=seed,
                tuning=model.tuning,
                label=f"self-training{name}",
            )
            histories.append(another)
        members.append(Member(network, probe))
    return members, histories


def numbers(model: "PneumoniaModel", part: int) -> range:
    """Of the networks that learn a part of the labels, among all of them."""
    return range(part * model.ensemble, (part + 1) * model.ensemble)


def numbered(model: "PneumoniaModel", number: int, parts: int) -> str:
    """Which network of how many, where there are several."""
    return "" if parts * model.ensemble == 1 else f" {number + 1} of {parts * model.ensemble}"


def known(model: "PneumoniaModel", data: Labelled, unlabelled: ImageSet | None, without: NDArray[np.generic]) -> Usual:
    """What is usual for the model's encoder: among the unlabelled pictures of patients who do not judge, or, where
    these are no more than the labelled ones, among those."""
    backbone = model.module_.backbone
    rows = np.zeros(0, dtype=int) if unlabelled is None else np.flatnonzero(~np.isin(unlabelled.patients, without))
    if unlabelled is None or len(rows) <= len(data.images):
        return usual(backbone, data.images)
    # Chosen before they are taken: there may be hundreds of thousands.
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), USUAL)).astype(int)]
    return usual(backbone, model._pixels(unlabelled.take(some)))


def self_training(model: "PneumoniaModel") -> TrainingSettings:
    """How each network is taught by the one that was fine-tuned on labels."""
    return TrainingSettings(
        steps=STUDENT_STEPS * model.finetune_steps, lr=RATES[model.tuning], layer_decay=model.layer_decay
    )


def pretraining_cost(model: "PneumoniaModel", pixels: NDArray[np.uint8] | Store) -> Budget:
    """See :meth:`PneumoniaModel.pretraining_cost`."""
    return estimate(fresh(model), *pretraining(model, pixels), seed=model.random_state, label="pretraining")


def finetuning_cost(model: "PneumoniaModel", data: Labelled, *, parts: int) -> Budget:
    """See :meth:`PneumoniaModel.finetuning_cost`."""
    module = model.module_ if hasattr(model, "module_") else fresh(model)
    classifier, batches = prepare(
        module.backbone,
        data,
        batch_size=FINETUNE_BATCH,
        seed=derive(model.random_state, "finetune", 0),
        tuning=model.tuning,
    )
    settings = finetuning(model, len(data.labels))
    if model.self_training:  # of the same size and batch, so that a step costs the same
        settings = replace(settings, steps=settings.steps + self_training(model).steps)
    one = estimate(classifier, batches, settings, label="fine-tuning", resumable=False)
    networks = parts * model.ensemble
    return one.times(networks, f"fine-tuning of {networks} network(s)")


def facts(history: History) -> dict[str, Any]:
    """What a model remembers of a training."""
    return {
        "steps": history.steps,
        "seconds": round(history.seconds, 1),
        "best_step": history.best_step,
        "curves": {name: [list(point) for point in curve] for name, curve in history.curves.items()},
    }
