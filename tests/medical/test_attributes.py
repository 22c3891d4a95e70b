"""Age, sex, view, device and site: from tags and tables, banded, and carried along with the pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, attach, read_images, read_labels
from unlabeled.medical.attributes import age_band, declared

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def picture(seed: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_bands_by_hand() -> None:
    ages = {"001Y": "00 to 01", "024M": "02 to 05", "23M": "00 to 01", "006Y": "06 to 17", "017Y": "06 to 17"}
    ages |= {"018Y": "18 to 39", "40": "40 to 59", "79.9": "60 to 79", "080Y": "80 and more", "104W": "00 to 01"}
    assert {age: age_band(age) for age in ages} == ages
    assert [age_band(a) for a in (None, "", "nan", float("nan"), "unknown", -1, 411, "Y")] == [""] * 8


def test_tags_are_banded_at_reading(make_dicom: Any, save: Any, tmp_path: Path) -> None:
    stored = np.arange(32 * 24).reshape(32, 24)
    save(
        make_dicom(stored, PatientAge="067Y", PatientSex="F", Manufacturer="Maker", ManufacturerModelName="DR 1",
                   InstitutionName="St. Nobody"),
        tmp_path / "a.dcm",
    )  # fmt: skip
    save(
        make_dicom(stored + 1, PatientID="other", PatientBirthDate="20140602", StudyDate="20200601", ViewPosition="AP"),
        tmp_path / "b.dcm",
    )
    images = read_images(tmp_path, size=16)
    assert images.attributes["age_band"].tolist() == [
        "60 to 79",
        "02 to 05",
    ]  # a day before turning six
    assert images.attributes["sex"].tolist() == ["F", ""]
    assert images.attributes["view"].tolist() == ["PA", "AP"]
    maker, model = images.attributes["device"][0].rsplit(" ", 1)
    assert maker == "other maker"  # what is on no list may be anything
    assert model.startswith("M-")
    assert images.attributes["device"][1] == ""
    site = images.attributes["site"][0]
    assert site.startswith("S-")
    assert "Nobody" not in str(images.attributes)
    assert images.sizes is not None
    assert images.sizes.tolist() == [[32, 24], [32, 24]]
    second = images.take([1])
    assert second.attributes["view"].tolist() == ["AP"]
    assert second.take(np.array([False])).attributes["sex"].tolist() == []


def test_columns_of_the_labels_fill_in_and_win(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(picture(ord(name))).save(tmp_path / f"{name}.png")
    table = tmp_path.with_suffix(".csv")
    table.write_text("file,label,Age,gender,view,orig_width,orig_height\na,1,45,female,pa,100,200\nb,0,,m,,,\n")
    images = attach(read_images(tmp_path, size=16), read_labels(table))
    assert images.attributes["age_band"].tolist() == ["40 to 59", "", ""]
    assert images.attributes["sex"].tolist() == ["F", "M", ""]
    assert images.attributes["view"].tolist() == ["PA", "", ""]
    assert images.sizes is not None
    assert images.sizes.tolist() == [[200, 100], [40, 60], [40, 60]]
    assert images.labelled().attributes["sex"].tolist() == ["F", "M"]
    table.write_text("file,label,orig_width\na,1,wide\n")
    with pytest.raises(DataError, match="expected a number of pixels, got 'wide'"):
        attach(read_images(tmp_path, size=16), read_labels(table))


def test_columns_of_a_table_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = []
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / "p.png")
        rows.append({"image_id": f"i{number}", "png": (tmp_path / "p.png").read_bytes(), "label": number % 2})
    pd.DataFrame(rows).assign(sex=["M", None, "F"], age=[3, 30, None], site=["north", "south", "south"]).to_parquet(
        path
    )
    images = read_images(path, size=16)
    assert images.attributes["sex"].tolist() == ["M", "", "F"]
    assert images.attributes["age_band"].tolist() == ["02 to 05", "18 to 39", ""]
    assert images.attributes["site"].tolist() == ["north", "south", "south"]
    np.savez(tmp_path / "t.npz", images=np.stack([picture(i, (16, 16)) for i in range(3)]), sex=["F", "M", "F"])
    assert read_images(tmp_path / "t.npz", size=16).attributes["sex"].tolist() == ["F", "M", "F"]


@pytest.mark.parametrize(
    ("ages", "views", "said"),
    [
        (["00 to 01", "06 to 17", "18 to 39"], ["AP", "AP", "PA"], "1 PA, 2 AP (mixed); 2 children, 1 adults (mixed)"),
        (["0-9", "10-19", "90+"], ["PA", "PA", ""], "2 PA, 1 of unknown view; 1 children, 1 adults, 1 from 10 to 19"),
        (
            ["<18", "0-20", "15-24"],
            ["AP SUPINE", "", ""],
            "1 of another view, 2 of unknown view; the age of none is known",
        ),
        (["100-109", "40-49", "90+"], ["", "", ""], "the view of none is known; 3 adults"),
        (["18 to 39", "80 and more", ""], ["", "", ""], "the view of none is known; 2 adults, 1 of unknown age"),
    ],
)
def test_children_and_adults_and_both_views_are_declared(ages: list[str], views: list[str], said: str) -> None:
    some = ImageSet(
        images=np.zeros((3, 4, 4), dtype=np.uint8), ids=np.array(list("abc")), patients=np.array(list("pqr")),
        attributes={"age_band": np.array(ages), "view": np.array(views)},
    )  # fmt: skip
    assert said in declared(some)
    assert declared(replace(some, attributes={})).endswith("the view of none is known; the age of none is known")
