"""The estimator's promises, with a network small enough to train in a test."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.store import Store
from unlabeled.medical import ImageSet, PneumoniaModel
from unlabeled.medical import _network as network
from unlabeled.medical._finetuning import Decision, Labelled, decide, fit_probe, parts, usual
from unlabeled.medical._network import Probe
from unlabeled.medical.baselines import PixelRegression, from_scratch
from unlabeled.medical.transforms import standardise, stretched

SMALL: dict[str, Any] = {
    "image_size": 32,
    "dim": 16,
    "depth": 1,
    "heads": 2,
    "pretrain_epochs": 2,
    "finetune_steps": 6,
    "folds": 2,
}


@pytest.fixture(scope="module")
def pretrained(phantoms: ImageSet) -> PneumoniaModel:
    return PneumoniaModel(**SMALL).pretrain(phantoms)


@pytest.fixture(scope="module")
def fitted(pretrained: PneumoniaModel, phantoms: ImageSet) -> PneumoniaModel:
    model = copy.deepcopy(pretrained)
    model.finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    model.remember(phantoms.patients[:10])
    return model


def test_parameters_are_kept_as_given_and_clone() -> None:
    model = PneumoniaModel(**SMALL)
    assert {name: model.get_params()[name] for name in SMALL} == SMALL
    assert clone(model).get_params() == model.get_params()


def test_a_saved_model_gives_the_same_scores_and_says_where_it_came_from(
    fitted: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    fitted.provenance_["pretraining_run"] = "abc"
    loaded = PneumoniaModel.load(fitted.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.score(phantoms), fitted.score(phantoms))
    np.testing.assert_array_equal(loaded.explain(phantoms.take([0])), fitted.explain(phantoms.take([0])))
    np.testing.assert_array_equal(
        loaded.reconstruct(phantoms.take([0])).filled, fitted.reconstruct(phantoms.take([0])).filled
    )
    assert loaded.provenance_["pretraining_run"] == "abc"
    assert loaded.pretraining_ == fitted.pretraining_
    assert loaded.decision_ == fitted.decision_


def test_a_score_does_not_depend_on_what_else_is_asked(fitted: PneumoniaModel, phantoms: ImageSet) -> None:
    together = fitted.score(phantoms)
    alone = np.concatenate([fitted.score(phantoms.take([i])) for i in range(5)])
    np.testing.assert_allclose(alone, together[:5], atol=1e-5)
    np.testing.assert_allclose(fitted.score(phantoms.images[::-1].copy())[::-1], together, atol=1e-5)


def test_scores_calls_and_probabilities_agree(fitted: PneumoniaModel, phantoms: ImageSet) -> None:
    p = fitted.predict_proba(phantoms)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(p[:, 1], fitted.score(phantoms))
    assert fitted.decision_ is not None
    np.testing.assert_array_equal(fitted.predict(phantoms), p[:, 1] >= fitted.decision_.threshold)


def test_training_repeats_and_follows_the_seed(fitted: PneumoniaModel, phantoms: ImageSet) -> None:
    again = PneumoniaModel(**SMALL).pretrain(phantoms).finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    np.testing.assert_array_equal(again.score(phantoms), fitted.score(phantoms))
    other = PneumoniaModel(**SMALL, random_state=1).pretrain(phantoms)
    assert other.pretraining_ is not None
    assert fitted.pretraining_ is not None
    assert other.pretraining_["curves"] != fitted.pretraining_["curves"]


def test_pretraining_does_not_look_at_labels(phantoms: ImageSet) -> None:
    from dataclasses import replace

    assert phantoms.labels is not None
    with_labels = PneumoniaModel(**SMALL).pretrain(phantoms)
    flipped = PneumoniaModel(**SMALL).pretrain(replace(phantoms, labels=1 - phantoms.labels))
    assert with_labels.pretraining_ is not None
    assert flipped.pretraining_ is not None
    assert with_labels.pretraining_["curves"] == flipped.pretraining_["curves"]


def test_pictures_on_disk_teach_as_those_in_memory(phantoms: ImageSet, tmp_path: Path) -> None:
    store = Store.write(tmp_path / "pictures.npy", [phantoms.images], row=(32, 32), dtype=np.uint8)
    models = [PneumoniaModel(**SMALL).pretrain(pictures) for pictures in (phantoms, store)]
    one, other = (model.module_.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert models[0].pretraining_["fingerprint"] == models[1].pretraining_["fingerprint"]
    small = Store.write(tmp_path / "small.npy", [phantoms.images[:, :16, :16]], row=(16, 16), dtype=np.uint8)
    with pytest.raises(DataError, match=r"shape \(N, 32, 32\)"):
        PneumoniaModel(**SMALL).pretrain(small)


def test_with_validation_one_network_decides_by_those_pictures(phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    model = PneumoniaModel(**SMALL)
    train, held = phantoms.take(range(40)), phantoms.take(range(40, len(phantoms)))
    model.finetune(train, train.labels, validation=(held, held.labels))
    assert len(model.members_) == 1
    assert model.decision_ is not None
    assert model.decision_.chosen_on == len(held)


def test_it_remembers_whose_labels_it_saw_but_not_their_names(
    fitted: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    seen = fitted.seen(phantoms.patients)
    assert seen[:10].all()
    assert set(phantoms.patients[seen]) == set(phantoms.patients[:10])
    text = (fitted.save(tmp_path / "m") / "manifest.json").read_text()
    assert not any(str(patient) in text for patient in phantoms.patients)


def test_what_it_cannot_use_is_said_plainly(fitted: PneumoniaModel, phantoms: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(N, 32, 32\), got uint8 \(2, 64, 64\): read them with read_images"):
        fitted.score(np.zeros((2, 64, 64), dtype=np.uint8))
    with pytest.raises(DataError, match="has not seen labels yet"):
        PneumoniaModel(**SMALL).pretrain(phantoms).score(phantoms)
    with pytest.raises(DataError, match=r"63 pixels do not fall into patches of 8: .* 56 or 64"):
        PneumoniaModel(**{**SMALL, "image_size": 63}).pretrain(np.zeros((20, 63, 63), dtype=np.uint8))
    with pytest.raises(DataError, match=r"nearest sizes that do are 8$"):
        PneumoniaModel(image_size=5).check()
    with pytest.raises(DataError, match="nothing to save"):
        PneumoniaModel(**SMALL).save(tmp_path / "x")
    with pytest.raises(DataError, match="must be 0 or 1"):
        PneumoniaModel(**SMALL).finetune(phantoms, np.full(len(phantoms), 2))
    with pytest.raises(DataError, match="one class only"):
        PneumoniaModel(**SMALL).finetune(phantoms, np.zeros(len(phantoms)))
    with pytest.raises(CheckpointError, match="holds no model"):
        PneumoniaModel.load(tmp_path)


@pytest.mark.parametrize(("masking", "ratio", "said"), [("random", 0.99, "hides 16 of 16"), ("sparse", 0.95, "8 of 8")])
def test_a_mask_that_leaves_no_patch_is_refused_before_anything_is_read(masking: str, ratio: float, said: str) -> None:
    model = PneumoniaModel(image_size=32, masking=masking, mask_ratio=ratio)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=said):
        model.check()
    model.set_params(mask_ratio=0.75).check()


def test_leaving_out_nothing_changes_nothing_and_maps_cover_the_patches(
    fitted: PneumoniaModel, phantoms: ImageSet
) -> None:
    maps = fitted.explain(phantoms.take(range(3)))
    assert maps.shape == (3, 4, 4)
    # By hand for the corner: without patches (0,0), (0,1), (1,0) and (1,1).
    member, pretrained = fitted.members_[0], fitted.module_.backbone
    assert member.probe is not None
    x = standardise(torch.from_numpy(phantoms.images[:1]))
    kept = torch.tensor([[i for i in range(16) if i not in (0, 1, 4, 5)]])
    with torch.no_grad():
        tuned = member.classifier.backbone
        logits = member.classifier.linear(member.classifier.norm(tuned.encoder.embed(tuned.tokens(x).take(kept))))
        seen = pretrained.encoder(pretrained.tokens(x).take(kept))
        probed = member.probe(torch.cat([seen.mean(dim=1), seen.std(dim=1, correction=0)], dim=1))
    left = (float(logits[0, 1] - logits[0, 0]) + float(probed[0])) / 2
    # All patches named: the picture is looked at once, as it is.
    fall = network.log_odds(member, pretrained, phantoms.images[:1], torch.arange(16))[0] - left
    assert network.leave_out_map([member], pretrained, phantoms.images[:1])[0, 0, 0] == pytest.approx(fall, abs=1e-5)


def test_a_picture_is_looked_at_as_it_is_and_stretched_either_way(fitted: PneumoniaModel, phantoms: ImageSet) -> None:
    """By hand: the network's log odds of three pictures, and the probe's of the mean of what it reads of them."""
    member, pretrained = fitted.members_[0], fitted.module_.backbone
    assert member.probe is not None
    pixels = torch.from_numpy(phantoms.images[:4])
    side = pixels.shape[-1]
    strip = round(side / 1.2)
    edge = (side - strip) // 2
    tall, wide = pixels[:, :, edge : edge + strip], pixels[:, edge : edge + strip, :]
    odds, read = [], []
    with torch.no_grad():
        for look in (pixels, wide, tall):
            whole = torch.nn.functional.interpolate(look[:, None].float(), size=(side, side), mode="bilinear")
            x = standardise(whole[:, 0])
            logits = member.classifier.linear(member.classifier.norm(member.classifier.backbone.embed(x)))
            odds.append(logits[:, 1] - logits[:, 0])
            seen = pretrained(x)
            read.append(torch.cat([seen.mean(dim=1), seen.std(dim=1, correction=0)], dim=1))
        expected = (sum(odds) / 3 + member.probe(sum(read) / 3)) / 2
    np.testing.assert_allclose(network.log_odds(member, pretrained, phantoms.images[:4]), expected, atol=1e-4)
    once = network.log_odds(member, pretrained, phantoms.images[:4], torch.arange(16))
    assert not np.allclose(once, expected, atol=1e-4)


def test_a_summary_leaves_a_class_token_out(phantoms: ImageSet) -> None:
    backbone = PneumoniaModel(**{**SMALL, "class_token": True}).pretrain(phantoms).module_.backbone
    x = standardise(torch.from_numpy(phantoms.images[:2]))
    with torch.no_grad():
        tokens = backbone(x)
        assert tokens.shape[1] == 1 + 16
        patches = tokens[:, 1:]
        expected = torch.cat([patches.mean(dim=1), patches.std(dim=1, correction=0)], dim=1)
        torch.testing.assert_close(network.summary(backbone, [x]), expected)


def test_a_model_that_looked_in_another_way_is_refused(fitted: PneumoniaModel, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("look") == 1.2
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="fine-tune again"):
        PneumoniaModel.load(folder)


def test_the_probe_is_the_logistic_regression_that_it_was_fitted_as(phantoms: ImageSet) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    assert phantoms.labels is not None
    backbone = PneumoniaModel(**SMALL).pretrain(phantoms).module_.backbone
    probe = fit_probe(
        backbone, Labelled(phantoms.images, phantoms.labels), usual(backbone, phantoms.images, nuisance=0)
    )
    x = network.summaries(backbone, phantoms.images)
    scaled = StandardScaler().fit_transform(x)
    theirs = LogisticRegression(C=0.1, class_weight="balanced", max_iter=3000).fit(scaled, phantoms.labels)
    ours = probe(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, theirs.decision_function(scaled), atol=1e-3)


def test_whose_pictures_decide_is_known_or_asked_for(pretrained: PneumoniaModel, phantoms: ImageSet) -> None:
    """A picture set says it itself; bare arrays beside unlabelled pictures do not, and are refused."""
    few = phantoms.take(range(40))
    assert few.labels is not None
    told, by_itself = (
        copy.deepcopy(pretrained).finetune(few, few.labels, groups=groups, unlabelled=phantoms)
        for groups in (few.patients, None)
    )
    assert told.finetuning_ == by_itself.finetuning_ | {"seconds": told.finetuning_["seconds"]}
    np.testing.assert_array_equal(told.score(phantoms), by_itself.score(phantoms))
    held = (few.images, few.labels)
    for given in ({}, {"validation": held}, {"groups": few.patients, "validation": held}):
        with pytest.raises(DataError, match="say who they are, with groups= or an ImageSet"):
            copy.deepcopy(pretrained).finetune(few.images, few.labels, unlabelled=phantoms, **given)
        copy.deepcopy(pretrained).finetune(few.images, few.labels, **given)


def test_what_is_usual_comes_from_pictures_without_labels(phantoms: ImageSet) -> None:
    """Few labels of one fold teach; mean and deviation are those of all others' pictures, and those who judge, who
    may look like anything, do not count."""
    assert phantoms.labels is not None
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    few = np.r_[np.flatnonzero(phantoms.labels == 0)[:6], np.flatnonzero(phantoms.labels == 1)[:6]]
    taught = phantoms.take(few)
    assert taught.labels is not None

    def probes(unlabelled: ImageSet) -> list[Probe | None]:
        tuned = copy.deepcopy(model).finetune(taught, taught.labels, groups=taught.patients, unlabelled=unlabelled)
        return [member.probe for member in tuned.members_]

    folds = parts(Labelled(taught.images, taught.labels), taught.patients, None, folds=2, seed=0)
    found = probes(phantoms)
    for number, (_, (_, judges)) in enumerate(folds):
        others = ~np.isin(phantoms.patients, judges)
        assert not others.all()
        probe = found[number]
        assert probe is not None
        x = network.summaries(model.module_.backbone, phantoms.images[others])
        np.testing.assert_allclose(probe.get_buffer("mean"), x.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(probe.get_buffer("deviation"), x.std(axis=0) + 1e-6, atol=1e-5)
        for whose, same in ((~others, True), (others, False)):
            upside_down = phantoms.images.copy()
            upside_down[whose] = upside_down[whose, ::-1]
            again = probes(replace(phantoms, images=upside_down))[number]
            assert again is not None
            assert torch.equal(again.get_buffer("mean"), probe.get_buffer("mean")) is same


def test_a_probe_whose_unlabelled_pictures_are_few_takes_the_labelled_ones(phantoms: ImageSet) -> None:
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    lone = phantoms.take(range(2))
    tuned = copy.deepcopy(model).finetune(phantoms, phantoms.labels, groups=phantoms.patients, unlabelled=lone)
    plain = copy.deepcopy(model).finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    for one, other in zip(tuned.members_, plain.members_, strict=True):
        assert one.probe is not None
        assert other.probe is not None
        for name, value in one.probe.state_dict().items():
            assert torch.equal(value, other.probe.state_dict()[name])


def test_an_encoder_is_read_from_a_model_that_looked_in_another_way(fitted: PneumoniaModel, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["look"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    encoder = PneumoniaModel.load(folder, encoder_only=True)
    assert encoder.has_learnt
    assert encoder.members_ == []
    for name, value in fitted.module_.state_dict().items():
        assert torch.equal(encoder.module_.state_dict()[name], value)
    with pytest.raises(DataError, match="fine-tune"):
        encoder.score(np.zeros((1, 32, 32), dtype=np.uint8))


def test_a_probe_without_nuisance_does_not_move_where_a_stretch_moves_the_features_most(phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    backbone = PneumoniaModel(**SMALL).pretrain(phantoms).module_.backbone
    data = Labelled(phantoms.images, phantoms.labels)
    probe, plain = (fit_probe(backbone, data, usual(backbone, data.images, nuisance=n)) for n in (2, 0))
    pixels = torch.from_numpy(phantoms.images)
    wide, high = (network.summaries(backbone, stretched(pixels, by).numpy(), once=True) for by in (1.28, 1 / 1.28))
    deviation = network.summaries(backbone, phantoms.images).std(axis=0) + 1e-6
    moved = torch.from_numpy((wide - high) / deviation)
    # The two leading eigenvectors of their (uncentred) second moments.
    _, vectors = torch.linalg.eigh(moved.double().T @ moved.double())
    most, next_most = vectors[:, -1].float(), vectors[:, -2].float()
    weight = probe.get_buffer("weight")
    assert weight.norm() > 0.01
    for direction in (most, next_most):
        assert abs(float(weight @ direction)) < 1e-3 * float(weight.norm())
    assert abs(float(plain.get_buffer("weight") @ most)) > 1e-2 * float(plain.get_buffer("weight").norm())
    # So what a stretch does to the log odds is less.
    moves = [float((p(torch.from_numpy(wide)) - p(torch.from_numpy(high))).abs().mean()) for p in (probe, plain)]
    assert moves[0] < moves[1]


def test_a_reconstruction_keeps_what_was_shown_and_the_hidden_patches_means(
    fitted: PneumoniaModel, phantoms: ImageSet
) -> None:
    result = fitted.reconstruct(phantoms.take(range(4)))
    changed = (result.shown != result.original).reshape(4, 4, 8, 4, 8).any(axis=(2, 4))
    assert changed.sum(axis=(1, 2)).max() <= 12
    kept = ~np.repeat(np.repeat(changed, 8, axis=1), 8, axis=2)
    np.testing.assert_array_equal(result.filled[kept], result.original[kept])
    means = result.original.reshape(4, 4, 8, 4, 8).mean(axis=(2, 4))
    np.testing.assert_allclose(result.shown.reshape(4, 4, 8, 4, 8).mean(axis=(2, 4)), means, atol=1e-5)


def test_decisions_are_chosen_on_held_out_scores_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    logits = np.array([-3.0, -2.0, 1.0, 0.0, 2.0, 3.0])
    decision = decide(labels, logits)
    p = decision.probability(logits)
    # The lowest positive, because 95 % of three is three, and halfway to the next lower score.
    assert decision.sensitive_threshold == pytest.approx((p[3] + p[1]) / 2)
    assert p[1] < decision.threshold <= p[4]
    assert decision.prevalence == 0.5
    plain = Decision(temperature=2.0, threshold=0.5, sensitive_threshold=0.5, prevalence=0.5, chosen_on=1)
    assert plain.probability(np.array([2 * np.log(3)]))[0] == pytest.approx(0.75)


def test_the_baselines_take_the_same_labels_and_decide_the_same_way(phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    data = Labelled(phantoms.images, phantoms.labels)
    pixels = PixelRegression(components=20, folds=2).fit(phantoms.images, data, groups=phantoms.patients)
    scores = pixels.score(phantoms.images)
    assert scores.shape == (len(phantoms),)
    assert ((scores > 0) & (scores < 1)).all()
    assert pixels.decision_.chosen_on == len(phantoms)
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    scratch = from_scratch(model, data, groups=phantoms.patients)
    assert scratch.pretraining_ is None
    assert all(member.probe is None for member in scratch.members_)
    assert scratch.get_params() == model.get_params()
