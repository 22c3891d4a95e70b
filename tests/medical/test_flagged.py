"""Films that the intake flagged teach nothing where that is asked for, and are accounted for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import FileDataset

from unlabeled.core.errors import DataError
from unlabeled.core.store import Store
from unlabeled.medical import ImageSet, PneumoniaModel, intake, read_images, simulate
from unlabeled.medical.images import skip_summary
from unlabeled.pipelines import _medical_pretraining as pretraining
from unlabeled.pipelines import _medical_run as job
from unlabeled.pipelines import medical as jobs
from unlabeled.pipelines.cli import main

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
PLAIN, SIZE = 24, 32
FLAGS = {"inverted": 2, "near duplicate": 1, "no patient": 1}


def film(seed: int) -> FileDataset:
    rng = np.random.default_rng(seed)
    picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=bool(seed % 2), rng=rng, size=96)
    return simulate.to_dicom(
        picture, patient=f"P{seed}", name="Muster^Erika", view="PA", inverted=False, rescaled=False, windowed=False
    )  # fmt: skip


def negative(seed: int) -> FileDataset:
    """Its tags say that bright is bright, and that is not so."""
    file = film(seed)
    file.PixelData = (simulate.FULL_SCALE - file.pixel_array).astype("<u2").tobytes()
    return file


def noisy(seed: int) -> FileDataset:
    """As it comes back from another program."""
    file = film(seed)
    noise = np.random.default_rng(0).integers(0, 40, file.pixel_array.shape)
    file.PixelData = np.clip(file.pixel_array + noise, 0, simulate.FULL_SCALE).astype("<u2").tobytes()
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    return file


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain films, four that the intake flags and one that it refuses; all but the last are labelled."""
    folder = tmp_path_factory.mktemp("hospital")
    files = {f"plain{seed}": film(seed) for seed in range(PLAIN)}
    files |= {f"negative{seed}": negative(seed) for seed in (60, 61)}
    files["repeated"], files["nobody"], files["lateral"] = noisy(3), film(70), film(80)
    files["nobody"].PatientID, files["lateral"].ViewPosition = "", "LL"
    (folder / "films").mkdir()
    for name, file in files.items():
        file.save_as(folder / "films" / name, enforce_file_format=True)
    lines = [f"{name},{number % 2}" for number, name in enumerate(files) if name not in ("lateral", "repeated")]
    # The near duplicate has the label of the film that it repeats.
    (folder / "labels.csv").write_text("\n".join(["file,label", *lines, "repeated,1"]) + "\n")
    return folder


