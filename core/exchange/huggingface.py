"""Vision transformers from and to Hugging Face folders (``config.json`` and ``model.safetensors``).

Neither way needs transformers, and neither way touches a pickle. Features agree with transformers' own
``last_hidden_state`` to 1e-5; the tests hold that against its installed version.

Which model of theirs stands for which backbone of ours:

=========  ===========  =========================================================
theirs     class token  ours
=========  ===========  =========================================================
vit        yes          ``GridPatches(class_token=True, positions="learned")``
vit_mae    yes          ``GridPatches(class_token=True, positions="fixed")``
ijepa      no           ``GridPatches(positions="learned")``
=========  ===========  =========================================================

A backbone without a class token cannot be written as a ViT of the same width: theirs always puts the token in, and
every patch would read it. Its key passes through the same weights as the patches' keys, so no value of it gets a
softmax weight of zero from every query. Such a backbone is written as their I-JEPA encoder (Assran et al., 2023),
the same network without the token; ``AutoModel.from_pretrained`` opens either.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.core.checkpoints import replacing
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import CheckpointError
from unlabeled.core.exchange import _folder, _names
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import MaskedReconstruction
from unlabeled.core.tokens import GridPatches

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Matched:
    """What became of a saved network: taken as it was, adapted, and left aside."""

    matched: tuple[str, ...]
    adapted: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """One line a thing, to print."""
        kinds = (("matched", self.matched), ("adapted", self.adapted), ("not used", self.unused))
        return [f"{kind + ':':<10}{text}" for kind, texts in kinds for text in texts]


def read(folder: str | Path, *, grid: tuple[int, int] | None = None, channels: int = 1) -> tuple[Backbone, Matched]:
    """A backbone with the weights of a saved ViT, ViTMAE or I-JEPA encoder, and what was matched.

    The class token and its position embedding, which only ever occur as a sum, become our one class token. Pictures
    must be standardised as they were in its training (``preprocessor_config.json``).

    Args:
        folder: a downloaded checkpoint.
        grid: rows and columns of the pictures to come; positions are interpolated (bicubic) where it differs from the
            saved size, which it is by default.
        channels: of the pictures to come. With another number than the saved one, every channel gets the sum of the
            saved weights over the new number: a grey picture gives the same features as the saved network does on the
            picture repeated in its channels (:func:`unlabeled.core.exchange._names.adapt_channels` says why).

    Raises:
        CheckpointError: no such model, pickled, damaged, or another architecture (says what differs).
    """
    folder = Path(folder)
    config = _folder.read_config(folder)
    tensors = {_names.on_disk(name): tensor.float() for name, tensor in _folder.read_tensors(folder).items()}
    dim, depth, heads = (int(config[n]) for n in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    saved_grid, patch = _folder.pair(config["image_size"]), _folder.pair(config["patch_size"])
    grid = saved_grid if grid is None else grid
    if grid[0] % patch[0] or grid[1] % patch[1]:
        raise CheckpointError(
            f"{folder} cuts patches of {patch[0]}x{patch[1]}, which do not divide a grid of {grid[0]}x{grid[1]}: "
            f"give a grid that they divide"
        )
    class_token = config["model_type"] != "ijepa"
    saved_rows, wanted_rows = _divide(saved_grid, patch), _divide(grid, patch)
    used = _folder.expected_shapes(config, tokens=math.prod(saved_rows), class_token=class_token)
    _folder.check_tensors(folder, tensors, used)

    with torch.random.fork_rng(devices=[]):
        tokenizer = GridPatches(
            grid=grid,
            patch=patch,
            dim=dim,
            channels=channels,
            positions="fixed" if config["model_type"] == "vit_mae" else "learned",
            class_token=class_token,
        )
        ratio = _mlp_ratio(dim, int(config["intermediate_size"]))
        eps = float(config["layer_norm_eps"])
        backbone = Backbone(tokenizer, Encoder(dim=dim, depth=depth, heads=heads, mlp_ratio=ratio, norm_eps=eps))
    kernel, position = (
        tensors["embeddings.patch_embeddings.projection.weight"],
        tensors["embeddings.position_embeddings"],
    )
    front = position.shape[1] - math.prod(saved_rows)
    embeddings = {
        "project.weight": _names.projection_from(_names.adapt_channels(kernel, channels)),
        "project.bias": tensors["embeddings.patch_embeddings.projection.bias"],
        "position": _names.resize_positions(position[:, front:], saved=saved_rows, wanted=wanted_rows),
    }
    if class_token:
        embeddings["class_token"] = tensors["embeddings.cls_token"] + position[:, :1]
    tokenizer.load_state_dict(embeddings)
    backbone.encoder.load_state_dict(_names.encoder_from(tensors, depth=depth))
    return backbone, _report(folder, config, tokenizer, unused=sorted(set(tensors) - set(used)))


def grid_of(folder: str | Path) -> tuple[int, int]:
    """Rows and columns of the pictures that a saved network reads.

    Raises:
        CheckpointError: no such model, damaged, or another architecture.
    """
    return _folder.pair(_folder.read_config(Path(folder))["image_size"])


def fingerprint(folder: str | Path) -> str:
    """16 hex digits over the settings and the weights, whatever the folder is called."""
    digest = hashlib.blake2b(digest_size=8)
    for path in [*sorted(Path(folder).glob("*.safetensors")), Path(folder) / _folder.CONFIG]:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def write(folder: str | Path, backbone: Backbone, pretext: MaskedReconstruction | None = None) -> Path:
    """Writes a folder that transformers opens, with the same features to 1e-5.

    Without ``pretext``: a ViT (``ViTModel``, ``AutoModel``) if the backbone has a class token, an I-JEPA encoder
    (``IJepaModel``, ``AutoModel``) if it has none. The ViT's pooler is the identity, so that its ``pooler_output`` is
    the class token's feature and nothing is left to chance on loading. With ``pretext``: a ``ViTMAEForPreTraining``
    with the decoder; its normalised loss differs from ours by the floor under a patch's variance (1e-6, ours 1e-4),
    its predictions do not. Our embedding of a picture is ``last_hidden_state[:, 1:].mean(dim=1)`` (I-JEPA: all of it).

    Args:
        folder: where; a folder that holds anything but an earlier export is left alone.
        backbone: over :class:`GridPatches`, not causal.
        pretext: the task it was pretrained with; needs a class token, square pictures and square patches, because
            ViTMAE does.

    Raises:
        CheckpointError: the folder is in use, or transformers has no such network (says why, and what to do).
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists() and (
        not folder.is_dir() or {p.name for p in folder.iterdir()} - {_folder.CONFIG, _folder.WEIGHTS}
    ):
        raise CheckpointError(f"{folder} exists and is not an export of ours: name another folder")
    tokenizer, encoder = backbone.tokenizer, backbone.encoder
    if not isinstance(tokenizer, GridPatches) or encoder.causal:
        raise CheckpointError(
            "Hugging Face's vision transformers read patches, all of them at once: only a backbone over GridPatches "
            "that is not causal can be written"
        )
    if pretext is not None:
        _check_pretext(backbone, pretext)
    config, tensors = _config_of(tokenizer, encoder), _tensors_of(tokenizer, encoder)
    if pretext is not None:
        config |= {"model_type": "vit_mae", "architectures": ["ViTMAEForPreTraining"]}
        config |= _decoder_config(pretext, tokens=tokenizer.tokens)
        tensors = {f"vit.{name}": tensor for name, tensor in tensors.items()} | _decoder_tensors(pretext)
    elif tokenizer.class_token is not None:
        config |= {"model_type": "vit", "architectures": ["ViTModel"], "pooler_act": "linear"}
        tensors |= {"pooler.dense.weight": torch.eye(encoder.dim), "pooler.dense.bias": torch.zeros(encoder.dim)}
    else:
        config |= {"model_type": "ijepa", "architectures": ["IJepaModel"]}
    with replacing(folder) as new:
        plain = {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, str(new / _folder.WEIGHTS), metadata={"format": "pt"})
        (new / _folder.CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def mae_obstacle(backbone: Backbone, pretext: MaskedReconstruction) -> str | None:
    """Why a backbone and its task cannot be written as a ViTMAE, and what would help; ``None`` if they can."""
    tokenizer, encoder = backbone.tokenizer, backbone.encoder
    assert isinstance(tokenizer, GridPatches)
    if tokenizer.class_token is None:
        return (
            "Hugging Face's ViTMAE always has a class token, and this backbone has none: pretrain with class_token=True"
        )
    if tokenizer.grid[0] != tokenizer.grid[1] or tokenizer.patch[0] != tokenizer.patch[1]:
        return (
            f"Hugging Face's ViTMAE reads square pictures in square patches, not {tokenizer.grid[0]}x"
            f"{tokenizer.grid[1]} in {tokenizer.patch[0]}x{tokenizer.patch[1]}"
        )
    if not isinstance(pretext.mask, RandomMask):
        return f"Hugging Face's ViTMAE hides patches at random, this task by a {type(pretext.mask).__name__}"
    if pretext.decoder.norm_eps != encoder.norm_eps:
        return (
            f"Hugging Face's ViTMAE has one layer_norm_eps, but the encoder's is {encoder.norm_eps} and the decoder's "
            f"{pretext.decoder.norm_eps}: make the task with norm_eps={encoder.norm_eps}"
        )
    return None


def _report(folder: Path, config: Mapping[str, Any], tokenizer: GridPatches, *, unused: list[str]) -> Matched:
    """What :func:`read` did, in words."""
    saved_grid, patch = _folder.pair(config["image_size"]), tokenizer.patch
    saved, rows = _divide(saved_grid, (patch[0], patch[1])), (tokenizer.rows, tokenizer.columns)
    matched = [
        f"{config['model_type']} encoder: {config['num_hidden_layers']} blocks, width {tokenizer.dim}, "
        f"{config['num_attention_heads']} heads, layer norm eps {config['layer_norm_eps']}"
    ]
    adapted = []
    projection = f"patch projection {patch[0]}x{patch[1]}, {config['num_channels']} channels"
    if tokenizer.channels == config["num_channels"]:
        matched.append(projection)
    elif tokenizer.channels == 1:
        adapted.append(f"{projection}: their weights summed into 1")
    else:
        adapted.append(f"{projection}: the sum of their weights over {tokenizer.channels} in each of as many")
    if rows == saved:
        matched.append(f"positions ({tokenizer.positions}) of {rows[0]}x{rows[1]} patches")
    else:
        adapted.append(
            f"positions ({tokenizer.positions}): {saved[0]}x{saved[1]} patches interpolated to {rows[0]}x{rows[1]}"
        )
    if tokenizer.class_token is not None:
        adapted.append("class token: its position was added to it")
    if not config["qkv_bias"]:
        adapted.append("query, key and value: had no bias, got zeros")
    groups = Counter(name if name.startswith("embeddings.") else name.split(".")[0] for name in unused)
    left = [f"{name} ({count} tensors)" if count > 1 else name for name, count in groups.items()]
    if (folder / PREPROCESSOR).is_file():
        left.append(f"{PREPROCESSOR}: standardise the pictures as it says")
    return Matched(tuple(matched), tuple(adapted), tuple(left))


def _config_of(tokenizer: GridPatches, encoder: Encoder) -> dict[str, Any]:
    return {
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": int(encoder.dim * encoder.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": encoder.norm_eps,
        "image_size": _one_or_two(tokenizer.grid),
        "patch_size": _one_or_two(tokenizer.patch),
        "num_channels": tokenizer.channels,
        "qkv_bias": True,
    }


def _tensors_of(tokenizer: GridPatches, encoder: Encoder) -> dict[str, Tensor]:
    patch = (tokenizer.patch[0], tokenizer.patch[1])
    kernel = _names.projection_to(tokenizer.project.weight, patch=patch, channels=tokenizer.channels)
    tensors = _names.encoder_to(encoder.state_dict(), depth=encoder.depth, layers="encoder.layer", norm="layernorm") | {
        "embeddings.patch_embeddings.projection.weight": kernel,
        "embeddings.patch_embeddings.projection.bias": tokenizer.project.bias,
        "embeddings.position_embeddings": tokenizer.position,
    }
    if tokenizer.class_token is not None:
        # Ours holds its position within itself.
        nowhere = torch.zeros_like(tokenizer.class_token)
        tensors["embeddings.cls_token"] = tokenizer.class_token
        tensors["embeddings.position_embeddings"] = torch.cat([nowhere, tokenizer.position], dim=1)
    return tensors


def _check_pretext(backbone: Backbone, pretext: MaskedReconstruction) -> None:
    obstacle = mae_obstacle(backbone, pretext)
    if obstacle is not None:
        raise CheckpointError(f"{obstacle}; or write the backbone alone (without pretext)")


def _decoder_config(pretext: MaskedReconstruction, *, tokens: int) -> dict[str, Any]:
    assert isinstance(pretext.mask, RandomMask)
    decoder, ratio = pretext.decoder, pretext.mask.ratio
    kept = tokens - round(tokens * ratio)
    if int(tokens * (1 - ratio)) != kept:
        # They round down what is kept, we round what is hidden: a ratio that gives our number either way.
        ratio = 1 - (kept + 0.5) / tokens
    return {
        "decoder_hidden_size": decoder.dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": int(decoder.dim * decoder.mlp_ratio),
        "mask_ratio": ratio,
        "norm_pix_loss": pretext.normalise,
    }


def _decoder_tensors(pretext: MaskedReconstruction) -> dict[str, Tensor]:
    decoder, position = pretext.decoder, pretext.get_buffer("position")
    inner = _names.encoder_to(
        decoder.state_dict(), depth=decoder.depth, layers="decoder_layers", norm="decoder_norm"
    ) | {
        "decoder_embed.weight": pretext.enter.weight,
        "decoder_embed.bias": pretext.enter.bias,
        "mask_token": pretext.hidden,
        "decoder_pos_embed": torch.cat([torch.zeros_like(position[:, :1]), position], dim=1),
        "decoder_pred.weight": pretext.predict.weight,
        "decoder_pred.bias": pretext.predict.bias,
    }
    return {f"decoder.{name}": tensor for name, tensor in inner.items()}


def _one_or_two(sides: tuple[int, ...]) -> int | list[int]:
    return sides[0] if sides[0] == sides[1] else list(sides)


def _divide(grid: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    return grid[0] // patch[0], grid[1] // patch[1]


def _mlp_ratio(dim: int, hidden: int) -> float:
    """The ratio from which an encoder computes exactly this hidden width (a quotient can fall just short of it)."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)
