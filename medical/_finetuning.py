"""From labels to classifiers, and from held-out predictions to a calibrated decision."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unlabeled.core import fingerprint
from unlabeled.core.batches import Batches
from unlabeled.core.calibration import temperature, threshold_for_balanced_accuracy
from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.finetuning import Tuning, merge
from unlabeled.core.finetuning import prepare as open_weights
from unlabeled.core.heads import Classifier
from unlabeled.core.operating import operating_point
from unlabeled.core.seeds import derive
from unlabeled.core.store import Store
from unlabeled.core.training import History, TrainingSettings, fit
from unlabeled.medical._network import Member, Probe, log_odds, summaries
from unlabeled.medical.images import ImageSet
from unlabeled.medical.splits import patient_folds
from unlabeled.medical.transforms import LOOK, Augment, stretched

SENSITIVITY = 0.95
# Log odds are compared to so many decimals: the last bits depend on what else is scored at once.
DECIMALS = 4
# Inverse strength of the probe's penalty.
PROBE_C = 0.1
# Fine-tuning stretches pictures more than pretraining does: a label may go with the aspect ratio of the films (those of
# the ill are taken lying down, say), which shows as a squeeze in square pictures (shift.md in benchmarks/results).
LABELLED = Augment(rotation=10.0, stretch=0.45, contrast=0.5)
# Directions that are taken out of the probe's features because a stretch moves them, and by what factor it stretches.
NUISANCE, STRETCH = 2, 1.28
# Pictures that those directions, and what is usual, are found on, at most.
USUAL = 1000
# At which a fine-tuning that is to stop early is judged.
MOMENTS = 10
Log = Callable[[dict[str, float], int], None]


# How pictures become log odds, as far as it is no setting of a model: other ways' scores do not mix with these.
SCORING = f"looks of {LOOK:g}, mean and spread, {USUAL} usual, {NUISANCE} left out"


class Usual(NamedTuple):
    """What the summaries (N, 2 D) of pictures are usually like.

    Attributes:
        mean, deviation: (2 D,).
        away: orthonormal rows (directions, 2 D) that a probe does not use.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    away: NDArray[np.float64]


class Labelled(NamedTuple):
    """Pictures (N, S, S) 8-bit and labels (N,) of 0 and 1."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How log odds become a probability and a call; chosen on held-out predictions only.

    Attributes:
        temperature: divisor of the log odds.
        threshold: probability at or above which a picture is called pneumonia (best balanced accuracy).
        sensitive_threshold: the same, for 95 % sensitivity; halfway below the lowest score that is found. Models of
            an earlier version hold that score itself (:func:`~unlabeled.medical._operating.decision_of` moves it).
        prevalence: share of pneumonia among the pictures it was chosen on.
        chosen_on: their number.
    """

    temperature: float
    threshold: float
    sensitive_threshold: float
    prevalence: float
    chosen_on: int

    def probability(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-np.clip(logits / self.temperature, -700, 700)))


