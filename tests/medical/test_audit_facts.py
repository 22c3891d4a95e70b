"""What an audit says of its own data: files that an intake refused, where the inputs went, whom the model knows."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from unlabeled.medical import ImageSet, PneumoniaModel, attach, attributes, intake, read_images, simulate
from unlabeled.medical.audit import page
from unlabeled.medical.audit.facts import PSEUDONYMS, Flow, known
from unlabeled.medical.audit.measures import Audit, measure
from unlabeled.medical.images import UNLABELLED, Skip
from unlabeled.medical.labels import Row
from unlabeled.pipelines import _medical_pretraining as pretraining
from unlabeled.pipelines._medical_audit import audit_on, flow_of
from unlabeled.pipelines._medical_judges import by_pixels, judges_found

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
SMALL: dict[str, Any] = {"image_size": 32, "dim": 16, "depth": 1, "heads": 2, "folds": 2, "finetune_steps": 5}


@pytest.fixture(scope="module")
def store(archive: simulate.Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms as an intake leaves them, some of them refused, two of them nearly the same."""
    folder = tmp_path_factory.mktemp("taken-in")
    shutil.copytree(archive.images, folder / "hospital")
    places = {"store": folder / "store", "key": folder / "site.key", "ledger": folder / "ledger.csv"}
    intake.take_in(folder / "hospital", **places, size=32, workers=1, site="Ward 7")
    return folder / "store"


@pytest.fixture(scope="module")
def model(phantoms: ImageSet) -> PneumoniaModel:
    """Taught by the first half of the patients, and knows them."""
    taught = phantoms.take(first_half(phantoms))
    model = PneumoniaModel(**SMALL).finetune(taught, taught.labels, groups=taught.patients)
    model.remember([*taught.patients, *by_pixels(taught)])
    return model


@pytest.fixture(scope="module")
def measured(model: PneumoniaModel, phantoms: ImageSet) -> Audit:
    return measure(model, phantoms.take(~first_half(phantoms)), least=5, shuffles=2, samples=20, pictures=4)


