"""Every number of an audit's page stands with an interval over patients, at one threshold, of all that is decided."""

import copy
import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.evaluation import Estimate
from unlabeled.core.report import Section, Verdict
from unlabeled.medical import ImageSet, PneumoniaModel, shortcuts
from unlabeled.medical._decisions import REFER, Stated, decide, operating_point_of
from unlabeled.medical._operating import decision_of
from unlabeled.medical.audit import page
from unlabeled.medical.audit.facts import Flow, known
from unlabeled.medical.audit.measures import AT_POINT, REFERRED, STRANGE, Audit, measure
from unlabeled.medical.audit.studies import add_studies, by_study
from unlabeled.medical.evaluation import Scored, metrics
from unlabeled.medical.report import evaluation_report, steps_said, steps_taken
from unlabeled.pipelines import _medical_audit as job

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "folds": 2, "finetune_steps": 20, "pretrain_epochs": 1,
}  # fmt: skip
NUMBER = r"\d\.\d+"
INTERVAL = rf"{NUMBER} \[{NUMBER}, {NUMBER}\]"
PERCENT = r"\d+\.\d% \[\d+\.\d%, \d+\.\d%\]"


@pytest.fixture(scope="module")
def halves(phantoms: ImageSet) -> tuple[ImageSet, ImageSet]:
    patients = np.unique(phantoms.patients)
    taught = np.isin(phantoms.patients, patients[: len(patients) // 2])
    sexes = np.array(["F", "M"])[np.unique(phantoms.patients, return_inverse=True)[1] % 2]
    everybody = replace(phantoms, attributes={**phantoms.attributes, "sex": sexes})
    return everybody.take(taught), everybody.take(~taught)


@pytest.fixture(scope="module")
def model(halves: tuple[ImageSet, ImageSet], phantoms: ImageSet) -> PneumoniaModel:
    taught, _ = halves
    model = PneumoniaModel(**SMALL, self_training=True).pretrain(phantoms)
    model.finetune(taught, taught.labels, groups=taught.patients, unlabelled=taught)
    model.remember(taught.patients)
    return model


@pytest.fixture(scope="module")
def measured(model: PneumoniaModel, halves: tuple[ImageSet, ImageSet]) -> Audit:
    _, unseen = halves
    together = replace(unseen, studies=np.char.add("s-", unseen.patients))
    return measure(model, together, least=3, shuffles=2, samples=60, pictures=24)


def text_of(model: PneumoniaModel, measured: Audit) -> str:
    """What a reader sees, without marks."""
    flow = Flow(skipped=0, unlabelled=0, learnt=0, aside=0, judged=len(measured.unseen))
    items = page.checked(known(model, measured, (), flow))
    html = page.audit_report(measured, items, title="t", subtitle="s", model=model, flow=flow).html()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r'src="[^"]*"', "", html)))


def test_the_page_knows_one_threshold_for_95_percent_and_saved_models_stay(
    model: PneumoniaModel, measured: Audit, tmp_path: Path
) -> None:
    point = operating_point_of(model, Stated(sensitivity=0.95))
    assert measured.decisions is not None
    assert measured.scored.decision.sensitive_threshold == point.threshold == measured.decisions.point.threshold
    np.testing.assert_array_equal(measured.scored.probability, measured.decisions.table.probability)
    assert model.decision_ is not None
    assert model.decision_.sensitive_threshold == point.threshold
    # Whatever an earlier version saved in its place, it is this one that counts, and that a reader is told.
    elsewhere = point.threshold / 2 + 0.4
    assert f"{elsewhere:.4f}" != f"{point.threshold:.4f}"
    earlier = copy.copy(model)
    earlier.decision_ = replace(model.decision_, sensitive_threshold=elsewhere)
    assert PneumoniaModel.load(earlier.save(tmp_path / "earlier")).decision_ == earlier.decision_
    assert decision_of(earlier) == model.decision_
    text = text_of(earlier, measured)
    assert f"for a sensitivity of 95 %, {point.threshold:.4f}" in text
    assert f"a second one at {point.threshold:.4f}" in text
    assert re.search(rf"95% {point.threshold:.3f} {INTERVAL}", text)
    assert f"{elsewhere:.4f}" not in text
    assert PneumoniaModel.load(model.save(tmp_path / "m")).decision_ == model.decision_
    old = copy.copy(model)
    old.finetuning_ = {name: value for name, value in (model.finetuning_ or {}).items() if name != "held_out"}
    assert decision_of(old) == model.decision_


