"""``crossvalidate``: each picture judged once, by a model that its patient or site taught nothing; folds are kept."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from unlabeled.core.errors import DataError
from unlabeled.core.intervals import newcombe_area
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical.images import UNLABELLED
from unlabeled.medical.labels import attach, read_labels
from unlabeled.medical.splits import first_labels, site_folds
from unlabeled.pipelines import _medical_crossvalidation as job
from unlabeled.pipelines._medical_crossvalidation_page import (
    Judged,
    auroc_within,
    estimated_within,
    gain_within,
    measured,
)
from unlabeled.pipelines.cli import main

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 2, "folds": 2,
}  # fmt: skip


def run(arguments: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["medical", "crossvalidate", *arguments])
    assert ended.value.code == code


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def base(phantoms: ImageSet, folder: Path) -> PneumoniaModel:
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    model.provenance_["pretraining_run"] = "run-a"
    model.save(folder)
    return model


def test_only_pictures_of_one_fold_are_compared() -> None:
    """Two sites whose models are on other scales: each is right in 3 of its 4 pairs, which pairs across sites hide."""
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    probability = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    fold = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert auroc_within(labels, probability, fold) == pytest.approx(0.75)
    moved = np.where(fold == 1, probability - 0.55, probability)
    assert auroc_within(labels, moved, fold) == pytest.approx(0.75)
    assert roc_auc_score(labels, probability) != pytest.approx(roc_auc_score(labels, moved))
    # A fold of one class has no pairs; one of more pairs weighs more.
    assert auroc_within(np.array([0, 1, 1, 1]), np.array([0.5, 0.4, 0.6, 0.9]), np.array([0, 0, 0, 1])) == 0.5
    with pytest.raises(ValueError, match="both classes"):
        auroc_within(np.array([0, 1]), np.array([0.1, 0.2]), np.array([0, 1]))


def forty() -> tuple[ImageSet, Judged, np.ndarray]:
    """Twenty ill and twenty well patients in two folds, told apart without fail."""
    labels = np.tile([0, 1], 20)
    images = ImageSet(
        images=np.zeros((40, 32, 32), np.uint8), ids=np.arange(40).astype(str), patients=np.arange(40).astype(str),
        labels=labels,
    )  # fmt: skip
    p = labels * 0.8 + 0.1
    return images, Judged(p, p > 0.5, p > 0.5), np.arange(40) % 4 // 2


def test_all_right_on_forty_patients_is_not_certain_and_no_gain_is_not_surely_none() -> None:
    images, perfect, fold = forty()
    found = measured(images, perfect, fold)
    assert all(one.high - one.low > 0.05 for one in found.values())
    low = newcombe_area(1.0, [10, 10], [10, 10], 0.95)[0]
    assert found["AUROC"] == pytest.approx((1, low, 1))
    # Pairs of one fold only are fewer than all, and more than those of one fold.
    assert newcombe_area(1.0, 10, 10, 0.95)[0] < low < newcombe_area(1.0, 20, 20, 0.95)[0]
    assert gain_within(images, perfect, perfect, fold) == pytest.approx((0, low - 1, 1 - low))
    blind = Judged(np.full(40, 0.5), np.ones(40, bool), np.ones(40, bool))
    gain = gain_within(images, perfect, blind, fold)
    assert gain.low < gain.value == 0.5 < gain.high
    # A fold of one class has no pairs and counts for nothing.
    alone = np.where(images.labels == 1, fold, 0)
    assert estimated_within(images, perfect, alone).low == pytest.approx(newcombe_area(1.0, [10], [20], 0.95)[0])


def test_films_of_the_site_that_judges_do_not_teach_without_labels_either() -> None:
    site = np.repeat(["A", "B", ""], [12, 12, 3])
    labels = np.where((np.arange(27) % 3 == 2) | (site == ""), UNLABELLED, np.arange(27) % 2)
    images = ImageSet(
        images=np.zeros((27, 32, 32), np.uint8), ids=np.arange(27).astype(str), patients=np.arange(27).astype(str),
        labels=labels, attributes={"site": site},
    )  # fmt: skip
    given: list[ImageSet] = []

    class Stop(Exception):
        pass

    class Recorder:
        folds, random_state = 2, 0

        def finetune(self, *_: object, unlabelled: ImageSet, **__: object) -> None:
            given.append(unlabelled)
            raise Stop

    judged = images.labelled()
    fold, names = site_folds(judged)
    assert names == ["A", "B"]
    for by in ("site", "patient"):
        with pytest.raises(Stop):
            job._fold(Recorder(), judged.take(fold == 1), images, judged.take(fold == 0), by=by)  # type: ignore[arg-type]
    by_site, by_patient = given
    assert set(by_site.attributes["site"]) == {"B"}
    assert len(by_site) == 12
    assert set(by_patient.attributes["site"]) == {"A", "B", ""}
    (note,) = job._without_a_site(images, judged)
    assert note.startswith("3 pictures without a label or a site")
    assert job._without_a_site(images.take(site != ""), judged) == ()


def test_patients_who_are_kept_for_another_day_are_kept_with_all_of_their_films() -> None:
    splits = np.array(["train", "test", "train", "", "train", "test"])
    images = ImageSet(
        images=np.zeros((6, 32, 32), np.uint8), ids=np.arange(6).astype(str),
        patients=np.array(["a", "b", "b", "b", "c", "d"]), labels=np.array([0, 1, 1, UNLABELLED, 1, 0]), splits=splits,
    )  # fmt: skip
    rest, (note,) = job._without_judges(images)
    assert rest.ids.tolist() == ["0", "4"]
    assert note == (
        "The 2 pictures of split 'test', and 2 more of their patients, are neither learnt from nor judged here."
    )
    alone, (note,) = job._without_judges(images.take([0, 4, 5]))
    assert len(alone) == 2
    assert note == "The 1 pictures of split 'test' are neither learnt from nor judged here."
    with pytest.raises(DataError, match="all labels are of patients with pictures in split 'test'"):
        job._without_judges(images.take([1, 2, 3]))


def test_what_is_kept_depends_on_whom_it_shows_and_on_the_order_of_labels(phantoms: ImageSet) -> None:
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    judged = phantoms.labelled()
    fold = np.arange(len(judged)) % 2

    def made_of(images: ImageSet, judged: ImageSet, model: PneumoniaModel = model, **settings: object) -> str:
        return job._made_of(model, images, judged, fold, settings)

    plain = made_of(phantoms, judged)
    assert plain == made_of(phantoms, judged)
    others = replace(judged, patients=np.array([f"other {n}" for n in range(len(judged))]))
    ordered = replace(judged, order=np.arange(len(judged)))
    again = PneumoniaModel(**{**SMALL, "random_state": 1}).pretrain(phantoms)
    assert judged.labels is not None
    relabelled = replace(judged, labels=1 - judged.labels)
    changed = [
        made_of(phantoms, others),
        made_of(phantoms, ordered),
        made_of(phantoms, replace(ordered, order=ordered.order[::-1])),
        made_of(phantoms, relabelled),
        made_of(phantoms, judged, model=again),
        made_of(phantoms, judged, finetune_steps=3),
    ]
    assert len({plain, *changed}) == 1 + len(changed)


def test_each_picture_is_judged_once_by_a_model_that_never_saw_its_patient(
    archive: simulate.Simulated, phantoms: ImageSet, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = base(phantoms, in_tmp / "base")
    arguments = [str(archive.images), "--labels", str(archive.labels), "--model", "base", "--folds", "3", "--out", "cv"]
    run(arguments)
    rows = rows_of(in_tmp / "cv" / "predictions.csv")
    assert sorted(row["image_id"] for row in rows) == sorted(phantoms.labelled().ids)
    place = {name: row for row, name in enumerate(phantoms.ids)}
    fold_of: dict[str, set[str]] = {}
    for row in rows:
        fold_of.setdefault(str(phantoms.patients[place[row["image_id"]]]), set()).add(row["fold"])
    assert {len(folds) for folds in fold_of.values()} == {1}
    assert {fold for folds in fold_of.values() for fold in folds} == {"fold 1", "fold 2", "fold 3"}
    # By hand: a model made of the other folds says the same of this one.
    held = np.array([place[row["image_id"]] for row in rows if row["fold"] == "fold 2"])
    rest = phantoms.take(np.sort([place[row["image_id"]] for row in rows if row["fold"] != "fold 2"]))
    assert rest.labels is not None
    model.finetune(rest, rest.labels, groups=rest.patients)
    told = [float(row["ours_probability"]) for row in rows if row["fold"] == "fold 2"]
    assert told == pytest.approx(model.score(phantoms.take(held)), abs=1e-5)
    labels = [int(row["label"]) for row in rows]
    called = [int(row["ours_call"]) for row in rows]
    capsys.readouterr()
    run([*arguments, "--json"])
    said = json.loads(capsys.readouterr().out)
    compared = {one["metric"]: one["ours"]["value"] for one in said["comparisons"]}
    assert compared["balanced accuracy"] == pytest.approx(balanced_accuracy_score(labels, called))
    right = pairs = 0.0
    for fold in ("fold 1", "fold 2", "fold 3"):
        ill, well = ([float(r["ours_probability"]) for r in rows if (r["fold"], r["label"]) == (fold, y)] for y in "10")
        pairs += len(ill) * len(well)
        right += sum((a > b) + 0.5 * (a == b) for a in ill for b in well)
    assert compared["AUROC"] == pytest.approx(right / pairs, abs=2e-3)
    # A fold that was lost or cut short is made again, to the same numbers; the others are kept.
    (in_tmp / "cv" / "folds" / "fold-2.json").write_text('{"made_of": "')
    run(arguments)
    assert capsys.readouterr().err.count("was done before and is kept") == 2
    assert rows_of(in_tmp / "cv" / "predictions.csv") == rows
    # Of other settings nothing is kept.
    run([*arguments, "--seed", "1"])
    assert "is kept" not in capsys.readouterr().err


def test_by_site_each_site_is_judged_by_models_of_the_others(
    archive: simulate.Simulated, phantoms: ImageSet, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = base(phantoms, in_tmp / "base")
    known = rows_of(archive.labels)
    # Files lie in a folder a patient. The last ten patients are kept for another day.
    kept = {row["file"] for row in known if Path(row["file"]).parent.name >= "00050"}
    site = {row["file"]: ("north", "south")[int(Path(row["file"]).parent.name) % 2] for row in known}
    with (in_tmp / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*known[0], "site", "split"])
        writer.writeheader()
        writer.writerows(
            {**row, "site": site[row["file"]], "split": "test" if row["file"] in kept else "train"} for row in known
        )
    arguments = [str(archive.images), "--model", "base", "--by", "site"]
    run([*arguments, "--labels", "labels.csv", "--out", "cv", "--n-labels", "20"])
    rows = rows_of(in_tmp / "cv" / "predictions.csv")
    assert {row["fold"] for row in rows} == {"north", "south"}
    assert kept
    assert {row["image_id"] for row in rows} == {row["file"] for row in known} - kept
    assert all(row["fold"] == site[row["image_id"]] for row in rows)
    # By hand: 20 labels of the south alone, beside all of its pictures, say the same of the north.
    images = attach(phantoms, read_labels(in_tmp / "labels.csv"))
    rest = images.take((images.attributes["site"] == "south") & (images.splits == "train")).labelled()
    few = first_labels(rest, 20, seed=0)
    assert few.labels is not None
    model.finetune(few, few.labels, groups=few.patients, unlabelled=rest)
    north = [row for row in rows if row["fold"] == "north"]
    place = {name: row for row, name in enumerate(images.ids)}
    told = [float(row["ours_probability"]) for row in north]
    assert told == pytest.approx(model.score(images.take([place[row["image_id"]] for row in north])), abs=1e-5)
    page = (in_tmp / "cv" / "report.html").read_text(encoding="utf-8")
    assert "Cross-validation by site" in page
    assert "AUROC of each site that was left out" in page
    capsys.readouterr()
    run([*arguments, "--labels", str(archive.labels), "--out", "no"], code=1)
    assert "no site of any picture is known" in " ".join(capsys.readouterr().err.split())
    # What cannot be learnt from is said before anything is trained.
    run([*arguments, "--labels", "labels.csv", "--out", "no", "--n-labels", "4"], code=1)
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing can be learnt from the rest: 2 parts by patient need at least 2" in said
    assert "same network from scratch" not in said
