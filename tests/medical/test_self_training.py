"""A network that learnt from few labels teaches another from pictures without any."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.core.heads import Classifier
from unlabeled.core.optimization import TrainingSettings
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical import _planning as planning
from unlabeled.medical._finetuning import Labelled, distil
from unlabeled.medical._network import Member, log_odds
from unlabeled.medical.audit import facts
from unlabeled.medical.baselines import from_scratch
from unlabeled.medical.images import TABLE
from unlabeled.medical.splits import patient_folds
from unlabeled.pipelines import _medical_crossvalidation as crossvalidation
from unlabeled.pipelines import _medical_label_need as label_need
from unlabeled.pipelines._medical_input import divide
from unlabeled.pipelines.cli import main

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 2, "heads": 2, "pretrain_epochs": 2, "finetune_steps": 15, "folds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(phantoms: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PneumoniaModel(**SMALL).pretrain(phantoms).save(tmp_path_factory.mktemp("m") / "p")


def taught(
    pretrained: Path, few: ImageSet, unlabelled: ImageSet | None, *, judges: ImageSet | None = None, self_training: bool
) -> PneumoniaModel:
    model = PneumoniaModel.load(pretrained).set_params(self_training=self_training)
    assert few.labels is not None
    chosen = None
    if judges is not None:
        assert judges.labels is not None
        chosen = (judges, judges.labels)
    return model.finetune(few, few.labels, groups=few.patients, validation=chosen, unlabelled=unlabelled)


def labels_of(images: ImageSet) -> NDArray[np.int64]:
    assert images.labels is not None
    return images.labels


def weights(model: PneumoniaModel) -> list[dict[str, torch.Tensor]]:
    return [member.classifier.state_dict() for member in model.members_]


def same(one: PneumoniaModel, other: PneumoniaModel) -> bool:
    return all(
        torch.equal(value, b[name])
        for a, b in zip(weights(one), weights(other), strict=True)
        for name, value in a.items()
    )


def test_a_student_comes_to_say_what_its_teacher_says(pretrained: Path, phantoms: ImageSet) -> None:
    model = taught(pretrained, phantoms.take(range(40)), None, self_training=False)
    teacher, backbone = model.members_[0], model.module_.backbone
    theirs = log_odds(teacher, backbone, phantoms.images)
    alike = []
    for settings in (TrainingSettings(steps=1, lr=1e-9), TrainingSettings(steps=400, lr=2e-3)):
        student, _ = distil(backbone, teacher, phantoms.images, settings=settings, batch_size=32, seed=0)
        alike.append(np.corrcoef(theirs, log_odds(Member(student, None), backbone, phantoms.images))[0, 1])
    assert alike[1] > max(0.8, alike[0] + 0.1)


def test_the_loss_is_the_cross_entropy_with_what_the_teacher_said(pretrained: Path) -> None:
    student = Classifier(PneumoniaModel.load(pretrained).module_.backbone)
    sick = torch.tensor([0.9, 0.2])
    x = torch.randn(2, 1, 32, 32)
    log_p = student.logits(x).log_softmax(dim=1)
    expected = -((1 - sick) * log_p[:, 0] + sick * log_p[:, 1]).mean()
    found = student((x, torch.stack([1 - sick, sick], dim=1)), 0).total
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_labels_of_the_unlabelled_are_not_read_and_judges_teach_nothing(pretrained: Path, phantoms: ImageSet) -> None:
    few, judges = phantoms.take(range(40)), phantoms.take(range(40, 70))
    assert phantoms.labels is not None
    model = taught(pretrained, few, phantoms, judges=judges, self_training=True)
    turned = replace(phantoms, labels=1 - phantoms.labels)
    assert same(model, taught(pretrained, few, turned, judges=judges, self_training=True))
    of_judges = np.isin(phantoms.patients, judges.patients)
    other = phantoms.images.copy()
    other[of_judges] = 255 - other[of_judges]
    assert same(model, taught(pretrained, few, replace(phantoms, images=other), judges=judges, self_training=True))
    other[~of_judges] = 255 - other[~of_judges]
    assert not same(model, taught(pretrained, few, replace(phantoms, images=other), judges=judges, self_training=True))


def test_students_take_their_teachers_places_and_are_saved(
    pretrained: Path, phantoms: ImageSet, tmp_path: Path
) -> None:
    few = phantoms.take(range(40))
    teachers = taught(pretrained, few, phantoms, self_training=False)
    model = taught(pretrained, few, phantoms, self_training=True)
    assert len(model.members_) == len(teachers.members_) == 2
    assert not same(model, teachers)
    for student, teacher in zip(model.members_, teachers.members_, strict=True):
        assert student.probe is not None
        assert teacher.probe is not None
        assert torch.equal(student.probe.get_buffer("weight"), teacher.probe.get_buffer("weight"))
    again = PneumoniaModel.load(model.save(tmp_path / "m"))
    assert again.self_training
    np.testing.assert_array_equal(again.score(phantoms), model.score(phantoms))


def test_without_a_pretraining_or_pictures_there_is_nothing_to_teach_from(pretrained: Path, phantoms: ImageSet) -> None:
    with pytest.raises(DataError, match="self-training needs a pretrained model and pictures without labels"):
        taught(pretrained, phantoms.take(range(40)), None, self_training=True)
    fresh = PneumoniaModel(**SMALL, self_training=True)
    assert phantoms.labels is not None
    with pytest.raises(DataError, match="self-training needs a pretrained model"):
        fresh.finetune(phantoms, phantoms.labels, groups=phantoms.patients, unlabelled=phantoms)


def test_the_baseline_from_scratch_learns_from_the_labels_alone(pretrained: Path, phantoms: ImageSet) -> None:
    model = PneumoniaModel.load(pretrained).set_params(self_training=True)
    assert phantoms.labels is not None
    scratch = from_scratch(model, Labelled(phantoms.images, phantoms.labels), groups=phantoms.patients)
    assert not scratch.self_training


def test_the_cost_counts_the_students(pretrained: Path, phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    plain, more = (
        PneumoniaModel.load(pretrained).set_params(self_training=on).finetuning_cost(phantoms, phantoms.labels)
        for on in (False, True)
    )
    assert more.steps == plain.steps + 2 * 2 * SMALL["finetune_steps"]  # two networks, twice the steps each


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_command_says_on_how_many_pictures_its_students_learnt(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path
) -> None:
    told = ["--labels", str(archive.labels), "--model", str(pretrained), "--out", "m", "--n-labels", "24"]
    with pytest.raises(SystemExit) as ended:
        main(["medical", "finetune", str(archive.images), *told, "--self-training"])
    assert ended.value.code == 0
    model = PneumoniaModel.load(in_tmp / "m")
    assert model.self_training
    assert model.finetuning_ is not None
    students = model.finetuning_["students"]
    assert model.finetuning_["images"] == 24 < students["images"]
    said = facts._of_model(model, TABLE)["training"]
    assert f"said of {students['images']} pictures without labels (data fingerprint {students['fingerprint']})" in said
    # The baseline beside it knows the labels alone.
    assert not PneumoniaModel.load(in_tmp / "m" / "baselines" / "scratch").self_training


@pytest.mark.parametrize("self_training", [False, True], ids=["probes", "students"])
def test_a_fold_of_a_cross_validation_learns_from_unlabelled_pictures_but_nothing_from_whom_it_judges(
    pretrained: Path, phantoms: ImageSet, *, self_training: bool
) -> None:
    model = PneumoniaModel.load(pretrained).set_params(self_training=self_training)
    out = patient_folds(phantoms.patients, labels_of(phantoms), folds=2, seed=0) == 0
    train, judged = phantoms.take(np.flatnonzero(~out)[:24]), phantoms.take(out)
    turned = phantoms.images.copy()
    turned[out] = 255 - turned[out]
    plain, other = (
        crossvalidation._fold(model, train, replace(phantoms, images=pixels), judged, by="patient")["ours"]
        for pixels in (phantoms.images, turned)
    )
    np.testing.assert_array_equal(plain.probability, other.probability)
    turned[~out] = 255 - turned[~out]
    another = crossvalidation._fold(model, train, replace(phantoms, images=turned), judged, by="patient")["ours"]
    assert not np.array_equal(plain.probability, another.probability)


def test_a_curve_over_labels_can_be_of_students(
    pretrained: Path, phantoms: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[int] = []
    usual: list[ImageSet | None] = []
    known = planning.known

    def spy(*given: Any, **settings: Any) -> Any:
        taught.append(len(given[2]))
        return distil(*given, **settings)

    def ask(*given: Any) -> Any:
        usual.append(given[2])
        return known(*given)

    monkeypatch.setattr(planning, "distil", spy)
    monkeypatch.setattr(planning, "known", ask)
    parts = divide(phantoms, n_labels=None, seed=0)
    models = [PneumoniaModel.load(pretrained).set_params(self_training=on) for on in (False, True)]
    plain, students = (label_need.learners(model, parts) for model in models)
    name, scratch, *_ = label_need.NAMES
    assert plain[scratch](20, 0) == students[scratch](20, 0)
    plain[name](20, 0)
    assert not taught
    assert usual == [parts.unlabelled, parts.unlabelled]  # a probe for each fold knows what is usual, students or not
    students[name](20, 0)
    # A student for each fold, taught by the unlabelled pictures of the patients who do not judge it.
    assert len(taught) == 2
    assert all(0 < pictures < len(parts.unlabelled) for pictures in taught)
