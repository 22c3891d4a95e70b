"""Whatever files are called and whatever else lies in a folder: all of it is named, and nothing stops the rest."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unlabeled.core.errors import DataError
from unlabeled.medical import attach, read_images, read_labels
from unlabeled.medical._names import name_of, path_of

# Some file systems (macOS's, Windows') keep no name that is not Unicode.
bytes_are_names = pytest.mark.skipif(
    sys.platform != "linux", reason="needs a file system that keeps any bytes as names"
)


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, format="PNG")


def odd(name: bytes) -> str:
    return os.fsdecode(name)


@given(st.text(st.sampled_from("\\x5c0aeE4/. ä\n\udc80\udce4\udcff"), max_size=12))
def test_every_name_can_be_printed_and_leads_back_to_its_one_path(path: str) -> None:
    name = name_of(path)
    assert name.encode("utf-8").decode("utf-8").isprintable()
    assert path_of(name) == path  # so that no two paths have one name


@pytest.mark.parametrize("name", ["a/b.dcm", "fähre.dcm", "日本/1", "a\\b.dcm", "share\\\\x.dcm", "50 % \\xray.dcm"])
def test_names_that_anything_can_print_stay_as_they_are(name: str) -> None:
    assert name_of(name) == path_of(name) == name


@bytes_are_names
def test_films_whose_names_are_not_utf8_are_read_told_apart_and_found_by_labels(tmp_path: Path) -> None:
    films = tmp_path / "films"
    # What the first is called on a page, the second is called on disk.
    for seed, name in enumerate(
        [b"f\xe4hre.png", rb"f\xe4hre.png", "fähre.png".encode(), b"\xfc/1.png", b"\xf6/1.png"]
    ):
        picture(films / odd(name), seed)
    (films / odd(b"Notiz_M\xfcller.txt")).write_text("no film")
    found = read_images(films, size=32)
    ids = [r"\xf6/1.png", r"\xfc/1.png", r"f\x5cxe4hre.png", "fähre.png", r"f\xe4hre.png"]
    assert sorted(found.ids) == sorted(ids)
    assert [skip.source for skip in found.skipped] == [r"Notiz_M\xfcller.txt"]
    pixels = dict(zip(found.ids, found.pixels, strict=True))
    picture(tmp_path / "first.png", 0)
    np.testing.assert_array_equal(pixels[r"f\xe4hre.png"], read_images(tmp_path / "first.png", size=32).pixels[0])
    assert found.fingerprint() == read_images(films, size=32).fingerprint()
    assert read_images(films / odd(b"f\xe4hre.png"), size=32).ids.tolist() == [r"f\xe4hre.png"]

    table = tmp_path / "labels.csv"
    table.write_text("image_id,label\nf\\xe4hre.png,1\n\\xfc/1.png,0\nf\\x5cxe4hre,0\nNotiz_M\\xfcller.txt,1\n")
    labelled = attach(found, read_labels(table))
    assert labelled.labels is not None
    said = dict(zip(labelled.ids.tolist(), labelled.labels.tolist(), strict=True))
    assert said == dict.fromkeys(ids, -1) | {r"f\xe4hre.png": 1, r"\xfc/1.png": 0, r"f\x5cxe4hre.png": 0}
    assert labelled.skipped[-1] == (r"Notiz_M\xfcller.txt", "label without a picture: the picture was skipped")


def test_a_line_break_in_a_name_ends_no_line(tmp_path: Path) -> None:
    picture(tmp_path / "a\nb.png")
    assert read_images(tmp_path, size=32).ids.tolist() == [r"a\x0ab.png"]


def test_what_is_no_file_is_listed_with_its_reason_and_nothing_waits_for_it(tmp_path: Path) -> None:
    films = tmp_path / "films"
    picture(films / "sub" / "a.png")
    picture(tmp_path / "elsewhere" / "b.png", 1)
    os.mkfifo(films / "pipe")
    os.mkfifo(films / "manifest.json")  # which a store would have
    (films / "linked.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (films / "dangling.png").symlink_to(films / "nothing.png")
    (films / "itself").symlink_to("itself")
    (films / "linked folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (films / "sub" / "up").symlink_to(films, target_is_directory=True)
    found = read_images(films, size=32)
    assert found.ids.tolist() == ["linked.png", "sub/a.png"]
    folder = "link to a folder: not followed, so that nothing is read twice or for ever"
    pipe = "unreadable file: a pipe, a socket or a device"
    nowhere = "unreadable file: a link that leads nowhere"
    assert dict(found.skipped) == {
        "dangling.png": nowhere, "itself": nowhere, "linked folder": folder, "manifest.json": pipe, "pipe": pipe,
        "sub/up": folder,
    }  # fmt: skip
    with pytest.raises(DataError, match="1 x unreadable file"):
        read_images(films / "pipe", size=32)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "closed").mkdir(mode=0o000)
    try:
        found = read_images(tmp_path, size=32)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert [(skip.source, skip.reason.partition(":")[0]) for skip in found.skipped] == [("closed", "unreadable folder")]
