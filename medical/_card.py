"""The text that stands beside an exported model: what it is, how pictures are prepared for it, how it is opened."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unlabeled.medical._finetuning import SENSITIVITY

if TYPE_CHECKING:
    from unlabeled.medical.model import PneumoniaModel

KINDS = {
    "vit_mae": "a ViTMAE with its decoder (ViTMAEForPreTraining, ViTMAEModel)",
    "vit": "a ViT (ViTModel)",
    "ijepa": "an I-JEPA encoder (IJepaModel), which is a ViT without a class token",
}
_PATCHES = "the mean of last_hidden_state over the patches"
FEATURES = {
    "vit_mae": f"{_PATCHES}: last_hidden_state[:, 1:].mean(dim=1), opened with mask_ratio=0.0",
    "vit": f"{_PATCHES}: last_hidden_state[:, 1:].mean(dim=1)",
    "ijepa": f"{_PATCHES}: last_hidden_state.mean(dim=1)",
    "onnx": "the mean over the patches",
}
_STANDARDISED = '''def standardised(pictures):
    """8-bit (N, {size}, {size}) -> (N, 1, {size}, {size}), each with its own mean 0 and standard deviation 1."""
    x = pictures.astype(np.float32)
    mean, deviation = x.mean(axis=(1, 2), keepdims=True), x.std(axis=(1, 2), keepdims=True)
    return ((x - mean) / np.maximum(deviation, 1e-3))[:, None]
'''
_OPENED = {
    "vit_mae": ('"FOLDER", mask_ratio=0.0', "[:, 1:]"),
    "vit": ('"FOLDER"', "[:, 1:]"),
    "ijepa": ('"FOLDER"', ""),
}


def huggingface(model: "PneumoniaModel", *, kind: str) -> str:
    """Of a folder for transformers; ``kind`` is its ``model_type``."""
    given, patches = _OPENED[kind]
    code = f"""encoder = AutoModel.from_pretrained({given}).eval()
with torch.no_grad():
    tokens = encoder(torch.from_numpy(standardised(pictures))).last_hidden_state
features = tokens{patches}.mean(dim=1).numpy()  # (N, {model.dim})
"""
    text = f"This folder is {KINDS[kind]}."
    if kind == "vit_mae":
        text += " ViTMAEForPreTraining fills hidden patches in, each up to its own mean and contrast."
    if model.decision_ is not None:
        text += " It is the encoder before labels changed it; the classifier is not in here (`--to onnx` writes it)."
    text += (
        " It has no `preprocessor_config.json`, because the image processors of transformers know one mean and one "
        "deviation for all pictures."
    )
    return _card(model, text, ("import torch", "from transformers import AutoModel"), code)


def onnx(model: "PneumoniaModel", *, names: Sequence[str]) -> str:
    """Of a folder of ONNX files."""
    lines = []
    text = "Each file takes `batch`, standardised pictures, any number at once."
    if "encoder.onnx" in names:
        text += f" `encoder.onnx` gives `features` (N, {model.dim}), the mean over the patches of the encoder"
        text += " before labels changed it." if model.decision_ is not None else "."
        lines += [_session("encoder"), 'features = encoder.run(["features"], {"batch": standardised(pictures)})[0]']
    if model.decision_ is not None:
        # Imported here: it imports models, which import this.
        from unlabeled.medical._operating import decision_of

        decision = decision_of(model)
        text += (
            f" `classifier.onnx` gives `probability` (N,) of {model.finding} where it is as frequent as among the "
            f"labels. At or above {_exact(decision.threshold)} a picture is called {model.finding}; at or above "
            f"{_exact(decision.sensitive_threshold)}, {100 * SENSITIVITY:.0f} % of {model.finding} was found on "
            "held-out pictures. Thresholds do not carry over to another hospital."
        )
        lines += [
            _session("classifier"),
            'probability = classifier.run(["probability"], {"batch": standardised(pictures)})[0]',
        ]
    return _card(model, text, ("import onnxruntime",), "\n".join(lines) + "\n")


def _exact(threshold: float) -> str:
    """As many digits as it takes that no call changes: a threshold may lie between two scores that are very close."""
    return f"{threshold:.12g}"


def _session(name: str) -> str:
    return f'{name} = onnxruntime.InferenceSession("FOLDER/{name}.onnx", providers=["CPUExecutionProvider"])'


def _card(model: "PneumoniaModel", text: str, imports: Sequence[str], code: str) -> str:
    size, framing = model.image_size, model.framing
    square = {
        "stretched": "Stretched to the square",
        "padded": "Text near the borders painted over, collimated borders cut off, padded to the square with black",
    }[framing]
    learnt = []
    if model.start_ is not None:
        learnt.append(
            f"started from the encoder of {model.start_.name} (fingerprint {model.start_.fingerprint}, licence: "
            f"{model.start_.licence or 'not stated there'})"
        )
    if model.pretraining_ is not None:
        learnt.append(
            f"pretrained without labels on {model.pretraining_['images']:,} pictures (task '{model.task}', masking "
            f"'{model.masking}', {model.pretraining_['steps']:,} steps)"
        )
    if model.finetuning_ is not None and model.decision_ is not None:
        learnt.append(f"fine-tuned on {model.finetuning_['images']:,} labels")
        if "students" in model.finetuning_:
            learnt.append(f"self-trained on {model.finetuning_['students']['images']:,} pictures without labels")
    history = ", ".join(learnt)
    first = "\n".join(("import numpy as np", *imports))
    return f"""# A model of frontal chest radiographs

For research only; not a medical device. Written by `unlabeled medical export`; {history}.

{text}

## Preparing pictures

- One channel, {size} x {size} pixels, 8-bit. DICOM: modality rescale, then the VOI window, then MONOCHROME1 inverted.
- {square}: averaged over areas where the picture shrinks, bilinear where it grows. (`unlabeled.medical.\
read_images(path, size={size}, framing="{framing}")` does all of this.)
- Then each picture is standardised by itself, to mean 0 and standard deviation 1, as below.
- Not mirrored: a heart on the wrong side is another finding.

`FOLDER` is this folder, `pictures` is an array (N, {size}, {size}) of 8-bit numbers:

```python
{first}


{_STANDARDISED.format(size=size)}

{code}```
"""
