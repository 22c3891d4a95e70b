"""Whether a heat map can be believed: measures that are the same for pictures, spectra and histories.

Shape suffixes: n row, t token or cell, k step of a curve.
"""

import copy
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
Floats = NDArray[np.float64]


def shuffled_weights(module: Module, *, seed: int = 0) -> Module:
    """A copy in which every tensor of weights and every buffer of numbers holds its own values in a random order.

    The scale of each layer stays, all that was learnt is gone: the model of the sanity check of Adebayo et al., "Sanity
    checks for saliency maps", NeurIPS 2018, who draw the weights anew.
    """
    draw, other = torch.Generator().manual_seed(seed), copy.deepcopy(module)
    with torch.no_grad():
        for values in (*other.parameters(), *other.buffers()):
            if values.is_floating_point() and values.numel() > 1:
                order = torch.randperm(values.numel(), generator=draw).to(values.device)
                values.copy_(values.reshape(-1)[order].view_as(values))
    return other


def rank_correlation(one_nt: ArrayLike, other_nt: ArrayLike) -> Floats:
    """Spearman's correlation of each row's cells (N,); nan for a row in which either map is constant.

    Raises:
        ValueError: the maps differ in shape.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(one_nt, dtype=float), np.asarray(other_nt, dtype=float)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"two sets of maps (N, T) of one shape are needed, got {a.shape} and {b.shape}")
    x, y = rankdata(a, axis=1), rankdata(b, axis=1)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)))


def area(curve_nk: ArrayLike) -> Floats:
    """Area under each row's curve over equal steps from 0 to 1 (N,), trapezoids."""
    y = np.asarray(curve_nk, dtype=float)
    return np.asarray((y[:, 1:] + y[:, :-1]).mean(axis=1) / 2)
