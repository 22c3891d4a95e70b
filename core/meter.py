"""Times the first steps of a training and says from them what the whole will cost."""

import copy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from unlabeled.core.budget import Budget, Spent
from unlabeled.core.encoder import Backbone
from unlabeled.core.resume import TrainingState

T = TypeVar("T")

# The first steps are slower (caches, allocator, lazy optimiser state) and are not measured.
WARMUP = 3
# Steps and seconds that are measured: a processor that others share changes its speed from second to second, and 12
# of them told the next two minutes better than 3 (benchmarks/results/budget.md).
LEAST_STEPS, ENOUGH_SECONDS = 10, 12.0
# Of a short training, one step in so many is measured at most: a prediction near the end helps nobody.
ONE_IN = 10
# A step that took so many times the median was held up by something else, which is no part of its speed.
PAUSE = 5
# Steps so slow that waiting for the above would cost more than it tells.
SLOW_STEPS, SLOW_SECONDS = 3, 30.0
# In a training shorter than this, counting FLOPs and timing a saved state cost more than they tell.
WORTH_SECONDS = 5.0
# Assumptions, for where nothing is measured or given: a busy core of a server or a desktop with its share of memory
# and power supply; a data-centre card at work.
CORE_WATTS, CARD_WATTS = 10.0, 300.0


class Meter:
    """Times the first steps of a training: call :meth:`start` and :meth:`stop` around each.

    Args:
        steps: that are still to come.
        device: work on a GPU is waited for, while steps are timed only.
        on: ``False`` times nothing.
    """

    def __init__(self, steps: int, *, device: torch.device, on: bool = True) -> None:
        self.steps, self.device = steps, device
        # A training of hardly more steps than are measured is over before a prediction helps.
        self.on = on and steps >= 2 * (WARMUP + LEAST_STEPS)
        self._laps: list[float] = []
        # Running sums: there may be thousands of steps, and each asks whether they are enough.
        self._all = self._gaps = self._at = 0.0

    def start(self) -> None:
        if self.on:
            now = self._now()
            if self._laps:
                self._gaps += now - self._at
            self._at = now

    def stop(self) -> None:
        if self.on:
            now = self._now()
            self._laps.append(now - self._at)
            self._all += now - self._at
            self._at = now

    @property
    def ready(self) -> bool:
        """Whether enough has been measured."""
        if not self.on:
            return False
        n, seconds = len(self._laps) - WARMUP, self._all - sum(self._laps[:WARMUP])
        if n < LEAST_STEPS:
            return n >= SLOW_STEPS and seconds >= SLOW_SECONDS
        return seconds >= ENOUGH_SECONDS or n >= self.steps // ONE_IN

    @property
    def step_seconds(self) -> float:
        """Mean of the measured steps without pauses: a processor that others share is fast and slow by turns, which a
        median would not see."""
        measured = self._laps[WARMUP:]
        most = PAUSE * statistics.median(measured)
        return statistics.fmean(lap for lap in measured if lap <= most)

    @property
    def late_start(self) -> float:
        """Seconds by which the first steps were slower than the measured ones."""
        return max(0.0, sum(self._laps[:WARMUP]) - WARMUP * self.step_seconds)

    @property
    def steps_seen(self) -> int:
        return len(self._laps)

    def between(self, saving: float = 0.0) -> float:
        """Mean seconds between two measured steps (logging, mostly), less ``saving`` seconds in all."""
        return max(0.0, self._gaps - saving) / max(1, self.steps_seen - 1)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


def predict(
    meter: Meter,
    module: nn.Module,
    batch: tuple[Tensor, ...],
    optimizer: torch.optim.Optimizer,
    *,
    label: str,
    step: int,
    steps: int,
    seconds: float,
    save_every: int | None,
    world: int = 1,
) -> Budget:
    """The cost of a whole training, from its measured steps; ends the measuring.

    Leaves ``module``, its gradients and the global random state as they are.

    Args:
        meter: that timed the steps so far.
        module: ``forward(batch, step) -> Loss``, not wrapped for several processes.
        batch: this process's share of any batch.
        step, steps: how far it is, and how far it goes; step 0 is a trial before the training.
        seconds: spent so far.
        save_every: steps between two saved states; ``None`` keeps none.
        world: processes that train together, each with an equal share.
    """
    began = time.monotonic()
    rest = steps - step
    meter.on = False
    worth = step == 0 or seconds + rest * meter.step_seconds >= WORTH_SECONDS
    watts, source = power(meter.device, world, ask=worth)  # first, while the card is warm
    peak = peak_bytes(meter.device)  # before the copy that is counted on
    tokens = _if_possible(lambda: tokens_of(module, batch)) if worth else None
    flops = _if_possible(lambda: flops_of(module, batch)) if worth else None
    saves = done = timed = 0
    if save_every is not None:
        # The state of this very step, if one is due, is still to be written.
        saves, done = (steps - 1) // save_every, max(0, step - 1) // save_every
        timed = done - max(0, step - meter.steps_seen) // save_every if step else 0
    one_save = (_if_possible(lambda: save_seconds(module, optimizer)) if worth and saves else None) or 0.0
    between = meter.between(saving=timed * one_save)
    if step:
        seconds += time.monotonic() - began
    seconds += rest * (meter.step_seconds + between) + (saves - done) * one_save
    return Budget(
        label=label,
        steps=steps,
        tokens=None if tokens is None else float(tokens) * steps * world,
        flops=None if flops is None else float(flops) * steps * world,
        seconds=seconds,
        step_seconds=meter.step_seconds,
        save_seconds=saves * one_save,
        learning_bytes=learning_bytes(module),
        peak_bytes=peak,
        watts=watts,
        watts_from=source,
    )


