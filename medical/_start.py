"""Somebody else's encoder, from which a :class:`~unlabeled.medical.model.PneumoniaModel` starts."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unlabeled.core.checkpoints import check_same
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.exchange import huggingface
from unlabeled.core.tokens import GridPatches
from unlabeled.medical._network import Architecture

if TYPE_CHECKING:
    from unlabeled.medical.model import PneumoniaModel

# The line of a model card's head in which Hugging Face keeps the licence.
_LICENCE = re.compile(r"^license(?:_name)?:[ \t]*(\S[^\n]*)$", flags=re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a model started from.

    Attributes:
        name: of the folder, without where it lies.
        fingerprint: 16 hex digits over its settings and weights.
        licence: as its README or settings state it; ``None`` where they do not.
        lines: what of it was matched, adapted and not used, a line each.
        weights: of the adapted backbone; ``None`` in a loaded model that was pretrained on from them.
    """

    name: str
    fingerprint: str
    licence: str | None
    lines: tuple[str, ...]
    weights: Mapping[str, Tensor] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"

    def facts(self) -> dict[str, Any]:
        """All but the weights, as JSON."""
        return {
            "name": self.name, "fingerprint": self.fingerprint, "licence": self.licence, "lines": list(self.lines)
        }  # fmt: skip

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any] | None, weights: Mapping[str, Tensor] | None) -> "Start | None":
        """The inverse of :meth:`facts`."""
        return None if facts is None else cls(**{**facts, "lines": tuple(facts["lines"])}, weights=weights)


def read(folder: str | Path, *, image_size: int) -> tuple[Start, Architecture]:
    """A Hugging Face folder's encoder for square pictures of one channel.

    Raises:
        CheckpointError: no ViT, ViTMAE or I-JEPA folder, damaged, pickled, of oblong patches, or of patches that do not
            divide ``image_size``.
    """
    folder = Path(folder)
    backbone, matched = huggingface.read(folder, grid=(image_size, image_size))
    tokenizer = backbone.tokenizer
    assert isinstance(tokenizer, GridPatches)
    if tokenizer.patch[0] != tokenizer.patch[1]:
        raise CheckpointError(
            f"{folder} cuts patches of {tokenizer.patch[0]}x{tokenizer.patch[1]}, but square ones are needed here: "
            "choose another folder"
        )
    # Here each picture is standardised by itself whatever the folder asks for.
    lines = [line for line in matched.lines() if huggingface.PREPROCESSOR not in line]
    lines.append("adapted:  pictures: each is standardised by its own mean and deviation")
    start = Start(
        name=folder.resolve().name,
        fingerprint=huggingface.fingerprint(folder),
        licence=_licence(folder),
        lines=tuple(lines),
        weights={name: tensor.detach().clone() for name, tensor in backbone.state_dict().items()},
    )
    return start, Architecture(tokenizer.config(), backbone.encoder.config())


def parameters(architecture: Architecture) -> dict[str, Any]:
    """The model's parameters that an architecture fixes."""
    tokenizer, encoder = architecture
    return {
        "image_size": tokenizer["grid"][0],
        "patch": tokenizer["patch"][0],
        "dim": encoder["dim"],
        "depth": encoder["depth"],
        "heads": encoder["heads"],
        "class_token": tokenizer["class_token"],
    }


def check_kept(model: "PneumoniaModel", architecture: Architecture) -> None:
    """Raises a CheckpointError where a parameter was changed that the start has fixed."""
    fixed = parameters(architecture)
    check_same(fixed, {name: getattr(model, name) for name in fixed}, what="the encoder that this model started from")


def weights_of(start: Start) -> Mapping[str, Tensor]:
    """Raises a DataError where they were trained on and are gone."""
    if start.weights is None:
        raise DataError(
            f"the weights of {start.name}, from which this model started, are not kept in it: call start_from again"
        )
    return start.weights


def _licence(folder: Path) -> str | None:
    """From the head of the model card, else from the settings, which :func:`huggingface.read` has found sound."""
    card = folder / "README.md"
    if card.is_file():
        parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
        found = _LICENCE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        if found is not None:
            return found[1].strip().strip("\"'")
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("license")
    return stated if isinstance(stated, str) and stated else None
