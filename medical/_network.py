"""The network behind :class:`~unlabeled.medical.model.PneumoniaModel`: how it is built, read and questioned.

Shape suffixes: b batch, c channel, h/w rows and columns, t token, k kept, p numbers in a patch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.heads import Classifier
from unlabeled.core.pretext import Joint, MaskedReconstruction, Pretext, Pretraining
from unlabeled.core.seeds import derive
from unlabeled.core.store import Store, chunks
from unlabeled.core.tokens import GridPatches, Tokens, take
from unlabeled.medical.tasks import Masking, build_task
from unlabeled.medical.transforms import looks, standardise

CHUNK = 256


class Architecture(NamedTuple):
    """Of a backbone: what its tokenizer and its encoder say of themselves (``config()``)."""

    tokenizer: dict[str, Any]
    encoder: dict[str, Any]


def build_backbone(
    *, image_size: int, patch: int, dim: int, depth: int, heads: int, seed: int, class_token: bool = False
) -> Backbone:
    """A fresh backbone whose weights depend on ``seed`` alone."""
    sides = {"grid": (image_size, image_size), "patch": (patch, patch)}
    tokenizer = {**sides, "dim": dim, "class_token": class_token}
    return build_like(Architecture(tokenizer, {"dim": dim, "depth": depth, "heads": heads}), seed=seed)


def build_like(architecture: Architecture, *, seed: int) -> Backbone:
    """A fresh backbone of a given architecture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "backbone"))
        return Backbone(GridPatches(**architecture.tokenizer), Encoder(**architecture.encoder))


def build_pretraining(backbone: Backbone, *, task: str, masking: Masking, seed: int, **settings: float) -> Pretraining:
    """The backbone and its pretext task (:func:`~unlabeled.medical.tasks.build_task`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "pretext"))
        return Pretraining(backbone, build_task(backbone, task=task, masking=masking, seed=seed, **settings))


def filling_in(pretext: Pretext) -> MaskedReconstruction | None:
    """The part of a task that fills hidden patches in, if it has one."""
    if isinstance(pretext, Joint):
        found = [filling_in(part) for part in pretext.tasks.children() if isinstance(part, Pretext)]
        return next((part for part in found if part is not None), None)
    return pretext if isinstance(pretext, MaskedReconstruction) else None


class Probe(nn.Module):
    """A linear map from what the untouched pretrained network sees (:func:`summary`) to log odds of pneumonia.

    Args:
        dim: width of the network's tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2 * dim))
        self.register_buffer("deviation", torch.ones(2 * dim))
        self.register_buffer("weight", torch.zeros(2 * dim))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, summary_bd: Tensor) -> Tensor:
        """(B, 2 D) -> (B,)."""
        x_bd = (summary_bd - self.get_buffer("mean")) / self.get_buffer("deviation")
        return x_bd @ self.get_buffer("weight") + self.get_buffer("bias")


class Member(NamedTuple):
    """A fine-tuned network and, after a pretraining, a probe; their log odds are averaged.

    Whole fine-tuning bends the features towards few pictures, a probe leaves them as they were: their errors
    differ. Together they reached a validation AUROC of .970 at 50 labels and .988 at 250 where fine-tuning alone
    reached .958 and .981, and the probe alone .963 and .983 (children's radiographs, one seed; others alike; before
    what is done against stretches: shift.md in benchmarks/results). Both look at a picture three times
    (:func:`~unlabeled.medical.transforms.looks`); asked about some of its patches they look once, as it is.
    """

    classifier: Classifier
    probe: Probe | None

    def odds(self, seen: Sequence[Tensor], summary_bd: Tensor | None, kept_k: Tensor | None = None) -> Tensor:
        """Of pneumonia, (B,), from looks (B, 1, H, W) and the pretrained network's :func:`summary` of them (not needed
        without a probe).

        Args:
            kept_k: patches that are shown, (K,) or (B, K); all by default.
        """
        odds_b = torch.stack([self._tuned(look, kept_k) for look in seen]).mean(dim=0)
        if self.probe is None:
            return odds_b
        assert summary_bd is not None
        return (odds_b + self.probe(summary_bd)) / 2

    def _tuned(self, images_bchw: Tensor, kept_k: Tensor | None) -> Tensor:
        tuned = self.classifier.backbone
        says = self.classifier.linear(self.classifier.norm(tuned.encoder.embed(_tokens(tuned, images_bchw, kept_k))))
        return says[:, 1] - says[:, 0]


def summary(backbone: Backbone, seen: Sequence[Tensor], kept_k: Tensor | None = None) -> Tensor:
    """Mean over the tokens and their standard deviation, (B, 2 D), each the mean over looks (B, 1, H, W).

    Args:
        kept_k: patches that are shown, (K,) or (B, K); all by default.
    """
    found = []
    for look in seen:
        x_btd = backbone.encoder(tokens := _tokens(backbone, look, kept_k))
        if tokens.class_token is not None:
            x_btd = x_btd[:, 1:]
        found.append(torch.cat([x_btd.mean(dim=1), x_btd.std(dim=1, correction=0)], dim=1))
    return torch.stack(found).mean(dim=0)


def _looks(images_bchw: Tensor, kept_k: Tensor | None) -> list[Tensor]:
    # Patches have their places in the picture as it is.
    return looks(images_bchw) if kept_k is None else [images_bchw]


def _tokens(backbone: Backbone, images_bchw: Tensor, kept_k: Tensor | None) -> Tokens:
    """Of all patches or of those at ``kept_k``, (K,) or (B, K)."""
    tokens = backbone.tokens(images_bchw)
    return tokens if kept_k is None else tokens.take(kept_k.expand(len(tokens.x), -1))