def predict_rounds(laps: Sequence[float], *, label: str, rounds: int, learning_bytes: int, threads: int) -> Budget:
    """The cost of a training that another library does in like rounds (the trees of a boosting), from its first ones.

    Args:
        laps: seconds of the rounds so far; the first includes what went before it.
        label: which training.
        rounds: of the whole training.
        learning_bytes: what the training keeps in memory.
        threads: that it keeps busy.
    """
    cpu = torch.device("cpu")
    watts, source = power(cpu, threads=threads)
    usual = statistics.median(laps[len(laps) // 4 :])
    return Budget(
        label=label,
        steps=rounds,
        tokens=None,
        flops=None,
        seconds=sum(laps) + (rounds - len(laps)) * usual,
        step_seconds=usual,
        save_seconds=0.0,
        learning_bytes=learning_bytes,
        peak_bytes=peak_bytes(cpu),
        watts=watts,
        watts_from=source,
    )


def _if_possible(count: Callable[[], T]) -> T | None:
    """``None`` where it cannot be: a full disk or card, or a layer that cannot be copied, must not end a training."""
    try:
        return count()
    except Exception:
        return None


def measure(
    label: str,
    *,
    steps: int,
    seconds: float,
    predicted: Budget | None,
    device: torch.device,
    world: int = 1,
    last: Callable[[], int] | None = None,
) -> Spent:
    """What was spent on ``steps`` steps in ``seconds``; tokens and power are those of the prediction, where there is
    one.

    Args:
        last: counts the FLOPs of the last step of this process. A step then took what it took on average at both ends:
            masks that adapt hide more and more.
    """
    peak = peak_bytes(device)  # before anything is copied to count on
    share = 0.0 if predicted is None else steps / predicted.steps
    flops = None if predicted is None or predicted.flops is None else predicted.flops * share
    again = None if flops is None or last is None else _if_possible(last)
    if flops is not None and again is not None:
        flops = (flops + float(again) * steps * world) / 2
    watts, source = power(device, world, ask=False) if predicted is None else (predicted.watts, predicted.watts_from)
    return Spent(
        label=label,
        steps=steps,
        tokens=None if predicted is None or predicted.tokens is None else predicted.tokens * share,
        flops=flops,
        seconds=seconds,
        peak_bytes=peak,
        watts=watts,
        watts_from=source,
    )


def flops_of(module: nn.Module, batch: tuple[Tensor, ...]) -> int:
    """Floating-point operations of one forward and backward pass, on a copy of ``module``."""
    twin = copy.deepcopy(module).train()
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    # PyTorch's counter knows the attention kernels of GPUs only.
    formulas = {attention: _attention, backward: _attention_backward}
    device = next(twin.parameters()).device
    batch = tuple(part.to(device) for part in batch)
    with _random_state_kept(device), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        twin(batch, 0).total.backward()
    return counter.get_total_flops()


def tokens_of(module: nn.Module, batch: tuple[Tensor, ...]) -> int | None:
    """Tokens that the module's tokenizer makes of one batch, without padding; ``None`` where it has none."""
    tasks = getattr(module, "tasks", None)
    if isinstance(tasks, nn.ModuleDict):  # several kinds of data, with a batch each
        found = [tokens_of(task, (part,)) for task, part in zip(tasks.values(), batch, strict=True)]
        return None if None in found else sum(tokens for tokens in found if tokens is not None)
    backbone = getattr(module, "backbone", None)
    if not isinstance(backbone, Backbone):
        return None
    with torch.no_grad():
        tokens = backbone.tokens(batch[0].to(next(module.parameters()).device))
    return tokens.x.shape[0] * tokens.x.shape[1] if tokens.pad is None else int((~tokens.pad).sum())


def save_seconds(module: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """How long one training state takes to write (into the system's temporary folder, removed at once)."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        TrainingState(Path(folder), {}).save(module, optimizer, step=0, history={}, best={}, stale=0, window=[])
        return time.monotonic() - began


def learning_bytes(module: nn.Module) -> int:
    """Weights, gradients and AdamW's two moments."""
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    return weights + 3 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def peak_bytes(device: torch.device) -> int | None:
    """The most memory this process has held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def power(device: torch.device, world: int = 1, *, ask: bool = True, threads: int | None = None) -> tuple[float, str]:
    """Watts while training, and where the number comes from: the card itself, if asked, or an assumption, on a
    processor about so many ``threads`` (PyTorch's by default)."""
    if device.type == "cuda":
        drawn = _drawn(device) if ask else None
        if drawn is not None:
            return drawn * world, "measured by nvidia-smi, the cards alone"
        return CARD_WATTS * world, f"an assumption: {CARD_WATTS:.0f} W a card"
    threads = threads or torch.get_num_threads()
    return (
        CORE_WATTS * threads * world,
        f"an assumption: {CORE_WATTS:.0f} W for each of {threads * world} cores at work",
    )


def _drawn(device: torch.device) -> float | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    card = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = [program, "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i", card]
    try:
        return float(subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout)
    except (OSError, subprocess.SubprocessError, ValueError):  # no permission, or a card that does not tell
        return None


def _attention(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    """Shapes (B, H, T, E) each; the two matrix products."""
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    grad: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any
) -> int:
    """Five matrix products: the scores once more, and the gradients of scores, values, queries and keys."""
    return sdpa_backward_flop_count(grad, query, key, value)


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
