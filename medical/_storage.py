"""A :class:`~unlabeled.medical.model.PneumoniaModel` on disk.

Whom it learnt from (salted digests, :func:`unlabeled.medical.splits.digests`) stands in a file of its own,
``patients.json``, which only its owner may read and the manifest does not list: a tracked run, a registered model, a
package and an export go without it. With it the model refuses to be judged on patients that it learnt from; without it,
it says that it does not know. Whoever hands the folder itself on leaves the file out: who holds it can find out whose
patient numbers, tried one by one, were there.
"""

import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unlabeled.core import checkpoints, fingerprint
from unlabeled.core.checkpoints import under
from unlabeled.core.errors import CheckpointError
from unlabeled.core.heads import Classifier
from unlabeled.core.novelty import Novelty
from unlabeled.medical._finetuning import Decision
from unlabeled.medical._network import Architecture, Member, Probe
from unlabeled.medical._start import Start
from unlabeled.medical.splits import EARLIER
from unlabeled.medical.transforms import LOOK

if TYPE_CHECKING:
    from unlabeled.medical.model import PneumoniaModel

KIND = "medical.PneumoniaModel"
PATIENTS = "patients.json"
# Where manifests of earlier versions kept the same.
_BEFORE = ("salt", "patients")
_SQUARE = {
    "stretched": "area-averaged to a square",
    "padded": "text near the borders painted over, collimated borders cut off, area-averaged, padded to a square",
}


def preprocessing(model: "PneumoniaModel") -> str:
    """What is done to pictures before the network sees them, in words."""
    return f"{_SQUARE[model.framing]}, each picture standardised by its own mean and standard deviation"


def pretrained_weights(model: "PneumoniaModel") -> str:
    """Fingerprint of the encoder as it was before labels, which a fine-tuned model keeps."""
    weights = [value.detach().cpu().numpy() for value in model.module_.backbone.state_dict().values()]
    return fingerprint.of_array(*weights)


def write(model: "PneumoniaModel", folder: str | Path) -> Path:
    """Weights, thresholds and provenance."""
    tensors = {f"pretraining.{name}": value for name, value in model.module_.state_dict().items()}
    for number, (classifier, probe) in enumerate(model.members_):
        tensors |= {f"member{number}.{name}": value for name, value in classifier.state_dict().items()}
        if probe is not None:
            tensors |= {f"probe{number}.{name}": value for name, value in probe.state_dict().items()}
    if model.novelty_ is not None:
        tensors |= {f"novelty.{name}": value for name, value in model.novelty_.tensors().items()}
    written = checkpoints.save(
        folder,
        kind=KIND,
        tensors=tensors,
        manifest={
            "parameters": model.get_params(),
            "preprocessing": preprocessing(model),
            "intended_use": "research on frontal chest radiographs; not a medical device",
            "members": len(model.members_),
            "look": LOOK,
            "prior": getattr(model, "prior_", 0.0),
            "decision": asdict(model.decision_) if model.decision_ else None,
            "start": model.start_.facts() if model.start_ else None,
            # Without a start the parameters say it all.
            "architecture": model.architecture_._asdict() if model.architecture_ else None,
            "novelty": model.novelty_.manifest() if model.novelty_ else None,
            "pretraining": model.pretraining_,
            "finetuning": model.finetuning_,
            "provenance": model.provenance_,
        },
    )
    # After the rest: what a power cut leaves in between does not know whom it learnt from, and says so.
    if model.digests_:
        _write_private(written / PATIENTS, {"salt": model.salt_, "patients": model.digests_})
    return written


def names_patients(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is an earlier version's, and holds digests of patients: it must not be handed on."""
    return bool(manifest.get("patients"))


def without_patients(manifest: dict[str, Any]) -> dict[str, Any]:
    """What may be handed on of a manifest of any version."""
    return {name: value for name, value in manifest.items() if name not in _BEFORE}


def _write_private(path: Path, content: dict[str, Any]) -> None:
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _read_patients(folder: Path, manifest: dict[str, Any]) -> tuple[str, list[str]]:
    """Salt and digests; a new salt where nobody is known, or the file is another user's.

    Raises:
        CheckpointError: the file is damaged.
    """
    path, kept = folder / PATIENTS, manifest
    if names_patients(manifest):
        kept = {**manifest, "salt": f"{EARLIER}{manifest['salt']}"}
    else:
        try:
            kept = json.loads(path.read_text(encoding="ascii"))
        except (FileNotFoundError, PermissionError):
            return secrets.token_hex(16), []
        except ValueError:
            kept = {}
    try:
        salt, digests = str(kept["salt"]), [str(digest) for digest in kept["patients"]]
        bytes.fromhex(salt.removeprefix(EARLIER))
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{path} is damaged: restore it, or remove it (the model then does not know whom it learnt from)"
        ) from None
    return salt, digests


def read(kind: "type[PneumoniaModel]", folder: str | Path, *, encoder_only: bool = False) -> "PneumoniaModel":
    """The inverse of :func:`write`.

    Args:
        encoder_only: leave aside what labels taught it.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    tensors, manifest = checkpoints.load(folder, kind=KIND)
    if encoder_only:
        manifest |= {"members": 0, "prior": 0.0, "decision": None, "novelty": None}
    if manifest.get("members") and manifest.get("look") != LOOK:
        raise CheckpointError(
            f"{folder} was fine-tuned by another version, which looked at pictures in another way, so that its "
            "thresholds no longer hold: fine-tune again (unlabeled medical finetune takes its encoder from there)"
        )
    try:
        model = kind(**manifest["parameters"])
        architecture = manifest.get("architecture")  # a folder of before there were starts has none
        model.architecture_ = None if architecture is None else Architecture(**architecture)
        model.module_ = model._fresh()
        _put(model.module_, tensors, "pretraining.")
        model.members_ = []
        for number in range(manifest["members"]):
            classifier = Classifier(model._fresh().backbone)
            _put(classifier, tensors, f"member{number}.")
            probe = Probe(model.dim) if f"probe{number}.bias" in tensors else None
            if probe is not None:
                _put(probe, tensors, f"probe{number}.")
            model.members_.append(Member(classifier, probe))
        model.prior_ = manifest["prior"]
        model.decision_ = Decision(**manifest["decision"]) if manifest["decision"] else None
        novelty = manifest.get("novelty")  # a folder of before there was one has none
        model.novelty_ = None if novelty is None else Novelty.of_tensors(under("novelty.", tensors), novelty)
        model.pretraining_, model.finetuning_ = manifest["pretraining"], manifest["finetuning"]
        # Labels change copies: what was never pretrained on is still what it started from.
        untouched = model.module_.backbone.state_dict() if model.pretraining_ is None else None
        model.start_ = Start.of_facts(manifest.get("start"), untouched)
        model.provenance_ = manifest["provenance"]
        model.salt_, model.digests_ = _read_patients(Path(folder), manifest)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder} was written by another version ({error}): train again") from None
    return model


def _put(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    module.load_state_dict(under(prefix, tensors))