@torch.no_grad()
def embeddings(backbone: Backbone, images: NDArray[np.uint8] | Store) -> NDArray[np.float32]:
    """Mean tokens (N, D)."""
    backbone.eval()
    device = next(backbone.parameters()).device
    parts = [
        backbone.embed(standardise(torch.from_numpy(images[rows])).to(device)).cpu().numpy()
        for rows in chunks(len(images), CHUNK)
    ]
    return np.concatenate(parts)


@torch.no_grad()
def summaries(backbone: Backbone, images: NDArray[np.uint8] | Store, *, once: bool = False) -> NDArray[np.float32]:
    """:func:`summary` of pictures, (N, 2 D); ``once``: of the pictures as they are alone."""
    backbone.eval()
    device = next(backbone.parameters()).device
    parts = []
    for rows in chunks(len(images), CHUNK):
        x_bchw = standardise(torch.from_numpy(images[rows])).to(device)
        parts.append(summary(backbone, [x_bchw] if once else looks(x_bchw)).cpu().numpy())
    return np.concatenate(parts)


def log_odds(
    member: Member, pretrained: Backbone, images: NDArray[np.uint8] | Store, kept_k: Tensor | None = None
) -> NDArray[np.float64]:
    """(N,), picture by picture the same whatever else is asked at once."""
    return mean_log_odds([member], pretrained, images, kept_k)


@torch.no_grad()
def mean_log_odds(
    members: Sequence[Member], pretrained: Backbone, images: NDArray[np.uint8] | Store, kept_k: Tensor | None = None
) -> NDArray[np.float64]:
    """Over members (N,): their mean log odds, with the pretrained network asked once for all of their probes.

    Args:
        kept_k: patches that are shown, (K,), or of each picture, (N, K).
    """
    for member in members:
        member.classifier.eval()
    pretrained.eval()
    device = next(pretrained.parameters()).device
    parts = []
    for rows in chunks(len(images), CHUNK):
        x_bchw = standardise(torch.from_numpy(images[rows])).to(device)
        kept = kept_k[rows] if kept_k is not None and kept_k.ndim == 2 else kept_k
        parts.append(mean_odds(members, pretrained, x_bchw, None if kept is None else kept.to(device)))
    return torch.cat(parts).double().cpu().numpy()


def mean_odds(
    members: Sequence[Member], pretrained: Backbone, images_bchw: Tensor, kept_k: Tensor | None = None
) -> Tensor:
    """The same, (B,), of standardised pictures; what an export computes."""
    seen = _looks(images_bchw, kept_k)
    known = summary(pretrained, seen, kept_k) if any(member.probe is not None for member in members) else None
    return torch.stack([member.odds(seen, known, kept_k) for member in members]).mean(dim=0)


def leave_out_map(members: Sequence[Member], pretrained: Backbone, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much the log odds fall when a 3 x 3 neighbourhood of patches is not shown, (N, rows, columns).

    The encoder reads whatever tokens it is given, so the patches are left out rather than painted grey: no
    artificial edge is put into the picture (compare Zeiler and Fergus, 2014, section 4.2).
    """
    tokenizer = pretrained.tokenizer
    assert isinstance(tokenizer, GridPatches)
    rows, columns = tokenizer.rows, tokenizer.columns
    index = torch.arange(tokenizer.tokens).view(rows, columns)
    whole = mean_log_odds(members, pretrained, images, index.flatten())
    result = np.zeros((len(images), rows, columns))
    for r in range(rows):
        for c in range(columns):
            shown = torch.ones(rows, columns, dtype=torch.bool)
            shown[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2] = False
            kept = index[shown]
            result[:, r, c] = whole - mean_log_odds(members, pretrained, images, kept)
    return result


class Reconstruction(NamedTuple):
    """Pictures in units of their own standard deviation, (N, H, W).

    Attributes:
        original: what was there.
        shown: the same, hidden patches at their mean.
        filled: the same, hidden patches as predicted.
    """

    original: NDArray[np.float32]
    shown: NDArray[np.float32]
    filled: NDArray[np.float32]


@torch.no_grad()
def reconstruct(module: Pretraining, images: NDArray[np.uint8]) -> Reconstruction:
    """Fills hidden patches in.

    The task predicts each patch up to its own mean and contrast, which are therefore taken from the original;
    ``shown`` is given the same mean, so that comparing the two measures the predicted structure alone.
    """
    module.eval()
    pretext, tokenizer = filling_in(module.pretext), module.backbone.tokenizer
    assert pretext is not None
    assert isinstance(tokenizer, GridPatches)
    device = next(module.parameters()).device
    x_bchw = standardise(torch.from_numpy(images)).to(device)
    predicted, masked = pretext.reconstruct(module.backbone, x_bchw, 0)
    patches = tokenizer.patches(x_bchw)
    hidden = take(patches, masked)
    mean, deviation = hidden.mean(dim=-1, keepdim=True), (hidden.var(dim=-1, keepdim=True) + 1e-4).sqrt()

    def put(values_bmp: Tensor) -> NDArray[np.float32]:
        index = masked[..., None].expand(-1, -1, tokenizer.numbers)
        pasted = patches.scatter(1, index, values_bmp.expand_as(hidden).contiguous())
        return tokenizer.unpatch(pasted)[:, 0].cpu().numpy()

    return Reconstruction(x_bchw[:, 0].cpu().numpy(), put(mean), put(predicted * deviation + mean))