@pytest.fixture(scope="module")
def store(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taken")
    done = intake.take_in(
        hospital / "films", store=folder / "store", key=folder / "site.key", ledger=folder / "ledger.csv", size=SIZE,
        labels=hospital / "labels.csv", workers=1,
    )  # fmt: skip
    assert done.manifest["flags"] == FLAGS
    return done.store


def flagged_in(store: Path) -> dict[str, str]:
    table = pd.read_parquet(store / "studies.parquet")
    return {name: flags for name, flags in zip(table["instance"], table["flags"], strict=True) if flags}


def test_flagged_films_stay_unless_they_are_asked_to_be_left_out(store: Path) -> None:
    every, clean = read_images(store, size=SIZE), read_images(store, size=SIZE, leave_out_flagged=True)
    flagged = flagged_in(store)
    assert set(flagged) <= set(every.ids)
    assert [name for name in every.ids if name not in flagged] == list(clean.ids)
    # The others are who they were, in every column.
    kept = every.select(np.isin(every.ids, clean.ids))
    assert kept.fingerprint() == clean.fingerprint()
    assert kept.labels is not None
    np.testing.assert_array_equal(kept.labels, clean.labels)
    np.testing.assert_array_equal(kept.patients, clean.patients)
    assert kept.attributes.keys() == clean.attributes.keys()


def test_what_is_left_out_is_listed_with_its_flag_and_everything_adds_up(store: Path) -> None:
    clean = read_images(store, size=SIZE, leave_out_flagged=True)
    told = json.loads((store / "manifest.json").read_text())
    assert len(clean) + len(clean.skipped) == told["found"] == PLAIN + 5
    assert {s.source: s.reason for s in clean.skipped if s.source in flagged_in(store)} == {
        name: f"flagged as {flags}" for name, flags in flagged_in(store).items()
    }
    counted = {reason: count for reason, count, _ in skip_summary(clean.skipped)}
    assert counted == {"lateral view": 1, **{f"flagged as {flag}": count for flag, count in FLAGS.items()}}
    assert any("4 flagged ones are left out" in note for note in clean.notes)
    assert not any("are left out" in note for note in read_images(store, size=SIZE).notes)


def test_pictures_that_are_on_disk_stay_there(store: Path) -> None:
    clean = read_images(store, size=SIZE, leave_out_flagged=True)
    assert isinstance(clean.images, Store)
    # At a smaller size they are averaged down, and the same ones are left out.
    assert list(read_images(store, size=16, leave_out_flagged=True).ids) == list(clean.ids)


def test_only_a_store_says_what_is_flagged(hospital: Path, store: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "films.npz", images=read_images(store, size=SIZE).pixels)
    for source in (hospital / "films", tmp_path / "films.npz", store / "studies.parquet"):
        with pytest.raises(DataError, match=r"is no store of an intake.*leave --leave-out-flagged out"):
            read_images(source, size=SIZE, leave_out_flagged=True)


def test_a_store_of_flagged_films_alone_says_why_nothing_is_left(hospital: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "negative").write_bytes((hospital / "films" / "negative60").read_bytes())
    done = intake.take_in(
        films, store=tmp_path / "store", key=tmp_path / "key", ledger=tmp_path / "ledger.csv", size=SIZE, workers=1
    )
    with pytest.raises(DataError, match="no usable picture: 1 x flagged as inverted"):
        read_images(done.store, size=SIZE, leave_out_flagged=True)


@pytest.mark.integration
def test_pretrain_and_finetune_learn_from_what_is_not_flagged(
    store: Path, hospital: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[ImageSet] = []
    begin = jobs.pretraining.pretrain
    monkeypatch.setattr(
        jobs.pretraining,
        "pretrain",
        lambda model, images, **given: taught.append(images) or begin(model, images, **given),
    )
    arguments = ["medical", "pretrain", str(store), "--size", str(SIZE), "--epochs", "1", "--out", "p"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--leave-out-flagged"])
    assert ended.value.code == 0
    assert not set(taught[0].ids) & set(flagged_in(store))
    page = (in_tmp / "p" / "report.html").read_text(encoding="utf-8")
    assert "flagged as inverted" in page
    listed = (in_tmp / "p" / "skipped.csv").read_text()
    assert all(f"{name},flagged as" in listed for name in flagged_in(store))

    # As the labels that the store was given, but by the names that it gives: those of flagged films are no strangers.
    stored = pd.read_csv(store / "labels.csv", dtype=str)
    stored[["image_id", "label"]].to_csv(in_tmp / "labels.csv", index=False)
    parts = []
    monkeypatch.setattr(jobs, "finetune_on", lambda model, found, **given: parts.append((found, given)))
    for labels in (None, in_tmp / "labels.csv"):
        jobs.finetune(store, model=in_tmp / "p", labels=labels, out=in_tmp / "m", leave_out_flagged=True)
    for found, given in parts:
        for part in (found.train, found.test, found.unlabelled):
            assert not set(part.ids) & set(flagged_in(store))
        assert {s.source for s in given["skipped"]} >= set(flagged_in(store))
    reasons = [s.reason for s in parts[1][1]["skipped"]]
    assert reasons.count("label without a picture: the picture was skipped") == 4
    assert "label for an unknown id" not in reasons

    with pytest.raises(SystemExit) as ended:
        main(["medical", "pretrain", str(hospital / "films"), "--out", "q", "--leave-out-flagged"])
    assert ended.value.code != 0
    assert not (in_tmp / "q").exists()


class Reached(Exception):
    """The run has come to its pretraining."""


@pytest.mark.integration
def test_a_run_plans_with_it_and_another_choice_begins_the_pretraining_anew(
    hospital: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taught: list[ImageSet] = []

    def reach(model: PneumoniaModel, images: ImageSet, **given: object) -> None:
        taught.append(images)
        raise Reached

    monkeypatch.setattr(pretraining, "pretrain", reach)
    plan = job.Plan(size=SIZE, epochs=1, steps=2)
    asked = {"labels": hospital / "labels.csv", "out": in_tmp / "r"}
    with pytest.raises(Reached):
        job.run(hospital / "films", **asked, plan=replace(plan, leave_out_flagged=True))
    flagged = flagged_in(in_tmp / "r" / "store")
    assert len(flagged) == sum(FLAGS.values())
    assert not set(taught[0].ids) & set(flagged)
    assert {s.source for s in taught[0].skipped} >= set(flagged)
    # Another choice teaches other films, and the intake is not repeated for it.
    capsys.readouterr()
    with pytest.raises(Reached):
        job.run(hospital / "films", **asked, plan=plan)
    told = capsys.readouterr().err
    assert "1 of 5: intake: done before" in told
    assert "pretraining: begun anew (--leave-out-flagged was given, is not given)" in told
    assert set(taught[1].ids) & set(flagged)


@pytest.mark.integration
def test_a_dry_run_says_that_flagged_films_count_until_they_are_known(hospital: Path, in_tmp: Path) -> None:
    asked = {"labels": hospital / "labels.csv", "out": in_tmp / "r", "dry_run": True}
    plan = job.Plan(size=SIZE, epochs=1, steps=2)
    told = job.run(hospital / "films", **asked, plan=replace(plan, leave_out_flagged=True)).headline
    assert "none were flagged" in told
    assert "flagged" not in job.run(hospital / "films", **asked, plan=plan).headline
    assert not (in_tmp / "r").exists()
