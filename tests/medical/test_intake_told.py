"""What a hospital's table says of people and devices follows its pictures to the store, in words that name nobody."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from films import film, rows
from pydicom.dataset import FileDataset

from unlabeled.core.errors import DataError
from unlabeled.medical import intake, read_images
from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical.attributes import BANDS, OLDEST
from unlabeled.medical.intake._told import Told
from unlabeled.medical.splits import site_folds
from unlabeled.pipelines.cli import main

Save = Callable[[FileDataset, Path], Path]
TakeIn = Callable[..., intake.Intake]
# Frontal by how its rows run, so that a film without a view is kept.
STRIPPED = {"ViewPosition": None, "Manufacturer": None, "PatientOrientation": ["L", "F"]}
TAGGED = {
    "PatientAge": "067Y", "PatientSex": "F", "Manufacturer": "SIEMENS", "ManufacturerModelName": "Ysio Max",
    "InstitutionName": "North Hospital",
}  # fmt: skip


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def known(done: intake.Intake) -> dict[str, dict[str, str]]:
    """What pictures that are read from the store are known for, by the file that they were."""
    images = read_images(done.store, size=32)
    path_of = {row["instance"]: row["path"].removesuffix(".dcm") for row in rows(done.names)}
    found: dict[str, dict[str, str]] = {path_of[str(name)]: {} for name in images.ids}
    for attribute, values in images.attributes.items():
        for name, value in zip(images.ids, values, strict=True):
            found[path_of[str(name)]][attribute] = str(value)
    return found


def test_films_whose_tags_say_nothing_are_known_by_the_columns_of_the_labels(
    hospital: Path, take: TakeIn, labels: Path, save: Save
) -> None:
    for seed in range(4):
        save(film(seed, **STRIPPED), hospital / f"f{seed}.dcm")
    save(film(9, **{**STRIPPED, **TAGGED}), hospital / "tagged.dcm")
    write(
        labels, "file,label,Age,Gender,View Position,device,hospital",
        "f0,1,67,female,pa,Siemens Ysio Max,north  HOSPITAL",
        "f1,0,004Y,M,AP,Philips Healthcare,South",
        "f2,,81.5,other,,Bucky 2,South",  # without a label, and known all the same
    )  # fmt: skip
    done = take(labels=labels)
    found = known(done)
    # Whoever is named alike by a file and by the table is one group of the audit.
    assert found["f0"] == {**found["tagged"], "view": "PA"}
    assert found["tagged"]["device"].startswith("DX Siemens M-")
    assert found["tagged"]["site"].startswith("S-")
    south = found["f1"]["site"]
    assert found["f1"] == {"age_band": "02 to 05", "sex": "M", "view": "AP", "device": "DX Philips", "site": south}
    assert found["f2"] == {**found["f2"], "age_band": "80 and more", "sex": "O", "view": "", "site": south}
    assert found["f2"]["device"].startswith("DX M-")
    assert found["f3"] == {"age_band": "", "sex": "", "view": "", "device": "DX", "site": ""}
    assert south not in ("", found["f0"]["site"])
    assert len(set(site_folds(read_images(done.store, size=32).labelled())[0])) == 2
    told = done.manifest["attributes"]
    assert {name: (one["column"], one["films"]) for name, one in told.items()} == {
        "age_band": ("Age", 3), "sex": ("Gender", 3), "view": ("View Position", 2), "device": ("device", 3),
        "site": ("hospital", 3),
    }  # fmt: skip
    assert not any(one[why] for one in told.values() for why in one if why not in ("column", "films"))
    # Ages that only the table knows are kept in the way that the manifest declares.
    assert "113108" in done.manifest["deidentification"]["methods"]


def test_the_table_wins_over_the_tags_and_what_differs_is_counted(
    hospital: Path, take: TakeIn, labels: Path, save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        save(film(seed, **TAGGED), hospital / f"f{seed}.dcm")
    write(
        labels, "file,label,age,sex,view,manufacturer,site",
        "f0,1,30,M,AP,GE,South", "f1,0,61,f,PA,Siemens,North Hospital", "f2,0,,,,,",
    )  # fmt: skip
    found = known(done := take(labels=labels))
    assert found["f0"] | {"site": ""} == {
        "age_band": "18 to 39", "sex": "M", "view": "AP", "device": "DX GE", "site": ""
    }  # fmt: skip
    assert found["f0"]["site"] != found["f2"]["site"]
    # The table says the same of it, in less detail.
    assert found["f1"] == found["f2"]
    told = done.manifest["attributes"]
    assert {name: (one["films"], one["unlike the file"]) for name, one in told.items()} == dict.fromkeys(told, (2, 1))
    assert len(told) == 5
    assert "sex of 2 films from the labels' sex; of 1 of them the tags say something else" in capfd.readouterr().err


def test_a_table_that_contradicts_itself_is_not_followed_and_that_is_counted(
    hospital: Path, take: TakeIn, labels: Path, save: Save
) -> None:
    save(film(0, **{**TAGGED, "AccessionNumber": "A0"}), hospital / "f0.dcm")
    write(labels, "file,accession,label,age,sex", "f0,,1,45,F", ",A0,1,47,M")
    done = take(labels=labels)
    assert (known(done)["f0"]["age_band"], known(done)["f0"]["sex"]) == ("40 to 59", "F")
    told = done.manifest["attributes"]
    assert (told["sex"]["films"], told["sex"]["table disagrees"]) == (0, 1)
    assert (told["age_band"]["films"], told["age_band"]["table disagrees"]) == (1, 0)  # one band


def test_what_is_not_understood_is_said_by_line_and_the_tags_stand(
    hospital: Path, take: TakeIn, labels: Path, save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    save(film(0, **TAGGED), hospital / "f0.dcm")
    save(film(1, **TAGGED), hospital / "f1.dcm")
    write(
        labels, "file,label,age,sex,view,device",
        "f0,1,1957-03-14,Mustermann,frontal,SN 4711081512", "f1,0,unknown,N/A,,-",
    )  # fmt: skip
    done = take(labels=labels)
    found = known(done)
    assert found["f0"] == found["f1"]
    assert found["f0"]["age_band"] == "60 to 79"
    told = done.manifest["attributes"]
    assert {name: (one["films"], one["cells not understood"]) for name, one in told.items()} == dict.fromkeys(
        ("age_band", "sex", "view", "device"), (0, 1)
    )
    said = capfd.readouterr().err
    assert (
        "labels, sex: what stands in line(s) 2 (1 cells) is not understood and left aside; expected F, M or other"
        in said
    )
    assert not any(cell in said for cell in ("Muster", "1957", "4711"))


def test_rows_of_no_film_or_of_refused_and_ambiguous_ones_change_nothing(
    hospital: Path, take: TakeIn, labels: Path, save: Save
) -> None:
    save(film(0, **STRIPPED), hospital / "f0.dcm")
    save(film(1, ViewPosition="LL"), hospital / "side.dcm")
    for place in "xy":
        save(film(2 + ord(place), **STRIPPED), hospital / place / "same.dcm")
    write(labels, "file,label,sex", "f0,1,", "nobody,1,F", "side,0,F", "same,0,M")
    done = take(labels=labels)
    assert all(one.get("sex", "") == "" for one in known(done).values())
    assert done.manifest["attributes"]["sex"]["films"] == 0


def test_what_is_said_of_a_copy_holds_for_the_file_that_is_kept(
    hospital: Path, take: TakeIn, labels: Path, save: Save
) -> None:
    for name in "ab":
        save(film(1, **STRIPPED, SOPInstanceUID="1.6.1"), hospital / f"{name}.dcm")
    write(labels, "file,label,sex,age", "a,1,F,", "b,1,,50")
    (one,) = known(take(labels=labels)).values()
    assert (one["sex"], one["age_band"]) == ("F", "40 to 59")


def test_a_site_that_is_given_for_all_wins_and_that_is_said(
    hospital: Path, take: TakeIn, labels: Path, save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    save(film(0, **STRIPPED), hospital / "f0.dcm")
    done = take(labels=write(labels, "file,label,site", "f0,1,South"), site="North")
    assert known(done)["f0"]["site"] == "North"
    assert "for 1 left aside, because --site says it of all" in capfd.readouterr().err


def test_a_mended_table_goes_on_from_what_was_read_and_another_one_needs_another_store(
    hospital: Path, take: TakeIn, labels: Path, save: Save, tmp_path: Path
) -> None:
    for seed in range(2):
        save(film(seed, **STRIPPED), hospital / f"f{seed}.dcm")
    with pytest.raises(DataError, match="none of 1 rows"):
        take(labels=write(labels, "file,label,sex", "nobody,1,F"))
    work = tmp_path / ".store.intake"
    before = {path.name: path.stat().st_mtime_ns for path in work.glob("*.npz")}
    with pytest.raises(DataError, match="none of 1 rows"):
        take(labels=write(labels, "file,label,sex", "no one,1,F"))
    assert before == {path.name: path.stat().st_mtime_ns for path in work.glob("*.npz")} != {}
    mended = write(labels, "file,label,sex", "f0,1,F")
    assert known(take(labels=mended))["f0"]["sex"] == "F"
    assert take(labels=mended).manifest["attributes"]["sex"]["films"] == 1  # done before
    with pytest.raises(DataError, match="a complete store of other files, labels or settings"):
        take(labels=write(labels, "file,label,sex", "f0,1,M"))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")  # MLflow warns
def test_nothing_that_identifies_gets_from_the_columns_to_the_store(
    hospital: Path, in_tmp: Path, save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    save(film(0, **STRIPPED), hospital / "f0.dcm")
    save(film(1, **STRIPPED), hospital / "f1.dcm")
    table = write(
        in_tmp / "ward.csv", "file,label,age,age_group,sex,view,device,site",
        "f0,1,67.25,ZQ00001X,ZQ00002X,ZQ00003X,Siemens Dr ZQ00004X,St. ZQ00005X",
        "f1,0,ZQ00006X,66-68,F,PA,ZQ00007X,ZQ00008X",
    )  # fmt: skip
    out = in_tmp / "out" / "store"
    command = ["medical", "intake", str(hospital), "--out", str(out), "--labels", str(table), "--json", "--ledger"]
    command += [str(in_tmp / "private" / "ledger.csv"), "--site-key", str(in_tmp / "private" / "site.key")]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    said = capfd.readouterr()
    told = json.loads(said.out)
    assert told["attributes"]["site"]["films"] == told["attributes"]["device"]["films"] == 2
    public = [path for folder in (out.parent, in_tmp / "mlartifacts") for path in folder.rglob("*") if path.is_file()]
    public += list(in_tmp.glob("mlflow.db*"))
    assert {path.name for path in public} >= {"studies.parquet", "studies.csv", "manifest.json", "mlflow.db"}
    for content in [path.read_bytes() for path in public] + [(said.out + said.err).encode()]:
        assert b"ZQ0000" not in content.upper()
        assert b"67.25" not in content
        assert b"66-68" not in content
    studies = pd.read_parquet(out / "studies.parquet")
    assert b"zq0000" not in studies.to_csv().lower().encode()
    assert set(studies["age_band"]) == {"60 to 79"}
    assert studies["device"].str.fullmatch(r"DX (Siemens )?M-[0-9A-F]{8}").all()
    assert studies["site"].str.fullmatch(r"S-[0-9A-F]{8}").all()


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        *(("age_band", name, name) for _, name in (*BANDS, OLDEST)),
        ("age_group", "18-39", "18 to 39"), ("age_group", "50 - 59", "40 to 59"), ("age_group", "80+", "80 and more"),
        ("age_group", ">=80", "80 and more"), ("age_group", "85\u201390", "80 and more"), ("age_group", "0-20", None),
        ("age_group", "60+", None), ("age_group", "3", None), ("age_group", "59-50", None), ("age", "0", "00 to 01"),
        ("age", "000Y", None), ("age", "131", None), ("age", "006M", "00 to 01"), ("age", "nan", None),
        ("view", "lateral", "LATERAL"), ("view", "AP supine", None), ("sex", "w", "F"), ("sex", "2", None),
        ("device", "Konica Minolta", "Konica Minolta"), ("manufacturer", "Dr. Nobody & Sons", "other maker"),
        ("device", "Siemens 12345678", "Siemens"), ("device", "the one of A-4711", None),
    ],
)  # fmt: skip
def test_cells_by_hand(column: str, cell: str, expected: str | None) -> None:
    told = Told([column], Pseudonyms(bytes(32)))
    said = told.read({column: cell}, line=2, named="A-4711")
    assert list(said.values()) == ([] if expected is None else [expected])


def test_columns_that_speak_of_one_thing_together() -> None:
    stand_in = Pseudonyms(bytes(32))

    def read(**cells: str) -> dict[str, str]:
        return Told(list(cells), stand_in).read(cells, line=2, named="f0")

    assert read(age="45", age_band="60-79") == {"age_band": "60 to 79"}  # as where no store is made
    assert read(age="45", age_band="old") == {"age_band": "40 to 59"}
    assert read(sex="F", gender="female") == {"sex": "F"}
    assert read(sex="F", gender="M") == {"sex": ""}
    whole = read(device="Siemens Ysio Max")
    assert read(scanner="Ysio Max", manufacturer="SIEMENS AG") == whole
    assert read(manufacturer="Siemens", device="Siemens Ysio Max") == whole
