"""The one training loop, for pretraining and fine-tuning alike.

Device, precision and processes come from PyTorch itself: the same script runs alone or under
``torchrun``. Everything random is a function of (seed, step), so that a run that was killed and started
again goes through the very losses of one that was not.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unlabeled.core import progress
from unlabeled.core.batches import Batches
from unlabeled.core.budget import Budget, Spent, compare
from unlabeled.core.errors import Interrupted, TrainingError
from unlabeled.core.meter import Meter, measure, predict
from unlabeled.core.resume import TrainingState
from unlabeled.core.seeds import derive


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """AdamW with a linear warm-up and a cosine descent to zero (Loshchilov and Hutter, 2019).

    Attributes:
        steps: optimiser steps.
        lr: highest learning rate.
        weight_decay: on matrices only, not on biases, norms or tables of one row.
        warmup: share of the steps over which the learning rate rises.
        clip: largest gradient norm.
        precision: ``float32``, or ``bfloat16`` autocast where the processor has it (a slow-down where not).
        device: ``auto`` takes a GPU when there is one.
        log_every: steps between two points of a curve (each is the mean over them).
        checkpoint_every: steps between two saved training states.
    """

    steps: int
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    log_every: int = 10
    checkpoint_every: int = 100


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


class Processes:
    """This process among those that train together (one, unless ``torchrun`` started more)."""

    def __init__(self, device: str = "auto") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        cuda = torch.cuda.is_available()
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device((f"cuda:{local}" if cuda else "cpu") if device == "auto" else device)
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        return DistributedDataParallel(module) if self.world > 1 else module

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def agree(self, value: float) -> float:
        """Rank 0's value, everywhere."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())


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
        log: receives ``{name: value}`` and the step, on the leading process only.
        label: text of the progress bar.

    Raises:
        TrainingError: the loss is no longer a finite number.
        CheckpointError: the saved state belongs to another run.
        Interrupted: Ctrl-C; the state was saved.
    """
    processes = Processes(settings.device)
    module.to(processes.device).train()
    optimizer = make_optimizer(module, settings)
    history, best, stale = History(), dict[str, Tensor](), 0
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
            window = [{name: torch.tensor(value) for name, value in entry.items()} for entry in found.window]
    step = history.steps
    wrapped = processes.wrap(module)
    began = time.monotonic() - history.seconds
    record = log if log and processes.leads else lambda values, step: None
    meter = Meter(settings.steps - step, device=processes.device, on=processes.leads and history.predicted is None)
    if history.predicted is not None:
        record(history.predicted.metrics(), step)

    def save() -> None:
        if saved is not None and processes.leads:
            history.steps, history.seconds = step, time.monotonic() - began
            open_window = [{name: float(value) for name, value in entry.items()} for entry in window]
            saved.save(
                module, optimizer, step=step, history=asdict(history), best=best, stale=stale, window=open_window
            )

    with (
        torch.random.fork_rng(devices=[]),
        progress.bar(label, settings.steps, done=step, shown=processes.leads) as bar,
        _interruptible() as interrupted,
    ):
        while step < settings.steps:
            meter.start()
            torch.manual_seed(derive(seed, "torch", step, processes.rank))
            batch = batches.at(step, rank=processes.rank, world=processes.world)
            window.append(train_step(wrapped, optimizer, batch, step, settings, processes.device))
            meter.stop()
            step += 1
            if step % settings.log_every == 0 or step == settings.steps:
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
                    best = {name: value.detach().clone() for name, value in module.state_dict().items()}
                else:
                    stale += 1
                if patience is not None and stale >= patience:
                    break
            if interrupted.is_set():
                save()
                kept = "the same command goes on from there" if saved else "nothing was kept"
                raise Interrupted(f"stopped at step {step} of {settings.steps}; {kept}")
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                save()
    if window:
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


def make_optimizer(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The AdamW of :class:`TrainingSettings`."""
    groups = parameter_groups(module, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95), fused=True)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.squeeze().ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.squeeze().ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear from 0 over the warm-up, then half a cosine to 0 at the last step."""
    warmup = max(1, round(settings.steps * settings.warmup))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = (step - warmup) / max(1, settings.steps - warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))


def train_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, ...],
    step: int,
    settings: TrainingSettings,
    device: torch.device,
) -> dict[str, Tensor]:
    """One optimiser step on one batch; the loss and its parts, detached."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    batch = tuple(part.to(device, non_blocking=True) for part in batch)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
        loss = module(batch, step)
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
    optimizer.step()
    return {"loss": loss.total.detach(), **loss.parts}


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
        values = torch.stack([entry[name].float() for entry in window])
        if name == "loss" and not bool(torch.isfinite(values).all()):
            first = step - len(window) + int((~torch.isfinite(values)).nonzero()[0])
            raise TrainingError(
                f"the loss was {float(values[first - step + len(window)])} at step {first}: look for NaN or very "
                "large numbers in the data, or lower the learning rate"
            )
        means[name] = float(values.mean())
    for name, value in means.items():
        history.add(name, step, value)
    if log and processes.leads:
        log(means, step)
    window.clear()
    return means["loss"]
