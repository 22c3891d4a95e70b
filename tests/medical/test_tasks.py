"""Every task and masking on radiographs: from pictures to a saved model, and what a lung prior is."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from unlabeled.core.errors import DataError
from unlabeled.core.finetuning import Tuning
from unlabeled.core.masking import AdaptiveMask, BlockMask, SalientMask
from unlabeled.core.tokens import GridPatches
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical.tasks import Masking, Task, build_mask, lung_prior
from unlabeled.pipelines import cli_medical
from unlabeled.pipelines import medical as jobs

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 3, "folds": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "masking"),
    [("masked", m) for m in get_args(Masking)] + [(t, "random") for t in get_args(Task) if t != "masked"],
)
def test_every_task_and_masking_goes_from_pictures_to_a_model_on_disk(
    task: str, masking: str, phantoms: ImageSet, tmp_path: Path
) -> None:
    model = PneumoniaModel(**SMALL, task=task, masking=masking).pretrain(phantoms)  # type: ignore[arg-type]
    assert model.pretraining_ is not None
    losses = [value for _, value in model.pretraining_["curves"]["loss"]]
    assert np.isfinite(losses).all()
    model.finetune(phantoms, phantoms.labels, groups=phantoms.patients)  # type: ignore[arg-type]
    again = PneumoniaModel.load(model.save(tmp_path / "m"))
    np.testing.assert_allclose(again.score(phantoms), model.score(phantoms), rtol=1e-6)
    assert again.get_params()["task"] == task
    assert model.fills_in == (task in ("masked", "joint"))
    if not model.fills_in:
        with pytest.raises(DataError, match="has not learnt to fill patches in"):
            model.reconstruct(phantoms)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_task_that_fills_nothing_in_has_a_report_without_it(archive: simulate.Simulated, in_tmp: Path) -> None:
    done = jobs.pretrain(archive.images, out=in_tmp / "p", size=32, epochs=1, task="rotation")
    page = done.files["report"].read_text(encoding="utf-8")
    assert "Task &#39;rotation&#39;" in page
    assert "What it fills in" not in page
    assert "turns_right" in page


def test_a_prior_of_lungs_is_heavier_there_and_nowhere_zero() -> None:
    prior = lung_prior(8, 8).view(8, 8)
    assert torch.allclose(prior, prior.flip(1))  # as wide on one side as on the other
    assert prior.min() >= 1
    assert prior[3, 2] > 2.5
    assert prior[0, 0] < 1.1
    assert prior[7, 4] < 1.1
    tokenizer = GridPatches(grid=(32, 32), patch=(4, 4), dim=16)
    mask = build_mask(tokenizer, masking="lungs", ratio=0.5, seed=0)
    hidden = mask(tokenizer(torch.zeros(2000, 1, 32, 32)), 0).masked
    share = (torch.bincount(hidden.flatten(), minlength=64) / 2000).view(8, 8)
    assert share[3, 2] > share[0, 0] + 0.2


def test_a_masking_is_what_its_name_says() -> None:
    tokenizer = GridPatches(grid=(32, 32), patch=(4, 4), dim=16)
    made = {name: build_mask(tokenizer, masking=name, ratio=0.6, seed=0) for name in get_args(Masking)}
    assert isinstance(made["blocks"], BlockMask)
    assert isinstance(made["sparse"], SalientMask)
    adaptive = made["adaptive"]
    assert isinstance(adaptive, AdaptiveMask)
    assert adaptive.ratio == pytest.approx((0.5, 0.7))


def test_the_command_line_offers_the_very_tasks_there_are() -> None:
    assert get_args(cli_medical.TaskName) == get_args(Task)
    assert get_args(cli_medical.MaskingName) == get_args(Masking)
    assert get_args(cli_medical.TuningName) == get_args(Tuning)


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32), dtype=np.uint8)
    with pytest.raises(DataError, match=r"no task 'jigsaw': choose one of masked, contrastive"):
        PneumoniaModel(**SMALL, task="jigsaw").pretrain(images)  # type: ignore[arg-type]
