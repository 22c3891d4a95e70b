"""What the encoder knows about one kind of history: a card's, a merchant's, or payments that stand alone.

Shape suffixes: n row, f field, d width.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.core import checkpoints, fingerprint
from unlabeled.core.audit.watch import Watch, looked_at
from unlabeled.core.batches import Batches
from unlabeled.core.budget import Budget
from unlabeled.core.dry_run import estimate
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import DataError
from unlabeled.core.pretext import Pretraining
from unlabeled.core.pretext.event_modelling import field_surprisal
from unlabeled.core.progress import say
from unlabeled.core.seeds import derive
from unlabeled.core.several_kinds import Lesson
from unlabeled.core.store import chunks
from unlabeled.core.tokens import EventFields
from unlabeled.core.training import History, TrainingSettings, fit, forget
from unlabeled.core.views import HistorySlice
from unlabeled.fraud import _finished
from unlabeled.fraud.fields import WHEN, FieldCodes, Part
from unlabeled.fraud.histories import Groups, gather, last_before, running_mean, windows_for, with_previous
from unlabeled.fraud.readers import DAY, Transactions
from unlabeled.fraud.tasks import COMPARING, SETTINGS, Question, build_task, event_modelling, importance

Floats = NDArray[np.float32]
_MOST_WINDOWS = 60_000
_MOST_ROUNDS = 10
_CHUNK_EVENTS = 16_384
EMBEDDED = 256  # histories at once
JUDGED = 8  # so often at most is a judge asked in one pretraining
EVENTS = Question()
_CLIP = 10.0  # nats: beyond 1 in 22,000 it makes no difference how rare
_RECENT, _LONGER = 5, 20


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the encoder is and how long it learns.

    Attributes:
        dim, depth, heads: of the encoder.
        length: events a window, even; half of them is the least history of a row, where there is as much.
        steps, batch_size, lr: of pretraining (batch in windows); fewer steps where they would go through the data
            more than ten times.
    """

    dim: int = 64
    depth: int = 2
    heads: int = 4
    length: int = 64
    steps: int = 1500
    batch_size: int = 16
    lr: float = 3e-3


