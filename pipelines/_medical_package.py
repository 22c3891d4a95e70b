"""``unlabeled medical package``: a fine-tuned model for MLflow's own tools."""

import json
import shutil
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from unlabeled.core import tracking
from unlabeled.core.checkpoints import MANIFEST, read_manifest
from unlabeled.medical._storage import without_patients
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.serving import COLUMN, Service
from unlabeled.pipelines._medical_exchange import settings_of
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome

SCRIPT = Path(__file__).parents[1] / "medical" / "mlflow_model.py"
# What scoring a picture needs, as it is installed here.
NEEDED = (
    "unlabeled", "mlflow", "torch", "numpy", "pandas", "scikit-learn", "safetensors", "monai", "pillow", "pydicom",
    "pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm",
)  # fmt: skip


def package(model: Path, *, out: Path, register: str | None = None) -> Outcome:
    """Writes an MLflow model folder, asks it back for what the model itself answers, and registers it on request.

    Without ``register`` no run is tracked: nothing is learnt.

    Raises:
        CheckpointError: no such model, or ``out`` holds something else.
        DataError: the model has not seen labels yet, ``out`` is or lies in what another job wrote, or
            the registry takes no such name.
        UnlabeledError: the model was to be registered, and the store cannot be reached.
    """
    check_out(out, replaces="package")
    if register is not None:
        tracking.check_registered_name(register)
    return package_on(model, out=out, register=register)


def package_on(model: Path, *, out: Path, register: str | None = None) -> Outcome:
    """The same within the folder of a run."""
    trained = PneumoniaModel.load(model)
    service = Service(trained)
    example = service.example()
    answer = service.answer(example)
    with TemporaryDirectory() as place:
        # Without what else stands in the folder: baselines, the report, whom it learnt from.
        alone, manifest = Path(place) / "model", read_manifest(model)
        alone.mkdir()
        for name in manifest["sha256"]:
            shutil.copy2(model / name, alone / name)
        (alone / MANIFEST).write_text(json.dumps(without_patients(manifest), indent=1) + "\n", encoding="utf-8")
        tracking.package(
            out, script=SCRIPT, model=alone, column=COLUMN, example=example, answer=answer, requirements=requirements()
        )
    run_id, version = None, None
    if register is not None:
        with tracking.run(
            EXPERIMENT,
            f"package {register}",
            params={**settings_of(trained), "model": model.name},
            parent=trained.provenance_.get("pretraining_run"),
            model=trained.provenance_.get("finetuning_run"),
        ) as run:
            version = run.register(out, register)
            run_id = run.run_id
    return Outcome(
        headline=f"Packaged {model.name}; one row of noise gets the same answer from the package. Serve it on this "
        f"machine: mlflow models serve -m {out} --env-manager local -p 5001",
        lines=[] if version is None else [f"registered as models:/{register}/{version}"],
        files={"package": out},
        run_id=run_id,
        details={"registered": register, "version": version},
    )


def requirements() -> list[str]:
    """Exact versions, without what marks a build (``+cpu``), which no index has."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in NEEDED]
