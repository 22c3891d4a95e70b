"""The estimator: pretrained on radiographs without labels, fine-tuned on few with, one number a picture."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from unlabeled.core import budget, fingerprint
from unlabeled.core.budget import Budget
from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.finetuning import Tuning
from unlabeled.core.novelty import Novelty
from unlabeled.core.pretext import Pretraining
from unlabeled.core.processes import device_of
from unlabeled.core.several_kinds import Lesson
from unlabeled.core.store import Store
from unlabeled.core.training import History
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import _network as network
from unlabeled.medical import _novelty as novelty
from unlabeled.medical import _planning as planning
from unlabeled.medical import _start as starting
from unlabeled.medical import _storage as storage
from unlabeled.medical._finetuning import Decision, Held, Labelled, Log
from unlabeled.medical._network import Architecture, Member
from unlabeled.medical._novelty import Outlying
from unlabeled.medical._start import Start
from unlabeled.medical.images import PNEUMONIA, Framing, ImageSet
from unlabeled.medical.splits import digests
from unlabeled.medical.tasks import Masking

# What is remembered with patients, of their names.
_NAMES = "named by "


class PneumoniaModel(BaseEstimator):
    """Pneumonia (or another finding) on frontal chest radiographs: a masked autoencoder, then a classifier on few
    labels.

    Not a medical device: for research only.

    Args:
        image_size: rows and columns of the pictures it takes (:func:`~unlabeled.medical.readers.read_images`).
        framing: how those were made square (:data:`~unlabeled.medical.images.Framing`).
        patch: rows and columns of a patch; must divide ``image_size``.
        dim, depth, heads: the encoder's size.
        class_token: give the encoder a token of no patch, which Hugging Face's ViT and ViTMAE always have.
        task: what it is pretrained on, and
        masking: which patches that hides (:func:`~unlabeled.medical.tasks.build_task`).
        mask_ratio: share of the patches hidden in pretraining; 0.75, 0.85 and 0.9 were alike.
        temperature: of the contrastive task; 0.1 and 0.2 were alike, 0.5 lower within chance. Both:
            benchmarks/results/settings.md.
        augmentation: strength of the random crops and contrasts of pretraining, 0 to 2 (1: as in ``Augment``).
        lr: highest learning rate of pretraining.
        pretrain_epochs: passes over the pictures without labels.
        finetune_steps: optimiser steps on the labelled pictures (32 a step).
        tuning: what the labels may change of a pretrained network: ``full`` (all of it), ``adapters`` (a low-rank
            part of each linear map) or ``head`` (nothing) (:func:`unlabeled.core.finetuning.prepare`).
        layer_decay: factor on the learning rate of fine-tuning for every layer that lies above (1: none).
        early_stop: keep of each fine-tuning the moment (of up to ten) that tells those best who then decide (validation
            pictures, or the left-out fold), instead of the last; temperature and thresholds come from the same pictures
            and are a little optimistic then.
        self_training: let each fine-tuned network teach another one from pictures without labels, which then takes its
            place (:func:`~unlabeled.medical._finetuning.distil`).
        folds: networks that vote when no validation pictures are given; each leaves out one fold of the patients.
        ensemble: networks that vote in place of each of those (or of the one), with other draws of everything random.
        finding: what the labels say is there or not, in a word or two.
        random_state: seed of everything random.

    Attributes:
        decision_: temperature and thresholds, once fine-tuned.
        pretraining_: facts about the pretraining (pictures, steps, fingerprint, curves), or ``None``.
        finetuning_: facts about the fine-tuning, or ``None``.
        novelty_: what pictures like its own look like, where the encoder had learnt something before the labels came.
        start_: the folder whose encoder it started from (:meth:`start_from`), or ``None``.
        provenance_: what a job wants to remember (run ids), saved with the model.
    """

    members_: list[Member]
    decision_: Decision | None
    pretraining_: dict[str, Any] | None
    finetuning_: dict[str, Any] | None
    digests_: list[str]
    provenance_: dict[str, str]
    # Of a model that started from another's encoder.
    start_: Start | None = None
    # Of a model whose encoder had learnt something before the labels came.
    novelty_: Novelty | None = None
    architecture_: Architecture | None = None

    def __init__(
        self,
        *,
        image_size: int = 64,
        framing: Framing = "stretched",
        patch: int = 8,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        class_token: bool = False,
        task: str = "masked",
        masking: Masking = "random",
        mask_ratio: float = 0.75,
        temperature: float = 0.2,
        augmentation: float = 1.0,
        lr: float = 1e-3,
        pretrain_epochs: int = 50,
        finetune_steps: int = 300,
        tuning: Tuning = "full",
        layer_decay: float = 1.0,
        early_stop: bool = False,
        self_training: bool = False,
        folds: int = 3,
        ensemble: int = 1,
        finding: str = PNEUMONIA,
        random_state: int = 0,
    ) -> None:
        self.image_size, self.framing, self.patch = image_size, framing, patch
        self.dim, self.depth, self.heads, self.class_token = dim, depth, heads, class_token
        self.task, self.masking = task, masking
        self.mask_ratio, self.temperature, self.augmentation = mask_ratio, temperature, augmentation
        self.lr, self.pretrain_epochs = lr, pretrain_epochs
        self.finetune_steps, self.tuning, self.layer_decay = finetune_steps, tuning, layer_decay
        self.self_training, self.folds, self.ensemble, self.random_state = self_training, folds, ensemble, random_state
        self.finding, self.early_stop = finding, early_stop

    def check(self) -> None:
        """What can be said before a picture is read.

        Raises:
            DataError: pictures of ``image_size`` do not fall into whole patches, or a setting is out of its range.
        """
        planning.check(self)

    def check_fine_tuned(self) -> None:
        """Raises a DataError where there are no labels behind this model yet."""
        self._decision()

    def start_from(self, folder: str | Path) -> "PneumoniaModel":
        """Takes the encoder of a Hugging Face ViT, ViTMAE or I-JEPA folder for pictures of ``image_size``.

        :meth:`pretrain` and :meth:`finetune` then go on from its weights. ``patch``, ``dim``, ``depth``, ``heads`` and
        ``class_token`` become the folder's; ``start_.lines`` say what was matched and what was adapted.

        Args:
            folder: ``config.json`` and safetensors; never a pickle.

        Raises:
            CheckpointError: no such model, damaged, of another architecture or with patches that do not fit.
        """
        start, architecture = starting.read(folder, image_size=self.image_size)
        self.set_params(**starting.parameters(architecture))
        self.start_, self.architecture_ = start, architecture
        self.module_ = planning.started(self)
        self._remember_nothing()
        return self

    def pretrain(
        self,
        images: ImageSet | NDArray[np.uint8] | Store,
        *,
        asked: Labelled | None = None,
        state: Path | None = None,
        log: Log | None = None,
        judge: Callable[[Backbone], float] | None = None,
    ) -> "PneumoniaModel":
        """Learns what radiographs look like from pictures (N, S, S) alone; labels are not looked at.

        Args:
            images: without labels (any that there are stay unread); a :class:`~unlabeled.core.store.Store` may be
                larger than memory.
            asked: a few pictures whose labels are looked at on the way (curves of two probes), never learnt from.
            state: folder that keeps an interrupted pretraining; the same call goes on from it. Remove it
                (:func:`~unlabeled.core.training.forget`) once the model is saved.
            log: receives ``{name: value}, step``.
            judge: asked about eight times on the way how good the features are (higher is better); the best are kept.

        Raises:
            CollapseError: the embeddings no longer tell pictures apart; this model has the last healthy weights.
        """
        pixels = self._drawn(images)
        module, history = planning.train(self, pixels, asked=asked, state=state, log=log, judge=judge)
        self.learnt(module, pixels, history)
        return self

    def lessons(self, images: ImageSet | NDArray[np.uint8] | Store) -> dict[str, Lesson]:
        """What :meth:`pretrain` on the same would teach, for :func:`~unlabeled.core.several_kinds.teach_together`;
        :meth:`taught` takes note of it afterwards."""
        pixels = self._drawn(images)
        self.module_ = planning.started(self)
        return {"radiographs": Lesson(self.module_, planning.pretraining(self, pixels)[0], planning.VIEW)}

    def taught(
        self, images: ImageSet | NDArray[np.uint8] | Store, histories: Mapping[str, History]
    ) -> "PneumoniaModel":
        """Ends what :meth:`lessons` on the same pictures began: the encoder counts as pretrained."""
        pixels = self._drawn(images)
        self.learnt(self.module_, pixels, histories["radiographs"])
        return self

    def pretraining_cost(self, images: ImageSet | NDArray[np.uint8] | Store) -> Budget:
        """What :meth:`pretrain` on these pictures would cost here; nothing is learnt or kept."""
        return planning.pretraining_cost(self, self._drawn(images))

    def finetune(
        self,
        images: ImageSet | NDArray[np.uint8],
        labels: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        validation: tuple[ImageSet | NDArray[np.uint8], ArrayLike] | None = None,
        unlabelled: ImageSet | None = None,
        log: Log | None = None,
    ) -> "PneumoniaModel":
        """Learns to tell pneumonia from labelled pictures; without :meth:`pretrain` before, from scratch.

        The network is fine-tuned as far as ``tuning`` allows; after a pretraining a linear probe on its untouched
        features votes along. Training runs a fixed number of steps (at least ``finetune_steps``, at least four passes).
        With ``validation``, one network is trained, and its temperature and thresholds come from those pictures.
        Without it, one network a fold of the patients is trained, temperature and thresholds come from each
        network's predictions on the patients it did not see, and the networks vote (mean log odds). With ``ensemble``,
        that many take the place of each one, and what they say is their vote.

        Args:
            images: (N, S, S).
            labels: (N,) 1 with the finding, 0 without.
            groups: (N,) patients (default: those of an :class:`ImageSet`, else each picture is somebody's); pictures
                of one patient never fall on both sides of a fold.
            validation: pictures and labels of other patients.
            unlabelled: more pictures of the same source, to learn what is usual (:meth:`out_of_distribution`, and the
                probe beside the network), and for ``self_training``; the last two leave those of the patients out who
                decide.

        Raises:
            DataError: labels that are not 0 and 1, one class only, too few patients for the folds, ``unlabelled``
                without word of who decides, or ``self_training`` without a pretraining or unlabelled pictures.
        """
        self.check()
        finetuning.check_judges(images, groups, validation, unlabelled)
        data = Labelled(self._pixels(images), finetuning.binary(labels, what="labels"))
        patients = finetuning.people(images) if groups is None else np.asarray(groups)
        if not len(data.images) == len(data.labels) == len(patients):
            raise DataError(f"{len(data.images)} pictures, {len(data.labels)} labels, {len(patients)} patients")
        if not hasattr(self, "module_"):
            self.module_ = self._fresh()
            self._remember_nothing()
        if self.self_training and (not self.has_learnt or unlabelled is None):
            raise DataError("self-training needs a pretrained model and pictures without labels")
        chosen_on = None
        if validation is not None:
            held = Labelled(self._pixels(validation[0]), finetuning.binary(validation[1], what="validation labels"))
            chosen_on = Held(held, finetuning.people(validation[0]))
        parts = finetuning.parts(data, patients, chosen_on, folds=self.folds, seed=self.random_state)
        self.members_, logits, histories = [], [], []
        # Where those who decide were not drawn from those who teach, probabilities hold where they come from.
        self.prior_ = finetuning.prior_logit(data.labels if chosen_on is None else chosen_on.data.labels)
        for number, (train, judges) in enumerate(parts):
            members, taken = planning.train_members(
                self, train, number, of=len(parts), held=judges, unlabelled=unlabelled, log=log
            )
            histories += taken
            self.members_ += members
            logits.append(network.mean_log_odds(members, self.module_.backbone, judges.data.images) + self.prior_)
        return self.conclude(data, patients, parts, logits, histories, chosen_on, unlabelled, log)

    def conclude(
        self,
        data: Labelled,
        patients: NDArray[np.generic],
        parts: Sequence[tuple[Labelled, Held]],
        logits: list[NDArray[np.float64]],
        histories: Sequence[History],
        chosen_on: Held | None,
        unlabelled: ImageSet | None,
        log: Log | None,
    ) -> "PneumoniaModel":
        """Ends a fine-tuning whose networks are ``members_`` already: decides by what those of each of its ``parts``
        said (``logits``) of the pictures that they did not learn from, and keeps what there is to know."""
        if log is not None:
            log(budget.totals([h.predicted for h in histories], [h.spent for h in histories]), histories[0].steps)
        kept = finetuning.held_out([held for _, held in parts], logits)
        self.decision_ = finetuning.decide(np.array(kept["label"]), np.array(kept["logit"]))
        self.finetuning_ = {
            **finetuning.facts(data, patients),
            "decided_on": "left-out folds of the patients" if chosen_on is None else "validation pictures",
            "held_out": kept,
            **planning.facts(histories[0]),
            **finetuning.unlabelled_facts(unlabelled, usual=self.has_learnt, students=self.self_training),
        }
        if self.has_learnt:
            self.novelty_ = novelty.fit(
                self.module_.backbone, Held(data, patients), chosen_on, unlabelled, seed=self.random_state
            )
        return self

    def finetuning_cost(
        self, images: ImageSet | NDArray[np.uint8], labels: ArrayLike, *, validation: bool = False
    ) -> Budget:
        """What training the network(s) in :meth:`finetune` on these pictures would cost here, linear probes and
        decisions not included; nothing is learnt or kept.

        Args:
            images, labels: as for :meth:`finetune`.
            validation: whether there are validation pictures (all labels teach at once, not fold by fold).
        """
        data = Labelled(self._pixels(images), finetuning.binary(labels, what="labels"))
        return planning.finetuning_cost(self, data, parts=1 if validation else self.folds)

    def to(self, device: str) -> "PneumoniaModel":
        """Moves its networks, so that scoring and whatever belongs to fine-tuning compute there. (Training itself takes
        a GPU where there is one in any case; a new pretraining begins and ends on the CPU.) A GPU's numbers are a
        CPU's up to rounding.

        Args:
            device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.

        Raises:
            DataError: nothing was learnt yet.
            ValueError: there is no such device.
        """
        if not hasattr(self, "module_"):
            raise DataError("there is nothing to move yet: call pretrain or finetune first")
        there = device_of(device)
        members = getattr(self, "members_", [])
        for part in (self.module_, *(part for member in members for part in member if part is not None)):
            part.to(there)
        return self

    def remember(self, patients: Sequence[str] | NDArray[np.str_], *, named_by: str | None = None) -> None:
        """Keeps salted digests of patients whose labels were used, so that :meth:`seen` can tell a leak later
        (:func:`~unlabeled.medical.splits.digests` says what they give away), and of what their names come from
        (:class:`~unlabeled.medical.images.ImageSet`)."""
        source = [] if named_by is None else [_NAMES, _NAMES + named_by]
        self.digests_ = sorted({*self.digests_, *digests([*patients, *source], salt=self.salt_)})

    def seen(self, patients: Sequence[str] | NDArray[np.str_]) -> NDArray[np.bool_]:
        """Which of these patients' labels were used in fine-tuning or validation."""
        return np.isin(np.array(digests(patients, salt=self.salt_)), self.digests_)

    def knows_whom(self, named_by: str) -> bool:
        """Whether it can tell if it learnt from patients who are named by that
        (:class:`~unlabeled.medical.images.ImageSet`)."""
        told, alike = self.seen([_NAMES, _NAMES + named_by])
        return bool(self.digests_) and bool(alike or not told)

    def score(self, images: ImageSet | NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probability of pneumonia (N,), where prevalence is as it was among the labels."""
        return self._decision().probability(self._logits(images))

    def predict_proba(self, images: ImageSet | NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, 2): not pneumonia, pneumonia."""
        positive = self.score(images)
        return np.stack([1 - positive, positive], axis=1)

    def predict(self, images: ImageSet | NDArray[np.uint8]) -> NDArray[np.int64]:
        """1 where the probability reaches the threshold of best balanced accuracy on held-out pictures."""
        return (self.score(images) >= self._decision().threshold).astype(np.int64)

    def explain(self, images: ImageSet | NDArray[np.uint8]) -> NDArray[np.float64]:
        """Heat maps (N, rows, columns) of patches: by how much the log odds of one look, at the picture as it is, fall
        without them."""
        self._decision()
        pixels = self._pixels(images)
        return network.leave_out_map(self.members_, self.module_.backbone, pixels)

    def out_of_distribution(self, images: ImageSet | NDArray[np.uint8]) -> Outlying:
        """How unlike the pictures that it was made of these are, (N,) each; a DataError where it keeps no record."""
        return novelty.judge(self.novelty_, self.module_.backbone, self._pixels(images))

    @property
    def has_learnt(self) -> bool:
        """Whether the encoder below the labels has learnt anything: was pretrained, here or by others."""
        return getattr(self, "pretraining_", None) is not None or self.start_ is not None

    @property
    def fills_in(self) -> bool:
        """Whether its pretraining has learnt to fill hidden patches in, so that :meth:`reconstruct` works."""
        return getattr(self, "pretraining_", None) is not None and network.filling_in(self.module_.pretext) is not None

    def reconstruct(self, images: ImageSet | NDArray[np.uint8]) -> network.Reconstruction:
        """What the pretrained network fills into hidden patches."""
        if getattr(self, "pretraining_", None) is None:
            raise DataError("this model was not pretrained: call pretrain first")
        if not self.fills_in:
            raise DataError(f"a model pretrained on the task '{self.task}' has not learnt to fill patches in")
        return network.reconstruct(self.module_, self._pixels(images))

    def save(self, folder: str | Path) -> Path:
        """Writes weights, thresholds and provenance; no pictures, no patient ids. Digests of patients whose labels were
        used lie in a private file beside (``patients.json``), which is not to be handed on."""
        if not hasattr(self, "module_"):
            raise DataError("there is nothing to save yet: call pretrain or finetune first")
        return storage.write(self, folder)

    @classmethod
    def load(cls, folder: str | Path, *, encoder_only: bool = False) -> "PneumoniaModel":
        """Reads what :meth:`save` wrote.

        Args:
            encoder_only: leave aside what labels taught it.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
        """
        return storage.read(cls, folder, encoder_only=encoder_only)

    def _logits(self, images: ImageSet | NDArray[np.uint8]) -> NDArray[np.float64]:
        self._decision()
        pixels = self._pixels(images)
        return network.mean_log_odds(self.members_, self.module_.backbone, pixels) + self.prior_

    def _decision(self) -> Decision:
        decision: Decision | None = getattr(self, "decision_", None)
        if decision is None:
            raise DataError(
                "this model has not seen labels yet: fine-tune it first (unlabeled medical finetune, or "
                "PneumoniaModel.finetune)"
            )
        return decision

    def _fresh(self) -> Pretraining:
        return planning.fresh(self)

    def learnt(self, module: Pretraining, pixels: NDArray[np.uint8] | Store, history: History) -> None:
        """Takes over a network that was pretrained on ``pixels``."""
        self.module_ = module
        self._remember_nothing()
        self.pretraining_ = {
            "images": len(pixels),
            "fingerprint": fingerprint.of_array(pixels),
            **planning.facts(history),
        }

    def _remember_nothing(self) -> None:
        self.members_, self.decision_, self.pretraining_, self.finetuning_ = [], None, None, None
        self.novelty_ = None
        self.salt_ = secrets.token_hex(16)
        self.digests_, self.provenance_ = [], {}

    def _pixels(self, images: ImageSet | NDArray[np.uint8]) -> NDArray[np.uint8]:
        drawn = self._drawn(images)
        return drawn[:] if isinstance(drawn, Store) else drawn

    def _drawn(self, images: ImageSet | NDArray[np.uint8] | Store) -> NDArray[np.uint8] | Store:
        """Pictures that are on disk stay there."""
        if isinstance(images, ImageSet):
            planning.check_framing(images.framing, self.framing)
            images = images.images
        pixels = images if isinstance(images, Store) else np.asarray(images)
        planning.check_pixels(pixels.shape, pixels.dtype, size=self.image_size)
        return pixels