@dataclass(frozen=True)
class Reading:
    """What the encoder says about some rows.

    Attributes:
        rows: which, sorted, (R,).
        ahead: ``-log p(field | history)``, (R, F), nats.
        rest: ``-log p(field | history, the payment's other fields)``, (R, F).
        lagged: ``-log p(field | history up to a day before)``, (R, F).
        state: the encoder's output after the row, (R, D).
        codes: the rows' fields, (R, F).
    """

    rows: NDArray[np.int64]
    ahead: Floats
    rest: Floats
    lagged: Floats
    state: Floats
    codes: NDArray[np.int16]

    def take(self, keep: NDArray[np.int64]) -> "Reading":
        """Some of the rows."""
        return Reading(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


class HistoryModel:
    """One causal encoder over one kind of history.

    Args:
        part: whose history; ``None`` for payments that stand alone.
        size: see :class:`Size`.
        question: what it is pretrained on; always ``events`` for payments that stand alone.
        seed: fixes weights, batches and masks.

    Raises:
        DataError: there is no such question.
    """

    def __init__(self, part: Part | None, *, size: Size, question: Question = EVENTS, seed: int) -> None:
        question.check()
        self.part, self.size, self.seed = part, size, seed
        self.question = question.of_single_payments() if part is None else question
        self.fields = FieldCodes(part)

    @property
    def name(self) -> str:
        """What its features are called after."""
        return {"entity": "card", "counterparty": "merchant", None: "alone"}[self.part]

    def pretrain(
        self,
        table: Transactions,
        training: NDArray[np.bool_],
        *,
        asked: NDArray[np.int8] | None = None,
        state: Path | None = None,
        log: Callable[[dict[str, float], int], None] | None = None,
        judge: Callable[[], float] | None = None,
        label: str = "pretraining",
    ) -> History:
        """Learns from the rows marked as training, without labels.

        Args:
            asked: (N,) 1, 0, or -1 where unknown: what some rows are is looked at on the way, each as the end of its
                history, and never learnt from.
            judge: asked at most eight times on the way how good the encoder is (higher is better); the best is kept.

        Raises:
            DataError: the task compares histories, and a batch holds a single one; or fewer than two of either label.
            CheckpointError: the interrupted pretraining in ``state`` is of other data or settings.
        """
        # Only training rows are in the order, so that no window can reach past the training period.
        part = table.take(training)
        batches = self._planned(table, training, part)
        describe = {
            "data": part.fingerprint(),
            "fields": self.fields.to_json(),
            "size": vars(self.size),
            **self.question.told(),
        }
        known = None
        if asked is not None:
            rows = looked_at(asked[training], asked[training] >= 0, rows="payments", seed=self.seed)
            known = self.ending_with(part, rows), asked[training][rows]
            describe["looked at"] = fingerprint.of_array(asked)
        history = None if state is None else _finished.read(self, state / f"{self.name}-done", describe)
        if history is not None:
            return history
        settings = self._settings(batches)
        history = fit(
            Pretraining(self.backbone, self.pretext),
            batches,
            settings=settings,
            seed=derive(self.seed, self.part or "alone"),
            state=None if state is None else state / self.name,
            describe=describe,
            watch=self._watch(batches, known),
            validate=judge,
            validate_every=math.ceil(settings.steps / JUDGED),
            log=log,
            label=label,
        )
        if state is not None:
            # The next kind of history may be interrupted too: what is learnt already must not be lost with it.
            _finished.write(self, state / f"{self.name}-done", history, describe)
            forget(state / self.name)
        return history

    def lesson(self, table: Transactions) -> Lesson:
        """What :meth:`pretrain` on all of a table would teach."""
        batches = self._planned(table, np.ones(len(table), dtype=bool), table)
        return Lesson(Pretraining(self.backbone, self.pretext), batches, self._view)

    def pretraining_cost(self, table: Transactions, training: NDArray[np.bool_], *, label: str) -> Budget:
        """What :meth:`pretrain` would cost here; the encoder is fresh afterwards, as if it had learnt nothing."""
        batches = self._planned(table, training, table.take(training))
        settings = self._settings(batches)
        return estimate(Pretraining(self.backbone, self.pretext), batches, settings, seed=self.seed, label=label)

    def _planned(self, table: Transactions, training: NDArray[np.bool_], part: Transactions) -> Batches:
        """Fits the fields, builds the encoder, and makes the windows of ``part``, the training rows."""
        self.fields.fit(table, training, self._groups(table))
        self._build()
        windows = self._windows(self.fields.codes(part, self._groups(part)), self._groups(part))
        batches = Batches(windows, batch_size=self._batch_size(), seed=derive(self.seed, self.part or "alone", "order"))
        if self.question.task in COMPARING and batches.batch_size < 2:
            raise DataError(
                f"'{self.question.task}' compares {self.name} histories with one another and needs two windows a "
                f"batch: there are {batches.rows}, {self._batch_size()} a batch. Choose the task 'events', or a larger "
                "batch_size"
            )
        return batches

    def _settings(self, batches: Batches) -> TrainingSettings:
        # Each event stands in two windows; more rounds than that, and small tables are learnt by heart.
        steps = min(self.size.steps, max(1, _MOST_ROUNDS * batches.per_epoch))
        if steps < self.size.steps:
            say(
                f"{self.name} histories: {steps} steps instead of {self.size.steps}, which go through them "
                f"{_MOST_ROUNDS} times; more would learn them by heart"
            )
        return TrainingSettings(steps=steps, lr=self.size.lr, log_every=20, checkpoint_every=50)

    def _watch(self, batches: Batches, known: tuple[Tensor, NDArray[np.int8]] | None) -> Watch | None:
        # Half as many where each is read twice: a look costs the same, and there are as many.
        return Watch.over(batches, rows=64 if self.part is None else 32, view=self._view, asked=known)

    def ending_with(self, table: Transactions, rows: NDArray[np.int64]) -> Tensor:
        """The histories, (R, L, F), that end with some payments (sorted positions), as the encoder reads them."""
        groups = self._groups(table)
        codes = self.fields.codes(table, groups)
        if groups is None:
            return torch.from_numpy(codes[rows][:, None].astype(np.int64))
        plan = windows_for(groups, rows, length=self.size.length)
        return torch.from_numpy(gather(codes, groups, start=plan.start[plan.window], size=plan.offset + 1))

    def embed(self, histories: Tensor) -> NDArray[np.float32]:
        """What the encoder, as it is now and where it is now, makes of histories (R, L, F): (R, D)."""
        device = next(self.backbone.parameters()).device
        with torch.no_grad():
            parts = [
                self.pretext.embed(self.backbone, histories[some].to(device)).cpu()
                for some in chunks(len(histories), EMBEDDED)
            ]
        return torch.cat(parts).numpy()

    @property
    def _view(self) -> HistorySlice | None:
        """Another view of a history: a run of it. A payment that stands alone has none."""
        return None if self.part is None else HistorySlice()

    def read(self, table: Transactions, rows: NDArray[np.int64]) -> Reading:
        """What the encoder says about ``rows`` (sorted positions), each from its own past alone."""
        groups = self._groups(table)
        codes = self.fields.codes(table, groups)
        if groups is None:
            groups = Groups.of(np.arange(len(table)))
            remembered = np.full(len(rows), -1)
            wanted = rows
        else:
            remembered = last_before(groups, table.time, lag=DAY)[rows]
            wanted = np.union1d(rows, remembered[remembered >= 0])
        before, after, start = self._states(codes, groups, wanted)
        at = np.searchsorted(wanted, rows)
        old = torch.where(
            torch.from_numpy(remembered >= 0)[:, None],
            after[torch.from_numpy(np.searchsorted(wanted, np.maximum(remembered, 0)).clip(max=len(wanted) - 1))],
            start,
        )
        event = torch.from_numpy(codes[rows].astype(np.int64))
        ahead, rest = self._surprisal(before[torch.from_numpy(at)], event)
        lagged = ahead if self.part is None else self._surprisal(old, event, rest=False)[0]
        return Reading(rows, ahead, rest, lagged, after[torch.from_numpy(at)].numpy(), codes[rows])

    def features(self, table: Transactions, rows: NDArray[np.int64]) -> tuple[dict[str, Floats], Reading]:
        """Features by name for ``rows``, and the reading of those rows."""
        groups = self._groups(table)
        name = self.name
        wide = self.read(table, rows if groups is None else with_previous(groups, rows, count=_LONGER - 1))
        keep = np.searchsorted(wide.rows, rows)
        reading = wide.take(keep)
        made: dict[str, Floats] = {}
        for kind in ("ahead", "rest", "lagged"):
            if kind == "lagged" and groups is None:
                continue
            values = getattr(reading, kind)
            made |= {f"{name} {kind} {field}": values[:, i] for i, field in enumerate(self.fields.names)}
            made[f"{name} {kind} total"] = values.sum(axis=1)
        if groups is not None:
            what = [i for i, field in enumerate(self.fields.names) if field not in WHEN]
            content = wide.lagged[:, what].sum(axis=1)
            made[f"{name} content"] = content[keep]
            made[f"{name} content mean of {_RECENT}"] = running_mean(groups, wide.rows, content, count=_RECENT)[keep]
            for kind, values in (("ahead", wide.ahead), ("lagged", wide.lagged)):
                for count in (_RECENT, _LONGER):
                    means = running_mean(groups, wide.rows, values.sum(axis=1), count=count)
                    made[f"{name} {kind} mean of {count}"] = means[keep]
            for i, field in enumerate(self.fields.names):
                means = running_mean(groups, wide.rows, wide.ahead[:, i], count=_RECENT)
                made[f"{name} ahead {field} mean of {_RECENT}"] = means[keep]
        return made, reading

    def tensors(self) -> dict[str, Tensor]:
        """What scoring needs by name; the head of a second task has done its work in pretraining."""
        return {f"backbone.{k}": v for k, v in self.backbone.state_dict().items()} | {
            f"pretext.{k}": v for k, v in self.events.state_dict().items()
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "size": vars(self.size),
            **asdict(self.question),
            "seed": self.seed,
            "fields": self.fields.to_json(),
        }

    @staticmethod
    def from_saved(content: Mapping[str, Any], tensors: Mapping[str, Tensor], *, folder: object) -> "HistoryModel":
        # Folders that know of no task were pretrained on events.
        question = Question(**{name: content[name] for name in SETTINGS if name in content})
        made = HistoryModel(content["part"], size=Size(**content["size"]), question=question, seed=content["seed"])
        made.fields = FieldCodes.from_json(content["fields"])
        made._build()
        made.load(tensors, folder)
        return made

    def load(self, tensors: Mapping[str, Tensor], folder: object) -> None:
        for name, module in (("backbone.", self.backbone), ("pretext.", self.events)):
            checkpoints.put(module, checkpoints.under(name, tensors), what=folder)
            module.eval()

    def _build(self) -> None:
        size = self.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, self.part or "alone", "weights"))
            tokenizer = EventFields(sizes=self.fields.sizes, dim=size.dim, length=size.length)
            encoder = Encoder(dim=size.dim, depth=size.depth, heads=size.heads, causal=True)
            self.backbone = Backbone(tokenizer, encoder)
            asked = self.question
            self.pretext = build_task(
                self.backbone,
                task=asked.task,
                prior=importance(self.fields.names) if asked.masking == "fields" else None,
                run=asked.masking == "run",
                seed=self.seed,
                temperature=asked.temperature,
                ratio=asked.mask_ratio,
                augmentation=asked.augmentation,
            )
        self.events = event_modelling(self.pretext)

    def _groups(self, table: Transactions) -> Groups | None:
        code = None if self.part is None else table.codes(self.part)
        return None if code is None else Groups.of(code)

    def _batch_size(self) -> int:
        return self.size.batch_size if self.part else self.size.batch_size * self.size.length // 4

    def _windows(self, codes: NDArray[np.int16], groups: Groups | None) -> NDArray[np.int64]:
        """Training windows (W, L, F); the latest ones when there are very many."""
        if groups is None:
            return codes[:, None].astype(np.int64)
        plan = windows_for(groups, np.arange(len(codes)), length=self.size.length)
        chosen = np.arange(len(plan.start))
        if len(chosen) > _MOST_WINDOWS:
            newest = groups.order[plan.start + plan.size - 1]
            chosen = np.sort(np.argsort(newest, kind="stable")[-_MOST_WINDOWS:])
        return gather(codes, groups, start=plan.start[chosen], size=plan.size[chosen])

    @torch.no_grad()
    def _states(
        self, codes: NDArray[np.int16], groups: Groups, rows: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """States before and after each of ``rows``, (R, D) each, and the one of an empty history, (1, D)."""
        plan = windows_for(groups, rows, length=self.size.length)
        before, after = (torch.empty(len(rows), self.size.dim) for _ in range(2))
        by_size = np.argsort(plan.size, kind="stable")
        by_window = np.argsort(plan.window, kind="stable")
        edges = np.searchsorted(plan.window[by_window], np.arange(len(plan.start) + 1))
        per_chunk = max(1, _CHUNK_EVENTS // (int(plan.size.max(initial=1)) + 1))
        for some in chunks(len(by_size), per_chunk):
            chosen = np.sort(by_size[some])
            out = self.backbone(
                torch.from_numpy(gather(codes, groups, start=plan.start[chosen], size=plan.size[chosen]))
            )
            counts = edges[chosen + 1] - edges[chosen]
            line = np.repeat(np.arange(len(chosen)), counts)
            within = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
            here = by_window[np.repeat(edges[chosen], counts) + within]
            target, offset = torch.from_numpy(here), torch.from_numpy(plan.offset[here])
            before[target] = out[torch.from_numpy(line), offset]
            after[target] = out[torch.from_numpy(line), offset + 1]
        empty = self.backbone(torch.zeros(1, 1, codes.shape[1], dtype=torch.int64))[:, 0]
        return before, after, empty

    @torch.no_grad()
    def _surprisal(self, state: Tensor, event: Tensor, *, rest: bool = True) -> tuple[Floats, Floats]:
        parts = []
        for some in chunks(len(event), 8_192):
            if rest:
                parts.append(self.events.surprisal(self.backbone, state[some], event[some]))
            else:
                parts.append((field_surprisal(self.events.logits(state[some]), event[some]),) * 2)
        ahead, others = (torch.cat(side).clamp(max=_CLIP).numpy() for side in zip(*parts, strict=True))
        return ahead, others