def decide(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> Decision:
    """Temperature and thresholds from predictions on pictures that the network was not fitted to."""
    scale = temperature(labels, logits)
    raw = Decision(
        temperature=scale,
        threshold=0.5,
        sensitive_threshold=0.5,
        prevalence=float(labels.mean()),
        chosen_on=len(labels),
    )
    probability = raw.probability(logits)
    rounded = raw.probability(np.round(logits, DECIMALS))
    return Decision(
        temperature=scale,
        threshold=threshold_for_balanced_accuracy(labels, probability),
        sensitive_threshold=operating_point(labels, rounded, SENSITIVITY, samples=0).threshold,
        prevalence=raw.prevalence,
        chosen_on=raw.chosen_on,
    )


def train_classifier(
    backbone: Backbone,
    data: Labelled,
    *,
    settings: TrainingSettings,
    batch_size: int,
    seed: int,
    tuning: Tuning = "full",
    augment: Augment = LABELLED,
    judges: Labelled | None = None,
    log: Log | None = None,
    label: str = "fine-tuning",
) -> tuple[Classifier, History]:
    """A copy of ``backbone`` and a linear layer, trained together on ``data`` as far as ``tuning`` allows.

    Each class weighs the same in the loss. With ``judges``, pictures of other patients, the network is asked about them
    at up to :data:`MOMENTS` moments, and the one of the highest AUROC is kept (early_stop.md in benchmarks/results).
    """
    classifier, batches = prepare(backbone, data, batch_size=batch_size, seed=seed, tuning=tuning, augment=augment)

    def judge() -> float:
        assert judges is not None
        # Its own backbone says where it is trained just now; a probe it has none yet.
        odds = log_odds(Member(classifier, None), classifier.backbone, judges.images)
        return float(roc_auc(judges.labels, odds))

    history = fit(
        classifier,
        batches,
        settings=settings,
        seed=seed,
        validate=None if judges is None else judge,
        validate_every=-(-settings.steps // MOMENTS),
        log=log,
        label=label,
    )
    merge(classifier.backbone)
    return classifier, history


def prepare(
    backbone: Backbone,
    data: Labelled,
    *,
    batch_size: int,
    seed: int,
    tuning: Tuning = "full",
    augment: Augment = LABELLED,
) -> tuple[Classifier, Batches]:
    """A copy of ``backbone`` with a fresh linear layer, and the batches that it will be trained on."""
    weights = class_weights(data.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "head"))
        classifier = Classifier(copy.deepcopy(backbone), class_weights=weights)
        open_weights(classifier.backbone, tuning)
    return classifier, Batches(*filled(data, batch_size), batch_size=batch_size, seed=seed, transform=augment)


def class_weights(labels: NDArray[np.int64]) -> torch.Tensor:
    """Both classes weigh the same in total, (2,)."""
    return torch.tensor(len(labels) / (2 * np.bincount(labels, minlength=2)), dtype=torch.float32)


def distil(
    backbone: Backbone,
    teacher: Member,
    pixels: NDArray[np.uint8] | Store,
    *,
    settings: TrainingSettings,
    batch_size: int,
    seed: int,
    tuning: Tuning = "full",
    log: Log | None = None,
    label: str = "self-training",
) -> tuple[Classifier, History]:
    """A copy of ``backbone`` and a linear layer that learn what ``teacher`` says of pictures (N, S, S) without labels.

    ``loss = -sum over classes of p_teacher log p_student``, the teacher asked once about each picture, as
    it scores, the student about augmented ones (Hinton et al., 2015; self-training of few labels: Chen et al., "Big
    Self-Supervised Models are Strong Semi-Supervised Learners" (SimCLRv2), NeurIPS 2020, section 2.3).
    """
    odds = log_odds(teacher, backbone, pixels)
    sick = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
    said = torch.from_numpy(np.stack([1 - sick, sick], axis=1).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "student"))
        student = Classifier(copy.deepcopy(backbone))
        open_weights(student.backbone, tuning)
    batches = Batches(
        pixels, said, batch_size=min(batch_size, len(pixels)), seed=derive(seed, "student"), transform=LABELLED
    )
    history = fit(student, batches, settings=settings, seed=seed, log=log, label=label)
    merge(student.backbone)
    return student, history


def usual(backbone: Backbone, images: NDArray[np.uint8] | Store, *, nuisance: int = NUISANCE) -> Usual:
    """What is usual among pictures (N, S, S), which need no labels; at most :data:`USUAL` of them are looked at.

    Args:
        nuisance: directions of the summaries to leave out: those along which stretching a picture moves them most
            (nuisance attribute projection; Solomonoff, Campbell and Boardman, 2005).
    """
    seen = images[np.linspace(0, len(images) - 1, min(len(images), USUAL)).astype(int)]
    x = summaries(backbone, seen)
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    away = np.zeros((0, x.shape[1]))
    if nuisance:
        away = moved_by_stretching(backbone, seen, deviation, directions=nuisance)
    return Usual(mean, deviation, away)


