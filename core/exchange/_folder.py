"""Reads a Hugging Face checkpoint's folder: its settings and its tensors, checked, and never a pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unlabeled.core.checkpoints import check_same
from unlabeled.core.errors import CheckpointError
from unlabeled.core.exchange import _names

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# What a config.json leaves out has the value that transformers gives it.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
_COUNTS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_channels")
_READABLE = ("vit", "vit_mae", "ijepa")


def read_config(folder: Path) -> dict[str, Any]:
    """The settings, completed with transformers' defaults.

    Raises:
        CheckpointError: missing, damaged, or of a network that our encoder is not (says in what).
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no Hugging Face model ({CONFIG} is missing): give a checkpoint's folder")
    config = _read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind not in _READABLE:
        check_same({"model_type": kind}, {"model_type": " or ".join(_READABLE)}, what=str(folder))
    config = _DEFAULTS | config
    for name in _COUNTS:
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise CheckpointError(f"{folder / CONFIG} is damaged: {name} is {config.get(name)!r}, not a whole number")
    width = config["hidden_size"] // config["num_attention_heads"]
    check_same(
        {"hidden_act": config["hidden_act"], "head_dim": config.get("head_dim", width)},
        {"hidden_act": "gelu", "head_dim": width},
        what=str(folder),
    )
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Tensors by their names in the file, or in the several files of an index.

    Raises:
        CheckpointError: missing, damaged or pickled.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        index = _read_json(folder / INDEX)
        # Plain names only: an index must not lead out of its folder.
        files = sorted({Path(name).name for name in index.get("weight_map", {}).values()})
    else:
        files = [WEIGHTS]
    tensors: dict[str, Tensor] = {}
    for name in files:
        path = folder / name
        if not path.is_file():
            pickled = sorted(p.name for p in folder.glob("*.bin"))
            if pickled:
                raise CheckpointError(
                    f"{folder} holds its weights as a pickle ({pickled[0]}), which can run code when it is read and is "
                    f"never read here: take the checkpoint's {WEIGHTS}, or save it anew with a current transformers"
                )
            raise CheckpointError(f"{path} is missing: download it again")
        try:
            tensors |= load_file(str(path))
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}): download it again") from None
    return tensors


def expected_shapes(config: Mapping[str, Any], *, tokens: int, class_token: bool) -> dict[str, list[int]]:
    """Name and shape of each tensor that is used."""
    dim = int(config["hidden_size"])
    expected = _names.shapes(
        dim=dim,
        depth=int(config["num_hidden_layers"]),
        hidden=int(config["intermediate_size"]),
        qkv_bias=bool(config["qkv_bias"]),
    )
    projection = "embeddings.patch_embeddings.projection"
    expected[f"{projection}.weight"] = [dim, int(config["num_channels"]), *pair(config["patch_size"])]
    expected[f"{projection}.bias"] = [dim]
    expected["embeddings.position_embeddings"] = [1, tokens + class_token, dim]
    if class_token:
        expected["embeddings.cls_token"] = [1, 1, dim]
    return expected


def check_tensors(folder: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, list[int]]) -> None:
    """Raises a CheckpointError that names the tensors which are missing or have another shape.

    A tensor of the encoder that ours has no place for (a scale of a layer, say) makes another function of it, and is
    refused too; heads, poolers, decoders and the unused mask token are not.
    """
    saved = {name: list(tensor.shape) for name, tensor in tensors.items()}
    beyond = [n for n in saved if n.startswith(("encoder.", "embeddings.")) and n != "embeddings.mask_token"]
    # The first few tell what is wrong; a whole other network differs in hundreds.
    wrong = [name for name in dict.fromkeys([*expected, *beyond]) if saved.get(name) != expected.get(name)][:5]
    check_same(
        {name: saved.get(name) for name in wrong},
        {name: expected.get(name) for name in wrong},
        what=f"{folder} (shapes of tensors)",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}): download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged (it is no table of names): download it again")
    return content


def pair(size: Any) -> tuple[int, int]:
    """A side or two sides, as a config gives them."""
    if isinstance(size, int):
        return size, size
    return int(size[0]), int(size[1])
