"""A model for other people's programs: a folder that Hugging Face's transformers open, or ONNX files.

Beside the weights stand a text for people and ``preprocessing.json`` for programs: without the same preprocessing an
exported network gives other numbers.

There is no MONAI bundle among the formats, because its specification requires the weights as a pickled state dictionary
(``models/model.pt``), and nothing here writes pickles.
"""

import copy
import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unlabeled import __version__
from unlabeled.core.checkpoints import replacing
from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.exchange import huggingface, onnx
from unlabeled.core.seeds import derive
from unlabeled.medical import _card as card
from unlabeled.medical import _network as network
from unlabeled.medical.transforms import LEAST_DEVIATION, standardise

if TYPE_CHECKING:
    from unlabeled.medical.model import PneumoniaModel

README, PREPROCESSING = "README.md", "preprocessing.json"
ENCODER, CLASSIFIER = "encoder.onnx", "classifier.onnx"
_OURS = {README, PREPROCESSING, ENCODER, CLASSIFIER, "config.json", "model.safetensors"}
# Pictures of noise that an export is checked on: a model folder holds no others.
CHECKED_ON = 8
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: where.
        parts: what is in it, a sentence each.
        checks: how it was compared with the model, and the largest difference that was found, a sentence each.
    """

    folder: Path
    parts: tuple[str, ...]
    checks: tuple[str, ...]


class Scores(nn.Module):
    """Standardised pictures (B, 1, S, S) -> probabilities of pneumonia (B,), as :meth:`PneumoniaModel.score`."""

    def __init__(self, model: "PneumoniaModel") -> None:
        super().__init__()
        model.check_fine_tuned()
        assert model.decision_ is not None
        self.members, self.pretrained = model.members_, model.module_.backbone
        # Said to PyTorch as well, which looks for modules in attributes and not in lists.
        self.parts = nn.ModuleList([part for m in self.members for part in m if part is not None])
        self.prior, self.temperature = model.prior_, model.decision_.temperature

    def forward(self, batch: Tensor) -> Tensor:
        odds_b = network.mean_odds(self.members, self.pretrained, batch)
        return torch.sigmoid((odds_b + self.prior) / self.temperature)


def to_huggingface(model: "PneumoniaModel", folder: str | Path) -> Exported:
    """Writes the encoder as it was before labels changed it, for ``transformers`` (which need not be installed).

    With a class token and a task that fills randomly hidden patches in it becomes a ViTMAE, the decoder included; with
    a class token alone a ViT; without one an I-JEPA encoder, the only one of theirs that has none.

    Args:
        model: pretrained.
        folder: where; an earlier export is replaced.

    Raises:
        DataError: the model has not been pretrained.
        CheckpointError: the folder is in use, or what was written gives other features.
    """
    folder = _free(folder)
    model = _on_the_cpu(model)
    backbone = _pretrained(model)
    # After a start alone the decoder is still as it was made.
    pretext = network.filling_in(model.module_.pretext) if model.pretraining_ is not None else None
    why = None if pretext is None else huggingface.mae_obstacle(backbone, pretext)
    if why is not None:
        pretext = None
    with replacing(folder) as new:
        huggingface.write(new, backbone, pretext)
        kind = json.loads((new / "config.json").read_text(encoding="utf-8"))["model_type"]
        checks = [_read_back(new, backbone, model)]
        if importlib.util.find_spec("transformers") is not None:
            checks.append(_opened(new, kind, backbone, model))
        else:
            checks.append("not opened with transformers, which is not installed")
        text = card.huggingface(model, kind=kind)
        _describe(new, model, text, network=kind, features=card.FEATURES[kind])
    parts = [f"{card.KINDS[kind]}: config.json, model.safetensors"]
    if why is not None:
        parts.append(f"the part that fills hidden patches in was left out: {why}")
    return Exported(folder, (*parts, _PREPARED), tuple(checks))


def to_onnx(model: "PneumoniaModel", folder: str | Path) -> Exported:
    """Writes graphs of standardised pictures (B, 1, S, S), B free, each run in onnxruntime before it stays.

    ``encoder.onnx`` gives the embedding (B, D) as it was before labels changed the encoder, for a pretrained model;
    ``classifier.onnx`` the probability of the finding (B,), all voting networks included, for a fine-tuned one.

    Args:
        model: pretrained, fine-tuned, or both.
        folder: where; an earlier export is replaced.

    Raises:
        DataError: the model has learnt nothing yet.
        UnlabeledError: the packages of the extra ``onnx`` are not installed.
        CheckpointError: the folder is in use, or what was written computes something else.
    """
    folder = _free(folder)
    _check_learnt(model)
    model = _on_the_cpu(model)
    graphs: list[tuple[str, nn.Module, str, str]] = []
    if model.has_learnt:
        embedding = onnx.Embedding(model.module_.backbone.eval(), "mean")
        graphs.append((ENCODER, embedding, onnx.OUTPUT, f"embeddings of width {model.dim}"))
    if model.decision_ is not None:
        graphs.append((CLASSIFIER, Scores(model), "probability", f"probabilities of {model.finding}"))
    parts, checks = [], []
    with replacing(folder) as new:
        for name, module, output, gives in graphs:
            difference = onnx.write_module(new / name, module, _noise(model), output=output)
            parts.append(f"{name}: 'batch' (B, 1, {model.image_size}, {model.image_size}) -> '{output}', {gives}")
            checks.append(
                f"{name} in onnxruntime: differs by at most {difference:.1e} on {CHECKED_ON} pictures of noise"
            )
        names = [name for name, *_ in graphs]
        _describe(new, model, card.onnx(model, names=names), graphs=names, features=card.FEATURES["onnx"])
    return Exported(folder, (*parts, _PREPARED), tuple(checks))


_PREPARED = f"{README}, {PREPROCESSING}: how pictures must be prepared for the same numbers"


def _check_learnt(model: "PneumoniaModel") -> None:
    if not model.has_learnt and getattr(model, "decision_", None) is None:
        raise DataError("this model has learnt nothing yet: pretrain or fine-tune it, then write it")


def _pretrained(model: "PneumoniaModel") -> Backbone:
    _check_learnt(model)
    if not model.has_learnt:
        raise DataError(
            "this model was fine-tuned from scratch, so that it has no encoder of its own to write: pretrain one, or "
            "write its classifier (--to onnx)"
        )
    return model.module_.backbone.eval()


def _on_the_cpu(model: "PneumoniaModel") -> "PneumoniaModel":
    """A copy, whose original stays where it is; the model itself where it has learnt nothing that could be moved."""
    return copy.deepcopy(model).to("cpu") if hasattr(model, "module_") else model


def _free(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.exists():
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
        # Somebody else's download has our names too, but no preprocessing.json.
        if names and (names - _OURS or PREPROCESSING not in names):
            raise CheckpointError(f"{folder} exists and is not an export of ours: name another folder")
    return folder


def _noise(model: "PneumoniaModel") -> Tensor:
    """Standardised (8, 1, S, S)."""
    draw = torch.Generator().manual_seed(derive(0, "export"))
    return standardise(torch.rand(CHECKED_ON, model.image_size, model.image_size, generator=draw) * 255)


_SQUARE = {
    "stretched": ("stretched to the square: averaged over areas where it shrinks, bilinear where it grows",),
    "padded": (
        "text-like marks near the borders painted over, uniform bands along the edges cut off "
        "(unlabeled.medical.read_images with framing='padded')",
        "aspect kept: averaged over areas where it shrinks, bilinear where it grows; padded to the square with black",
    ),
}


def _describe(folder: Path, model: "PneumoniaModel", text: str, **facts: Any) -> None:
    from unlabeled.medical._operating import decision_of  # it imports models, which import this

    decision = None if model.decision_ is None else decision_of(model)
    content = {
        "written_by": f"unlabeled {__version__}",
        "pictures": {"rows": model.image_size, "columns": model.image_size, "channels": 1, "values": "8-bit, 0 to 255"},
        "steps": [
            "DICOM: modality rescale, VOI window, MONOCHROME1 inverted; the window's range becomes 0 to 255",
            *_SQUARE[model.framing],
            "rounded to 8 bits",
            "each picture less its own mean, over its own standard deviation",
        ],
        "standardise": {
            "per": "picture", "mean": 0, "standard_deviation": 1, "correction": 0, "least_divisor": LEAST_DEVIATION,
        },
        "mirror": False,
        **facts,
        "decision": None if decision is None else {
            "threshold": decision.threshold, "sensitive_threshold": decision.sensitive_threshold,
        },
        "pretraining": None if model.pretraining_ is None else {
            name: model.pretraining_[name] for name in ("images", "fingerprint", "steps")
        },
        "start": model.start_.facts() if model.start_ else None,
        "provenance": model.provenance_,
        "intended_use": "research on frontal chest radiographs; not a medical device",
    }  # fmt: skip
    (folder / PREPROCESSING).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / README).write_text(text, encoding="utf-8")


@torch.no_grad()
def _read_back(folder: Path, backbone: Backbone, model: "PneumoniaModel") -> str:
    x = _noise(model)
    found = huggingface.read(folder)[0].eval().embed(x)
    return f"read back: {_within(found, backbone.embed(x))}"


@torch.no_grad()
def _opened(folder: Path, kind: str, backbone: Backbone, model: "PneumoniaModel") -> str:
    """The same in transformers itself."""
    theirs = importlib.import_module("transformers")
    # Nothing hidden: a ViTMAE drops patches even when it is only asked for features.
    options = {"mask_ratio": 0.0} if kind == "vit_mae" else {}
    said = theirs.utils.logging
    bars, level = said.is_progress_bar_enabled(), said.get_verbosity()
    # Otherwise it lists a ViTMAE's decoder, which features do not need, as unexpected.
    said.disable_progress_bar()
    said.set_verbosity_error()
    try:
        opened = theirs.AutoModel.from_pretrained(folder, **options)
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()
    x, tokenizer = _noise(model), backbone.tokenizer
    tokens = opened.eval()(x).last_hidden_state
    front = 0 if getattr(tokenizer, "class_token", None) is None else 1
    return f"opened with transformers {theirs.__version__}: {_within(tokens[:, front:].mean(1), backbone.embed(x))}"


def _within(found: Tensor, ours: Tensor) -> str:
    difference = float((found - ours).abs().max())
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the folder's features differ from the model's by {difference:.3g}, more than {TOLERANCE:g}, and it was "
            "not kept: please report this with the version of transformers"
        )
    return f"features differ by at most {difference:.1e} on {CHECKED_ON} pictures of noise"