def test_a_calibration_error_is_the_same_wherever_it_stands(measured: Audit) -> None:
    everybody = measured.groups.overall.estimates["calibration error"]
    assert everybody == pytest.approx(measured.overall["calibration error"], abs=1e-5)


def test_a_number_has_one_interval_wherever_it_stands(measured: Audit) -> None:
    everybody = measured.groups.overall.estimates
    for name in ("AUROC", "sensitivity", "specificity", "sensitivity at the 95 % point"):
        assert everybody[name] == pytest.approx(measured.overall[name], abs=1e-5)


def test_groups_are_told_at_the_point_and_by_who_is_referred(model: PneumoniaModel, measured: Audit) -> None:
    assert measured.decisions is not None
    assert measured.decisions.outlying is not None
    labels, table = np.asarray(measured.unseen.labels), measured.decisions.table
    female = measured.unseen.attributes["sex"] == "F"
    group = next(g for g in measured.groups.groups if (g.attribute, g.value) == ("sex", "F"))
    called = (measured.scored.probability >= measured.decisions.point.threshold)[female]
    found, missed, spared = (group.estimates[name] for name in AT_POINT)
    assert found.value == pytest.approx(called[labels[female] == 1].mean(), abs=1e-6)
    assert missed.value == pytest.approx(1 - found.value, abs=1e-6)
    assert spared.value == pytest.approx((~called[labels[female] == 0]).mean(), abs=1e-6)
    assert group.estimates[REFERRED].value == pytest.approx((table.decision == REFER)[female].mean(), abs=1e-6)
    assert group.estimates[STRANGE].value == pytest.approx(measured.decisions.outlying.flagged[female].mean(), abs=1e-6)
    assert all(one.low < one.high for one in group.estimates.values())
    compared = {gap.metric for gap in measured.groups.gaps if gap.attribute == "sex"}
    assert set(AT_POINT[1:]) <= compared
    assert not {REFERRED, STRANGE} & compared
    text = text_of(model, measured)
    assert re.search(rf"{PERCENT} of the pictures are referred; {PERCENT} are flagged as out of distribution", text)


def test_an_audit_of_an_earlier_model_says_what_it_cannot_know(
    model: PneumoniaModel, halves: tuple[ImageSet, ImageSet]
) -> None:
    old = copy.copy(model)
    old.finetuning_ = {name: value for name, value in (model.finetuning_ or {}).items() if name != "held_out"}
    found = measure(old, halves[1], least=3, shuffles=2, samples=20, pictures=4)
    assert found.decisions is found.studies is None
    assert REFERRED not in found.groups.metrics
    text = text_of(old, found)
    assert "Whom it refers is not known" in text
    assert "an earlier version saved this model without what decisions take" in text


def test_numbers_stand_with_their_intervals(model: PneumoniaModel, measured: Audit) -> None:
    text = text_of(model, measured)
    auroc = measured.overall["AUROC"]
    assert f"{auroc} AUROC" in text  # the headline's figure
    assert re.search(rf"the model {INTERVAL} by chance: the share with pneumonia {INTERVAL}", text)
    assert re.search(rf"5\.0% {PERCENT} {PERCENT} {PERCENT}", text)  # of the abstention table
    assert re.search(rf"{PERCENT} of pneumonia is missed at the plain threshold", text)
    assert re.search(rf"with pneumonia \({PERCENT}\)", text)
    point = operating_point_of(model, Stated(sensitivity=0.9))
    assert f"90% {point.threshold:.3f} {point.over_patients[0]} {point.over_patients[1]}" in text
    assert text.count("intervals over patients, point by point") == 3
    everybody = measured.groups.overall.estimates
    for name in ("sensitivity", "specificity"):
        one = everybody[name]
        assert f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" in text
    assert str(everybody["share ill"]) in text


