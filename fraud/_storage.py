"""A detector on disk: safetensors, JSON and LightGBM's text."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unlabeled.core import checkpoints
from unlabeled.core.checkpoints import under
from unlabeled.core.training import History
from unlabeled.fraud import tasks
from unlabeled.fraud.baselines import LightGBM
from unlabeled.fraud.blend import Blend
from unlabeled.fraud.boosting import from_text, to_text
from unlabeled.fraud.features import PlainFeatures
from unlabeled.fraud.history_model import HistoryModel, Size
from unlabeled.fraud.roles import Roles
from unlabeled.fraud.unsupervised import Unsupervised

if TYPE_CHECKING:
    from unlabeled.fraud.detector import FraudDetector

KIND = "fraud.FraudDetector"
_MODEL_FILE, _BASELINE_FILE = "lightgbm.txt", "lightgbm-baseline.txt"
_SETTINGS = (*tasks.SETTINGS, "embedding", "label_delay_days", "random_state")
# Entries of the manifest that go on with the model when it is read, learns more and is written again.
_LASTING = (
    "pretraining_data", "payments", "labelled_frauds", "labelled_genuine", "labelled_until", "run_id",
    "pretraining_run",
)  # fmt: skip


def save(detector: "FraudDetector", folder: str | Path, manifest: Mapping[str, Any]) -> Path:
    tensors = {f"{i}.{k}": v for i, model in enumerate(detector.models_) for k, v in model.tensors().items()}
    for i, (middle, axes) in enumerate(detector.components_):
        tensors |= {f"{i}.middle": torch.from_numpy(middle), f"{i}.axes": torch.from_numpy(axes)}
    blend = detector.fitted_
    content = {
        **detector.manifest_,
        **manifest,
        "roles": detector.roles_.to_json(),
        "settings": {name: getattr(detector, name) for name in _SETTINGS},
        "models": [model.to_json() for model in detector.models_],
        "plain": detector.plain_.to_json(),
        "unsupervised": detector.unsupervised_.to_json(),
        "curves": {name: history.curves for name, history in detector.history_.items()},
        "feature_names": None if blend is None else detector.feature_names_,
        "blend": None if blend is None else blend.to_json(),
    }
    files = {}
    if blend is not None and detector.baseline_ is not None:
        files = {_MODEL_FILE: blend.to_text(), _BASELINE_FILE: to_text(detector.baseline_.booster_)}
    return checkpoints.save(folder, kind=KIND, tensors=tensors, manifest=content, files=files)


def load(cls: "type[FraudDetector]", folder: str | Path) -> "FraudDetector":
    tensors, content = checkpoints.load(folder, kind=KIND)
    roles = Roles.from_json(content["roles"])
    sizes = [Size(**entry["size"]) for entry in content["models"]]
    made = cls(roles=roles, size=sizes[0], **content["settings"])
    made.roles_, made.classes_ = roles, np.array([0, 1])
    made.models_, made.components_ = [], []
    for i, entry in enumerate(content["models"]):
        own = under(f"{i}.", tensors)
        made.models_.append(HistoryModel.from_saved(entry, own, folder=folder))
        made.components_.append((own["middle"].numpy(), own["axes"].numpy()))
    made.plain_ = PlainFeatures.from_json(content["plain"])
    made.unsupervised_ = Unsupervised.from_json(content["unsupervised"])
    made.history_ = {name: History(curves=curves) for name, curves in content["curves"].items()}
    made.fitted_, made.baseline_ = None, None
    if content["feature_names"] is not None:
        made.fitted_ = Blend.from_saved(content["blend"], (Path(folder) / _MODEL_FILE).read_text(encoding="utf-8"))
        made.baseline_ = LightGBM(seed=made.random_state)
        made.baseline_.cost_ = None
        made.baseline_.booster_ = from_text((Path(folder) / _BASELINE_FILE).read_text(encoding="utf-8"))
        made.feature_names_ = content["feature_names"]
    made.manifest_ = {name: content[name] for name in _LASTING if name in content}
    return made
