"""A model sees new files as it saw those that it was made of, whether they came through a store or from a folder."""

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical import PneumoniaModel, attach, intake, read_images, read_labels, simulate
from unlabeled.medical._pictures import Frame, on_film, to_padded
from unlabeled.medical.serving import Service
from unlabeled.pipelines import medical as jobs

SIZE = 32


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> simulate.Simulated:
    return simulate.write_archive(tmp_path_factory.mktemp("films"), patients=16, seed=5)


@pytest.fixture(scope="module")
def store(films: simulate.Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    intake.take_in(
        films.images, store=folder / "store", key=folder / "key", ledger=folder / "ledger.csv", size=SIZE,
        labels=films.labels,
    )  # fmt: skip
    return folder / "store"


def test_a_folder_read_as_a_store_gives_the_store_s_very_pictures(films: simulate.Simulated, store: Path) -> None:
    kept = read_images(store, size=SIZE)
    read = read_images(films.images, size=SIZE, framing="padded")
    assert kept.framing == read.framing == "padded"
    assert len(kept) == len(read) == films.pictures
    assert sorted(p.tobytes() for p in kept.images) == sorted(p.tobytes() for p in read.images)
    assert read_images(films.images, size=SIZE).framing == "stretched"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_a_store_taught_is_asked_in_the_same_way_of_files_tables_and_a_server(
    films: simulate.Simulated, store: Path, in_tmp: Path
) -> None:
    jobs.pretrain(store, out=in_tmp / "base", size=SIZE, epochs=1)
    jobs.finetune(films.images, labels=films.labels, model=in_tmp / "base", out=in_tmp / "model", steps=5)
    model = PneumoniaModel.load(in_tmp / "model")
    assert model.framing == "padded"
    done = jobs.predict(films.images, model=in_tmp / "model", out=in_tmp / "files")
    of_files = pd.read_csv(done.files["predictions"]).set_index("image_id").probability
    of_store = pd.read_csv(jobs.predict(store, model=in_tmp / "model", out=in_tmp / "rows").files["predictions"])
    np.testing.assert_allclose(sorted(of_files), sorted(of_store.probability), atol=2e-6)
    names = list(of_files.index[:3])
    cells = [base64.b64encode((films.images / name).read_bytes()).decode() for name in names]
    answered = Service(model).answer(pd.DataFrame({"image": cells}))
    np.testing.assert_allclose(answered.probability, of_files[names], atol=2e-6)
    studies = pd.read_csv(in_tmp / "rows" / "studies.csv")
    assert studies.pictures.sum() == films.pictures
    # A folder's UIDs are the hospital's own: its studies have stand-ins, and name their pictures.
    told = pd.read_csv(in_tmp / "files" / "studies.csv")
    assert told.study.str.fullmatch("T-[0-9a-f]{10}").all()
    assert sorted(";".join(told.image_ids).split(";")) == sorted(of_files.index)
    uid_of = {
        name: pydicom.dcmread(films.images / name, stop_before_pixels=True).StudyInstanceUID for name in of_files.index
    }
    assert len({frozenset(ids.split(";")) for ids in told.image_ids}) == len(set(uid_of.values()))
    assert all(len({uid_of[name] for name in ids.split(";")}) == 1 for ids in told.image_ids)
    assert pd.read_parquet(in_tmp / "files" / "studies.parquet").study.tolist() == told.study.tolist()


def test_pictures_made_square_in_another_way_are_refused(films: simulate.Simulated, store: Path) -> None:
    model = PneumoniaModel(image_size=SIZE, dim=16, depth=1, heads=2, pretrain_epochs=1)
    with pytest.raises(DataError, match="that are stretched to a square, these are padded"):
        model.pretrain(read_images(store, size=SIZE))
    with pytest.raises(DataError, match="holds padded ones"):
        read_images(store, size=SIZE, framing="stretched")
    images = attach(read_images(films.images, size=SIZE), read_labels(films.labels))
    with pytest.raises(DataError, match="that are padded to a square, these are stretched"):
        PneumoniaModel(image_size=SIZE, framing="padded").pretrain(images)


def test_a_padded_square_keeps_the_aspect_and_loses_the_border() -> None:
    film = (0.55 + 0.2 * np.outer(np.sin(np.arange(120) / 20), np.cos(np.arange(60) / 20))).astype(np.float32)
    square = Frame(40, "padded").square(film)
    assert (square[:, :10] == 0).all()
    assert (square[:, -10:] == 0).all()
    assert (square[:, 10:30] > 0).all()
    framed = np.zeros((160, 100), dtype=np.float32)
    framed[20:140, 20:80] = film
    np.testing.assert_array_equal(to_padded(framed, 40), square)


def test_a_map_over_the_square_lands_on_the_film_where_the_patch_was() -> None:
    film = np.zeros((200, 100), dtype=np.float32)
    # Cut off: 40 rows above, 10 columns on either side.
    film[40:200, 10:90] = 0.5 + 0.2 * np.outer(np.sin(np.arange(160) / 20), np.cos(np.arange(80) / 20))
    square = np.zeros((8, 8))
    square[2, 3] = 1.0  # of the 160 x 160 square: rows 40 to 60, columns 60 to 80 less 40 of padding
    found = on_film(square, film)
    assert found.shape == (64, 64)
    row, column = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    # On the film: rows 80 to 100 of 200, columns 30 to 50 of 100.
    assert (row[0] / 64, (row[-1] + 1) / 64) == pytest.approx((0.40, 0.50), abs=1 / 64)
    assert (column[0] / 64, (column[-1] + 1) / 64) == pytest.approx((0.30, 0.50), abs=1 / 64)
    assert (on_film(np.ones((8, 8)), film)[:12] == 0).all()
