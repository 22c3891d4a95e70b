"""The one training loop, for pretraining and fine-tuning alike.

Device, precision and processes come from PyTorch itself: the same script runs alone or under
``torchrun``. Everything random is a function of (seed, step), so that a run that was killed and started
again goes through the very losses of one that was not (on a GPU, up to rounding).
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.core import progress
from unlabeled.core.audit.watch import Watch
from unlabeled.core.batches import Batches
from unlabeled.core.budget import compare
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import BadBatchError, Interrupted, TrainingError
from unlabeled.core.history import History as History
from unlabeled.core.interrupts import interruptible
from unlabeled.core.meter import Meter, flops_of, measure, predict
from unlabeled.core.optimization import TrainingSettings as TrainingSettings
from unlabeled.core.optimization import make_optimizer, train_step
from unlabeled.core.processes import Processes
from unlabeled.core.resume import TrainingState
from unlabeled.core.seeds import derive

Log = Callable[[dict[str, float], int], None]
# Seconds of a training from which what it took is said beside what was predicted.
WORTH_SAYING = 20.0
# What must be finite after every step: either alone spoils the weights.
_DECISIVE = {"loss": "the loss was", "gradient_norm": "the norm of the gradients was"}


def fit(
    module: nn.Module,
    batches: Batches,
    *,
    settings: TrainingSettings,
    seed: int = 0,
    state: Path | None = None,
    describe: Mapping[str, Any] | None = None,
    validate: Callable[[], float] | None = None,
    validate_every: int = 50,
    patience: int | None = None,
    watch: Watch | None = None,
    log: Log | None = None,
    label: str = "training",
) -> History:
    """Trains ``module`` in place, on the device of the settings; afterwards it is where it was.

    Args:
        module: ``forward(batch, step) -> Loss`` (:class:`~unlabeled.core.pretext.Pretraining`,
            :class:`~unlabeled.core.heads.Classifier`).
        batches: where batch ``i`` comes from.
        settings: optimiser, precision and rhythm.
        seed: fixes dropout and anything else that draws from PyTorch's global generator.
        state: folder for resumable training states; ``None`` keeps none. The last stays when training ends, so that a
            full disk at the saving of what was learnt costs the last steps only: :func:`forget` it after that.
        describe: what the run is made of (data fingerprint, architecture...). A state of a run with
            another description is refused, with the differences.
        validate: called every ``validate_every`` steps and at the end, with the module on the training's device; higher
            is better. The best weights are put back at the end.
        patience: stop after so many validations in a row without a better one.
        watch: looks at the embeddings now and then, adds its curves, and ends a training that collapses. Each
            healthy look keeps a training state.
        log: receives ``{name: value}`` and the step, on the leading process only.
        label: text of the progress bar.

    Raises:
        BadBatchError: the loss or its gradients are no longer finite; the batch's row numbers are saved beside
            ``state``.
        TrainingError: ``validate`` gives no finite number.
        CollapseError: what ``watch`` sees no longer tells inputs apart. The module has its last healthy weights
            again, and what is left in ``state`` is from that look or before.
        CheckpointError: the saved state belongs to another run.
        Interrupted: Ctrl-C; the state was saved.
    """
    home = next((parameter.device for parameter in module.parameters()), None)
    try:
        training = _Training(module, batches, settings, seed=seed, watch=watch, log=log, label=label)
        if validate is not None:
            training.judge = _Judge(validate, every=validate_every, patience=patience)
        # Not the device: on another one a run is still the same run.
        made_of = {name: value for name, value in asdict(settings).items() if name != "device"}
        training.keep_in(state, {"settings": made_of, "seed": seed, **(describe or {})})
        return training.run()
    finally:
        module.to(home)


def forget(state: Path | None) -> None:
    """Removes training states; for when what was learnt has been saved."""
    if state is not None:
        shutil.rmtree(state, ignore_errors=True)


@dataclass
class _Judge:
    """Validation, and the best weights by it."""

    validate: Callable[[], float]
    every: int
    patience: int | None
    best: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0

    @property
    def out_of_patience(self) -> bool:
        return self.patience is not None and self.stale >= self.patience


class _Training:
    """One run of :func:`fit`: the module, where it stands, and what is kept of it."""

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        settings: TrainingSettings,
        *,
        seed: int,
        watch: Watch | None,
        log: Log | None,
        label: str,
    ) -> None:
        self.module, self.batches, self.settings, self.seed = module, batches, settings, seed
        self.watch, self.label = watch, label
        self.processes = Processes(settings.device)
        self.log: Log = log if log and self.processes.leads else lambda values, step: None
        module.to(self.processes.device).train()
        self.optimizer = make_optimizer(module, settings)
        self.history, self.step = History(), 0
        self.judge: _Judge | None = None
        self.state: Path | None = None
        self.saved: TrainingState | None = None
        self.healthy: dict[str, Tensor] = {}
        self.window: list[dict[str, Tensor]] = []

    def keep_in(self, state: Path | None, description: Mapping[str, Any]) -> None:
        """Keeps states in a folder, and goes on from the newest that is there."""
        if state is None:
            return
        self.state, self.saved = state, TrainingState(state, description)
        found = self.saved.load(self.module, self.optimizer)
        if found is None:
            return
        self.history = found.history
        self.step = self.history.steps
        self.history.resumed_from = found.step
        if self.judge is not None:
            self.judge.best, self.judge.stale = found.best, found.stale
        device = self.processes.device
        self.window = [{k: torch.tensor(v, device=device) for k, v in entry.items()} for entry in found.window]

    def run(self) -> History:
        """Trains to the end, or until patience runs out."""
        steps, processes, history = self.settings.steps, self.processes, self.history
        self.began = time.monotonic() - history.seconds
        self.wrapped = processes.wrap(self.module)
        self.meter = Meter(steps - self.step, device=processes.device, on=processes.leads and history.predicted is None)
        if history.predicted is not None:
            self.log(history.predicted.metrics(), self.step)
        looks = self._rhythm()
        with (
            torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []),
            progress.bar(self.label, steps, done=self.step, shown=processes.leads) as bar,
            interruptible() as interrupted,
        ):
            if self.watch is not None and self.step == 0:
                self._look(self.watch)
            while self.step < steps:
                self._one_step()
                if self._due(self.settings.log_every):
                    bar.advance(to=self.step, note=f"loss {self._flush():.4f}")
                if self.judge is not None and self._due(self.judge.every):
                    self._validate(self.judge)
                    if self.judge.out_of_patience:
                        break
                keep = self.step % self.settings.checkpoint_every == 0
                if self.watch is not None and self._due(looks):
                    keep |= self._look(self.watch)
                if interrupted.is_set():
                    self._save()
                    raise Interrupted(f"stopped at step {self.step} of {steps}; {_goes_on(self.saved, self.step)}")
                if keep and self.step < steps:
                    self._save()
        return self._end()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def _rhythm(self) -> int:
        """Steps between two looks of the watch."""
        if self.watch is None:
            return 0
        return self.watch.rhythm(
            steps=self.settings.steps,
            batch_size=self.batches.batch_size,
            checkpoint_every=self.settings.checkpoint_every,
        )

    def _one_step(self) -> None:
        processes, meter = self.processes, self.meter
        meter.start()
        torch.manual_seed(derive(self.seed, "torch", self.step, processes.rank))
        batch = self.batches.at(self.step, rank=processes.rank, world=processes.world, device=processes.device)
        self.window.append(train_step(self.wrapped, self.optimizer, batch, self.step, self.settings, processes.device))
        meter.stop()
        self.step += 1
        if meter.ready:
            self.history.predicted = predict(
                meter, self.module, batch, self.optimizer, label=self.label, step=self.step, steps=self.settings.steps,
                seconds=time.monotonic() - self.began,
                save_every=self.settings.checkpoint_every if self.saved else None, world=processes.world,
            )  # fmt: skip
            self.log(self.history.predicted.metrics(), self.step)

    def _flush(self) -> float:
        """Means over the window into the curves; one transfer from the device, not one a step. Returns the loss."""
        self._check_finite()
        means = {
            name: float(torch.stack([entry[name].float() for entry in self.window]).mean()) for name in self.window[0]
        }
        for name, value in means.items():
            self.history.add(name, self.step, value)
        self.log(means, self.step)
        self.window.clear()
        return means["loss"]

    def _validate(self, judge: _Judge) -> None:
        self._check_finite()  # a judge could only say that something is not finite, not which batch made it so
        self.module.eval()
        with torch.no_grad():
            score = self.processes.agree(judge.validate())
        self.module.train()
        if not math.isfinite(score):
            raise TrainingError(f"the validation gave {score} at step {self.step}, which can be compared with nothing")
        self.history.add("validation", self.step, score)
        self.log({"validation": score}, self.step)
        if self.history.best_score is None or score > self.history.best_score:
            self.history.best_score, self.history.best_step, judge.stale = score, self.step, 0
            judge.best = _copy(self.module)
        else:
            judge.stale += 1

    def _look(self, watch: Watch) -> bool:
        """One look, at which a training that collapses ends; True where its weights are worth keeping."""
        processes = self.processes
        self._check_finite()
        numbers = watch.look(self.module) if processes.leads else dict.fromkeys(watch.names(self.module), 0.0)
        numbers = {name: processes.agree(value) for name, value in numbers.items()}
        if not all(map(math.isfinite, numbers.values())):
            raise self._bad_batch("the embeddings were not finite after the batch", self.step - 1)
        for name, value in numbers.items():
            self.history.add(name, self.step, value)
        self.log(numbers, self.step)
        health = watch.health(self.history.curves, ended=self.step == self.settings.steps)
        if not health.low:
            self.healthy = _copy(self.module)
        if health.collapsed:
            self._put_back(health.kept)
            where = _where(health.kept, bool(self.healthy), self.saved)
            error = watch.error(health, self.module, step=self.step, where=where)
            self.history.steps, self.history.seconds = self.step, time.monotonic() - self.began
            error.history = self.history
            raise error
        return not health.low

    def _put_back(self, kept: int | None) -> None:
        """The weights of the last healthy look, in memory and as the newest state."""
        if not self.healthy and self.saved is not None:
            self.healthy = self.saved.weights_at(kept)
        if self.healthy:
            self.module.load_state_dict(self.healthy)
        self.module.eval()
        self.processes.barrier()
        if self.saved is not None and self.processes.leads:
            self.saved.drop_after(kept)

    def _save(self) -> None:
        if self.saved is None or not self.processes.leads:
            return
        self.history.steps, self.history.seconds = self.step, time.monotonic() - self.began
        open_window = [{name: float(value) for name, value in entry.items()} for entry in self.window]
        if not all(math.isfinite(entry[name]) for entry in open_window for name in _DECISIVE):
            return  # those weights are spoilt, and the next flush says so
        self.saved.save(
            self.module,
            self.optimizer,
            step=self.step,
            history=asdict(self.history),
            best=self.judge.best if self.judge else {},
            stale=self.judge.stale if self.judge else 0,
            window=open_window,
            protect=None if self.watch is None else self.watch.health(self.history.curves).kept,
        )

    def _end(self) -> History:
        """The rest of the curves, what it cost, and the best weights."""
        if self.window:
            self._flush()
        self.history.steps, self.history.seconds = self.step, time.monotonic() - self.began
        _account(self.history, self.label, self.processes, self.log, last=self._last_flops)
        if self.judge is not None and self.judge.best:
            self.module.load_state_dict(self.judge.best)
        self.module.eval()
        self.processes.barrier()
        return self.history

    def _last_flops(self) -> int:
        """Of this process's share of the last step."""
        batch = self.batches.at(max(0, self.step - 1), rank=self.processes.rank, world=self.processes.world)
        return flops_of(self.module, batch)

    def _check_finite(self) -> None:
        """Stops at the first loss or gradient, of any process, that is not finite, and says which rows it came from."""
        window, begin = self.window, self.step - len(self.window)
        rows = [torch.stack([entry[name].float() for name in _DECISIVE]) for entry in window]
        values = torch.stack(rows).cpu() if rows else torch.zeros(0, len(_DECISIVE))
        bad = (~torch.isfinite(values)).any(dim=1).nonzero()
        # Gradients are shared, so one process's bad loss is every other's a step later: the first is the cause.
        first = self.processes.least(begin + int(bad[0]) if len(bad) else math.inf)
        if math.isfinite(first):
            spoilt = [
                f"{said} {value}"
                for said, value in zip(_DECISIVE.values(), values[int(first) - begin].tolist(), strict=True)
                if not math.isfinite(value)
            ]
            # Finite here where another process had the bad share of the batch.
            raise self._bad_batch(spoilt[0] if spoilt else "the loss was not finite", int(first))

    def _bad_batch(self, what: str, step: int) -> BadBatchError:
        """The error for batch ``step``, whose row numbers are saved where training states are kept."""
        rows = [int(row) for row in self.batches.rows_at(step)]
        where = "they are this error's rows"
        if self.state is not None:
            path = self.state.with_name(f"{self.state.name.lstrip('.')}-bad-batch.json")
            where = f"rows saved in {path}"
            if self.processes.leads:
                try:
                    write_atomically(path, json.dumps({"step": step, "what": what, "rows": rows}) + "\n")
                except OSError as error:  # a full disk must not hide why the training stopped
                    where = f"rows {', '.join(map(str, rows))}; they could not be saved in {path}: {error.strerror}"
        latest = None if self.saved is None else self.saved.latest()
        anew = (
            "" if latest is None else f" and delete {self.state} to start anew (its newest state is of step {latest})"
        )
        message = (
            f"{what} at step {step}: look for NaN or very large numbers in that batch of {len(rows)} ({where}), "
            f"or lower the learning rate{anew}"
        )
        return BadBatchError(message, step=step, rows=rows)


