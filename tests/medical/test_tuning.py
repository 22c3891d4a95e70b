"""How far few labels may change a pretrained network, as the estimator offers it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import roc_auc
from unlabeled.medical import ImageSet, PneumoniaModel
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical._network import Member, log_odds
from unlabeled.medical.baselines import from_scratch
from unlabeled.medical.several import finetune_together

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 2, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 12, "folds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(phantoms: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PneumoniaModel(**SMALL).pretrain(phantoms).save(tmp_path_factory.mktemp("m") / "p")


def changed(model: PneumoniaModel) -> set[str]:
    """Which weights of the backbone the first network's labels changed."""
    before = model.module_.backbone.state_dict()
    now = model.members_[0].classifier.backbone.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, now[name])}


@pytest.mark.parametrize("tuning", ["full", "adapters", "head"])
def test_a_tuning_changes_what_it_says_and_is_saved_whole(
    pretrained: Path, phantoms: ImageSet, tmp_path: Path, tuning: str
) -> None:
    model = PneumoniaModel.load(pretrained).set_params(tuning=tuning)
    model.finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    names = changed(model)
    assert bool(names) == (tuning != "head")
    assert any("tokenizer" in name for name in names) == (tuning == "full")
    again = PneumoniaModel.load(model.save(tmp_path / "m"))
    assert again.tuning == tuning
    np.testing.assert_array_equal(again.score(phantoms), model.score(phantoms))


def test_the_baseline_from_scratch_learns_with_all_its_weights(pretrained: Path, phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    model = PneumoniaModel.load(pretrained).set_params(tuning="head", layer_decay=0.5)
    scratch = from_scratch(model, Labelled(phantoms.images, phantoms.labels), groups=phantoms.patients)
    assert (scratch.tuning, scratch.layer_decay) == ("full", 1.0)
    assert any("tokenizer" in name for name in changed(scratch))


def test_with_a_decay_early_layers_move_less(pretrained: Path, phantoms: ImageSet) -> None:
    moved = {}
    for decay in (1.0, 0.1):
        model = PneumoniaModel.load(pretrained).set_params(layer_decay=decay)
        model.finetune(phantoms, phantoms.labels, groups=phantoms.patients)
        before, now = (m.encoder.blocks[0].qkv.weight for m in (model.module_.backbone, tuned(model)))
        moved[decay] = float((before - now).detach().abs().mean())
    assert moved[0.1] < moved[1.0] / 10


def tuned(model: PneumoniaModel) -> Any:
    return model.members_[0].classifier.backbone


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"tuning": "half"}, "no tuning 'half'"), ({"layer_decay": 0.0}, "above 0"), ({"layer_decay": 1.5}, "at most 1")],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    pretrained: Path, phantoms: ImageSet, wrong: dict[str, Any], said: str
) -> None:
    model = PneumoniaModel.load(pretrained).set_params(**wrong)
    with pytest.raises(DataError, match=said):
        model.finetune(phantoms, phantoms.labels)


def test_an_early_stop_keeps_the_moment_that_tells_those_best_who_decide(pretrained: Path, phantoms: ImageSet) -> None:
    people = np.unique(phantoms.patients)
    asked = np.isin(phantoms.patients, people[::3])
    train, held = phantoms.take(~asked), phantoms.take(asked)
    assert held.labels is not None
    against = 1 - held.labels  # what is learnt is wrong of them, and worse with every step
    curves = {}
    for early in (False, True):
        model = PneumoniaModel.load(pretrained).set_params(finetune_steps=40, early_stop=early)
        model.finetune(train, train.labels, validation=(held, against))
        assert model.finetuning_ is not None
        curves[early] = model.finetuning_["curves"]
    assert "validation" not in curves[False]
    judged = [value for _, value in curves[True]["validation"]]
    assert len(judged) == 10
    assert judged[-1] < max(judged)
    network = Member(model.members_[0].classifier, None)
    kept = roc_auc(against, log_odds(network, model.module_.backbone, held.images))
    assert kept == pytest.approx(max(judged), abs=1e-9)
    with pytest.raises(DataError, match="an early stop knows one finding at a time"):
        finetune_together(model, train, {"pneumonia": train.labels, "effusion": train.labels}, groups=train.patients)
