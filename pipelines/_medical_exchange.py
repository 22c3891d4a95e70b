"""``unlabeled medical export``: a model for other people's programs."""

from pathlib import Path
from typing import Literal

from unlabeled.medical.export import CLASSIFIER, ENCODER, PREPROCESSING, README, to_huggingface, to_onnx
from unlabeled.medical.model import PneumoniaModel
from unlabeled.pipelines.jobs import Outcome

Format = Literal["huggingface", "onnx"]


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