def test_tracked_numbers_have_both_ends(measured: Audit) -> None:
    numbers = job._numbers(measured)
    for name in ("AUROC", "average_precision", "sensitivity_at_the_95_pc_point", "referred", "studies.referred"):
        assert numbers[f"audit.{name}.low"] <= numbers[f"audit.{name}"] <= numbers[f"audit.{name}.high"]
    auroc = measured.overall["AUROC"]
    assert (numbers["audit.AUROC"], numbers["audit.AUROC.low"], numbers["audit.AUROC.high"]) == auroc
    assert all(np.isfinite(value) for name, value in numbers.items() if name.endswith((".low", ".high")))


def test_files_hold_what_the_page_says(measured: Audit, tmp_path: Path) -> None:
    said = job.to_json(measured, {}, Flow(0, 0, 0, 0, 0), verdict="")
    assert said["thresholds"]["95 % point"] == measured.scored.decision.sensitive_threshold
    assert said["studies"]["several"] > 0
    with job._write_tables(tmp_path, measured, {})["subgroups"].open(newline="") as stream:
        first = next(csv.DictReader(stream))
    for name in (*AT_POINT, REFERRED, STRANGE, "share ill"):
        assert float(first[name]) == pytest.approx(measured.groups.overall.estimates[name].value, abs=1e-6)
        assert first[f"{name} low"]
        assert first[f"{name} high"]


def test_the_randomised_network_is_told_by_its_own_pictures_and_its_whole_interval(
    model: PneumoniaModel, measured: Audit
) -> None:
    assert measured.maps.pictures == 24
    assert measured.maps.compared == 20
    text = text_of(model, measured)
    assert "on 20 pictures: rank correlation with maps of a randomised model" in text
    assert re.search(r"rank correlation with maps of a randomised network 20 ", text)
    assert page.unlike(Estimate(0.3, 0.1, 0.49)) == "yes"
    assert page.unlike(Estimate(0.4, 0.2, 0.6)) == "not shown"
    assert page.unlike(Estimate(0.7, 0.6, 0.8)).startswith("no")
    assert page.unlike(Estimate(float("nan"), float("nan"), float("nan"))) == "not shown"


def test_studies_by_hand(model: PneumoniaModel, halves: tuple[ImageSet, ImageSet]) -> None:
    _, unseen = halves
    four = unseen.take(np.arange(6))
    studies = np.array(["a", "a", "b", "b", "c", ""])
    images = replace(
        four, studies=studies, labels=np.array([0, 1, 0, 0, 1, 1]), patients=np.array(["p", "p", "q", "q", "r", "s"])
    )
    decided = decide(model, images)
    calls = ["no pneumonia", "pneumonia", "pneumonia", "no pneumonia", "pneumonia", "pneumonia"]
    table = decided.table.assign(
        call=calls, sensitive_call="pneumonia", decision=["pneumonia"] * 2 + ["no pneumonia", REFER] + ["pneumonia"] * 2
    )
    found = by_study(replace(decided, table=table), images, finding="pneumonia", samples=50)
    assert found is not None
    assert (found.known, found.several, found.pictures, found.patients, found.ill) == (3, 2, 4, 2, 1)
    whole = {name: estimate.value for name, estimate in found.whole.items()}
    single = {name: estimate.value for name, estimate in found.single.items()}
    # Study a is ill and called so by its second picture, b is not and is called so by its first.
    assert whole == {
        "sensitivity": 1, "specificity": 0, "sensitivity at the 95 % point": 1, "specificity at the 95 % point": 0,
        "referred": 0.5,
    }  # fmt: skip
    assert (single["sensitivity"], single["specificity"], single["referred"]) == (1, pytest.approx(2 / 3), 0.25)
    assert found.whole["sensitivity"].low == pytest.approx(1 / (1 + 1.959964**2), abs=1e-4)


def test_without_several_pictures_a_line_says_so(model: PneumoniaModel, halves: tuple[ImageSet, ImageSet]) -> None:
    some = halves[1].take(np.arange(4))
    decided = decide(model, some)
    alone = by_study(decided, replace(some, studies=np.array(list("abcd"))), finding="pneumonia")
    assert alone is not None
    assert by_study(decided, replace(some, studies=None), finding="pneumonia") is None
    assert by_study(decided, replace(some, studies=np.array([""] * 4)), finding="pneumonia") is None
    for found, said in ((alone, "none of 4 studies has several"), (None, "of none of these pictures is it known")):
        section = Section("Studies")
        add_studies(section, found, decided=True)
        assert [said in part.text for part in section.parts] == [True]


