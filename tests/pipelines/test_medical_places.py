"""No medical job writes its results into what another one made: a store, a model, a run or a package stays whole."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical import read_images, simulate
from unlabeled.medical.intake import take_in
from unlabeled.pipelines import _medical_audit as auditing
from unlabeled.pipelines import _medical_crossvalidation as crossvalidation
from unlabeled.pipelines import _medical_label_need as needing
from unlabeled.pipelines import _medical_package as packaging
from unlabeled.pipelines import _medical_search as searching
from unlabeled.pipelines import _medical_several as several
from unlabeled.pipelines import medical
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def house(small_archive: simulate.Simulated, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a model, the models of two findings, a package and a run."""
    house = tmp_path_factory.mktemp("house")
    take_in(
        small_archive.images, store=house / "store", key=house / "site.key", ledger=house / "ledger.csv", size=32,
        labels=small_archive.labels, workers=1,
    )  # fmt: skip
    shutil.copytree(small_model, house / "model")
    (house / "both").mkdir()
    (house / "both" / "findings.json").write_text('["pneumonia", "effusion"]\n')
    packaging.package(small_model, out=house / "package")
    shutil.copytree(small_model, house / "run" / "model")
    (house / "run" / "run.json").write_text('{"plan": {}, "stages": {}}\n')
    return house


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What a user may ask to be written, of the folder of DICOM files (or a store) and a fine-tuned model.
JOBS: dict[str, Callable[[Path, Path, Path], object]] = {
    "pretrain": lambda source, model, out: medical.pretrain(source, out=out, size=32, epochs=1),
    "finetune": lambda source, model, out: medical.finetune(source, model=model, out=out),
    "finetune several": lambda source, model, out: several.finetune(
        source, model=model, out=out, findings=["pneumonia", "effusion"], labels=None
    ),
    "predict": lambda source, model, out: medical.predict(source, model=model, out=out),
    "predict several": lambda source, model, out: several.predict(source, models={"pneumonia": model}, out=out),
    "audit": lambda source, model, out: auditing.audit(source, model=model, out=out),
    "crossvalidate": lambda source, model, out: crossvalidation.crossvalidate(source, model=model, out=out),
    "labels-needed": lambda source, model, out: needing.labels_needed(source, model=model, out=out),
    "search": lambda source, model, out: searching.search(source, out=out, size=32, epochs=1, trials=1),
    "package": lambda source, model, out: packaging.package(model, out=out),
}
OWN = {"pretrain": ["model"], "finetune": ["model"], "finetune several": ["both"], "package": ["package"]}
CALLED = {
    "store": "is a store", "model": "is a saved model", "both": "models of several findings",
    "package": "is a package", "run": "is the folder of a 'medical run'", "run/model": "is a saved model|lies in .*run",
    "run/audit": "lies in .*medical run", "store/new": "lies in .*a store",
}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_what_others_read_is_refused_by_every_job_and_stays_as_it_was(
    job: str, house: Path, small_archive: simulate.Simulated
) -> None:
    before = content(house)
    for place, said in CALLED.items():
        if place not in OWN.get(job, []):
            with pytest.raises(DataError, match=f"(?s)({said}).*name another folder"):
                JOBS[job](small_archive.images, house / "model", house / place)
    assert content(house) == before


def test_the_command_says_it_in_one_line_and_the_store_is_still_read(
    house: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(house / "store")
    store, model = str(house / "store"), str(house / "model")
    with pytest.raises(SystemExit) as ended:
        main(["medical", "predict", store, "--model", model, "--out", store])
    assert ended.value.code == 1
    assert "is a store that 'intake' wrote" in capsys.readouterr().err
    assert content(house / "store") == before
    # Through a link as well: it is the same folder.
    (in_tmp / "elsewhere").symlink_to(house / "store", target_is_directory=True)
    with pytest.raises(DataError, match="is a store"):
        medical.predict(house / "store", model=house / "model", out=in_tmp / "elsewhere")
    assert len(read_images(house / "store", size=32)) > 0


def test_results_do_not_lie_among_the_pictures_that_they_are_about(
    house: Path, small_archive: simulate.Simulated, in_tmp: Path
) -> None:
    films = in_tmp / "films"
    shutil.copytree(small_archive.images, films)
    before = content(films)
    for out, said in ((films, "is the input"), (films / "results", "lies in the input")):
        with pytest.raises(DataError, match=said):
            medical.predict(films, model=house / "model", out=out)
    with pytest.raises(DataError, match="is a file"):
        medical.predict(films, model=house / "model", out=next(path for path in films.rglob("*") if path.is_file()))
    assert content(films) == before


def test_a_folder_that_the_same_job_wrote_is_written_again(
    house: Path, small_archive: simulate.Simulated, in_tmp: Path
) -> None:
    source, model = small_archive.images, house / "model"
    for _ in range(2):
        files = medical.predict(source, model=model, out=in_tmp / "s", heat_maps=2).files
    assert files["studies"].is_file()
    assert files["report"].is_file()
    for _ in range(2):
        medical.pretrain(source, out=in_tmp / "p", size=32, epochs=1)
        packaging.package(model, out=in_tmp / "package")


def test_names_that_anybody_may_give_a_file_stand_in_nobodys_way(in_tmp: Path) -> None:
    for name, text in (("run.json", '{"mine": 1}'), ("manifest.json", "[]"), ("findings.json", "not JSON")):
        (in_tmp / name).write_text(text)
    check_out(in_tmp / "results", source=in_tmp / "films")
