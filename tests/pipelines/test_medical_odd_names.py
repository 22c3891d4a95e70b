"""``unlabeled medical predict`` on a folder as somebody found it: names that are not UTF-8, links, a pipe."""

import csv
import os
import shutil
import sys
from pathlib import Path

import pytest

from unlabeled.medical import simulate
from unlabeled.pipelines.cli import main

# MLflow and what it loads warn about their own future.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that keeps any bytes as names"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("folder", [b"films", b"B\xe4der"])
def test_one_odd_name_costs_neither_page_nor_table_nor_answer_to_the_archive(
    folder: bytes, small_archive: simulate.Simulated, small_model: Path, in_tmp: Path
) -> None:
    source = shutil.copytree(small_archive.images, in_tmp / os.fsdecode(folder))
    film = min(path for path in source.rglob("*.dcm"))
    film.rename(film.with_name(os.fsdecode(b"f\xe4hre.dcm")))
    (source / os.fsdecode(b"Notiz_M\xfcller.txt")).write_text("no film")
    (source / "dangling").symlink_to("nothing")
    os.mkfifo(source / "pipe")
    with pytest.raises(SystemExit) as ended:
        main(["medical", "predict", str(source), "--model", str(small_model), "--out", "o", "--dicom"])
    assert ended.value.code == 0
    named = film.relative_to(source).with_name(r"f\xe4hre.dcm").as_posix()
    assert named in [row["image_id"] for row in table(in_tmp / "o" / "predictions.csv")]
    skipped = {row["input"] for row in table(in_tmp / "o" / "skipped.csv")}
    assert {r"Notiz_M\xfcller.txt", "dangling", "pipe"} <= skipped
    assert r"Notiz_M\xfcller.txt" in (in_tmp / "o" / "report.html").read_text(encoding="utf-8")
    answers = list((in_tmp / "o" / "dicom").glob("*/SR-*.dcm"))
    assert len(answers) == len(table(in_tmp / "o" / "predictions.csv"))
