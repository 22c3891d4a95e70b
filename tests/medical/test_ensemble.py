"""Networks that vote in place of one: what each said is averaged, on the pictures that decide too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import _network as network
from unlabeled.medical import _report_decisions as pages
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.baselines import from_scratch
from unlabeled.medical.images import UNLABELLED
from unlabeled.medical.several import finetune_together
from unlabeled.pipelines.cli import main

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 2, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 6, "folds": 2,
}  # fmt: skip
PAIR = 2


@pytest.fixture(scope="module")
def pretrained(phantoms: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PneumoniaModel(**SMALL).pretrain(phantoms).save(tmp_path_factory.mktemp("m") / "p")


def taught(pretrained: Path, phantoms: ImageSet, *, ensemble: int, judged: bool) -> PneumoniaModel:
    half = len(phantoms) // 2
    few, rest = phantoms.take(range(half)), phantoms.take(range(half, len(phantoms)))
    assert few.labels is not None
    assert rest.labels is not None
    model = PneumoniaModel.load(pretrained).set_params(ensemble=ensemble)
    validation = (rest, rest.labels) if judged else None
    return model.finetune(few, few.labels, groups=few.patients, validation=validation)


def votes(model: PneumoniaModel, members: list[network.Member], pictures: np.ndarray) -> np.ndarray:
    """Mean of what each says on its own."""
    said = [network.log_odds(member, model.module_.backbone, pictures) for member in members]
    return np.mean(said, axis=0) + model.prior_


def test_with_validation_pictures_the_networks_answer_and_decide_together(
    pretrained: Path, phantoms: ImageSet, tmp_path: Path
) -> None:
    model = taught(pretrained, phantoms, ensemble=3, judged=True)
    alone = taught(pretrained, phantoms, ensemble=1, judged=True)
    assert (len(model.members_), len(alone.members_)) == (3, 1)
    heads = [member.classifier.state_dict()["linear.weight"] for member in model.members_]
    assert torch.equal(heads[0], alone.members_[0].classifier.state_dict()["linear.weight"])
    assert not any(torch.equal(heads[a], heads[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert model.finetuning_ is not None
    decided = phantoms.images[len(phantoms) // 2 :]
    expected = votes(model, model.members_, decided)
    np.testing.assert_allclose(model.finetuning_["held_out"]["logit"], expected, atol=1e-5)
    assert model.decision_ is not None
    np.testing.assert_allclose(model.score(decided), model.decision_.probability(expected), atol=1e-5)
    again = PneumoniaModel.load(model.save(tmp_path / "m"))
    assert again.ensemble == 3
    np.testing.assert_array_equal(again.score(decided), model.score(decided))
    # Chosen by the same networks that will answer.
    assert pages._exactness(model) == pages._exactness(alone)
    assert "validation pictures" in pages._exactness(model)


def test_a_fold_is_judged_by_the_networks_that_did_not_see_it(pretrained: Path, phantoms: ImageSet) -> None:
    model = taught(pretrained, phantoms, ensemble=PAIR, judged=False)
    assert len(model.members_) == 2 * PAIR
    few = phantoms.take(range(len(phantoms) // 2))
    assert few.labels is not None
    parts = finetuning.parts(Labelled(few.images, few.labels), few.patients, None, folds=2, seed=model.random_state)
    expected = [
        votes(model, model.members_[PAIR * part : PAIR * (part + 1)], held.data.images)
        for part, (_, held) in enumerate(parts)
    ]
    assert model.finetuning_ is not None
    np.testing.assert_allclose(model.finetuning_["held_out"]["logit"], np.concatenate(expected), atol=1e-5)
    assert "left-out folds" in pages._exactness(model)


def test_the_cost_counts_them_and_the_baseline_has_as_many(pretrained: Path, phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    model = PneumoniaModel.load(pretrained)
    steps = {
        (ensemble, validation): model.set_params(ensemble=ensemble)
        .finetuning_cost(phantoms, phantoms.labels, validation=validation)
        .steps
        for ensemble in (1, PAIR)
        for validation in (False, True)
    }
    assert steps[PAIR, True] == PAIR * steps[1, True]
    assert steps[PAIR, False] == PAIR * steps[1, False] == 2 * PAIR * steps[1, True]
    scratch = from_scratch(model, Labelled(phantoms.images, phantoms.labels), groups=phantoms.patients)
    assert len(scratch.members_) == 2 * PAIR


def test_several_findings_have_them_too(pretrained: Path, phantoms: ImageSet) -> None:
    ill = np.asarray(phantoms.labels)
    some = np.where(np.arange(len(ill)) % 3 == 0, UNLABELLED, ill)
    model = PneumoniaModel.load(pretrained).set_params(ensemble=PAIR)
    found = finetune_together(model, phantoms, {"effusion": ill, "nodule": some}, groups=phantoms.patients)
    own = found["nodule"]
    assert len(own.members_) == len(found["effusion"].members_) == 2 * PAIR
    parts = finetuning.parts(Labelled(phantoms.images, ill), phantoms.patients, None, folds=2, seed=model.random_state)
    expected = []
    for part, (_, (held, who)) in enumerate(parts):
        asked = held.images[some[np.isin(phantoms.patients, who)] != UNLABELLED]
        expected.append(votes(own, own.members_[PAIR * part : PAIR * (part + 1)], asked))
    assert own.finetuning_ is not None
    np.testing.assert_allclose(own.finetuning_["held_out"]["logit"], np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("ensemble", [0, -1])
def test_there_is_at_least_one(pretrained: Path, phantoms: ImageSet, ensemble: int) -> None:
    with pytest.raises(DataError, match=f"number of networks must be at least 1, got {ensemble}"):
        taught(pretrained, phantoms, ensemble=ensemble, judged=True)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_command_trains_them(archive: simulate.Simulated, pretrained: Path, in_tmp: Path) -> None:
    told = ["--labels", str(archive.labels), "--model", str(pretrained), "--out", "m", "--n-labels", "24"]
    with pytest.raises(SystemExit) as ended:
        main(["medical", "finetune", str(archive.images), *told, "--ensemble", str(PAIR)])
    assert ended.value.code == 0
    model = PneumoniaModel.load(in_tmp / "m")
    assert len(model.members_) == PAIR * (1 if "validation" in str(model.finetuning_["decided_on"]) else 2)
    assert PneumoniaModel.load(in_tmp / "m" / "baselines" / "scratch").ensemble == PAIR
