"""How one step of training is taken: settings, parameter groups, learning rate."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """AdamW with a linear warm-up and a cosine descent to zero (Loshchilov and Hutter, 2019).

    Attributes:
        steps: optimiser steps.
        lr: highest learning rate.
        weight_decay: on matrices only, not on biases, norms or tables of one row.
        warmup: share of the steps over which the learning rate rises.
        clip: largest gradient norm.
        layer_decay: factor on the learning rate for every layer that lies above (1: the same rate for all).
        precision: ``float32``, or ``bfloat16`` autocast where the processor has it (a slow-down where not).
        device: ``auto`` takes a GPU when there is one.
        log_every: steps between two points of a curve (each is the mean over them).
        checkpoint_every: steps between two saved training states.

    Raises:
        ValueError: fewer than one step, no steps between points or states, a precision that there is not, or a number
            out of its range.
    """

    steps: int
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip: float = 1.0
    precision: Precision = "float32"
    device: str = "auto"
    log_every: int = 10
    checkpoint_every: int = 100
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        for name, fits, said in (
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or above"),
            ("warmup", 0 <= self.warmup <= 1, "between 0 and 1"),
            ("clip", self.clip > 0, "above 0"),
            ("layer_decay", 0 < self.layer_decay <= 1, "above 0 and at most 1"),
        ):
            if not fits:
                raise ValueError(f"{name} must be {said}, got {getattr(self, name)}")


def make_optimizer(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The AdamW of :class:`TrainingSettings`."""
    groups = parameter_groups(module, settings.weight_decay, settings.layer_decay)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95), fused=True)


def parameter_groups(module: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Weight decay on matrices only; with ``layer_decay`` below one, a slower rate (``scale``) the earlier a layer.

    The scale is ``layer_decay`` to the power of the layers that lie above: the tokenizer has all blocks above it,
    the head has nothing (Clark et al., 2020; Bao et al., 2022).
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    top = 1 + max((int(found[1]) + 1 for name, _ in trained if (found := _BLOCK.search(name))), default=0)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in trained:
        scale = layer_decay ** (top - _layer(name, top))
        groups.setdefault((parameter.squeeze().ndim >= 2, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "scale": scale}
        for (decays, scale), parameters in sorted(groups.items(), key=lambda entry: (not entry[0][0], -entry[0][1]))
    ]


def _layer(name: str, top: int) -> int:
    """0 for the tokenizer, 1 for the first block, ``top`` for what stands above the blocks."""
    block = _BLOCK.search(name)
    if block:
        return int(block[1]) + 1
    return 0 if "tokenizer." in name else top


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
    """One optimiser step on one batch; the loss, the norm of its gradients before clipping, and the loss's parts,
    detached."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings) * group["scale"]
    batch = tuple(part.to(device, non_blocking=True) for part in batch)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
        loss = module(batch, step)
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
    optimizer.step()
    return {"loss": loss.total.detach(), "gradient_norm": norm.detach(), **loss.parts}