def _account(history: History, label: str, processes: Processes, log: Log, *, last: Callable[[], int]) -> None:
    """What was spent, into the history and the record, beside what was predicted."""
    history.spent = measure(
        label,
        steps=history.steps,
        seconds=history.seconds,
        predicted=history.predicted,
        device=processes.device,
        world=processes.world,
        last=last,
    )
    numbers = history.spent.metrics()
    if history.predicted is not None:
        compared = compare(history.predicted, history.spent)
        numbers["budget.error"] = compared.error
        if history.spent.seconds >= WORTH_SAYING:
            progress.say(compared.line)
    log(numbers, history.steps)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _goes_on(saved: TrainingState | None, step: int) -> str:
    """What an interrupted user can count on."""
    latest = None if saved is None else saved.latest()
    if latest is None:
        return "nothing was kept"
    return "the same command goes on from there" if latest == step else f"the same command goes on from step {latest}"


def _where(kept: int | None, in_memory: bool, saved: TrainingState | None) -> str:
    """What became of the weights of the last healthy look, for the message of a collapse."""
    if kept is None or not in_memory:
        return "No earlier look was healthy, or its weights could not be kept."
    said = f"The weights of step {kept}, the last healthy look, are back in the model"
    if saved is None or saved.latest() is None:
        return f"{said}."
    return f"{said} and kept in {saved.folder}: delete it to start anew with other settings."
