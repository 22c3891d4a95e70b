"""The user-facing estimator: what is normal for this machine, and an alarm when it no longer is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from torch import Tensor

from unlabeled.core import fingerprint, progress
from unlabeled.core.budget import Budget
from unlabeled.core.dry_run import estimate
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import CollapseError, DataError
from unlabeled.core.hardware import one_thread
from unlabeled.core.normality import Detector, Mahalanobis, NearestNeighbour, NormalModel
from unlabeled.core.pretext import Pretext
from unlabeled.core.seeds import derive
from unlabeled.core.several_kinds import Lesson
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import History
from unlabeled.core.views import SignalView
from unlabeled.sensors import _checks, explain, features, spares, views
from unlabeled.sensors._learning import Judge, Log, learn, planned
from unlabeled.sensors.alarms import AlarmRule
from unlabeled.sensors.baselines import usual_rules
from unlabeled.sensors.bearings import Bearing
from unlabeled.sensors.false_alarms import Tail, tail
from unlabeled.sensors.found_regimes import FoundRegimes
from unlabeled.sensors.harmonics import Normal
from unlabeled.sensors.health import Offset
from unlabeled.sensors.level import LEVEL, Level
from unlabeled.sensors.outliers import named, part_name
from unlabeled.sensors.recording import NORMAL_SHARE, Recording
from unlabeled.sensors.regimes import Conditional
from unlabeled.sensors.spares import Spare
from unlabeled.sensors.states import Asked
from unlabeled.sensors.stream import Stream, fused
from unlabeled.sensors.tasks import Masking, bearing_prior, build_task, foretelling_error, foretells, time_steps
from unlabeled.sensors.views import (
    MIN_REFERENCE,
    Scaling,
    Seen,
    View,
    departure,
    look,
    look_under_conditions,
    normal_pictures,
)

if TYPE_CHECKING:
    from unlabeled.sensors.vouched import Vouched

KIND = "sensors.MachineMonitor"
PARTS = ("mahalanobis", "nearest", "reconstruction", "indicators")
CALIBRATION_SHARE = 1 / 3  # of the normal period, its last part
MIN_CALIBRATION = 10
_DRAWS = 4  # masks over which one snapshot's reconstruction error is averaged


@dataclass(frozen=True, kw_only=True)
class Period:
    """The declared normal period, in row numbers: ``0..calibration-1`` fits, ``calibration..stop-1`` calibrates."""

    calibration: int
    stop: int


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

        An encoder that :meth:`pretrain` has not taught is first trained on the period's first two thirds.

        Raises:
            DataError: too few snapshots that can be judged (or independent peaks of their scores, for a budget of false
                alarms), or another kind of data than the pretraining's.
        """
        _checks.bearing(self)
        _checks.drift(self)
        if self.detector is not None:
            named(self.detector, seed=0)  # there is such a one, or it is said before anything is learnt
        stop = recording.normal_rows(share=normal_share, until=normal_until)
        seen, self.conditional_, cut = look_under_conditions(
            recording, rows=stop, window=self.window, share=1 - CALIBRATION_SHARE, find=self.find_regimes
        )
        if cut < MIN_REFERENCE or len(seen.rows) - cut < MIN_CALIBRATION:
            why = views.refusals(recording, rows=stop, window=self.window, normal=self.conditional_)
            raise DataError(
                f"{recording.asset}: {len(seen.rows)} snapshots of the normal period can be judged, at least "
                f"{MIN_REFERENCE * 3 // 2} are needed{views.in_words(why)}: {views.advice(why)}record longer, or "
                "enlarge --normal-share / --normal-until"
            )
        self.scaling_ = Scaling.of(seen.pictures[:cut], seen.indicators[:cut])
        pictures = self.scaling_.picture(seen.pictures)
        if not getattr(self, "pretrained_", False):
            learn(self, pictures[:cut], recording.fs, usual=MachineMonitor(), kind=KIND, state=state, log=log)
            self.fleet_ = [recording.asset]
        _checks.grid(self, pictures)
        self.level_, self.vouched_, self.spares_ = None, (), {}
        self.asset_, self.kind_, self.names_, self.fs_ = recording.asset, recording.kind, recording.names, recording.fs
        self.unit_ = recording.unit
        waveforms = recording.kind == "waveform"
        self.offset_ = Offset.of(recording.values[seen.rows[:cut]]) if waveforms else None
        self.samples_ = recording.values.shape[1] if waveforms else None
        self.harmonics_ = None
        if recording.fs is not None and self.shaft_hz is not None:
            self.harmonics_ = Normal.of(recording.values[seen.rows], fs=recording.fs, shaft_hz=self.shaft_hz)
        self.period_ = Period(calibration=int(seen.rows[cut]), stop=stop)
        self.plain_rules_ = usual_rules(recording, normal_rows=stop)
        self.data_fingerprint_ = fingerprint.of_array(recording.values[:stop])
        embedding, error = self.encode(pictures)
        outside = departure(self.scaling_.indicators(seen.indicators), self.kind_)
        self.set_reference(embedding, error, outside, cut)
        whole = Spare(embedding, error, outside, self.normal_, 1.0, None)
        self.threshold_, self.tail_ = self.threshold_of(whole, recording, seen.rows, cut)
        if seen.overall is not None and self.tail_ is None:  # a plain rule's own false alarms are in nobody's budget
            self.level_ = Level.of(seen.overall, names=recording.names, waveform=waveforms, threshold=self.threshold_)
        self.spares_ = spares.fit(self, recording, seen, cut)
        return self

    def threshold_of(
        self, normal: Spare, recording: Recording, rows: NDArray[np.int64], cut: int
    ) -> tuple[float, Tail | None]:
        """Of the smoothed score, by the calibration part of the normal period (its ``rows`` from ``cut`` on), and what
        the scores do beyond the usual where it meets a budget of false alarms.

        Raises:
            DataError: too few independent peaks for a budget.
        """
        held_out = zip(normal.embedding[cut:], normal.error[cut:], normal.outside[cut:], strict=True)
        scores = np.array([fused(self.parts(*one, spare=normal), None) for one in held_out])
        if self.false_alarms is not None:
            found = tail(scores, recording.hours[rows[cut:]], self.rule, what=recording.asset)
            return found.careful_threshold(self.false_alarms), found
        # Spread of single scores, not of smoothed ones: a few dozen of these hold a handful of independent values.
        return float(scores.mean() + self.sigmas * scores.std(ddof=1)), None

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
