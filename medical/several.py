"""Several findings learnt at once: one network with a head for each, which leaves a model of its own for each."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.batches import Batches
from unlabeled.core.errors import DataError
from unlabeled.core.finetuning import merge
from unlabeled.core.finetuning import prepare as open_weights
from unlabeled.core.heads import SeveralLabels
from unlabeled.core.seeds import derive
from unlabeled.core.training import History, fit
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import _network as network
from unlabeled.medical import _planning as planning
from unlabeled.medical._finetuning import LABELLED, Held, Labelled, Log
from unlabeled.medical._network import Member
from unlabeled.medical.images import UNLABELLED, ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import patient_folds


def finetune_together(
    base: PneumoniaModel,
    images: ImageSet | NDArray[np.uint8],
    labels: Mapping[str, ArrayLike],
    *,
    groups: ArrayLike | None = None,
    validation: tuple[ImageSet | NDArray[np.uint8], Mapping[str, ArrayLike]] | None = None,
    unlabelled: ImageSet | None = None,
    log: Log | None = None,
) -> dict[str, PneumoniaModel]:
    """As :meth:`PneumoniaModel.finetune` for each finding, but every network learns all findings (multi-task learning:
    Caruana, 1997) and is then copied, so that each finding has a model that is saved, judged and used like any other.

    Args:
        base: pretrained; stays as it is.
        images: (N, S, S).
        labels: by finding, (N,) 1 with it, 0 without, -1 unknown.
        groups: (N,) patients (default: those of an ImageSet, else each picture is somebody's).
        validation: pictures and labels by finding, of other patients.
        unlabelled: more pictures of the same source, to learn what is usual; those of the patients who decide are left
            out of what the probes learn.

    Raises:
        DataError: labels that are not 1, 0 or -1, a finding with one class only, too few patients for the folds, or
            self-training or an early stop, which know one finding at a time.
    """
    if base.self_training:
        raise DataError("self-training knows one finding at a time: leave it out, or learn them one by one")
    if base.early_stop:
        raise DataError("an early stop knows one finding at a time: leave it out, or learn them one by one")
    finetuning.check_judges(images, groups, validation, unlabelled)
    model = copy.deepcopy(base)
    for name in labels:
        model.set_params(finding=name).check()
    if not hasattr(model, "module_"):
        model.module_ = model._fresh()
        model._remember_nothing()
    pixels, table = model._pixels(images), _table(labels, what="labels")
    patients = finetuning.people(images) if groups is None else np.asarray(groups)
    if not len(pixels) == len(table) == len(patients):
        raise DataError(f"{len(pixels)} pictures, {len(table)} labels, {len(patients)} patients")
    chosen_on = None
    if validation is not None:
        held_labels = _table({name: validation[1][name] for name in labels}, what="validation labels")
        chosen_on = Held(Labelled(model._pixels(validation[0]), held_labels), finetuning.people(validation[0]))
    everything = Labelled(pixels, table)
    parts = _parts(everything, patients, chosen_on, folds=model.folds, seed=model.random_state, names=list(labels))
    trained = [
        [_train(model, train, number, of=len(parts), log=log) for number in planning.numbers(model, part)]
        for part, (train, _) in enumerate(parts)
    ]
    histories = [history for together in trained for _, history in together]
    # Of each fold, the same for all findings.
    known = [planning.known(model, train, unlabelled, who) if model.has_learnt else None for train, (_, who) in parts]
    found = {}
    for k, name in enumerate(labels):
        own = copy.deepcopy(model).set_params(finding=name)
        data, whose = _known(everything, k, patients)
        deciding = data.labels if chosen_on is None else _known(chosen_on.data, k, None)[0].labels
        own.prior_, own.members_, logits = finetuning.prior_logit(deciding), [], []
        split = []
        for (train, (held, held_patients)), together, usual in zip(parts, trained, known, strict=True):
            taught, _ = _known(train, k, None)
            asked, askers = _known(held, k, held_patients)
            probe = None
            if usual is not None:
                probe = finetuning.fit_probe(own.module_.backbone, taught, usual)
            members = [Member(several.alone(k), probe) for several, _ in together]
            own.members_ += members
            logits.append(network.mean_log_odds(members, own.module_.backbone, asked.images) + own.prior_)
            split.append((taught, Held(asked, askers)))
        own_choice = None if chosen_on is None else split[0][1]
        found[name] = own.conclude(
            data, whose, split, logits, histories, own_choice, unlabelled, log if k == 0 else None
        )
    return found


def _train(
    model: PneumoniaModel, train: Labelled, number: int, *, of: int, log: Log | None
) -> tuple[SeveralLabels, History]:
    """Number ``number`` of ``of`` networks, as :func:`~unlabeled.medical._finetuning.train_classifier` trains one."""
    seed = derive(model.random_state, "finetune", number)
    weights = [finetuning.class_weights(_known(train, k, None)[0].labels) for k in range(train.labels.shape[1])]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "head"))
        several = SeveralLabels(copy.deepcopy(model.module_.backbone), class_weights=weights)
        open_weights(several.backbone, model.tuning)
    batches = Batches(
        *finetuning.filled(train, planning.FINETUNE_BATCH),
        batch_size=planning.FINETUNE_BATCH, seed=seed, transform=LABELLED,
    )  # fmt: skip
    history = fit(
        several, batches, settings=planning.finetuning(model, len(train.labels)), seed=seed,
        log=log if number == 0 else None, label=f"fine-tuning{planning.numbered(model, number, of)}",
    )  # fmt: skip
    merge(several.backbone)
    return several, history


def _table(labels: Mapping[str, ArrayLike], *, what: str) -> NDArray[np.int64]:
    """(N, K); a DataError names the finding of which the labels cannot be used."""
    columns = []
    for name, values in labels.items():
        column = np.asarray(values)
        known = column[column != UNLABELLED]
        try:
            finetuning.binary(known, what=what)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        columns.append(column.astype(np.int64))
    if not columns or len({len(column) for column in columns}) > 1:
        raise DataError(f"{what} must be given for at least one finding, and for as many pictures for each")
    return np.stack(columns, axis=1)


def _known(data: Labelled, k: int, patients: NDArray[np.generic] | None) -> tuple[Labelled, NDArray[np.generic]]:
    """Pictures of which one finding is known, and whose they are."""
    known = data.labels[:, k] != UNLABELLED
    whose = np.empty(0) if patients is None else patients[known]
    return Labelled(data.images[known], data.labels[known, k]), whose


def check_folds(
    labels: Mapping[str, NDArray[np.int64]], patients: NDArray[np.generic], *, folds: int, seed: int
) -> NDArray[np.int64]:
    """(N,) the fold of each picture; patients with any finding are spread evenly.

    Raises:
        DataError: without some part, a class of a finding would be missing.
    """
    there = np.any([values == 1 for values in labels.values()], axis=0)
    fold = patient_folds(patients, there.astype(np.int64), folds=folds, seed=seed)
    for f in range(folds):
        for name, values in labels.items():
            if not {0, 1} <= set(values[fold != f]):
                raise DataError(
                    f"{name} is too rare to be learnt beside the others: without one of {folds} parts by patient, one "
                    "class of it is left. Learn it alone, or give more labels"
                )
    return fold


def _parts(
    data: Labelled,
    patients: NDArray[np.generic],
    chosen_on: Held | None,
    *,
    folds: int,
    seed: int,
    names: Sequence[str],
) -> list[tuple[Labelled, Held]]:
    """As for one finding; folds spread the patients with any finding evenly.

    Raises:
        DataError: without some part, a class of a finding would be missing.
    """
    if chosen_on is not None:
        return [(data, chosen_on)]
    labels = dict(zip(names, data.labels.T, strict=True))
    fold = check_folds(labels, patients, folds=folds, seed=seed)
    return [
        (finetuning.rows_of(data, fold != f), Held(finetuning.rows_of(data, fold == f), patients[fold == f]))
        for f in range(folds)
    ]
