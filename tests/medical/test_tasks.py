"""Every task and masking on radiographs: from pictures to a saved model, and what a lung prior is."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from unlabeled.core.errors import DataError
from unlabeled.core.finetuning import Tuning
from unlabeled.core.informed_masking import AdaptiveMask, SalientMask
from unlabeled.core.masking import BlockMask
from unlabeled.core.tokens import GridPatches
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical.lungs import LungFields, lung_prior
from unlabeled.medical.tasks import Masking, Task, build_mask
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
    alike = torch.ones(2000, 1, 32, 32) + 0.01 * torch.arange(4).repeat(8)  # no patch is darker than another
    hidden = mask(tokenizer(alike), 0, tokenizer.patches(alike)).masked
    share = (torch.bincount(hidden.flatten(), minlength=64) / 2000).view(8, 8)
    assert share[3, 2] > share[0, 0] + 0.2


def films(shift: tuple[int, int] = (0, 0), *, count: int = 24, size: int = 64) -> torch.Tensor:
    """Phantoms moved by rows and columns, (N, 1, S, S), in standard units."""
    rng = np.random.default_rng(4)
    pictures = []
    for _ in range(count):
        anatomy = simulate.draw_anatomy(rng)
        picture = simulate.draw_radiograph(anatomy, pneumonia=False, rng=rng, size=size)
        pictures.append(np.roll(picture, shift, axis=(0, 1)))
    x = torch.from_numpy(np.stack(pictures)).float()[:, None]
    return (x - x.mean()) / x.std()


def test_the_lungs_prior_follows_the_film_and_the_average_does_not() -> None:
    tokenizer = GridPatches(grid=(64, 64), patch=(4, 4), dim=16)
    prior = LungFields(16, 16)
    y, x = (torch.arange(16) + 0.5)[:, None] / 16, (torch.arange(16) + 0.5)[None, :] / 16

    def centre(shift: tuple[int, int]) -> tuple[float, float]:
        weight = (prior(tokenizer.patches(films(shift))) - 1).view(-1, 16, 16)
        total = weight.sum(dim=(1, 2))
        return tuple(float(((weight * at).sum(dim=(1, 2)) / total).mean()) for at in (y, x))  # type: ignore[return-value]

    straight, left, down = centre((0, 0)), centre((0, -6)), centre((6, 0))
    assert straight[1] == pytest.approx(0.5, abs=0.02)  # the phantoms stand in the middle
    assert -0.094 < left[1] - straight[1] < -0.02  # some of the way of 6 of 64 columns
    assert 0.02 < down[0] - straight[0] < 0.094
    weights = prior(tokenizer.patches(films()))
    assert weights.shape == (24, 256)
    assert float((weights - lung_prior(16, 16)).abs().mean()) < 0.4


def test_an_opacity_keeps_its_weight_and_what_holds_nothing_has_none() -> None:
    tokenizer, prior = GridPatches(grid=(64, 64), patch=(8, 8), dim=16), LungFields(8, 8)
    pictures = films()
    clouded = pictures.clone()
    clouded[:, :, 24:32, 16:24] += 1.5  # a patch in the middle of one lung
    before, after = (prior(tokenizer.patches(p)).view(-1, 8, 8) for p in (pictures, clouded))
    assert (after[:, 3, 2] > 2.0).all()
    assert (after[:, 3, 2] > 0.8 * before[:, 3, 2]).all()
    collimated = pictures.clone()
    collimated[:, :, :16] = -3.0
    assert (prior(tokenizer.patches(collimated)).view(-1, 8, 8)[:, :2] == 1).all()
    empty = prior(torch.zeros(2, 64, 64))
    assert torch.equal(empty, torch.ones(2, 64))


def test_a_masking_that_would_have_no_effect_is_refused_before_anything_is_read(in_tmp: Path) -> None:
    with pytest.raises(DataError, match="'rotation' hides nothing: masking 'lungs' is for the tasks masked and joint"):
        jobs.pretrain(in_tmp / "nowhere", out=in_tmp / "p", task="rotation", masking="lungs")
    with pytest.raises(DataError, match=r"choose one from 0\.15 to 0\.85"):
        jobs.pretrain(in_tmp / "nowhere", out=in_tmp / "p", masking="adaptive", mask_ratio=0.97)


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