def test_studies_of_the_page_are_those_that_predictions_put_together(model: PneumoniaModel, measured: Audit) -> None:
    found = measured.studies
    assert found is not None
    counts = pd.Series(measured.unseen.patients).value_counts()
    assert (found.known, found.several) == (len(counts), int((counts > 1).sum()))
    text = text_of(model, measured)
    assert f"{found.several} of {found.known} studies have several labelled pictures" in text
    assert re.search(rf"referred {INTERVAL} {INTERVAL}", text)


def test_steps_of_a_student_are_counted(model: PneumoniaModel, measured: Audit) -> None:
    assert steps_taken(model) == (20, 40)
    said = steps_said(model)
    assert "ours took 20 each" in said
    assert "40 more (60 in all)" in said
    assert "the one from scratch did not" in said
    plain = copy.copy(model)
    plain.finetuning_ = {name: value for name, value in (model.finetuning_ or {}).items() if name != "students"}
    assert steps_taken(plain) == (20, 0)
    assert "more" not in steps_said(plain).replace("more steps would", "")
    assert "40 steps more, 60 a network in all" in text_of(model, measured)


@pytest.mark.parametrize("whose", ["patients", "nobody"])
def test_the_page_of_a_fine_tuning_has_one_point_and_intervals_too(
    model: PneumoniaModel, halves: tuple[ImageSet, ImageSet], whose: str
) -> None:
    _, unseen = halves
    assert model.decision_ is not None
    saved = Scored(model.score(unseen), model.decision_)
    table = metrics(np.asarray(unseen.labels), saved, patients=unseen.patients)
    html = evaluation_report(
        title="t", subtitle="s", verdict=Verdict("v"), model=model, unseen=unseen, methods={"ours": saved},
        table={"ours": table}, skipped=(), decisions=decide(model, unseen),
        patients=unseen.patients if whose == "patients" else None,
    ).html()  # fmt: skip
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r'src="[^"]*"', "", html)))
    for name in ("AUROC", "sensitivity", "specificity"):
        assert f"{table[name]} {name}" in text
    again = metrics(np.asarray(unseen.labels), saved._replace(decision=decision_of(model)), patients=unseen.patients)
    for name in ("sensitivity at the 95 % point", "specificity at the 95 % point"):
        assert str(again[name]) in text
    assert re.search(rf"pictures are called pneumonia \({PERCENT}\)", text)
    assert re.search(rf"\({PERCENT}\) are flagged as out of distribution", text)
    assert ("intervals over pictures: too narrow" in text) == (whose == "nobody")
    assert "40 more (60 in all)" in text


def test_a_part_that_the_model_does_not_need_is_not_surely_of_no_use(
    model: PneumoniaModel, halves: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty patients, told apart with and without their corners: a loss of 0, give or take what twenty leave open."""
    _, unseen = halves
    first = np.unique(unseen.patients, return_index=True)[1]
    labels = np.asarray(unseen.labels)[first]
    ten = np.concatenate([first[labels == label][:10] for label in (0, 1)])
    assert len(ten) == 20
    some = unseen.take(np.sort(ten))
    ill = np.asarray(some.labels)
    monkeypatch.setattr(shortcuts, "log_odds", lambda *given: ill.astype(float))
    for one in shortcuts.occlusions(model, some, samples=50):
        assert (one.auroc.low, one.auroc.high) == pytest.approx((0.8002, 1), abs=1e-4)
        assert one.loss == pytest.approx((0, -0.1998, 0.1998), abs=1e-4)
        assert not one.suspicious


def test_the_checklist_says_what_intervals_are(model: PneumoniaModel, measured: Audit) -> None:
    flow = Flow(skipped=0, unlabelled=0, learnt=0, aside=0, judged=len(measured.unseen))
    said = known(model, measured, (), flow)["uncertainty"]
    for word in ("over patients", "Wilson", "of AUROCs, also those of probes, Newcombe", "MOVER", "calibration error"):
        assert word in said
    shown = [*measured.overall.values(), *(one.loss for one in measured.occluded)]
    shown += [one.auroc for one in measured.occluded]
    shown += [s.found.auroc for s in (*measured.label_probes, *measured.representation) if s.found is not None]
    assert len(shown) > 12
    assert all(one.high - one.low > 0.01 and one.low <= one.value <= one.high for one in shown)
