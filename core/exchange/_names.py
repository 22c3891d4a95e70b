"""Which of our tensors is which of Hugging Face's, and how they are laid out.

The names are those on disk, which transformers has kept since version 4; its version 5 renames them while it loads
(``conversion_mapping.py``). A file saved with the names that its modules have in memory is understood too.

Shape suffixes: d width, c channel, h/w rows and columns of a patch, r/s rows and columns of patches, p numbers in a
patch.
"""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

_PREFIX = re.compile(r"^(vit|ijepa)\.")
_IN_MEMORY = (
    (re.compile(r"^layers\."), "encoder.layer."),
    (re.compile(r"\.attention\.q_proj\."), ".attention.attention.query."),
    (re.compile(r"\.attention\.k_proj\."), ".attention.attention.key."),
    (re.compile(r"\.attention\.v_proj\."), ".attention.attention.value."),
    (re.compile(r"\.attention\.o_proj\."), ".attention.output.dense."),
    (re.compile(r"\.mlp\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.mlp\.fc2\."), ".output.dense."),
)
_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "proj": "attention.output.dense",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
}
_QKV = ("query", "key", "value")


def on_disk(name: str) -> str:
    """The name on disk of an encoder tensor, without the prefix that a model with a head puts before it."""
    name = _PREFIX.sub("", name)
    if name.startswith(("encoder.layer.", "layers.")):
        for pattern, replacement in _IN_MEMORY:
            name = pattern.sub(replacement, name)
    return name


def shapes(*, dim: int, depth: int, hidden: int, qkv_bias: bool) -> dict[str, list[int]]:
    """Name and shape of every tensor of an encoder of theirs, the embeddings left out."""
    found: dict[str, list[int]] = {"layernorm.weight": [dim], "layernorm.bias": [dim]}
    for i in range(depth):
        layer = f"encoder.layer.{i}."
        for name in _BLOCK.values():
            weight = {"intermediate.dense": [hidden, dim], "output.dense": [dim, hidden]}.get(name, [dim, dim])
            found[f"{layer}{name}.weight"] = [dim] if name.startswith("layernorm") else weight
            found[f"{layer}{name}.bias"] = weight[:1]
        for name in _QKV:
            found[f"{layer}attention.attention.{name}.weight"] = [dim, dim]
            if qkv_bias:
                found[f"{layer}attention.attention.{name}.bias"] = [dim]
    return found


def encoder_from(theirs: Mapping[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    """State of our encoder; query, key and value without a bias get zeros, which is the same function."""
    ours = {"norm.weight": theirs["layernorm.weight"], "norm.bias": theirs["layernorm.bias"]}
    for i in range(depth):
        for our, their in _BLOCK.items():
            for kind in ("weight", "bias"):
                ours[f"blocks.{i}.{our}.{kind}"] = theirs[f"encoder.layer.{i}.{their}.{kind}"]
        three = [f"encoder.layer.{i}.attention.attention.{name}" for name in _QKV]
        weights = [theirs[f"{name}.weight"] for name in three]
        ours[f"blocks.{i}.qkv.weight"] = torch.cat(weights)
        biases = [theirs.get(f"{name}.bias", torch.zeros(len(w))) for name, w in zip(three, weights, strict=True)]
        ours[f"blocks.{i}.qkv.bias"] = torch.cat(biases)
    return ours


def encoder_to(ours: Mapping[str, Tensor], *, depth: int, layers: str, norm: str) -> dict[str, Tensor]:
    """The inverse of :func:`encoder_from`, under the given names (a decoder is an encoder under other names)."""
    theirs = {f"{norm}.weight": ours["norm.weight"], f"{norm}.bias": ours["norm.bias"]}
    for i in range(depth):
        for kind in ("weight", "bias"):
            for our, their in _BLOCK.items():
                theirs[f"{layers}.{i}.{their}.{kind}"] = ours[f"blocks.{i}.{our}.{kind}"]
            for name, part in zip(_QKV, ours[f"blocks.{i}.qkv.{kind}"].chunk(3), strict=True):
                theirs[f"{layers}.{i}.attention.attention.{name}.{kind}"] = part
    return theirs


def projection_from(weight_dchw: Tensor) -> Tensor:
    """A convolution's weight -> (D, P); the numbers of a patch of ours run (row, column, channel)."""
    return weight_dchw.permute(0, 2, 3, 1).flatten(1)


def projection_to(weight_dp: Tensor, *, patch: tuple[int, int], channels: int) -> Tensor:
    """The inverse of :func:`projection_from`."""
    return weight_dp.view(-1, *patch, channels).permute(0, 3, 1, 2)


def adapt_channels(weight_dchw: Tensor, channels: int) -> Tensor:
    """Weights for another number of channels: each gets the sum over the saved ones, divided by their new number.

    On a picture that is the same in all channels the convolution gives ``sum_c(W_c * x) = (sum_c W_c) * x``, so with
    the sum the features are exactly what the saved network makes of a grey picture. The mean would shrink the picture
    threefold beside the bias and the positions. timm does the same (``adapt_input_conv``, Wightman, 2019).
    """
    if weight_dchw.shape[1] == channels:
        return weight_dchw
    return (weight_dchw.sum(dim=1, keepdim=True) / channels).expand(-1, channels, -1, -1)


def resize_positions(position: Tensor, *, saved: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """(1, R*S, D) for one grid of patches -> another, bicubic, as transformers' ``interpolate_pos_encoding`` does."""
    if saved == wanted:
        return position
    position_drs = position.view(1, *saved, -1).permute(0, 3, 1, 2)
    return F.interpolate(position_drs, size=wanted, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
