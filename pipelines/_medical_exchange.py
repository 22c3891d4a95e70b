"""Models from and for other people's programs: where a medical job starts from, and ``unlabeled medical export``."""

from pathlib import Path
from typing import Any, Literal

from unlabeled.core.checkpoints import MANIFEST
from unlabeled.core.errors import DataError
from unlabeled.core.exchange import huggingface
from unlabeled.core.progress import say
from unlabeled.medical.export import CLASSIFIER, ENCODER, PREPROCESSING, README, to_huggingface, to_onnx
from unlabeled.medical.model import PneumoniaModel
from unlabeled.pipelines.jobs import Outcome

Format = Literal["huggingface", "onnx"]


# Of a model that starts from nothing.
SIZE = 64


def begin(folder: Path | None, *, size: int | None, **settings: Any) -> PneumoniaModel:
    """A model with these settings, from nothing or from a Hugging Face folder, and says what of that was matched.

    Args:
        folder: or ``None``.
        size: rows and columns of the pictures; default 64, or the folder's own.
        settings: parameters of :class:`PneumoniaModel`.

    Raises:
        DataError: a setting is out of its range, or the folder is one of ours, or of oblong pictures.
        CheckpointError: the folder cannot be used (says why).
    """
    if folder is None:
        model = PneumoniaModel(image_size=size or SIZE, **settings)
        model.check()
        return model
    if (folder / MANIFEST).exists():
        raise DataError(
            f"{folder} is a model of unlabeled, and a Hugging Face folder is needed here: "
            f"unlabeled medical export {folder} --to huggingface makes one of it"
        )
    if size is None:
        size, columns = huggingface.grid_of(folder)
        if size != columns:
            raise DataError(f"{folder} reads pictures of {size}x{columns}, but square ones are needed: give --size")
    model = PneumoniaModel(image_size=size, **settings).start_from(folder)
    assert model.start_ is not None
    start = model.start_
    say(f"starting from {start}, licence: {start.licence or 'not stated there'}; pictures of {size} pixels")
    for line in start.lines:
        say(f"  {line}")
    return model


def pretrained(folder: Path, *, size: int | None) -> PneumoniaModel:
    """The model of a folder that ``medical pretrain`` wrote, or one that starts from a Hugging Face folder.

    Raises:
        DataError: a size for a model that has another one.
        CheckpointError: the folder cannot be used (says why).
    """
    if not (folder / MANIFEST).exists() and (folder / "config.json").exists():
        return begin(folder, size=size)
    model = PneumoniaModel.load(folder, encoder_only=True)
    if size not in (None, model.image_size):
        raise DataError(f"{folder} was pretrained on {model.image_size} pixels, and --size {size} cannot change that")
    return model


def settings_of(model: PneumoniaModel) -> dict[str, Any]:
    """What a run keeps of a model: its parameters, and where it started."""
    start = model.start_
    if start is None:
        return model.get_params()
    said = {"start": start.name, "start_fingerprint": start.fingerprint, "start_licence": start.licence or "not stated"}
    return {**model.get_params(), **said}


def export(model: Path, *, out: Path, to: Format) -> Outcome:
    """Writes the model of a folder in another format, checked against the model. No run is tracked: nothing is learnt.

    Raises:
        CheckpointError: no such model, or ``out`` holds something else.
        DataError: the model has nothing that the format holds.
        UnlabeledError: packages of the extra ``onnx`` are missing.
    """
    trained = PneumoniaModel.load(model)
    done = (to_huggingface if to == "huggingface" else to_onnx)(trained, out)
    names = (README, PREPROCESSING, "config.json", "model.safetensors", ENCODER, CLASSIFIER)
    return Outcome(
        headline=f"Wrote {model.name} to {out} for {'transformers' if to == 'huggingface' else 'onnxruntime'}.",
        lines=[*done.parts, *(f"check: {text}" for text in done.checks)],
        files={name: out / name for name in names if (out / name).exists()},
        details={"format": to, "parts": list(done.parts), "checks": list(done.checks)},
    )
