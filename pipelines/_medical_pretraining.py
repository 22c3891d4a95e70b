"""The tracked pretraining on radiographs, alone or beside the same one with random masks."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from unlabeled.core import tracking
from unlabeled.core.budget import AS_FOUND, Budget, Rates, priced
from unlabeled.core.training import History, forget
from unlabeled.medical import report
from unlabeled.medical._declared import probe_details
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical._planning import described, pretraining
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.shortcuts import encoded
from unlabeled.medical.tasks import HIDING
from unlabeled.pipelines import _ablation as ablation
from unlabeled.pipelines._collapse import last_healthy
from unlabeled.pipelines._medical_exchange import settings_of
from unlabeled.pipelines._medical_output import names_in, track, write_skips
from unlabeled.pipelines.jobs import Outcome

EXPERIMENT = "unlabeled/medical"


def pretrain(
    model: PneumoniaModel,
    images: ImageSet,
    *,
    out: Path,
    synthetic: bool,
    rates: Rates = AS_FOUND,
    asked: Labelled | None = None,
    beside_random: bool = False,
    inside: str | None = None,
) -> Outcome:
    """Pretrains ``model`` in a run of its own, asks what of people and pictures its features encode, and writes it to
    ``out``.

    Args:
        asked: pictures whose labels are looked at on the way.
        beside_random: do the same with random masks first, and show both.
        inside: id of the run that this one is shown under.
    """
    ablation.check_folders(out, beside_random=beside_random)
    settings, print_ = {**settings_of(model), "images": len(images)}, images.fingerprint()
    with (
        TemporaryDirectory() as place,
        tracking.run(
            EXPERIMENT, f"pretrain {out.name}", params=settings, tags={"data.fingerprint": print_}, inside=inside
        ) as run,
    ):
        beside = _beside(model, images, out, synthetic, rates, asked, run) if beside_random else None
        state = state_of(out)
        with last_healthy(run, out, model.save):
            model.pretrain(images, asked=asked, state=state, log=priced(run.metrics, rates))
        model.provenance_["pretraining_run"] = run.run_id
        quality = None
        if model.fills_in:
            some = images.images[np.linspace(0, len(images) - 1, min(256, len(images))).astype(int)]
            quality = report.reconstruction_quality(model, some)
            run.metrics({"psnr": quality["predicted"][0], "ssim": quality["predicted"][1]})
        known = encoded(model, images)
        run.metrics({f"encodes.{s.name}": s.found.auroc.value for s in known if s.found is not None})
        page = report.pretraining_report(
            model=model, images=images, quality=quality, encoded=known, synthetic=synthetic, run_id=run.run_id
        )
        if beside is not None:
            verdict = "Fine-tune both on the same labels and compare."
            ablation.show(page, run, {"": _history(model)}, beside, masking=model.masking, verdict=verdict)
        model.save(out)
        forget(state)
        files = {"model": out, "report": page.write(out / "report.html"), **write_skips(out, images.skipped)}
        if beside is not None:
            files["with random masks"] = beside.folder
        run.model(out)
        names = names_in(images, skipped=images.skipped)
        track(run, files, page, place=Path(place), nameless=False, names=names)
    loss = model.pretraining_["curves"]["loss"][-1][1] if model.pretraining_ else float("nan")
    return Outcome(
        headline=f"Pretrained on {len(images):,} pictures without labels ({len(images.skipped)} inputs skipped); "
        f"loss {loss:.3f}. Next: unlabeled medical finetune INPUT --labels CSV --model {out}",
        files=files,
        run_id=run.run_id,
        details={
            "images": len(images),
            "skipped": len(images.skipped),
            "loss": loss,
            "encoded": probe_details(known),
            "start": model.start_.facts() if model.start_ else None,
            "random_masks_run": beside.run_id if beside else None,
        },
    )


def state_of(out: Path) -> Path:
    """Where the states of a pretraining lie until it is done, so that it goes on from there."""
    return out.with_name(f".{out.name}.state")


def check_beside_random(model: PneumoniaModel) -> None:
    """Raises a DataError where random masks would be compared with nothing else."""
    ablation.check(model.masking, hides=model.task in HIDING)


def costs(model: PneumoniaModel, images: ImageSet, *, beside_random: bool) -> list[Budget]:
    """What :func:`pretrain` would cost, training by training."""
    budgets = [model.pretraining_cost(images)]
    if beside_random:
        budgets.append(replace(_with_random_masks(model).pretraining_cost(images), label="with random masks"))
    return budgets


def _beside(
    model: PneumoniaModel,
    images: ImageSet,
    out: Path,
    synthetic: bool,
    rates: Rates,
    asked: Labelled | None,
    run: tracking.Run,
) -> ablation.Twin:
    other, folder = _with_random_masks(model), ablation.folder_beside(out)

    def train() -> tuple[str, Mapping[str, History]]:
        done = pretrain(other, images, out=folder, synthetic=synthetic, rates=rates, asked=asked, inside=run.run_id)
        assert done.run_id is not None
        return done.run_id, {"": _history(other)}

    batch = pretraining(other, images.images)[0].batch_size
    made_of = {**settings_of(other), "batch": batch, "data": images.fingerprint(), **described(asked)}
    return ablation.twin(folder, made_of=made_of, train=train)


def _with_random_masks(model: PneumoniaModel) -> PneumoniaModel:
    return copy.deepcopy(model).set_params(masking=ablation.random_twin(model.masking))


def _history(model: PneumoniaModel) -> History:
    facts = model.pretraining_
    assert facts is not None
    return History(curves=facts["curves"], seconds=facts["seconds"], steps=facts["steps"])
