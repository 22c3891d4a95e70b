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