def first_half(images: ImageSet) -> np.ndarray:
    patients = np.unique(images.patients)
    return np.isin(images.patients, patients[: len(patients) // 2])


def changed(model: PneumoniaModel, **given: Any) -> PneumoniaModel:
    other = copy.copy(model)
    for name, value in given.items():
        setattr(other, name, value)
    return other


def rendered(model: PneumoniaModel, measured: Audit, flow: Flow) -> str:
    items = page.checked(known(model, measured, (), flow))
    return page.audit_report(measured, items, title="t", subtitle="s", model=model, flow=flow).html()


def test_files_that_an_intake_refused_are_listed_by_names_that_say_nothing(
    store: Path, archive: simulate.Simulated
) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    gate = pd.read_parquet(store / "gate.parquet")
    images = read_images(store, size=32)
    assert len(images.skipped) == manifest["refused"] > 0
    assert len(images) + len(images.skipped) == manifest["found"]
    refused = gate[gate.state == "refused"]
    assert [skip.source for skip in images.skipped] == refused.file.tolist()
    reasons = {skip.reason.partition(": ")[0] for skip in images.skipped}
    assert reasons == set(manifest["refusals"])
    assert any(skip.reason == "lateral view: ViewPosition LL" for skip in images.skipped)
    said = " ".join(f"{skip.source} {skip.reason}" for skip in images.skipped)
    for path in archive.images.rglob("*"):
        assert not path.suffix or path.name not in said, path
    assert not set(refused.patient) & set(said.split())


def test_flagged_pictures_are_kept_and_not_skipped(tmp_path: Path, archive: simulate.Simulated) -> None:
    source = next(path for path in sorted(archive.images.rglob("*")) if path.is_file() and "lateral" not in path.name)
    (tmp_path / "hospital").mkdir()
    for number in range(2):  # the same picture but for one pixel, under another name
        file = dcmread(source)
        stored = file.pixel_array.copy()
        stored[0, 0] += number
        file.PixelData, file.SOPInstanceUID = stored.tobytes(), f"1.2.3.{number}"
        file.save_as(tmp_path / "hospital" / f"{number}.dcm")
    places = {"store": tmp_path / "store", "key": tmp_path / "site.key", "ledger": tmp_path / "ledger.csv"}
    done = intake.take_in(tmp_path / "hospital", **places, size=32, workers=1)
    assert done.manifest["flagged"] == 1
    found = read_images(tmp_path / "store", size=32)
    assert len(found) == 2
    assert found.skipped == ()


def test_a_store_copied_without_the_gate_still_counts_what_was_refused(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy", ignore=shutil.ignore_patterns("gate.*"))
    whole, copied = read_images(store, size=32).skipped, read_images(tmp_path / "copy", size=32).skipped
    assert sorted(s.reason for s in copied) == sorted(s.reason.partition(":")[0] for s in whole)
    assert copied[0].source == "refused file 1"


@pytest.mark.integration
def test_a_pretraining_on_a_store_says_what_was_refused(store: Path, in_tmp: Path) -> None:
    images = read_images(store, size=32)
    model = PneumoniaModel(**SMALL, framing="padded", pretrain_epochs=1)
    done = pretraining.pretrain(model, images, out=in_tmp / "model", synthetic=True)
    assert f"({len(images.skipped)} inputs skipped)" in done.headline
    assert len(images.skipped) > 0
    html = done.files["report"].read_text(encoding="utf-8")
    assert "lateral view" in html
    assert "every input" not in html
    assert (in_tmp / "model" / "skipped.csv").read_text().count("\nF-") == len(images.skipped)


def mixed(phantoms: ImageSet) -> ImageSet:
    """Pictures some of which have no label, and two lines of labels that fit none."""
    assert phantoms.labels is not None
    labels = {
        str(name): Row(label=int(label), patient=None, split=None)
        for number, (name, label) in enumerate(zip(phantoms.ids, phantoms.labels, strict=True))
        if number % 5
    }
    strangers = {name: Row(label=1, patient=None, split=None) for name in ("gone", phantoms.skipped[0].source)}
    return attach(replace(phantoms, labels=None, skipped=phantoms.skipped), {**labels, **strangers})


def test_where_the_inputs_went_adds_up(model: PneumoniaModel, phantoms: ImageSet) -> None:
    pictures = replace(phantoms, skipped=tuple(s for s in phantoms.skipped if not s.reason.startswith("label ")))
    images = mixed(pictures)
    judges = judges_found(model, images)
    assert judges.unseen is not None
    flow = flow_of(model, images, judges.unseen)
    half, without = first_half(images), np.asarray(images.labels) == UNLABELLED
    assert flow == Flow(
        skipped=len(pictures.skipped),
        unlabelled=int(without.sum()),
        learnt=int((half & ~without).sum()),
        aside=0,
        judged=int((~half & ~without).sum()),
    )
    assert min(flow.skipped, flow.unlabelled, flow.learnt, flow.judged) > 0
    assert sum(flow) == len(images) + len(pictures.skipped)
    # Of those who could judge, some are not asked to: a part of a split.
    fewer = judges.unseen.take(np.isin(judges.unseen.patients, np.unique(judges.unseen.patients)[:10]))
    part = flow_of(model, images, fewer)
    assert part.aside == len(judges.unseen) - len(fewer) > 0
    assert sum(part) == sum(flow)
    assert flow_of(model, judges.unseen, judges.unseen)[1:] == (0, 0, 0, len(judges.unseen))


def test_patients_whom_the_labels_name_otherwise_count_as_learnt_from(
    model: PneumoniaModel, phantoms: ImageSet
) -> None:
    renamed = replace(phantoms, patients=np.char.add("new-", phantoms.patients))
    half = first_half(phantoms)
    assert flow_of(model, renamed, renamed.take(~half)).learnt == int(half.sum())


def test_the_sentences_on_what_was_left_out(model: PneumoniaModel, measured: Audit) -> None:
    skips = (Skip("F-1", "lateral view: ViewPosition LL"), Skip("F-2", "lateral view: ViewPosition RL"))
    line = Skip("x", "label for an unknown id")
    flow = Flow(skipped=2, unlabelled=3, learnt=40, aside=5, judged=len(measured.unseen))
    facts = known(model, measured, (*skips, line), flow)
    assert facts["left out"] == (
        "2 inputs and 1 line(s) of labels that fit no picture left out, each with its reason: 2 x lateral view; 1 x "
        "label for an unknown id. Read and not judged: 3 without a label; 40 left out because the model "
        "learnt from their patients; 5 with a label and not asked to judge."
    )
    assert facts["flow"] == (
        f"{sum(flow)} inputs: 2 were left out before (they could not be used, or were not to be), {sum(flow) - 2} were "
        "read. Of those, 3 without a label; 40 left out "
        f"because the model learnt from their patients; 5 with a label and not asked to judge; {flow.judged} judged."
    )
    everybody = Flow(skipped=0, unlabelled=0, learnt=0, aside=0, judged=len(measured.unseen))
    assert known(model, measured, (), everybody)["left out"] == "Every input was used."
    assert "Every input" not in known(model, measured, (), everybody._replace(unlabelled=1))["left out"]


def test_a_model_that_knows_nobody_promises_no_separation(model: PneumoniaModel, measured: Audit) -> None:
    flow = flow_of(model, measured.unseen, measured.unseen)
    nobody = changed(model, digests_=[])
    assert "refused or left out" in known(model, measured, (), flow)["partition"]
    facts = known(nobody, measured, (), flow)
    assert facts["partition"] == ""
    items = {item.number: item for item in page.checked(facts)[page.CLAIM_NAME]}
    assert not items["20"].filled
    assert "did not learn from" in page.verdict(measured, apart=True).text
    assert "is not known" in page.verdict(measured, apart=False).text
    html = rendered(nobody, measured, flow)
    assert "does not know whom it learnt from" in html
    assert "patients it did not learn from" not in html


def test_what_is_said_of_pseudonyms_is_what_happens(store: Path, phantoms: ImageSet) -> None:
    assert "nowhere" not in PSEUDONYMS
    assert "ledger" in PSEUDONYMS
    assert (store.parent / "ledger.csv").read_text().count("SIM-") > 0
    # A site that a person gave stays; one that a DICOM file names does not.
    assert "a site that a table or the intake was given stays as it is" in PSEUDONYMS
    assert set(read_images(store, size=32).attributes["site"]) == {"Ward 7"}
    told = attributes.put(phantoms.take([0]), {"site": ["St Mary's"], "age": ["47"]}).attributes
    assert told["site"].tolist() == ["St Mary's"]
    assert told["age_band"].tolist() == ["40 to 59"]
    file = Dataset()
    file.InstitutionName = "St Mary's"
    assert "Mary" not in attributes.of_dicom(file)["site"]


def test_a_model_of_an_earlier_version_still_gets_its_page(model: PneumoniaModel, measured: Audit) -> None:
    flow = flow_of(model, measured.unseen, measured.unseen)
    kept = {name: value for name, value in (model.finetuning_ or {}).items() if name != "held_out"}
    html = rendered(changed(model, finetuning_=kept), measured, flow)
    assert "Fine-tune it again" in html
    assert "Decision curve" not in html
    assert "Decision curve" in rendered(model, measured, flow)


@pytest.mark.integration
def test_the_audit_of_a_store_says_on_its_page_and_in_its_files_what_was_refused(
    store: Path, model: PneumoniaModel, in_tmp: Path
) -> None:
    images = read_images(store, size=32)
    labels = (np.arange(len(images)) % 2).astype(np.int64)
    labelled = replace(images, labels=labels, framing=model.framing)
    model.save(in_tmp / "model")
    done = audit_on(model, labelled.take(np.arange(40)), folder=in_tmp / "model", out=in_tmp / "audit", read=labelled)
    html = done.files["report"].read_text(encoding="utf-8")
    assert "Every input was used" not in html
    assert f"{len(images.skipped)} were left out before" in html
    found = json.loads(done.files["json"].read_text())["flow"]
    assert found["skipped"] == len(images.skipped)
    assert sum(found.values()) == len(images) + len(images.skipped)
    assert done.files["skipped"].read_text().count("\nF-") == len(images.skipped)


def test_which_moment_was_kept_is_said_as_it_was(model: PneumoniaModel, measured: Audit) -> None:
    flow = Flow(skipped=0, unlabelled=0, learnt=0, aside=0, judged=40)
    assert known(model, measured, (), flow)["selection"].startswith("A fixed number of steps; ")
    stopped = known(changed(model, early_stop=True), measured, (), flow)["selection"]
    assert "fixed number" not in stopped
    assert "one of the highest AUROC on left-out folds of the patients was kept" in stopped


def test_attributes_that_are_known_of_nobody_are_missing_data(model: PneumoniaModel, measured: Audit) -> None:
    nobody = replace(measured, unseen=replace(measured.unseen, attributes={}))
    told = known(model, nobody, (), Flow(skipped=0, unlabelled=0, learnt=0, aside=0, judged=40))["missing"]
    count = len(nobody.unseen)
    assert all(f"{name} is unknown of {count} of {count}" in told for name in ("age band", "sex", "view", "site"))


def test_groups_of_which_none_could_be_compared_are_no_result(model: PneumoniaModel, phantoms: ImageSet) -> None:
    """Not on the page, and in no list that an ethics board reads."""
    seen = phantoms.take(~first_half(phantoms))
    flow = Flow(skipped=0, unlabelled=0, learnt=0, aside=0, judged=len(seen))
    half = replace(seen, attributes={**seen.attributes, "sex": np.where(np.arange(len(seen)) % 2, "F", "M")})
    for least, compared in ((5, True), (1000, False)):
        found = measure(model, half, least=least, shuffles=2, samples=20, pictures=4)
        assert (found.groups.compared > 0) == compared
        fairness = known(model, found, (), flow)["fairness"]
        html = rendered(model, found, flow)
        assert ("pairs of those with at least 5 patients" in fairness) == compared
        assert (fairness == "") == (not compared)
        assert ("no gap stands" in html or "gaps that stand: " in html) == compared
        assert (">not compared<" in html) == (not compared)
        assert ("groups could not be compared" in html) == (not compared)
        assert ("are among what groups are compared by" in html) == compared
