"""What is said of each picture: complete, the same alone and in company, and no more than was promised."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core import checkpoints
from unlabeled.core.adaptation import location_scale
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate, expected_calibration_error
from unlabeled.core.report import Section
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical._decision_figures import Referring
from unlabeled.medical._decisions import (
    REFER,
    STRANGE,
    UNCERTAIN,
    Stated,
    decide,
    held_out,
    per_study,
)
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical._report_decisions import _calibration, exceeded
from unlabeled.medical.baselines import PixelRegression
from unlabeled.medical.evaluation import Scored, over_patients
from unlabeled.medical.report import headline
from unlabeled.pipelines import medical as jobs
from unlabeled.pipelines._medical_methods import BESIDE, kept_beside
from unlabeled.pipelines._medical_output import OURS, PIXELS, SCRATCH
from unlabeled.pipelines.cli import main

PNEUMONIA, NONE = "pneumonia", "no pneumonia"
STAGES = ("as trained", "temperature", "Venn-Abers")
SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 2, "finetune_steps": 40, "folds": 2,
}  # fmt: skip
COLUMNS = [
    "image_id", "probability", "call", "threshold", "calibrated", "calibrated_low", "calibrated_high",
    "sensitive_call", "sensitive_threshold", "decision", "reason", "ood_p_value", "ood_flag",
    "probability_at_prevalence",
]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(phantoms: ImageSet) -> PneumoniaModel:
    assert phantoms.labels is not None
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    return model.finetune(phantoms, phantoms.labels, groups=phantoms.patients, unlabelled=phantoms)


@pytest.fixture(scope="module")
def from_scratch(phantoms: ImageSet) -> PneumoniaModel:
    assert phantoms.labels is not None
    return PneumoniaModel(**SMALL).finetune(phantoms, phantoms.labels, groups=phantoms.patients)


def test_one_row_a_picture_with_everything_on_one_scale(fitted: PneumoniaModel, phantoms: ImageSet) -> None:
    found = decide(fitted, phantoms, Stated(error_rate=0.2, prevalence=0.1))
    table, decision = found.table, fitted.decision_
    assert decision is not None
    assert table.columns.tolist() == COLUMNS
    assert table.image_id.tolist() == phantoms.ids.tolist()
    np.testing.assert_array_equal(table.probability, fitted.score(phantoms))
    np.testing.assert_array_equal(table.call == PNEUMONIA, fitted.predict(phantoms) == 1)
    np.testing.assert_array_equal(table.sensitive_call == PNEUMONIA, table.probability >= found.point.threshold)
    assert (table.calibrated_low <= table.calibrated).all()
    assert (table.calibrated <= table.calibrated_high).all()
    assert set(table.decision) <= {PNEUMONIA, NONE, REFER}
    np.testing.assert_array_equal(table.reason != "", table.decision == REFER)
    np.testing.assert_array_equal(table.reason == STRANGE, table.ood_flag)
    np.testing.assert_array_equal(table.ood_flag, table.ood_p_value <= 0.05)
    # Bayes' rule by hand.
    p, before = table.probability, decision.prevalence
    odds = p / (1 - p) * (0.1 / 0.9) / (before / (1 - before))
    np.testing.assert_allclose(table.probability_at_prevalence, odds / (1 + odds), atol=1e-9)


def test_adapted_scores_are_the_same_pictures_scores_moved_by_what_all_of_them_tell(
    fitted: PneumoniaModel, phantoms: ImageSet
) -> None:
    decision = fitted.decision_
    assert decision is not None
    plain, found = decide(fitted, phantoms), decide(fitted, phantoms, Stated(adapt=True))
    assert plain.moved is None
    assert found.moved is not None
    expected = decision.probability((fitted._logits(phantoms) - found.moved.shift) / found.moved.scale)
    np.testing.assert_allclose(found.table.probability, expected, rtol=1e-12)
    np.testing.assert_array_equal(found.table.call == PNEUMONIA, expected >= decision.threshold)
    assert found.table.probability.rank().tolist() == plain.table.probability.rank().tolist()
    assert found.moved.says() in found.notes
    np.testing.assert_array_equal(found.table.ood_p_value, plain.table.ood_p_value)
    with pytest.raises(DataError, match="to 50 cases or more, got 20: leave --adapt out"):
        decide(fitted, phantoms.take(range(20)), Stated(adapt=True))


def test_a_prevalence_is_estimated_of_fifty_patients_and_never_surely(
    fitted: PneumoniaModel, phantoms: ImageSet
) -> None:
    found = decide(fitted, phantoms, Stated(prevalence="estimate"))
    assert found.estimated is not None
    assert 0 < found.estimated.share.low < found.estimated.share.value < found.estimated.share.high < 1
    some = phantoms.select(np.isin(phantoms.patients, np.unique(phantoms.patients)[:49]))
    with pytest.raises(DataError, match=r"from 50 patients or more, got 49: state it \(--prevalence 0\.1"):
        decide(fitted, some, Stated(prevalence="estimate"))


def test_as_trained_means_what_the_network_says_and_not_what_was_made_of_it(
    fitted: PneumoniaModel, phantoms: ImageSet
) -> None:
    decision = fitted.decision_
    assert decision is not None
    raw = fitted._logits(phantoms)
    moved = decision.probability((raw + 1.5) / 1.3)
    adapted = ("as trained", "adapted, temperature", "adapted, Venn-Abers")
    for scored, names in ((decision.probability(raw), STAGES), (moved, adapted)):
        section = Section("Calibration")
        _calibration(section, fitted, phantoms, Scored(scored, decision))
        (table,) = [part for part in section.parts if part.rows]
        assert tuple(row[0] for row in table.rows) == names
        error = expected_calibration_error(phantoms.labels, 1 / (1 + np.exp(-raw)))
        assert str(table.rows[0][1]).startswith(f"{error:.3f} [")
        error = expected_calibration_error(phantoms.labels, scored)
        assert str(table.rows[1][1]).startswith(f"{error:.3f} [")


def test_where_ours_is_adapted_its_baselines_are_too(
    fitted: PneumoniaModel, from_scratch: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    """Everybody by the pictures of the whole source, though a few of them judge."""
    assert phantoms.labels is not None
    data = Labelled(phantoms.images, phantoms.labels)
    pixels = PixelRegression().fit(phantoms.images, data, groups=phantoms.patients)
    folder, unseen = tmp_path / BESIDE, phantoms.take(range(30))
    from_scratch.save(folder / "scratch")
    pixels.save(folder / "pixels")
    plain, adapted = (kept_beside(fitted, folder, unseen, adapt_to=source) for source in (None, phantoms))
    by_hand = {OURS: fitted._logits, SCRATCH: from_scratch._logits, PIXELS: lambda some: pixels._logits(some.images)}
    for name, logits in by_hand.items():
        decision = plain[name].decision
        held = {OURS: held_out(fitted), SCRATCH: held_out(from_scratch), PIXELS: pixels.held_out()}[name]
        moved = location_scale(logits(phantoms), held_labels=held.labels, held_logits=held.logits)
        np.testing.assert_allclose(plain[name].probability, decision.probability(logits(unseen)), rtol=1e-6)
        expected = decision.probability(moved.back(logits(unseen)))
        np.testing.assert_allclose(adapted[name].probability, expected, rtol=2e-4)
        assert abs(expected - plain[name].probability).max() > 5e-4


def test_alone_in_company_and_after_loading_decisions_are_the_same(
    fitted: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    together = decide(fitted, phantoms).table
    loaded = PneumoniaModel.load(fitted.save(tmp_path / "m"))
    pd.testing.assert_frame_equal(decide(loaded, phantoms).table, together, check_exact=True)
    alone = pd.concat([decide(fitted, phantoms.take([i])).table for i in range(12)], ignore_index=True)
    pd.testing.assert_frame_equal(alone, together[:12], check_exact=False, atol=1e-5)


def test_nobody_s_picture_or_embedding_is_kept(fitted: PneumoniaModel, phantoms: ImageSet, tmp_path: Path) -> None:
    tensors, manifest = checkpoints.load(fitted.save(tmp_path / "m"))
    kept = {name: tuple(value.shape) for name, value in tensors.items() if name.startswith("novelty.")}
    count = manifest["novelty"]["facts"]["held_out"]
    assert kept == {
        "novelty.mean": (16,), "novelty.precision": (16, 16), "novelty.held_out": (count,), "novelty.groups": (count,)
    }  # fmt: skip
    assert not any(str(patient) in str(manifest) for patient in phantoms.patients)


def test_patients_of_one_fold_stay_together_in_what_is_held_out(fitted: PneumoniaModel, phantoms: ImageSet) -> None:
    held = held_out(fitted)
    assert len(np.unique(held.patients)) == len(np.unique(phantoms.patients))
    assert np.bincount(held.patients).max() == max(np.unique(phantoms.patients, return_counts=True)[1])


def test_noise_is_flagged_and_referred_where_familiar_pictures_are_not(
    fitted: PneumoniaModel, phantoms: ImageSet
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32), dtype=np.uint8)
    strange = fitted.out_of_distribution(noise)
    assert fitted.novelty_ is not None
    assert strange.flagged.all()
    assert strange.score.min() > fitted.novelty_.held_out.max()
    usual = fitted.out_of_distribution(phantoms)
    assert usual.flagged.mean() < 0.2
    mixed = ImageSet(
        images=noise, ids=np.array([f"n{i}" for i in range(20)]), patients=np.array([f"p{i}" for i in range(20)])
    )
    table = decide(fitted, mixed).table
    assert set(table.decision) == {REFER}
    assert set(table.reason) == {STRANGE}


def test_a_model_that_cannot_flag_says_so_and_still_decides(from_scratch: PneumoniaModel, phantoms: ImageSet) -> None:
    found = decide(from_scratch, phantoms)
    assert found.table.ood_flag.isna().all()
    assert found.table.ood_p_value.isna().all()
    assert any("cannot tell what is unlike its own pictures" in note for note in found.notes)
    with pytest.raises(DataError, match="Pretrain and fine-tune again"):
        from_scratch.out_of_distribution(phantoms)


def test_a_folder_of_an_earlier_version_loads_and_decides(
    fitted: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    tensors, manifest = checkpoints.load(fitted.save(tmp_path / "m"))
    for name in ("novelty", "sha256", "format", "kind", "version"):
        del manifest[name]
    del manifest["finetuning"]["held_out"]["patient"]
    old = {name: value for name, value in tensors.items() if not name.startswith("novelty.")}
    checkpoints.save(tmp_path / "old", kind="medical.PneumoniaModel", tensors=old, manifest=manifest)
    loaded = PneumoniaModel.load(tmp_path / "old")
    found = decide(loaded, phantoms)
    np.testing.assert_array_equal(found.table.probability, fitted.score(phantoms))
    assert any("by an earlier version" in note for note in found.notes)
    assert loaded.finetuning_ is not None
    del loaded.finetuning_["held_out"]
    with pytest.raises(DataError, match="keeps no held-out predictions to decide with: fine-tune it again"):
        decide(loaded, phantoms)


def test_too_few_labels_refer_everybody_and_say_why(phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    rows = np.concatenate([np.flatnonzero(phantoms.labels == value)[:8] for value in (0, 1)])
    few = phantoms.take(rows)
    model = PneumoniaModel(**SMALL).finetune(few, few.labels, groups=few.patients)
    found = decide(model, phantoms, Stated(error_rate=0.05))
    assert set(found.table.decision) == {REFER}
    assert set(found.table.reason) == {UNCERTAIN}
    assert any("an error rate of 5% needs 19 held-out patients with pneumonia" in note for note in found.notes)
    assert any("every picture is therefore referred" in note for note in found.notes)


def test_of_held_out_pictures_few_are_called_wrongly(fitted: PneumoniaModel) -> None:
    from unlabeled.medical._decisions import abstention_of

    held = held_out(fitted)
    half = held.patients % 2 == 0
    calibrate = type(held)(*(column[half] for column in held))
    called = abstention_of(calibrate, 0.2).decide(held.logits[~half]).called
    for label in (0, 1):
        of = held.labels[~half] == label
        wrong = (called[of] == 1 - label).sum()
        assert wrong <= 0.2 * of.sum() + 3 * np.sqrt(0.16 * of.sum())


def test_what_cannot_be_stated_is_refused_before_a_picture_is_read(in_tmp: Path) -> None:
    for arguments, message in (
        (["--sensitivity", "1.5"], "a sensitivity must be above 0 and at most 1, got 1.5"),
        (["--error-rate", "0"], "an error rate must be between 0 and 1, got 0"),
        (["--prevalence", "2"], r"a prevalence must be between 0 and 1 \(or 'estimate'\), got 2"),
    ):
        given = dict(zip(("--sensitivity", "--error-rate", "--prevalence"), (0.95, 0.05, None), strict=True))
        given[arguments[0]] = float(arguments[1])
        stated = Stated(
            sensitivity=given["--sensitivity"], error_rate=given["--error-rate"], prevalence=given["--prevalence"]
        )
        with pytest.raises(DataError, match=message):
            jobs.predict(in_tmp / "nowhere", model=in_tmp / "none", out=in_tmp / "s", stated=stated)
    with pytest.raises(DataError, match="a number between 0 and 1 or 'estimate', got 'rare'"):
        Stated.of_text(prevalence="rare")


def test_a_study_is_what_its_pictures_agree_on() -> None:
    table = pd.DataFrame(
        {
            "image_id": list("abcde"), "probability": [0.2, 0.8, 0.9, 0.1, 0.1],
            "call": [NONE, PNEUMONIA, PNEUMONIA, NONE, NONE], "threshold": 0.5,
            "calibrated": [0.2, 0.8, 0.9, 0.1, 0.1], "calibrated_low": [0.1, 0.7, 0.8, 0.0, 0.0],
            "calibrated_high": [0.3, 0.9, 1.0, 0.2, 0.2], "sensitive_call": [NONE, PNEUMONIA, PNEUMONIA, NONE, NONE],
            "sensitive_threshold": 0.5, "decision": [NONE, PNEUMONIA, PNEUMONIA, REFER, NONE],
            "reason": ["", "", "", STRANGE, ""], "ood_p_value": [0.5, 0.6, 0.7, 0.01, 0.4],
            "ood_flag": pd.array([False, False, False, True, False], dtype="boolean"),
            "probability_at_prevalence": np.nan,
        }
    )  # fmt: skip
    found = per_study(table, ["s1", "s1", "s2", "s3", "s3"]).set_index("study")
    assert found.index.tolist() == ["s1", "s2", "s3"]
    # The mean of log odds log(1/4) and log(4) is even odds.
    assert found.probability["s1"] == pytest.approx(0.5)
    assert found.decision.tolist() == [REFER, PNEUMONIA, REFER]
    assert found.reason.tolist() == ["pictures disagree", "", STRANGE]
    assert found.sensitive_call.tolist() == [PNEUMONIA, PNEUMONIA, NONE]
    assert (found.calibrated_low["s1"], found.calibrated_high["s1"]) == (0.1, 0.9)
    assert found.ood_flag.tolist() == [False, False, True]
    assert found.pictures.tolist() == [2, 1, 2]
    assert found.image_ids.tolist() == ["a;b", "c", "d;e"]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_command_writes_both_tables_and_explains_them(
    fitted: PneumoniaModel, archive: simulate.Simulated, in_tmp: Path
) -> None:
    fitted.save(in_tmp / "m")
    arguments = [str(archive.images), "--model", "m", "--out", "s", "--sensitivity", "0.9", "--error-rate", "0.2"]
    with pytest.raises(SystemExit) as ended:
        main(["medical", "predict", *arguments, "--prevalence", "0.02", "--heat-maps", "2"])
    assert not ended.value.code
    csv, parquet = pd.read_csv("s/predictions.csv"), pd.read_parquet("s/predictions.parquet")
    assert csv.columns.tolist() == parquet.columns.tolist() == [*COLUMNS, "heat_map"]
    np.testing.assert_allclose(csv.probability, parquet.probability, atol=1e-6)
    assert csv.decision.tolist() == parquet.decision.tolist()
    drawn = parquet[parquet.heat_map != ""]
    assert sorted(drawn.probability) == sorted(parquet.probability)[-2:]
    assert {f"s/{name}" for name in drawn.heat_map} == {str(path) for path in Path("s/heatmaps").iterdir()}
    page = (in_tmp / "s" / "report.html").read_text(encoding="utf-8")
    assert "A sensitivity of 90% was asked for" in page
    referred = int((parquet.decision == REFER).sum())
    assert f"{referred} of {len(parquet)} pictures are referred to a radiologist" in page
    assert f"{int(parquet.ood_flag.sum())} of {len(parquet)} pictures" in page
    assert "holds where 2.0% have pneumonia" in page
    assert page.index("Decisions, and whom to refer") < page.index("Limits")


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_report_of_a_fine_tuning_judges_the_decisions_on_unseen_patients(
    archive: simulate.Simulated, phantoms: ImageSet, in_tmp: Path
) -> None:
    PneumoniaModel(**SMALL).pretrain(phantoms).save(in_tmp / "p")
    done = jobs.finetune(archive.images, model=in_tmp / "p", out=in_tmp / "m", labels=archive.labels)
    page = done.files["report"].read_text(encoding="utf-8")
    for heading in (
        "What a stated sensitivity costs", "Calibration, before and after", "Is acting on it worth it?",
        "Referring what is uncertain",
    ):  # fmt: skip
        assert f"{heading}</h" in page
    for target in ("80%", "90%", "95%", "99%"):
        assert f">{target}</td>" in page
    assert PneumoniaModel.load(in_tmp / "m").novelty_ is not None


def test_a_heat_map_reddens_what_speaks_for_and_leaves_the_rest_grey() -> None:
    from unlabeled.pipelines._medical_output import _overlay

    drawn = np.asarray(_overlay(np.full((32, 32), 100, np.uint8), np.array([[2.0, 0.0], [0.0, -1.0]]))).astype(int)
    assert drawn.shape == (256, 256, 3)
    assert drawn[5, 5].tolist() == [177, 50, 50]  # half way from grey 100 to red
    assert drawn[250, 250].tolist() == [75, 75, 138]  # a quarter of the way to blue
    assert np.ptp(np.asarray(_overlay(np.full((32, 32), 100, np.uint8), np.zeros((2, 2))))) == 0


def wrong(count: int, of: int, *, pictures: int = 1) -> Estimate:
    """The first ``count`` of ``of`` patients are wrong on all of their pictures."""
    return over_patients(np.repeat(np.arange(of) < count, pictures), np.repeat(np.arange(of), pictures))


def test_a_broken_promise_is_named_and_chance_is_not() -> None:
    referred = wrong(3, 10)
    # 27 of 234 wrong at a stated 5 % (exact interval from 7.7 %); 24 of 390 may be chance (from 4.0 %).
    rows = [
        Referring(0.05, wrong(24, 390), wrong(27, 234), referred),
        Referring(0.2, wrong(39, 390), wrong(50, 234), referred),
    ]
    (said,) = exceeded(rows, sick=390, healthy=234)
    assert said.startswith("11.5% [")
    assert said.endswith("] of no pneumonia at a stated 5%")


def test_one_patient_with_many_pictures_breaks_no_promise() -> None:
    one, fine = wrong(1, 10, pictures=40), wrong(0, 10, pictures=40)
    assert one.value == 0.1  # 40 of 400 pictures, which by pictures alone would be far above 5 %
    assert one.low == 0
    assert not exceeded([Referring(0.05, one, fine, fine)], sick=10, healthy=10)
    # A single ill patient, all wrong, may be chance at 5 %.
    assert not exceeded([Referring(0.05, wrong(1, 1, pictures=9), fine, fine)], sick=1, healthy=10)
    six = wrong(6, 10, pictures=40)
    assert len(exceeded([Referring(0.05, six, fine, fine)], sick=10, healthy=10)) == 1


def test_a_headline_tells_calls_from_referrals() -> None:
    table = pd.DataFrame({
        "call": [PNEUMONIA, PNEUMONIA, NONE], "decision": [REFER, PNEUMONIA, REFER], "ood_flag": [True, False, False],
    })  # fmt: skip
    assert headline(table, PNEUMONIA, skipped=4) == (
        "2 of 3 pictures are at or above the threshold of pneumonia; 2 are referred to a radiologist, 1 of them as "
        "unlike what it learnt from (4 inputs skipped)."
    )
