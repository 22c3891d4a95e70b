"""From a hospital's folder to a store: every file accounted for, and fit for the other commands."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from films import attenuation, by_name, film, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread, dcmwrite
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from unlabeled.core import fingerprint
from unlabeled.core.errors import DataError
from unlabeled.core.store import Store
from unlabeled.medical import PneumoniaModel, intake, read_images
from unlabeled.medical import _planning as planning
from unlabeled.medical.intake.reasons import FLAGS, REFUSALS

Make = Callable[..., FileDataset]
Save = Callable[[FileDataset, Path], Path]
TakeIn = Callable[..., intake.Intake]


def check_sums(done: intake.Intake, found: int) -> None:
    told, gate, studies = done.manifest, rows(done.store / "gate.csv"), rows(done.store / "studies.csv")
    assert told["found"] == found == len(gate) == told["kept"] + told["flagged"] + told["refused"]
    assert Counter(row["state"] for row in gate) == Counter(
        {state: told[state] for state in ("kept", "flagged", "refused") if told[state]}
    )
    assert sum(told["refusals"].values()) == told["refused"]
    assert {row["reason"] for row in gate} <= {"", *REFUSALS}
    assert {flag for row in gate for flag in row["flags"].split(";")} <= {"", *FLAGS}
    assert all(bool(row["reason"]) == (row["state"] == "refused") for row in gate)
    assert all(bool(row["flags"]) == (row["state"] == "flagged") for row in gate)
    kept = [row["instance"] for row in gate if row["state"] != "refused"]
    assert [row["instance"] for row in studies] == kept
    assert len(set(kept)) == len(kept) == len(Store(done.store / "pictures.npy")) == told["pictures"]["rows"]
    for name in ("gate", "studies"):
        written = pd.read_parquet(done.store / f"{name}.parquet")
        assert written.astype(str).to_dict("records") == rows(done.store / f"{name}.csv")


def refused_files(hospital: Path, make: Make, save: Save) -> dict[str, str]:
    """One file a reason: path -> reason."""
    body = (attenuation(50) * 3000).astype(int)

    def put(name: str, file: FileDataset) -> None:
        with config.disable_value_validation():
            save(file, hospital / name)

    put("lateral", film(1, ViewPosition="LL"))
    put("ct", film(2, Modality="CT"))
    put("hand", film(3, BodyPartExamined="HAND"))
    put("nowhere", film(4, BodyPartExamined=None))
    put("askew", film(5, ViewPosition=None))
    put("cine", make(np.stack([body, body]), NumberOfFrames=2))
    put("colour", make(body, PhotometricInterpretation="PALETTE COLOR"))
    put("four", make(body, BitsAllocated=32, BitsStored=32, HighBit=31))
    put("deep", make(body + 0x2000, BitsStored=12))
    put("grey", make(np.full((96, 96), 7)))
    put("white", make(np.where(np.arange(96)[:, None] < 30, body, 4095), WindowCenter=2048, WindowWidth=4095))
    put("tiny", make(body[:12, :12]))
    put("stamped", make(np.add.outer(np.arange(96), np.arange(96)), BurnedInAnnotation="YES"))
    put("nameless", make(body, SOPInstanceUID=None))
    put("window", film(7, WindowCenter=5, WindowWidth=-3))
    put("report", film(8, PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"))
    cut = film(9)
    put("cut", cut)
    whole = (hospital / "cut").read_bytes()
    (hospital / "cut").write_bytes(whole[: len(whole) // 2])
    squeezed = film(10)
    squeezed.compress(JPEG2000Lossless, generate_instance_uid=False)
    put("scratched", squeezed)
    content = bytearray((hospital / "scratched").read_bytes())
    start = content.index(b"\xff\x4f\xff\x51")
    content[start : start + 40] = b"\0" * 40
    (hospital / "scratched").write_bytes(content)
    unknown = film(11)
    unknown.file_meta.TransferSyntaxUID, unknown.PixelData = MPEG2MPML, encapsulate([b"\xff\xd8"])
    put("undecodable", unknown)
    (hospital / "empty").touch()
    (hospital / "letter.dcm").write_text("Dear colleague", encoding="utf-8")
    with (hospital / "huge").open("wb") as stream:  # sparse: takes no room
        stream.write(whole[:140])
        stream.truncate((2 << 30) + 1)
    os.mkfifo(hospital / "pipe")
    (hospital / "dangling").symlink_to(hospital / "nothing")
    (hospital / "elsewhere").symlink_to(hospital.parent, target_is_directory=True)
    return {
        "lateral": "lateral view", "ct": "not a radiograph", "hand": "not a chest", "nowhere": "body part unknown",
        "askew": "view unknown", "cine": "multi-frame", "colour": "not greyscale", "four": "bit depth",
        "deep": "stored range", "grey": "empty", "white": "saturated", "tiny": "too small",
        "stamped": "burned-in text", "nameless": "no instance UID", "window": "unusable window or LUT",
        "report": "not an image", "cut": "truncated", "scratched": "damaged pixels", "undecodable": "no decoder",
        "empty": "empty file", "letter.dcm": "not DICOM", "huge": "too large", "pipe": "unreadable",
        "dangling": "unreadable", "elsewhere": "link to a folder",
    }  # fmt: skip


def test_each_reason_is_given_to_the_file_that_deserves_it(
    hospital: Path, take: TakeIn, make_dicom: Make, save: Save
) -> None:
    expected = refused_files(hospital, make_dicom, save)
    save(film(20), hospital / "sub" / "folder" / "IM0001")
    (hospital / "sub" / "DICOMDIR").write_bytes((hospital / "report").read_bytes())
    done = take()
    assert {name: row["reason"] for name, row in by_name(done).items()} == expected | {
        "sub/folder/IM0001": "", "sub/DICOMDIR": "not an image",
    }  # fmt: skip
    check_sums(done, len(expected) + 2)
    assert by_name(done)["lateral"]["detail"] == "ViewPosition LL"
    assert by_name(done)["huge"]["detail"] == f"{(2 << 30) + 1} bytes"


KINDS = ("film", "again", "lateral", "text", "nobody", "same study", "other patient", "negative")


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=40))
def test_whatever_lies_in_the_folder_the_summary_adds_up(
    kinds: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("mixture")
    (root / "hospital").mkdir()
    for number, kind in enumerate(kinds):
        tags: dict[str, object] = {
            "lateral": {"ViewPosition": "LL"},
            "nobody": {"PatientID": ""},
            "same study": {"StudyInstanceUID": "1.2.3"},
            "other patient": {"PatientID": f"Q{number}"},
        }.get(kind, {})
        seed = 0 if kind in ("again", "other patient") else number
        if kind == "text":
            (root / "hospital" / str(number)).write_text("nothing")
            continue
        file = film(seed, inverted=kind == "negative", **tags)
        if kind == "negative":
            file.PhotometricInterpretation = "MONOCHROME2"
        file.save_as(root / "hospital" / str(number), enforce_file_format=True)
    done = intake.take_in(
        root / "hospital", store=root / "store", key=root / "key", ledger=root / "ledger.csv", size=32, workers=1
    )
    check_sums(done, len(kinds))
    shutil.rmtree(root)


def test_institutions_have_stand_ins_by_which_folds_can_go(hospital: Path, take: TakeIn, save: Save) -> None:
    names = ["St. Elsewhere", "ST.  ELSEWHERE", "County General", None, "County General"]
    for seed, name in enumerate(names):
        save(film(seed, **({"InstitutionName": name} if name else {})), hospital / f"{seed}")
    done = take()
    rows_of = by_name(done)
    studies = {row["instance"]: row["site"] for row in rows(done.store / "studies.csv")}
    one, same, two, none, again = (studies[rows_of[str(seed)]["instance"]] for seed in range(5))
    assert one == same != two == again
    assert none == ""
    assert one.startswith("S-")
    for path in done.store.rglob("*"):
        assert not path.is_file() or b"lsewhere" not in path.read_bytes()
    assert sorted(set(read_images(done.store, size=48).attributes["site"])) == sorted({"", one, two})


def test_the_store_holds_the_pictures_and_opens_as_one(hospital: Path, take: TakeIn, save: Save) -> None:
    for seed in (0, 1, 2, 4, 5):
        save(film(seed), hospital / f"{seed}")
    done = take(site="North")
    store = Store(done.store / "pictures.npy")
    assert (store.shape, store.dtype) == ((5, 48, 48), np.uint8)
    assert done.manifest["pictures"]["fingerprint"] == fingerprint.of_array(store)
    images = read_images(done.store, size=48)
    np.testing.assert_array_equal(images.images, store[:])
    batches, _ = planning.pretraining(PneumoniaModel(image_size=48), images.images)
    assert isinstance(batches.arrays[0], Store)  # read row by row: a mapped file would fill the memory
    # The readers' own way, for films without borders or marks, whose sides are equal.
    direct = read_images(hospital, size=48)
    assert by_name(done).keys() == set(direct.ids)
    order = [list(images.ids).index(by_name(done)[name]["instance"]) for name in direct.ids]
    apart = np.abs(images.images[order].astype(int) - direct.images)
    assert apart.max() <= 1
    assert len(set(images.patients)) == 5
    assert set(images.attributes["site"]) == {"North"}
    assert set(images.attributes["view"]) == {"PA"}
    assert images.sizes is not None
    assert images.sizes.tolist() == [[96, 96]] * 5
    assert read_images(done.store, size=24).images.shape == (5, 24, 24)
    with pytest.raises(DataError, match="holds pictures of 48 pixels, 64 were asked for"):
        read_images(done.store, size=64)


def test_exact_and_near_duplicates_and_negatives_are_found(hospital: Path, take: TakeIn, save: Save) -> None:
    for seed in range(8):
        save(film(seed), hospital / f"{seed}")
    save(film(1, patient="P1", SOPInstanceUID="1.2.3.4"), hospital / "copy")
    save(film(2, patient="somebody else", SOPInstanceUID="1.2.3.5"), hospital / "stranger")
    save(film(3, SOPInstanceUID="1.2.3.6", WindowCenter=1500, WindowWidth=2600), hospital / "windowed")
    negative = film(6, SOPInstanceUID="1.2.3.7", PatientID="P60", StudyInstanceUID="1.2.9")
    negative.PhotometricInterpretation = "MONOCHROME1"
    negative.PixelData = film(60).PixelData
    save(negative, hospital / "negative")
    save(film(61, PatientID=None), hospital / "nobody")
    done = take()
    check_sums(done, 13)
    gate = by_name(done)
    instance = {name: row["instance"] for name, row in gate.items()}
    # Which of two equal files comes first is a matter of their digests.
    for one, other, detail in (("1", "copy", ""), ("2", "stranger", "under another patient id")):
        kept, refused = sorted((one, other), key=lambda name: gate[name]["state"] == "refused")
        assert (gate[refused]["reason"], gate[refused]["detail"]) == ("exact duplicate", detail)
        assert gate[refused]["like"] == instance[kept]
        assert gate[kept]["flags"] == ("another patient" if detail else "")
    pair = {name: gate[name]["reason"] or gate[name]["flags"] for name in ("3", "windowed")}
    assert sorted(pair.values()) == ["", "exact duplicate"]  # the same stored pixels, whatever their window
    assert gate["negative"]["flags"] == "inverted"
    assert gate["nobody"]["flags"] == "no patient"


def test_one_picture_in_any_transfer_syntax_is_one_picture(hospital: Path, take: TakeIn) -> None:
    syntaxes = {
        "plain": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "big": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian, "rle": RLELossless, "j2k": JPEG2000Lossless,
        "jls": JPEGLSLossless,
    }  # fmt: skip
    for number, (name, syntax) in enumerate(syntaxes.items()):
        file = film(0, SOPInstanceUID=f"1.2.{number}")
        if syntax.is_compressed:
            file.compress(syntax, generate_instance_uid=False)
        if syntax == ExplicitVRBigEndian:
            file.PixelData = np.frombuffer(file.PixelData, "<u2").astype(">u2").tobytes()
        file.file_meta.TransferSyntaxUID = syntax
        form = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
        dcmwrite(hospital / name, file, force_encoding=True, **form)
    done = take()
    assert done.manifest["refusals"] == {"exact duplicate": len(syntaxes) - 1}


def test_a_film_with_some_noise_is_a_near_duplicate(hospital: Path, take: TakeIn, save: Save) -> None:
    for seed in range(6):
        save(film(seed), hospital / f"{seed}")
    again = film(2, SOPInstanceUID="1.2.3.4")
    noisy = again.pixel_array + np.random.default_rng(0).integers(-15, 16, again.pixel_array.shape)
    again.PixelData = noisy.clip(0, 4095).astype("<u2").tobytes()
    save(again, hospital / "again")
    done = take()
    gate = by_name(done)
    flagged = {name for name, row in gate.items() if row["flags"] == "near duplicate"}
    assert len(flagged) == 1
    assert flagged < {"2", "again"}
    (other,) = {"2", "again"} - flagged
    assert gate[flagged.pop()]["like"] == gate[other]["instance"]


def test_a_study_under_two_patients_and_an_instance_with_two_pictures_are_refused(
    hospital: Path, take: TakeIn, save: Save
) -> None:
    study = {"StudyInstanceUID": "1.2.3"}
    save(film(1, **study), hospital / "one")
    save(film(2, **study), hospital / "two")
    save(film(3, patient="P1", **study, ViewPosition="LL"), hospital / "side")
    save(film(4, SOPInstanceUID="1.9"), hospital / "four")
    save(film(5, SOPInstanceUID="1.9"), hospital / "five")
    done = take()
    check_sums(done, 5)
    reasons = {name: row["reason"] for name, row in by_name(done).items()}
    assert reasons["one"] == reasons["two"] == "two patients in a study"
    assert reasons["side"] == "lateral view"
    assert sorted([reasons["four"], reasons["five"]]) == ["", "repeated instance UID"]


def test_signed_eight_bit_and_overlaid_files_are_read(
    hospital: Path, take: TakeIn, make_dicom: Make, save: Save
) -> None:
    body = (attenuation(0) * 3000).astype(int)
    plain = make_dicom(body)
    signed = make_dicom(body - 1500, PixelRepresentation=1)
    eight = make_dicom(body, BitsAllocated=8, BitsStored=8, HighBit=7)
    eight.PixelData = (body >> 4).astype(np.uint8).tobytes()
    overlaid = make_dicom(body | 0x4000 * (body % 3 == 0))
    overlaid.add_new(0x60000102, "US", 14)
    for name, file in {"plain": plain, "signed": signed, "eight": eight, "overlaid": overlaid}.items():
        file.StudyInstanceUID = file.SOPInstanceUID
        save(file, hospital / name)
    gate = by_name(take())
    states = {name: row["reason"] or row["flags"] for name, row in gate.items()}
    # An overlay in unused bits is cleared, so that the pixels are those of the plain one.
    assert [states.pop("plain"), states.pop("overlaid")].count("exact duplicate") == 1
    assert set(states.values()) <= {"", "near duplicate"}


def test_de_identified_files_stand_beside_the_pictures_when_asked_for(hospital: Path, take: TakeIn, save: Save) -> None:
    save(film(1, StudyDate="20190817", PatientBirthDate="19570314"), hospital / "a")
    save(film(1, SOPInstanceUID="1.2.3"), hospital / "b")
    save(film(2, ViewPosition="LL"), hospital / "c")
    done = take(dicom=True)
    (kept,) = rows(done.store / "studies.csv")
    (path,) = (done.store / "dicom").iterdir()
    clean = dcmread(path)
    assert path.name == f"{kept['instance']}.dcm"
    assert (clean.SOPInstanceUID, clean.PatientID) == (kept["instance"], kept["patient"])
    assert (clean.pixel_array == film(1).pixel_array).all()


def test_key_ledger_store_and_folder_lie_apart(hospital: Path, take: TakeIn, tmp_path: Path, save: Save) -> None:
    save(film(1), hospital / "a")
    for wrong, message in (
        ({"key": tmp_path / "store" / "site.key"}, "site key .* would lie inside the store"),
        ({"ledger": tmp_path / "store" / "ledger.csv"}, "ledger .* would lie inside the store"),
        ({"ledger": hospital / "ledger.csv"}, "among the hospital's files"),
        ({"store": hospital / "store"}, "lie in one another"),
        ({"store": tmp_path}, "lie in one another"),
    ):
        with pytest.raises(DataError, match=message):
            take(**wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["hospital"]
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").touch()
    with pytest.raises(DataError, match="exists and is no store"):
        take()


def test_a_finished_store_is_left_alone(hospital: Path, take: TakeIn, save: Save) -> None:
    save(film(1), hospital / "a")
    first = take()
    before = {path: path.stat().st_mtime_ns for path in first.store.iterdir()}
    assert take().manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in first.store.iterdir()} == before
    save(film(2), hospital / "b")
    with pytest.raises(DataError, match="a complete store of other files"):
        take()


def test_the_same_key_gives_the_same_patient_in_another_store(
    hospital: Path, take: TakeIn, tmp_path: Path, save: Save
) -> None:
    save(film(1, patient="0815"), hospital / "a")
    (one,) = rows(take().store / "studies.csv")
    save(film(2, patient="0815"), hospital / "b")
    other = rows(take(store=tmp_path / "second").store / "studies.csv")
    assert {row["patient"] for row in other} == {one["patient"]}
    stranger = take(store=tmp_path / "third", key=tmp_path / "other.key", ledger=tmp_path / "other.csv")
    assert one["patient"] not in {row["patient"] for row in rows(stranger.store / "studies.csv")}
    assert json.loads((stranger.store / "manifest.json").read_text()) == stranger.manifest


def test_rows_do_not_stand_in_the_order_of_names(hospital: Path, take: TakeIn, save: Save) -> None:
    for seed in range(12):
        save(film(seed), hospital / f"{seed:02d}")
    names = [row["path"] for row in rows(take().names)]
    assert names != sorted(names)
    assert sorted(names) == [f"{seed:02d}" for seed in range(12)]


def test_a_folder_without_a_usable_picture_gives_a_store_that_says_so(hospital: Path, take: TakeIn) -> None:
    (hospital / "a").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    done = take()
    check_sums(done, 1)
    with pytest.raises(DataError, match="holds 0 pictures"):
        read_images(done.store, size=32)


def test_two_stores_of_one_name_keep_one_list_of_files_in_which_nothing_is_lost(
    hospital: Path, take: TakeIn, tmp_path: Path, save: Save
) -> None:
    save(film(1), hospital / "a")
    first = take()
    known = {row["file"]: row["path"] for row in rows(first.names)}
    shutil.rmtree(hospital)
    save(film(2), hospital / "b")
    second = take(store=tmp_path / "elsewhere" / "store")
    assert second.names == first.names
    now = {row["file"]: row["path"] for row in rows(second.names)}
    assert len(now) == 2
    assert known.items() <= now.items()
    assert second.names.stat().st_mode & 0o077 == 0


def test_it_is_seen_whether_a_folder_is_as_it_was(hospital: Path, take: TakeIn, tmp_path: Path, save: Save) -> None:
    save(film(1), hospital / "a")
    done = take()
    key = tmp_path / "site.key"
    assert intake.is_as_it_was(hospital, store=done.store, key=key) is True
    save(film(2), hospital / "b")
    assert intake.is_as_it_was(hospital, store=done.store, key=key) is False
    assert intake.is_as_it_was(hospital, store=done.store, key=tmp_path / "moved") is None
    assert not (tmp_path / "moved").exists()
