"""Boxes that name a hospital's own files find the pictures that an intake made of these, and the borders it cut off."""

import os
from pathlib import Path

import pandas as pd
import pytest
from pydicom import dcmread

from unlabeled.core.errors import DataError
from unlabeled.medical import simulate
from unlabeled.medical.audit.heatmaps import Box
from unlabeled.medical.audit.store_boxes import of_store
from unlabeled.medical.intake import take_in
from unlabeled.medical.intake.borders import Border
from unlabeled.pipelines import _medical_audit as job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
HALF = Box(0.0, 0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pd.DataFrame]:
    """A store, the private list of its files, and both joined: path of each picture's file."""
    place = tmp_path_factory.mktemp("boxes")
    films = simulate.write_archive(place, patients=8, seed=3)
    kept = sorted(films.images.glob("0*/*"))
    os.replace(kept[0], films.images / "=1+1.dcm")  # a list that a spreadsheet may open writes that otherwise
    collimated = dcmread(kept[1])
    pixels = collimated.pixel_array.copy()
    pixels[:20] = pixels.min()
    collimated.PixelData = pixels.tobytes()
    collimated.save_as(kept[1], enforce_file_format=True)
    done = take_in(
        films.images, store=place / "store", key=place / "key", ledger=place / "ledger.csv", size=32, workers=1
    )
    listed = pd.read_csv(done.names, dtype=str, keep_default_na=False)
    studies = pd.read_parquet(done.store / "studies.parquet")
    return done.store, done.names, studies.merge(listed[["instance", "path"]], on="instance")


def test_a_box_is_found_by_path_name_stem_and_the_stores_own_id(taken: tuple[Path, Path, pd.DataFrame]) -> None:
    store, names, films = taken
    for one in films.itertuples():
        path = Path(str(one.path).removeprefix("'"))
        cut = Border(one.border_top, one.border_bottom, one.border_left, one.border_right)
        alone = path.parent == Path()
        for called in (path.as_posix(), one.instance, *((path.stem,) if alone else ())):
            found = of_store({called: [HALF]}, store, names=names)
            assert found == {one.instance: [HALF._replace(cut=cut)]}
    assert "'=1+1.dcm" in set(films["path"])
    assert films["border_top"].any()


def test_borders_that_a_reader_gave_are_kept(taken: tuple[Path, Path, pd.DataFrame]) -> None:
    store, _, films = taken
    given = HALF._replace(cut=Border(1, 2, 3, 4))
    assert of_store({films["instance"][0]: [given]}, store) == {films["instance"][0]: [given]}


def test_what_two_films_are_called_is_refused_and_so_is_what_none_is(
    taken: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    store, names, films = taken
    first, second = films["instance"][:2]
    twice = tmp_path / "files.csv"
    twice.write_text(f"file,instance,path\na,{first},ward1/film.dcm\nb,{second},ward2/film.dcm\n")
    with pytest.raises(DataError, match=r"2 films of the store are called 'film.dcm'"):
        of_store({"film.dcm": [HALF]}, store, names=twice)
    assert list(of_store({"ward2/film.dcm": [HALF]}, store, names=twice)) == [second]
    with pytest.raises(DataError, match="or give --names"):
        of_store({"film.dcm": [HALF]}, store)
    with pytest.raises(DataError, match=f"as in {names.name}"):
        of_store({"nowhere.dcm": [HALF]}, store, names=names)
    with pytest.raises(DataError, match="is no intake's list of files"):
        of_store({"film.dcm": [HALF]}, store, names=store / "gate.csv")


def test_a_list_of_names_without_boxes_or_a_store_is_of_no_use(
    taken: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    store, names, _ = taken
    for source, boxes in ((store, None), (tmp_path / "films", names)):
        with pytest.raises(DataError, match="give both, and the store"):
            job.audit(source, model=tmp_path, out=tmp_path / "audit", boxes=boxes, names=names)
