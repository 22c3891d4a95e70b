"""The one training loop, for pretraining and fine-tuning alike.

Device, precision and processes come from PyTorch itself: the same script runs alone or under
``torchrun``. Everything random is a function of (seed, step), so that a run that was killed and started
again goes through the very losses of one that was not.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.core import progress
from unlabeled.core.audit.watch import Watch
from unlabeled.core.batches import Batches
from unlabeled.core.budget import Budget, Spent, compare
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import BadBatchError, Interrupted
from unlabeled.core.meter import Meter, measure, predict
from unlabeled.core.optimization import TrainingSettings as TrainingSettings
from unlabeled.core.optimization import make_optimizer, train_step
from unlabeled.core.processes import Processes
from unlabeled.core.resume import TrainingState
from unlabeled.core.seeds import derive

# Seconds of a training from which what it took is said beside what was predicted.
WORTH_SAYING = 20.0


@dataclass
class History:
    """What happened: curves as ``name -> [(step, value), ...]``, how it ended, and what it cost (predicted from its
    first steps, where there were enough of them, and spent; a resumed run keeps its first prediction)."""

    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    resumed_from: int = 0
    best_step: int | None = None
    best_score: float | None = None
    predicted: Budget | None = None
    spent: Spent | None = None

    def add(self, name: str, step: int, value: float) -> None:
        self.curves.setdefault(name, []).append((step, value))


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
    log: Callable[[dict[str, float], int], None] | None = None,
    label: str = "training",
) -> History:
    """Trains ``module`` in place.

    Args:
        module: ``forward(batch, step) -> Loss`` (:class:`~unlabeled.core.pretext.Pretraining`,
            :class:`~unlabeled.core.heads.Classifier`).
        batches: where batch ``i`` comes from.
        settings: optimiser, precision and rhythm.
        seed: fixes dropout and anything else that draws from PyTorch's global generator.
        state: folder for resumable training states; ``None`` keeps none. Removed when training ends well.
        describe: what the run is made of (data fingerprint, architecture...). A state of a run with
            another description is refused, with the differences.
        validate: called every ``validate_every`` steps and at the end; higher is better. The best weights
            are put back at the end.
        patience: stop after so many validations in a row without a better one.
        watch: looks at the embeddings now and then, adds its curves, and ends a training that collapses. Each
            healthy look keeps a training state.
        log: receives ``{name: value}`` and the step, on the leading process only.
        label: text of the progress bar.

    Raises:
        BadBatchError: the loss is no longer a finite number; the batch's row numbers are saved beside ``state``.
        CollapseError: what ``watch`` sees no longer tells inputs apart. The module has its last healthy weights
            again, and what is left in ``state`` is from that look or before.
        CheckpointError: the saved state belongs to another run.
        Interrupted: Ctrl-C; the state was saved.
    """
    processes = Processes(settings.device)
    module.to(processes.device).train()
    optimizer = make_optimizer(module, settings)
    history, best, stale = History(), dict[str, Tensor](), 0
    healthy: dict[str, Tensor] = {}
    window: list[dict[str, Tensor]] = []
    saved = None
    if state is not None:
        saved = TrainingState(state, {"settings": asdict(settings), "seed": seed, **(describe or {})})
        found = saved.load(module, optimizer)
        if found is not None:
            history = History(**found.history)
            history.curves = {name: [(at, value) for at, value in curve] for name, curve in history.curves.items()}
            earlier = found.history.get("predicted")
            history.predicted = None if earlier is None else Budget(**earlier)
            history.resumed_from, best, stale = found.step, found.best, found.stale
            window = [
                {name: torch.tensor(value, device=processes.device) for name, value in entry.items()}
                for entry in found.window
            ]
    step = history.steps
    wrapped = processes.wrap(module)
    began = time.monotonic() - history.seconds
    record = log if log and processes.leads else lambda values, step: None
    meter = Meter(settings.steps - step, device=processes.device, on=processes.leads and history.predicted is None)
    if history.predicted is not None:
        record(history.predicted.metrics(), step)
    every = 0
    if watch is not None:
        every = watch.rhythm(
            steps=settings.steps, batch_size=batches.batch_size, checkpoint_every=settings.checkpoint_every
        )

    def save() -> None:
        if saved is not None and processes.leads:
            history.steps, history.seconds = step, time.monotonic() - began
            open_window = [{name: float(value) for name, value in entry.items()} for entry in window]
            if not all(math.isfinite(entry["loss"]) for entry in open_window):
                return  # those weights are spoilt, and the next flush says so
            saved.save(
                module,
                optimizer,
                step=step,
                history=asdict(history),
                best=best,
                stale=stale,
                window=open_window,
                protect=None if watch is None else watch.health(history.curves).kept,
            )

    def look(watch: Watch) -> bool:
        """One look, at which a training that collapses ends; True where its weights are worth keeping."""
        nonlocal healthy
        _check_finite(window, step, processes, batches, state)
        numbers = watch.look(module) if processes.leads else dict.fromkeys(watch.names(module), 0.0)
        numbers = {name: processes.agree(value) for name, value in numbers.items()}
        if not all(map(math.isfinite, numbers.values())):
            raise _bad_batch("the embeddings were not finite after the batch", step - 1, processes, batches, state)
        for name, value in numbers.items():
            history.add(name, step, value)
        if log and processes.leads:
            log(numbers, step)
        health = watch.health(history.curves)
        if not health.low:
            healthy = _copy(module)
        if health.collapsed:
            if not healthy and saved is not None:
                healthy = saved.weights_at(health.kept)
            if healthy:
                module.load_state_dict(healthy)
            module.eval()
            processes.barrier()
            if saved is not None and processes.leads:
                saved.drop_after(health.kept)
            raise watch.error(health, module, step=step, where=_where(health.kept, bool(healthy), saved))
        return not health.low

    with (
        torch.random.fork_rng(devices=[]),
        progress.bar(label, settings.steps, done=step, shown=processes.leads) as bar,
        _interruptible() as interrupted,
    ):
        if watch is not None and step == 0:
            look(watch)
        while step < settings.steps:
            meter.start()
            torch.manual_seed(derive(seed, "torch", step, processes.rank))
            batch = batches.at(step, rank=processes.rank, world=processes.world)
            window.append(train_step(wrapped, optimizer, batch, step, settings, processes.device))
            meter.stop()
            step += 1
            if step % settings.log_every == 0 or step == settings.steps:
                _check_finite(window, step, processes, batches, state)
                latest = _flush(window, history, step, processes, log)
                bar.advance(to=step, note=f"loss {latest:.4f}")
            if meter.ready:
                history.predicted = predict(
                    meter, module, batch, optimizer, label=label, step=step, steps=settings.steps,
                    seconds=time.monotonic() - began, save_every=settings.checkpoint_every if saved else None,
                    world=processes.world,
                )  # fmt: skip
                record(history.predicted.metrics(), step)
            if validate is not None and (step % validate_every == 0 or step == settings.steps):
                module.eval()
                with torch.no_grad():
                    score = processes.agree(validate())
                module.train()
                history.add("validation", step, score)
                if log and processes.leads:
                    log({"validation": score}, step)
                if history.best_score is None or score > history.best_score:
                    history.best_score, history.best_step, stale = score, step, 0
                    best = _copy(module)
                else:
                    stale += 1
                if patience is not None and stale >= patience:
                    break
            keep = step % settings.checkpoint_every == 0
            if watch is not None and (step % every == 0 or step == settings.steps):
                keep |= look(watch)
            if interrupted.is_set():
                save()
                raise Interrupted(f"stopped at step {step} of {settings.steps}; {_goes_on(saved, step)}")
            if keep and step < settings.steps:
                save()
    if window:
        _check_finite(window, step, processes, batches, state)
        _flush(window, history, step, processes, log)
    history.steps, history.seconds = step, time.monotonic() - began
    _account(history, label, processes, record)
    if best:
        module.load_state_dict(best)
    module.eval()
    processes.barrier()
    if saved is not None and processes.leads:
        saved.remove()
    return history


def _account(history: History, label: str, processes: Processes, log: Callable[[dict[str, float], int], None]) -> None:
    """What was spent, into the history and the record, beside what was predicted."""
    history.spent = measure(
        label,
        steps=history.steps,
        seconds=history.seconds,
        predicted=history.predicted,
        device=processes.device,
        world=processes.world,
    )
    numbers = history.spent.metrics()
    if history.predicted is not None:
        compared = compare(history.predicted, history.spent)
        numbers["budget.error"] = compared.error
        if history.spent.seconds >= WORTH_SAYING:
            progress.say(compared.line)
    log(numbers, history.steps)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a termination signal sets, so that a step is never cut in half. A second
    signal does what it always does."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _flush(
    window: list[dict[str, Tensor]],
    history: History,
    step: int,
    processes: Processes,
    log: Callable[[dict[str, float], int], None] | None,
) -> float:
    """Means over the window into the curves; one transfer from the device, not one a step."""
    means: dict[str, float] = {}
    for name in window[0]:
        means[name] = float(torch.stack([entry[name].float() for entry in window]).mean())
    for name, value in means.items():
        history.add(name, step, value)
    if log and processes.leads:
        log(means, step)
    window.clear()
    return means["loss"]


def _check_finite(
    window: list[dict[str, Tensor]], step: int, processes: Processes, batches: Batches, state: Path | None
) -> None:
    """Stops at the first loss, of any process, that is no finite number, and says which rows it came from."""
    losses = torch.stack([entry["loss"].float() for entry in window]) if window else torch.zeros(0)
    bad = (~torch.isfinite(losses)).nonzero()
    # Gradients are shared, so one process's bad loss is every other's a step later: the first is the cause.
    first = processes.least(step - len(window) + int(bad[0]) if len(bad) else math.inf)
    if math.isfinite(first):
        value = float(losses[int(first) - step + len(window)])
        # Finite here where another process had the bad share of the batch.
        said = "not finite" if math.isfinite(value) else str(value)
        raise _bad_batch(f"the loss was {said}", int(first), processes, batches, state)


def _bad_batch(what: str, step: int, processes: Processes, batches: Batches, state: Path | None) -> BadBatchError:
    """The error for batch ``step``, whose row numbers are saved where training states are kept."""
    rows = [int(row) for row in batches.rows_at(step)]
    where = "they are this error's rows"
    if state is not None:
        path = state.with_name(f"{state.name.lstrip('.')}-bad-batch.json")
        where = f"rows saved in {path}"
        if processes.leads:
            write_atomically(path, json.dumps({"step": step, "what": what, "rows": rows}) + "\n")
    message = (
        f"{what} at step {step}: look for NaN or very large numbers in that batch of {len(rows)} ({where}), "
        "or lower the learning rate"
    )
    return BadBatchError(message, step=step, rows=rows)


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