def fit_probe(backbone: Backbone, data: Labelled, known: Usual) -> Probe:
    """Logistic regression (both classes weigh the same) on the summaries that ``backbone`` makes.

    Args:
        known: what is usual; whether the labelled pictures say it, or many others, hardly matters (looks.md in
            benchmarks/results).
    """
    from sklearn.linear_model import LogisticRegression

    mean, deviation, away = known
    x = summaries(backbone, data.images)
    kept = np.eye(x.shape[1]) - away.T @ away
    regression = LogisticRegression(C=PROBE_C, class_weight="balanced", max_iter=3000)
    regression.fit((x - mean) / deviation @ kept, data.labels)
    probe = Probe(x.shape[1] // 2)
    weight = kept @ regression.coef_[0]
    values = {"mean": mean, "deviation": deviation, "weight": weight, "bias": regression.intercept_[0]}
    probe.load_state_dict({name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()})
    return probe.to(next(backbone.parameters()).device)


def moved_by_stretching(
    backbone: Backbone, images: NDArray[np.uint8], deviation: NDArray[np.float32], *, directions: int
) -> NDArray[np.float64]:
    """Orthonormal rows (directions, 2 D): along what the summaries, in units of ``deviation``, move most when pictures
    (N, S, S) are stretched one way and the other."""
    pixels = torch.from_numpy(images)
    wide, high = (summaries(backbone, stretched(pixels, by).numpy(), once=True) for by in (STRETCH, 1 / STRETCH))
    _, _, rows = np.linalg.svd((wide - high).astype(np.float64) / deviation, full_matrices=False)
    return rows[:directions]


def binary(labels: ArrayLike, *, what: str) -> NDArray[np.int64]:
    """Labels of 0 and 1, both of them; a DataError says what else they are."""
    values = np.asarray(labels)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise DataError(f"{what} must be 0 or 1, one a picture; got {np.unique(values)[:5]}")
    if len(np.unique(values)) < 2:
        raise DataError(f"{what} hold one class only ({len(values)} x {values[0] if len(values) else '-'}): give both")
    return values.astype(np.int64)


def people(images: ImageSet | ArrayLike) -> NDArray[np.generic]:
    """Who is on each picture (N,), as far as it is known; else each counts as somebody."""
    return images.patients if isinstance(images, ImageSet) else np.arange(len(np.asarray(images)))


def check_judges(
    images: ImageSet | ArrayLike,
    groups: ArrayLike | None,
    validation: tuple[ImageSet | ArrayLike, object] | None,
    unlabelled: ImageSet | None,
) -> None:
    """Raises a DataError where those who decide could not be left out of the pictures without labels."""
    judges = images if validation is None else validation[0]
    if unlabelled is not None and not isinstance(judges, ImageSet) and (validation is not None or groups is None):
        raise DataError(
            "pictures without labels teach too, and those of the patients who decide are left out of them: say who "
            "they are, with groups= or an ImageSet (validation pictures: an ImageSet)"
        )


def facts(data: Labelled, patients: NDArray[np.generic]) -> dict[str, Any]:
    """What a model remembers of the labels that it learnt from."""
    return {
        "images": len(data.labels),
        "patients": len(np.unique(patients)),
        "positives": int(data.labels.sum()),
        "fingerprint": fingerprint.of_array(data.images, data.labels),
    }


def unlabelled_facts(unlabelled: ImageSet | None, **uses: bool) -> dict[str, Any]:
    """What a model remembers of pictures without labels, by what they were used for."""
    if unlabelled is None or not any(uses.values()):
        return {}
    them = {"images": len(unlabelled), "fingerprint": unlabelled.fingerprint()}
    return {use: them for use, used in uses.items() if used}


class Held(NamedTuple):
    """Pictures that choose, not teach, and who is on each (N,)."""

    data: Labelled
    patients: NDArray[np.generic]


def parts(
    data: Labelled, patients: NDArray[np.generic], chosen_on: Held | None, *, folds: int, seed: int
) -> list[tuple[Labelled, Held]]:
    """What teaches each network and what it is asked about then: a fold of the patients where nothing else chooses."""
    if chosen_on is not None:
        return [(data, chosen_on)]
    fold = patient_folds(patients, data.labels, folds=folds, seed=seed)
    return [(rows_of(data, fold != f), Held(rows_of(data, fold == f), patients[fold == f])) for f in range(folds)]


def held_out(held: list[Held], logits: list[NDArray[np.float64]]) -> dict[str, list[Any]]:
    """What decisions are made from later, each network's predictions in turn; patients as numbers only."""
    _, number = np.unique(np.concatenate([part.patients for part in held]), return_inverse=True)
    return {
        "label": np.concatenate([part.data.labels for part in held]).tolist(),
        "logit": np.concatenate(logits).tolist(),
        "patient": number.tolist(),
    }


def rows_of(data: Labelled, rows: NDArray[np.bool_]) -> Labelled:
    return Labelled(data.images[rows], data.labels[rows])


def prior_logit(labels: NDArray[np.int64]) -> float:
    """Log odds of pneumonia among the labels that temperature and thresholds come from: undoes the equal weighting of
    the classes, so that temperature alone can make probabilities honest where prevalence is the same."""
    share = np.clip(labels.mean(), 1e-3, 1 - 1e-3)
    return float(np.log(share / (1 - share)))


def filled(data: Labelled, batch_size: int) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Fewer labels than a batch are repeated to fill it: each copy gets an augmentation of its own."""
    times = -(-batch_size // len(data.labels))
    images = np.concatenate([data.images] * times) if times > 1 else data.images
    return images, torch.from_numpy(np.concatenate([data.labels] * times).astype(np.int64))
