"""Labels find their pictures by whatever name people use, and those that do not are listed."""

from pathlib import Path

import numpy as np
import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, attach, read_labels
from unlabeled.medical.images import Skip


def images() -> ImageSet:
    return ImageSet(
        images=np.zeros((3, 16, 16), dtype=np.uint8),
        ids=np.array(["x/a.dcm", "x/b.dcm", "y/b.dcm"]),
        patients=np.array(["p", "q", "r"]),
        skipped=(Skip("x/c.dcm", "lateral view: LL"),),
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_ids_match_by_path_name_or_stem_and_the_rest_is_listed(tmp_path: Path) -> None:
    text = "file,label\na,pneumonia\nx/b.dcm,0\nb.dcm,1\nx/c.dcm,1\nz,0\n"
    found = attach(images(), read_labels(write(tmp_path / "l.csv", text)))
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, -1]
    assert found.skipped[1:] == (
        Skip("b.dcm", "label for an unknown id"),  # two pictures go by that name
        Skip("x/c.dcm", "label without a picture: the picture was skipped"),
        Skip("z", "label for an unknown id"),
    )


def test_patients_and_splits_of_the_table_win(tmp_path: Path) -> None:
    text = "image_id,pneumonia,patient_id,split\nx/a.dcm,yes,P7,train\nx/b.dcm,no,,test\n"
    found = attach(images(), read_labels(write(tmp_path / "l.csv", text)))
    assert list(found.patients) == ["P7", "q", "r"]
    assert found.splits is not None
    assert list(found.splits) == ["train", "test", ""]
    assert len(found.labelled()) == 2


