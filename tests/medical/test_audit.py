"""Shortcuts and heat maps on planted signals, and the audit from files to a page."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.core.audit.attribution import area, rank_correlation, shuffled_weights
from unlabeled.core.errors import DataError, GateError
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical.audit import checklists
from unlabeled.medical.audit.checklists import CARD, CLAIM, TRIPOD_AI, Asked
from unlabeled.medical.audit.heatmaps import Box, agreement, check_maps, coverage, read_boxes
from unlabeled.medical.shortcuts import WHOLE, hidden_patches, label_probes, neutral, occlusions, representation_probes
from unlabeled.pipelines import _medical_audit as job
from unlabeled.pipelines.cli import main

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
SIDE = 32
SMALL: dict[str, Any] = {"image_size": SIDE, "patch": 4, "dim": 32, "depth": 2, "heads": 2, "folds": 2}


def noise(n: int, *, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(
        images=rng.integers(60, 140, (n, SIDE, SIDE), dtype=np.uint8),
        ids=np.array([f"i{k}" for k in range(n)]),
        patients=np.array([f"p{k // 2}" for k in range(n)]),
        labels=(np.arange(n) // 2 % 2).astype(np.int64),
    )


def marked(n: int, *, seed: int, at: tuple[int, int], share: float = 1.0) -> ImageSet:
    """A bright square at ``at`` in ``share`` of the pictures with label 1, and in as many others of the rest."""
    images = noise(n, seed=seed)
    assert images.labels is not None
    rng = np.random.default_rng(seed + 1)
    has = np.where(images.labels == 1, rng.random(n) < share, rng.random(n) < 1 - share)
    pixels = images.images.copy()
    pixels[has, at[0] : at[0] + 4, at[1] : at[1] + 4] = 250
    return replace(images, images=pixels)


def spotted(n: int, *, seed: int) -> ImageSet:
    """With label 1, a bright and a dark block in the middle, which leave mean and contrast as they are."""
    images = noise(n, seed=seed)
    assert images.labels is not None
    pixels, ill = images.images.copy(), images.labels == 1
    pixels[ill, 12:20, 12:16] = 123
    pixels[ill, 12:20, 16:20] = 77
    return replace(images, images=pixels)


@pytest.fixture(scope="module")
def by_marker() -> PneumoniaModel:
    """A network that knows nothing but a marker in the corner."""
    taught = marked(160, seed=10, at=(0, 0))
    return PneumoniaModel(**SMALL, finetune_steps=60).finetune(taught, taught.labels, groups=taught.patients)


@pytest.fixture(scope="module")
def by_middle() -> PneumoniaModel:
    """A network that knows a bright spot in the middle."""
    taught = spotted(240, seed=20)
    return PneumoniaModel(**SMALL, finetune_steps=150).finetune(taught, taught.labels, groups=taught.patients)


def test_a_marker_in_the_corner_is_found_and_where_there_is_none_nothing_is() -> None:
    found = {s.name: s for s in label_probes(marked(240, seed=0, at=(0, 0), share=0.9), shuffles=200)}
    for name in ("corners only", "borders only", "middle blanked"):
        assert found[name].suspicious, name
        assert found[name].found is not None
        assert found[name].found.auroc.low > 0.75
    assert found["size and aspect only"].found is None
    assert "not known" in found["size and aspect only"].note
    assert not found[WHOLE].suspicious
    assert not [s.name for s in label_probes(noise(240, seed=1), shuffles=200) if s.suspicious]
    # Blocks of one grey each show in the histogram, wherever they stand; nothing else may.
    assert {s.name for s in label_probes(spotted(240, seed=2), shuffles=200) if s.suspicious} <= {"grey values only"}


def test_the_size_of_the_files_gives_the_label_away() -> None:
    images = noise(200, seed=3)
    assert images.labels is not None
    rng = np.random.default_rng(0)
    wide = 1000 + 200 * images.labels + rng.integers(-50, 50, 200)
    sized = replace(images, sizes=np.stack([np.full(200, 1000), wide], axis=1))
    found = {s.name: s for s in label_probes(sized, shuffles=200)}["size and aspect only"]
    assert found.suspicious
    assert found.found is not None
    assert found.found.auroc.value > 0.95
    same = replace(images, sizes=np.full((200, 2), 1024))
    assert "one size (1024 x 1024" in {s.name: s for s in label_probes(same, shuffles=2)}["size and aspect only"].note


def test_a_model_that_reads_the_marker_loses_it_with_the_corners(
    by_marker: PneumoniaModel, by_middle: PneumoniaModel
) -> None:
    corner, middle = marked(100, seed=11, at=(0, 0)), spotted(100, seed=21)
    lost = {o.name: o for o in occlusions(by_marker, corner)}
    for o in lost.values():
        assert o.suspicious
        assert o.loss.value > 0.3
    assert lost["without the corners"].patches == 16
    assert lost["without the borders"].patches == 28
    assert not any(o.suspicious for o in occlusions(by_middle, middle))


def test_what_is_left_out_does_not_show_in_mean_and_contrast() -> None:
    plain, hidden = noise(4, seed=5).images, np.zeros((8, 8), dtype=bool)
    hidden[0, 0] = True
    bright = plain.copy()
    bright[:, :4, :4] = 255
    filled = neutral(bright, hidden.reshape(-1))
    np.testing.assert_array_equal(filled, neutral(plain, hidden.reshape(-1)))
    np.testing.assert_array_equal(filled[:, 4:], plain[:, 4:])
    shown = plain[:, np.kron(~hidden, np.ones((4, 4))).astype(bool)].astype(float)
    np.testing.assert_allclose(filled.mean(axis=(1, 2)), shown.mean(axis=1), atol=0.02)
    np.testing.assert_allclose(filled.std(axis=(1, 2)), shown.std(axis=1), atol=0.02)


def test_hidden_patches_by_hand(by_marker: PneumoniaModel) -> None:
    corners = hidden_patches(by_marker)["without the corners"].reshape(8, 8)
    assert corners[:2, :2].all()
    assert corners[6:, 6:].all()
    assert not corners[2:6].any()
    borders = hidden_patches(by_marker)["without the borders"].reshape(8, 8)
    assert borders[0].all()
    assert not borders[1:7, 1:7].any()


def test_what_features_know_of_people() -> None:
    rng = np.random.default_rng(4)
    sex = rng.choice(["F", "M"], 300)
    features = rng.normal(size=(300, 12)).astype(np.float32)
    features[:, 2] += 2 * (sex == "F")
    attributes = {"sex": sex, "view": rng.choice(["PA", "AP"], 300), "site": np.full(300, "one")}
    found = {s.name: s for s in representation_probes(features, attributes, np.arange(300).astype(str), shuffles=200)}
    assert found["sex"].suspicious
    assert not found["view"].suspicious
    assert found["site"].found is None
    assert "two values" in found["site"].note


def test_maps_of_a_model_that_looks_where_it_should(by_middle: PneumoniaModel) -> None:
    asked = spotted(60, seed=22)
    assert asked.labels is not None
    boxes = {str(asked.ids[k]): [Box(0.35, 0.35, 0.3, 0.3)] for k in np.flatnonzero(asked.labels == 1)}
    found = check_maps(by_middle, asked, boxes=boxes, pictures=20)
    assert found.pictures == found.compared == 20
    assert found.faithful.insertion_gain.low > 0
    assert abs(found.randomised.value) < 0.5
    assert found.boxes is not None
    assert found.boxes.pointing.value > 0.9
    assert found.boxes.mass_gain.low > 0
    assert found.boxes.pointing_gain.low > 0
    assert found.boxes.by_chance.value == pytest.approx(0.09, abs=0.03)
    # Both curves meet where everything is shown: at the first step of one and at the last of the other.
    assert found.faithful.deletion[0] == pytest.approx(found.faithful.insertion[-1], abs=1e-5)
    assert found.faithful.deletion[0] == pytest.approx(found.faithful.deletion_random[0], abs=1e-5)
    with pytest.raises(DataError, match="none of 1 pictures with boxes"):
        agreement(by_middle, asked, {"other": [Box(0, 0, 1, 1)]})
    with pytest.raises(DataError, match="in pixels, and the size of its original is not known"):
        agreement(by_middle, asked, {"i0": [Box(10, 10, 5, 5)]})


def test_boxes_by_hand(tmp_path: Path) -> None:
    np.testing.assert_allclose(coverage([Box(0.25, 0, 0.5, 0.5)], 2, 2), [[0.5, 0.5], [0, 0]])
    np.testing.assert_allclose(coverage([Box(0, 0, 1, 1), Box(0, 0, 0.1, 0.1)], 3, 2), np.ones((3, 2)))
    path = tmp_path / "b.csv"
    path.write_text("patientId,x,y,width,height,Target\na,1,2,3,4,1\na,5,6,7,8,1\nb,,,,,0\n")
    assert read_boxes(path) == {"a": [Box(1, 2, 3, 4), Box(5, 6, 7, 8)]}
    for text, message in (
        ("image_id,x\na,1\n", "expected the columns image_id, x, y, width, height; got image_id, x"),
        ("image_id,x,y,width,height\na,1,2,three,4\n", "line 2: expected four numbers"),
        ("image_id,x,y,width,height\na,1,2,0,4\n", "line 2: a box needs a place and a size"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_boxes(path)
    with pytest.raises(DataError, match="does not exist"):
        read_boxes(tmp_path / "no.csv")


def test_curves_and_ranks_by_hand() -> None:
    assert area([[0.0, 1.0], [1.0, 1.0]]).tolist() == [0.5, 1.0]
    assert area([[0.0, 1.0, 0.0]])[0] == pytest.approx(0.5)
    np.testing.assert_allclose(rank_correlation([[1, 2, 3], [1, 2, 3]], [[10, 20, 90], [3, 2, 1]]), [1, -1])
    assert np.isnan(rank_correlation([[1, 1, 1]], [[1, 2, 3]])[0])
    with pytest.raises(ValueError, match="one shape"):
        rank_correlation([[1, 2]], [[1, 2, 3]])


def test_shuffled_weights_are_the_same_numbers_elsewhere(by_middle: PneumoniaModel) -> None:
    before = by_middle.module_.backbone
    after = shuffled_weights(before, seed=1)
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        np.testing.assert_allclose(np.sort(a.detach().numpy().ravel()), np.sort(b.detach().numpy().ravel()))
    weight, other = before.encoder.blocks[0].qkv.weight, after.encoder.blocks[0].qkv.weight  # type: ignore[union-attr]
    assert not np.allclose(weight.detach().numpy(), other.detach().numpy())


def test_items_are_filled_as_far_as_is_known() -> None:
    asked = (
        Asked("1", "known", ("a",)), Asked("2", "half", ("a",), "who"), Asked("3", "nobody knows", (), "why"),
        Asked("4", "not known this time", ("b",)),
    )  # fmt: skip
    items = checklists.fill(asked, {"a": "Alpha."})
    assert [i.filled for i in items] == [True, False, False, False]
    assert items[0].text == "Alpha."
    assert items[1].text == "Alpha. OPEN: needs a person (who)."
    assert items[3].text == "OPEN: needs a person (not known here: b)."
    assert checklists.count(items) == (1, 3)


def test_the_lists_are_whole() -> None:
    assert [item.number for item in CLAIM] == [str(k) for k in range(1, 45)]
    assert len(TRIPOD_AI) == 52
    assert {int(re.sub(r"\D", "", item.number)) for item in TRIPOD_AI} == set(range(1, 28))
    for asked in (CARD, CLAIM, TRIPOD_AI):
        assert all(item.facts or item.missing for item in asked)


def write_labels(path: Path, archive: simulate.Simulated, wanted: Callable[[int], bool]) -> Path:
    with archive.labels.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if wanted(int(row["file"].split("/")[0]))]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "patient_id", "sex", "age"])
        for row in rows:
            number = int(row["file"].split("/")[0])
            writer.writerow([row["file"], row["label"], f"WARD-7-{number}", "FM"[number // 2 % 2], 20 + number])
    return path


@pytest.mark.integration
def test_from_files_to_a_page_with_nobody_named(
    archive: simulate.Simulated, phantoms: ImageSet, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = np.array([int(name.split("/")[0]) for name in phantoms.ids])
    people = np.array([f"WARD-7-{number}" for number in numbers])
    taught = replace(phantoms, patients=people).take(numbers % 2 == 0)
    settings = {"image_size": 32, "dim": 16, "depth": 1, "heads": 2, "folds": 2, "finetune_steps": 5}
    model = PneumoniaModel(**settings, pretrain_epochs=1).pretrain(taught.images)
    model.finetune(taught, taught.labels, groups=taught.patients)
    model.remember(taught.patients)
    model.provenance_ = {"pretraining_run": "run-a", "finetuning_run": "run-b"}
    model.save(in_tmp / "model")
    given = write_labels(in_tmp / "new.csv", archive, lambda number: number % 2 == 1)
    arguments = ["medical", "audit", str(archive.images), "--model", "model", "--labels", str(given)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", "audit", "--least", "5"])
    assert ended.value.code == 0
    assert "CLAIM (2024 update):" in capsys.readouterr().out
    html = (in_tmp / "audit" / "report.html").read_text(encoding="utf-8")
    for text in (
        "Who is served how well?", "underdiagnosis rate", "too few to say", "OPEN: needs a person", "TRIPOD+AI",
        "Could it be told without the lungs?", "What the features know before any label", "randomised network",
        "Not a medical device", "CLAIM (2024 update)", "lateral view",
        "ROC curve; the dot", "held-out sensitivity", "Precision against recall", "as trained", "Venn-Abers",
        "Decision curve", "Referring what is uncertain",
    ):  # fmt: skip
        assert text in html, text
    assert "http" not in re.sub(r"http-equiv|https?://www.w3.org\S*", "", html)  # nothing is fetched from elsewhere
    found = json.loads((in_tmp / "audit" / "audit.json").read_text(encoding="utf-8"))
    # Half of the patients taught: given labels of the others only, the taught ones' pictures have none here.
    files = sum(path.is_file() for path in archive.images.rglob("*"))
    assert sum(found["flow"].values()) == files
    assert found["flow"]["judged"] == int((numbers % 2 == 1).sum())
    assert found["flow"]["unlabelled"] == int((numbers % 2 == 0).sum())
    assert found["flow"]["skipped"] == files - len(phantoms)
    assert "refused or left out by the audit" in html
    sexes = {g["value"]: g for g in found["groups"] if g["attribute"] == "sex"}
    assert set(sexes) == {"F", "M"}
    assert sum(g["rows"] for g in sexes.values()) == int((numbers % 2 == 1).sum())
    assert {"age_band", "view", "sex"} <= {g["attribute"] for g in found["groups"]}
    total = found["checklists"]["CLAIM (2024 update)"]
    assert total["filled"] + total["open"] == 44
    assert total["filled"] > 10
    with (in_tmp / "audit" / "subgroups.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(found["groups"])
    everybody = next(row for row in rows if row["attribute"] == "all")
    assert float(everybody["AUROC"]) == pytest.approx(found["overall"]["AUROC"]["value"], abs=1e-6)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{in_tmp / 'mlflow.db'}")
    run = client.search_runs([client.get_experiment_by_name("unlabeled/medical").experiment_id])[0]
    assert run.data.tags["unlabeled.pretraining_run"] == "run-a"
    assert run.data.tags["unlabeled.model_run"] == "run-b"
    assert run.data.metrics["audit.AUROC"] == pytest.approx(found["overall"]["AUROC"]["value"])
    given.unlink()
    for path in in_tmp.rglob("*"):
        assert path.is_dir() or not re.search(rb"WARD-7|SIM-1-|Phantom\^", path.read_bytes()), path

    write_labels(in_tmp / "old.csv", archive, lambda number: True)
    with pytest.raises(GateError, match=r"learnt from the labels of \d+ patient"):
        job.audit(archive.images, model=in_tmp / "model", labels=in_tmp / "old.csv", out=in_tmp / "no")
    assert not (in_tmp / "no").exists()
    with pytest.raises(DataError, match="needs labels"):
        job.audit(archive.images, model=in_tmp / "model", out=in_tmp / "no")
