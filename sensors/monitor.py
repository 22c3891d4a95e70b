"""The user-facing estimator: what is normal for this machine, and an alarm when it no longer is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from torch import Tensor

from unlabeled.core import progress
from unlabeled.core.budget import Budget
from unlabeled.core.dry_run import estimate
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import CollapseError
from unlabeled.core.hardware import one_thread
from unlabeled.core.normality import Detector, Mahalanobis, NearestNeighbour, NormalModel
from unlabeled.core.pretext import Pretext
from unlabeled.core.seeds import derive
from unlabeled.core.several_kinds import Lesson
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import History
from unlabeled.core.views import SignalView
from unlabeled.sensors import _checks, _fitting, explain, features
from unlabeled.sensors._fitting import CALIBRATION_SHARE
from unlabeled.sensors._learning import Judge, Log, learn, planned
from unlabeled.sensors.alarms import AlarmRule
from unlabeled.sensors.bearings import Bearing
from unlabeled.sensors.false_alarms import Tail
from unlabeled.sensors.found_regimes import FoundRegimes
from unlabeled.sensors.harmonics import Normal
from unlabeled.sensors.health import Offset
from unlabeled.sensors.level import LEVEL, Level
from unlabeled.sensors.outliers import named, part_name
from unlabeled.sensors.prior import Begun, Prior
from unlabeled.sensors.recording import NORMAL_SHARE, Recording
from unlabeled.sensors.regimes import Conditional
from unlabeled.sensors.spares import Spare
from unlabeled.sensors.states import Asked
from unlabeled.sensors.stream import Stream
from unlabeled.sensors.tasks import Masking, bearing_prior, build_task, foretelling_error, foretells, time_steps
from unlabeled.sensors.views import (
    Seen,
    View,
    look,
    normal_pictures,
)

if TYPE_CHECKING:
    from unlabeled.sensors.vouched import Vouched

KIND = "sensors.MachineMonitor"
PARTS = ("mahalanobis", "nearest", "reconstruction", "indicators")
_DRAWS = 4  # masks over which one snapshot's reconstruction error is averaged


class MachineMonitor(BaseEstimator):
    """Learns a machine's normal state from the start of its record and scores what comes after.

    A small masked autoencoder reads each snapshot's time-frequency picture (or the last rows of a trend). How far
    the snapshot is from normal is the mean of several parts on one scale: Mahalanobis and nearest-neighbour distance
    of its embedding, its reconstruction error, and the departure of its physical indicators; beyond mean + 3 sigma of
    its overall level, that if it is farther from normal than the others (:mod:`~unlabeled.sensors.level`). Scaling and
    distances come from the first two thirds of the declared normal period, scale of the parts and threshold from the
    last third, the level's from all of it. Nothing after the normal period is looked at, and each score depends on the
    past alone.

    Args:
        dim, depth, heads: the encoder's size.
        task: the question of the pretraining (:func:`~unlabeled.sensors.tasks.build_task`). The reconstruction part of
            the score is how wrong the encoder is about hidden patches, or about the ``next`` ones; a task that asks for
            neither leaves three parts.
        masking: which patches it hides.
        mask_ratio: share of the patches hidden in pretraining; nothing from 0.4 to 0.85 was clearly better than 0.6
            (benchmarks/results/settings.md).
        temperature, augmentation: of tasks that compare two views.
        shaft_hz: shaft speed of waveforms in revolutions a second, the same at all times: :meth:`explain` then says
            which of its harmonics rose (:mod:`~unlabeled.sensors.harmonics`); for masking ``bearing`` too and, with
        bearing: what it runs in, for :meth:`explain`, which then looks for the bearing's rates in the envelope.
        steps, batch_size, lr: pretraining.
        window: rows of a trend that are seen together.
        neighbours: for the nearest-neighbour distance.
        detector: one of PyOD's, by name, as a further part of the score (:mod:`~unlabeled.sensors.outliers`).
        sigmas: the threshold is mean + ``sigmas`` standard deviations of the calibration scores, unless there is
        false_alarms: a budget of false alarms a machine-month, which the threshold is then chosen to meet
            (:mod:`~unlabeled.sensors.false_alarms`).
        rule: smoothing, persistence and hysteresis of the alarm.
        drift: so many spreads of slow change are taken out of each picture row and indicator before it is judged, and
            no more (:mod:`~unlabeled.sensors.drift`); 0: none.
        drift_over: snapshots over which that is followed.
        find_regimes: look for a few ways of running in the normal period, where no conditions are measured, and judge
            each snapshot within the nearest (:mod:`~unlabeled.sensors.found_regimes`).
        random_state: fixes initial weights, batches and masks.

    Attributes:
        backbone_: the encoder with its tokenizer.
        threshold_: of the smoothed score.
        offset_: mean of each axis of a waveform, which is the sensor's; ``None`` for a trend.
        unit_: what the values that it was fitted on are in, as far as their file said.
        level_: what is normal of the overall level; ``None`` for a trend without one, and under ``false_alarms``.
        conditional_: what is normal under which conditions (:mod:`~unlabeled.sensors.regimes`) or in which found
            regime; ``None`` where the normal period says nothing of conditions and no regimes were found.
        harmonics_: what is normal at the shaft's harmonics; ``None`` for a trend or where the speed is not known.
        spares_: what is normal without one axis, by its number (:mod:`~unlabeled.sensors.spares`).
        prior_: what a machine of which little is known starts from (:mod:`~unlabeled.sensors.prior`); ``None`` where
            the encoder was taught by fewer than three machines.
        begun_: that this monitor started from it; ``None`` for one with a normal period of its own.
        vouched_: what was learnt later, on somebody's word (:mod:`~unlabeled.sensors.vouched`).
        tail_: what a well machine's scores do beyond the usual, where the threshold meets a budget; else ``None``.
        period_: the rows that were declared normal.
        plain_rules_: mean + 3 sigma of the plain indicators over those rows, to be compared with.
        history_: pretraining curves.
        pretraining_run_: the tracked run that the encoder came from, where the saved model names one.
    """

    tail_: Tail | None
    offset_: Offset | None
    level_: Level | None
    conditional_: Conditional | None
    harmonics_: Normal | None
    vouched_: tuple["Vouched", ...]
    spares_: dict[int, Spare]
    prior_: Prior | None
    begun_: Begun | None

    def __init__(
        self,
        *,
        dim: int = 64,
        depth: int = 3,
        heads: int = 4,
        task: str = "masked",
        masking: Masking = "random",
        mask_ratio: float = 0.6,
        temperature: float = 0.2,
        augmentation: float = 1.0,
        shaft_hz: float | None = None,
        bearing: Bearing | None = None,
        steps: int = 200,
        batch_size: int = 64,
        lr: float = 1e-3,
        window: int = 16,
        neighbours: int = 5,
        detector: str | None = None,
        sigmas: float = 5.0,
        false_alarms: float | None = None,
        rule: AlarmRule = AlarmRule(),  # noqa: B008 - frozen
        drift: float = 0.0,
        drift_over: int = 1000,
        find_regimes: bool = False,
        random_state: int = 0,
    ) -> None:
        self.dim, self.depth, self.heads = dim, depth, heads
        self.task, self.masking, self.shaft_hz, self.bearing = task, masking, shaft_hz, bearing
        self.mask_ratio, self.temperature, self.augmentation = mask_ratio, temperature, augmentation
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self.window, self.neighbours, self.rule, self.random_state = window, neighbours, rule, random_state
        self.detector, self.sigmas, self.false_alarms = detector, sigmas, false_alarms
        self.drift, self.drift_over, self.find_regimes = drift, drift_over, find_regimes

    def pretrain(
        self,
        fleet: Sequence[Recording],
        *,
        normal_share: float = NORMAL_SHARE,
        normal_until: float | None = None,
        asked: Asked | None = None,
        state: Path | None = None,
        log: Log | None = None,
        judge: Judge | None = None,
    ) -> "MachineMonitor":
        """Teaches the encoder from the normal periods of machines of one kind, without labels.

        Args:
            fleet: recordings with the same axes or indicators; each is scaled by its own normal period.
            normal_share, normal_until: which rows are normal: the first share, or those up to so many hours.
            asked: snapshots whose state is looked at on the way (curves of two probes), never learnt from.
            state: folder for resumable training states; remove it (:func:`~unlabeled.core.training.forget`) once the
                monitor is saved.
            log: receives the curve's points.
            judge: asked about eight times on the way how good the encoder is (higher is better); the best are kept.

        Raises:
            DataError: nothing that can be judged, or machines of different kinds.
            CollapseError: the embeddings no longer tell pictures apart; the encoder has its last healthy weights.
        """
        rows = [r.normal_rows(share=normal_share, until=normal_until) for r in fleet]
        pictures, self.fleet_ = normal_pictures(fleet, rows, window=self.window, find=self.find_regimes)
        self.prior_ = None if self.find_regimes else Prior.of(fleet, rows, window=self.window)
        try:
            learn(
                self, pictures, fleet[0].fs, usual=MachineMonitor(), kind=KIND, asked=asked, state=state, log=log,
                judge=judge,
            )  # fmt: skip
        except CollapseError as error:
            if error.history is not None:
                self.history_, self.pretrained_ = error.history, True
            raise
        self.pretrained_ = True
        return self

    def lessons(
        self, fleet: Sequence[Recording], *, normal_share: float = NORMAL_SHARE, normal_until: float | None = None
    ) -> dict[str, Lesson]:
        """What :meth:`pretrain` on the same would teach, for :func:`~unlabeled.core.several_kinds.teach_together`;
        :meth:`taught` takes note of it afterwards."""
        rows = [r.normal_rows(share=normal_share, until=normal_until) for r in fleet]
        pictures, self.fleet_ = normal_pictures(fleet, rows, window=self.window, find=self.find_regimes)
        module, batches, _ = planned(self, pictures, fleet[0].fs)
        return {"machines": Lesson(module, batches, SignalView())}

    def taught(self, histories: Mapping[str, History]) -> "MachineMonitor":
        """Ends what :meth:`lessons` began: the encoder counts as pretrained."""
        self.history_, self.pretrained_ = histories["machines"], True
        return self

    def pretraining_cost(
        self, fleet: Sequence[Recording], *, normal_share: float = NORMAL_SHARE, normal_until: float | None = None
    ) -> Budget:
        """What :meth:`pretrain` on the same would cost here; this monitor stays as it is."""
        rows = [r.normal_rows(share=normal_share, until=normal_until) for r in fleet]
        pictures, _ = normal_pictures(fleet, rows, window=self.window, find=self.find_regimes)
        trial: MachineMonitor = clone(self)
        with one_thread():
            return estimate(*planned(trial, pictures, fleet[0].fs), seed=self.random_state, label="pretraining")

    def fit(
        self,
        recording: Recording,
        *,
        normal_share: float = NORMAL_SHARE,
        normal_until: float | None = None,
        state: Path | None = None,
        log: Log | None = None,
    ) -> "MachineMonitor":
        """Learns what is normal from the declared normal period of one machine, and calibrates the threshold.

        An encoder that :meth:`pretrain` has not taught is first trained on the period's first two thirds. A machine of
        which fewer than 30 snapshots can be judged starts from the prior of the fleet that taught the encoder, if that
        was of three machines or more: :attr:`begun_` says so.

        Raises:
            DataError: too few snapshots that can be judged (or independent peaks of their scores, for a budget of false
                alarms), or another kind of data than the pretraining's.
        """
        stop = recording.normal_rows(share=normal_share, until=normal_until)
        _fitting.fit(self, recording, stop=stop, usual=MachineMonitor(), kind=KIND, state=state, log=log)
        return self

    def teaching_rows(self, recording: Recording, *, normal_rows: int) -> int:
        """How many rows of the normal period come before its calibration part, which only sets thresholds."""
        seen = look(recording, rows=normal_rows, window=self.window).rows
        cut = int(len(seen) * (1 - CALIBRATION_SHARE))
        return int(seen[cut]) if cut < len(seen) else normal_rows

    def stream(self) -> Stream:
        """Takes snapshots one by one, as they come; :meth:`score` is the same thing over a whole recording."""
        return Stream(self)

    def score(self, recording: Recording) -> pd.DataFrame:
        """One row a snapshot: the fused score and its parts, the smoothed score, the state and, where a snapshot
        cannot be judged, why.

        Raises:
            DataError: sampling rate, length, axes or indicators differ from those that the monitor was fitted on.
        """
        recording = _checks.ordered(self, recording)
        _checks.fits(self, recording)
        stream = self.stream()
        rows = []
        with progress.bar(f"scoring {recording.asset}", len(recording), shown=len(recording) > 500) as bar:
            for i in range(len(recording)):
                rows.append(stream.push_row(recording, i))
                if i % 50 == 49 or i == len(recording) - 1:
                    bar.advance(to=i + 1)
        table = pd.DataFrame(rows)
        table.insert(0, "asset", recording.asset)
        table.insert(1, "row", recording.index)
        table.insert(2, "hours", recording.hours)
        if recording.clock is not None:
            table.insert(3, "time", recording.clock)
        table["threshold"] = self.threshold_
        if "regime" in table:  # of those that were judged
            table["regime"] = table["regime"].astype("Int64")
        return table

    def explain(self, recording: Recording, *, row: int | None = None, last: int = 9) -> "explain.Explanation":
        """Which part of the score and which bands, indicators or harmonics are off normal, in numbers and words.

        Args:
            recording: as given to :meth:`score`.
            row: the snapshot to explain; the last one without it.
            last: the median over so many snapshots up to it is explained.
        """
        _checks.bearing(self)
        recording = _checks.ordered(self, recording)
        _checks.fits(self, recording)
        at = len(recording) - 1 if row is None else row
        return explain.explain(self, recording.rows(slice(0, at + 1)), last=last)

    def save(self, folder: str | Path, *, pretraining_run: str | None = None) -> Path:
        """Writes a model folder (see :mod:`unlabeled.core.checkpoints`); an encoder that was only pretrained too."""
        from unlabeled.sensors import _storage

        return _storage.save(self, folder, pretraining_run=pretraining_run)

    @classmethod
    def load(cls, folder: str | Path) -> "MachineMonitor":
        """Reads a model folder; distances are fitted anew on the stored normal embeddings.

        Raises:
            CheckpointError: missing, damaged or of another kind.
        """
        from unlabeled.sensors import _storage

        return _storage.load(cls, folder)

    # What follows is shared with the stream and the storage.

    def build(self, channels: int, grid: tuple[int, int], fs: float | None) -> None:
        """A fresh encoder and pretext task for pictures of this shape, at this sampling rate (``None`` for trends)."""
        # Neighbouring bands belong together; indicators are things of different kinds.
        bands = 8 if grid == (features.BANDS, features.COLUMNS) else 1
        patch = (bands, time_steps(task=self.task, masking=self.masking))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.random_state, "sensors", "weights"))
            tokenizer = GridPatches(grid=grid, patch=patch, dim=self.dim, channels=channels)
            encoder = Encoder(dim=self.dim, depth=self.depth, heads=self.heads, causal=self.task == "next")
            self.backbone_ = Backbone(tokenizer, encoder)
            rows, columns = tokenizer.rows, tokenizer.columns
            prior = None if fs is None else bearing_prior(rows, columns, fs=fs, shaft_hz=self.shaft_hz)
            self.pretext_: Pretext = build_task(
                self.backbone_, task=self.task, masking=self.masking, mask_ratio=self.mask_ratio,
                prior=prior, seed=self.random_state, temperature=self.temperature, augmentation=self.augmentation,
            )  # fmt: skip
        self.grid_, self.channels_, self.pretraining_fs_ = grid, channels, fs

    def view(self) -> View:
        """What a fitted monitor sees of snapshots, one after another."""
        return View(
            self.kind_, self.names_, self.fs_, self.window, self.conditional_, self.offset_, frozenset(self.spares_)
        )

    def spare_of(self, seen: Seen) -> Spare | None:
        """What is normal without the axis that is broken in a snapshot; ``None`` where it was seen whole."""
        return self.spares_[next(iter(seen.broken))] if seen.broken else None

    def see(self, picture: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
        """Embedding (D,) of one scaled picture (C, H, W), and how wrong the encoder is about it (0 where its task
        foretells nothing).

        One picture at a time, in tensors of fixed shape, so that no result depends on what else is scored.
        """
        batch = torch.from_numpy(picture.copy())[None]
        with one_thread(), torch.inference_mode():
            embedding = self.pretext_.embed(self.backbone_, batch)[0].double().numpy()
            several = batch.expand(_DRAWS, -1, -1, -1).contiguous()
            told = foretells(self.pretext_)
            error = foretelling_error(self.backbone_, self.pretext_, several) if told else 0.0
        return embedding, error

    def encode(self, pictures: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """:meth:`see` of each, stacked."""
        pairs = [self.see(picture) for picture in pictures]
        return np.stack([p[0] for p in pairs]), np.array([p[1] for p in pairs])

    def set_reference(self, embedding: NDArray, error: NDArray, outside: NDArray, cut: int) -> None:
        """The normal model from the normal period's embeddings and other scores (also on loading)."""
        self.reference_: dict[str, Tensor] = {
            "embedding": torch.from_numpy(np.ascontiguousarray(embedding)),
            "error": torch.from_numpy(np.ascontiguousarray(error)),
            "outside": torch.from_numpy(np.ascontiguousarray(outside)),
        }
        self.cut_ = cut
        self.normal_ = self.normal_model(embedding, error, outside, cut)

    def normal_model(self, embedding: NDArray, error: NDArray, outside: NDArray, cut: int) -> NormalModel:
        """Fitted on what comes before ``cut``, put on its scale by what comes after."""
        detectors: dict[str, Detector] = {"mahalanobis": Mahalanobis(), "nearest": NearestNeighbour(self.neighbours)}
        if self.detector is not None:
            detectors[part_name(self.detector)] = named(self.detector, seed=self.random_state)
        return NormalModel(detectors).fit(embedding[:cut], embedding[cut:], self._others(error[cut:], outside[cut:]))

    def parts(
        self,
        embedding: NDArray,
        error: float,
        outside: float,
        overall: float | None = None,
        *,
        gain: float = 1.0,
        spare: Spare | None = None,
    ) -> dict[str, float]:
        """The parts of one snapshot's score, each in usual spreads; all but the level, which is a plain rule's, times
        the ``gain`` of a regime that was learnt later. With a ``spare``, of a snapshot without its axis."""
        normal, level = (self.normal_, self.level_) if spare is None else (spare.normal, spare.level)
        gain = gain if spare is None else gain * spare.gain
        found = normal.parts(embedding[None], self._others(np.array([error]), np.array([outside])))
        told = {name: gain * float(value[0]) for name, value in found.items()}
        if self.level_ is not None and overall is not None:
            told[LEVEL] = float("nan") if level is None else level.spreads(overall)
        return told

    @property
    def finds_regimes(self) -> bool:
        """Whether regimes were found in the normal period (``find_regimes``)."""
        return self.conditional_ is not None and isinstance(self.conditional_.regimes, FoundRegimes)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Of the score: all of ``PARTS``, or those that the task of the pretraining allows; and the level, if any."""
        own = tuple(name for name in PARTS if name != "reconstruction" or foretells(self.pretext_))
        own = own if self.detector is None else (*own, part_name(self.detector))
        return own if self.level_ is None else (*own, LEVEL)

    @property
    def task_in_words(self) -> str:
        """What the encoder was asked, for reports."""
        hides = self.task in ("masked", "joint")
        return f"{self.task}, hiding {self.mask_ratio:.0%} ({self.masking})" if hides else self.task

    def _others(self, error: NDArray, outside: NDArray) -> dict[str, NDArray]:
        """The scores that need no distance between embeddings."""
        others = {"reconstruction": error, "indicators": outside}
        return {name: values for name, values in others.items() if name in self.part_names}