def test_two_names_of_one_picture_may_not_contradict_each_other(tmp_path: Path) -> None:
    def given(text: str) -> ImageSet:
        return attach(images(), read_labels(write(tmp_path / "l.csv", text)))

    with pytest.raises(DataError, match=r"'x/a\.dcm' and 'a\.dcm' name the same picture and give it different labels"):
        given("file,label\nx/a.dcm,1\na.dcm,0\n")
    found = given("file,label\nx/a.dcm,1\na.dcm,1\n").labels
    assert found is not None
    assert list(found) == [1, -1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,finding\na,1\n", "has no label column"),
        ("name,label\na,1\n", "has no id column"),
        ("file,label\na,maybe\n", r"label 'maybe' of l.csv, line 2: expected 1/0"),
        ("file,label\na,1\na,0\n", "line 3: 'a' is there twice and not the same"),
        ("file,label\n", "has no rows"),
        ("", "not a readable CSV"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(write(tmp_path / "l.csv", text))


def test_labels_for_other_pictures_altogether_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 labels fits a picture: ids such as q; pictures such as x/a.dcm"):
        attach(images(), read_labels(write(tmp_path / "l.csv", "file,label\nq,1\n")))
    with pytest.raises(DataError, match="does not exist"):
        read_labels(tmp_path / "missing.csv")


def test_without_labels_there_is_nothing_labelled() -> None:
    with pytest.raises(DataError, match="no picture has a label"):
        images().labelled()


def test_the_table_of_chestxray14_is_read_as_it_is(tmp_path: Path) -> None:
    some = ImageSet(
        images=np.zeros((3, 16, 16), dtype=np.uint8),
        ids=np.array(["images/00000001_000.png", "images/00000001_001.png", "images/00000002_000.png"]),
        patients=np.array(["unknown-a", "unknown-b", "unknown-c"]),
    )
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    rows = (
        "00000001_000.png,Cardiomegaly|Pneumonia,0,1,58,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,No Finding,1,1,058Y,M,AP,2894,2729,0.143,0.143,",
        "00000002_000.png,Pleural_Thickening,0,2,7,F,PA,2500,2048,0.168,0.168,",
    )
    table = write(tmp_path / "Data_Entry_2017.csv", "\n".join([header, *rows, ""]))
    found = attach(some, read_labels(table))
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 0]
    assert list(found.patients) == ["1", "1", "2"]
    assert {name: list(values) for name, values in found.attributes.items()} == {
        "age_band": ["40 to 59", "40 to 59", "06 to 17"], "sex": ["M", "M", "F"], "view": ["PA", "AP", "PA"],
    }  # fmt: skip
    assert found.sizes is not None
    assert found.sizes[0].tolist() == [2749, 2682]
    thick = read_labels(table, finding="pleural thickening")
    assert [row.label for row in thick.values()] == [0, 0, 1]


CHEXPERT = """Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Pneumonia,Pleural Effusion
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,
CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,Male,7,Frontal,PA,,1.0,-1.0
CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Male,7,Lateral,,,1.0,-1.0
CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Unknown,8,Frontal,PA,,-1.0,0.0
"""


@pytest.mark.parametrize("root", ["CheXpert-v1.0-small/train/", "train/", "", "data/CheXpert-v1.0-small/train/"])
def test_the_table_of_chexpert_is_read_as_it_is(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = (
        "patient00001/study1/view1_frontal.jpg",
        "patient00002/study1/view1_frontal.jpg",
        "patient00002/study1/view2_lateral.jpg",
        "patient00002/study2/view1_frontal.jpg",
        "patient00003/study1/view1_frontal.jpg",
    )
    some = ImageSet(
        images=np.zeros((5, 16, 16), dtype=np.uint8),
        ids=np.array([f"{root}{name}" for name in names]),
        patients=np.array([f"unknown-{name}" for name in "abcde"]),
        attributes={"sex": np.array(["", "", "", "M", ""])},
    )
    found = attach(some, read_labels(write(tmp_path / "train.csv", CHEXPERT)))
    assert found.labels is not None
    assert found.labels.tolist() == [-1, 1, -1, -1, -1]  # of a film from the side nothing is learnt
    assert list(found.patients) == ["patient00001", *["patient00002"] * 3, "unknown-e"]
    assert not found.skipped
    assert list(found.attributes["view"]) == ["AP", "PA", "", "PA", ""]
    assert list(found.attributes["sex"]) == ["F", "M", "M", "M", ""]
    said = capsys.readouterr().err
    assert said.count("1 labels of pneumonia are -1, which is uncertain, and count as unknown") == 1
    assert "1 rows are of films taken from the side" in said
    effusion = read_labels(tmp_path / "train.csv", finding="pleural effusion")
    assert [row.label for row in effusion.values()] == [-1, -1, -1, 0]
    assert "2 labels of pleural effusion are -1" in capsys.readouterr().err


def test_a_path_that_goes_on_above_the_folder_is_taken_only_where_it_can_mean_no_other(tmp_path: Path) -> None:
    def skipped(ids: list[str], text: str) -> list[str]:
        some = ImageSet(images=np.zeros((2, 16, 16), dtype=np.uint8), ids=np.array(ids), patients=np.array(["p", "q"]))
        return [skip.source for skip in attach(some, read_labels(write(tmp_path / "l.csv", text))).skipped]

    # Folders of one name are in every part of such a set.
    assert skipped(["NORMAL/1.png", "NORMAL/2.png"], "file,label\nNORMAL/2.png,0\ntest/NORMAL/1.png,0\n") == [
        "test/NORMAL/1.png"
    ]
    # And here two patients' studies.
    rows = "file,label\nx/p1/s1/1.png,0\nx/p2/s1/1.png,1\n1/p1/s1/2.png,1\n"
    assert skipped(["p1/s1/2.png", "p1/s1/1.png"], rows) == ["x/p2/s1/1.png"]
    both = "file,label\nx/p1/s1/1.png,0\ny/p1/s1/1.png,1\nx/p1/s1/2.png,1\n"
    assert skipped(["p1/s1/2.png", "p1/s1/1.png"], both) == ["x/p1/s1/1.png", "y/p1/s1/1.png"]


def test_case_spaces_and_underscores_of_a_columns_name_do_not_matter(tmp_path: Path) -> None:
    text = "Image ID,LABEL,Patient_Id,AGE YEARS,Patient Sex\na,1,P7,30,f\n"
    found = attach(images(), read_labels(write(tmp_path / "l.csv", text)))
    assert found.patients[0] == "P7"
    assert found.attributes["sex"][0] == "F"
    assert found.attributes["age_band"][0] == "18 to 39"
