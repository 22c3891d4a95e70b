"""Nobody's name gets out of an intake, and one that is killed ends as one that was not."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planting import leftovers, plant_everywhere, written
from pydicom import config
from pydicom.dataset import FileDataset

from unlabeled.medical import simulate
from unlabeled.medical.intake._film import Reader
from unlabeled.medical.intake._workers import _pool
from unlabeled.pipelines.cli import main

Make = Callable[..., FileDataset]

KEY = bytes(range(32)).hex()
INTAKE = (
    "import sys; from unlabeled.medical import intake\n"
    "places = {'store': sys.argv[1], 'key': 'site.key', 'ledger': sys.argv[1] + '-ledger.csv'}\n"
    "intake.take_in('hospital', **places, size=64, workers=2)"
)
CRASH = Path(__file__).with_name("crash_script.py")


def attenuation(seed: int, size: int = 160) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=False, rng=rng, size=size)


def with_key(folder: Path) -> Path:
    path = folder / "site.key"
    path.touch(mode=0o600)
    path.write_text(KEY + "\n")
    return path


def hospital_of_planted_names(folder: Path, make: Make) -> int:
    """Marks in every attribute, in names of files and folders; some files are kept. Returns how many there are."""
    pixels = (attenuation(1) * 3000).astype(int)
    usable = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}
    with config.disable_value_validation():
        for number, kept in enumerate((True, True, False)):
            file = make(pixels + number)
            plant_everywhere(file)
            if kept:
                for name in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "RescaleType"):
                    delattr(file, name)
                file.update(usable)
                file.SOPInstanceUID = f"1.2.840.47110815.777{number}"
            where = folder / f"ZQ9000{number}X Größe" / "47110815"
            where.mkdir(parents=True)
            (where / f"ZQ9001{number}X_19570314.dcm").write_bytes(written(file))
        broken = make(pixels, SpecificCharacterSet="ISO_IR 192", PatientID="ZQ90021X")
        content = written(broken).replace(b"ISO_IR 192", b"ZQ90022X  ").replace(b"CHEST ", b"ZQ3\xfc7 ")
        (folder / os.fsdecode(b"ZQ90023X M\xfcller")).write_bytes(content)
        stamped = make(np.add.outer(np.arange(96), np.arange(96)), BurnedInAnnotation="YES", PatientName="ZQ90024X")
        (folder / "ZQ90025X.IMA").write_bytes(written(stamped))
    (folder / "ZQ90026X.pdf").write_bytes(b"ZQ90027X")
    (folder / "ZQ90028X").symlink_to(folder / "ZQ90029X")
    return 7


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")  # the planted files break the standard on purpose, and MLflow warns
def test_no_planted_identifier_gets_out(
    make_dicom: Make, in_tmp: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source, out = in_tmp / "hospital", in_tmp / "out"
    source.mkdir()
    out.mkdir()
    count = hospital_of_planted_names(source, make_dicom)
    (in_tmp / "labels.csv").write_text(
        "file,label,age,sex,view,device,site\n"
        "ZQ90010X_19570314.dcm,1,067Y,ZQ99991X,ZQ99992X,Siemens ZQ99993X,ZQ99994X\n"
        "ZQ99999X,0,ZQ99995X,F,PA,ZQ99996X,ZQ99997X\n"
    )
    key = with_key(in_tmp)
    # The scan sees what it should.
    assert len({mark for path in source.rglob("*.dcm") for mark in leftovers(path.read_bytes())}) > 3000
    capfd.readouterr()
    caplog.clear()
    command = ["medical", "intake", str(source), "--out", str(out / "store"), "--site-key", str(key), "--dicom"]
    command += ["--ledger", str(in_tmp / "private" / "ledger.csv"), "--labels", str(in_tmp / "labels.csv"), "--debug"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    said = capfd.readouterr()
    manifest = json.loads((out / "store" / "manifest.json").read_text())
    assert manifest["found"] == count
    assert manifest["refused"] == 5, manifest["refusals"]
    assert manifest["labels"]["used"] == 1
    assert {name: one["films"] for name, one in manifest["attributes"].items()} == {
        "age_band": 1, "sex": 0, "view": 0, "device": 1, "site": 1
    }  # fmt: skip
    assert leftovers((said.out + said.err + caplog.text).encode(errors="surrogateescape")) == set()
    public = [path for folder in (out, in_tmp / "mlartifacts") for path in folder.rglob("*") if path.is_file()]
    public += list(in_tmp.glob("mlflow.db*"))
    names = {path.name for path in public}
    assert names >= {"pictures.npy", "gate.parquet", "studies.csv", "manifest.json", "report.html", "mlflow.db"}
    assert sum(path.suffix == ".dcm" for path in public) == 2
    for path in public:
        content = path.read_bytes() + path.name.encode()
        if path.suffix == ".parquet":  # which compresses
            content += pd.read_parquet(path).to_csv().encode()
        assert leftovers(content) == set(), path
        assert b"M\xfcller" not in content, path
    # Who may know can find each file again.
    listed = (in_tmp / "private" / "store-files.csv").read_bytes()
    assert all(mark in listed for mark in (b"ZQ90010X", b"ZQ90023X M\xfcller", b"ZQ90026X.pdf", b"ZQ90028X"))
    assert [oct(path.stat().st_mode & 0o777) for path in sorted((in_tmp / "private").iterdir())] == ["0o600", "0o600"]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_an_error_names_no_file(
    in_tmp: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_tmp / "ZQ90002X" / "deep").mkdir(parents=True)

    def refused(source: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["medical", "intake", source, "--out", str(in_tmp / "store")])
        assert ended.value.code == 1
        said = capfd.readouterr().err
        assert leftovers(said.encode()) == set()
        return said

    assert "does not exist" in refused("ZQ90001X")
    assert "the folder is empty" in refused("ZQ90002X")
    monkeypatch.chdir(in_tmp / "ZQ90002X" / "deep")
    assert "run this from another folder" in refused(str(in_tmp / "ZQ90002X"))
    assert not list((in_tmp / "ZQ90002X").rglob("mlflow.db"))


def archive(folder: Path, *, films: int) -> None:
    """Films that differ, cheaply: a few phantoms, turned up a little each time."""
    drawn = [attenuation(seed, 384) for seed in range(4)]
    for number in range(films):
        file = simulate.to_dicom(
            drawn[number % 4] * (0.7 + 0.001 * number), patient=f"SIM-1-{number:05d}", name="Phantom^Name", view="PA",
            inverted=bool(number % 3), rescaled=False, windowed=False,
        )  # fmt: skip
        path = folder / f"SIM-1-{number:05d}"
        path.parent.mkdir(exist_ok=True)
        file.save_as(path, enforce_file_format=True)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.integration
def test_a_killed_intake_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    archive(tmp_path / "hospital", films=192)
    with_key(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(store: str) -> list[str]:
        return [sys.executable, "-c", INTAKE, store]

    work = tmp_path / ".cut.intake"
    started = subprocess.Popen(
        command("cut"), cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list(work.glob("*.npz"))) < 2:
        assert started.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "no part was written"
        time.sleep(0.002)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    while alive(started.pid):  # its processes end with it
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.01)
    assert not (tmp_path / "cut").exists()
    done = {path: path.stat().st_mtime_ns for path in work.glob("*.npz")}
    assert 2 <= len(done) < 6
    assert not any(b"SIM-1-" in path.read_bytes() for path in work.rglob("*") if path.is_file())
    # A torn part of a machine that lost its power is made anew.
    torn = min(done)
    torn.write_bytes(torn.read_bytes()[:5000])

    for store in ("cut", "whole"):
        run = subprocess.run(command(store), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
        assert ("files were read before" in run.stderr) == (store == "cut")
    assert not work.exists()
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "cut").iterdir())
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    for beside in ("ledger.csv", "files.csv"):
        cut, whole = ((tmp_path / f"{store}-{beside}").read_bytes() for store in ("cut", "whole"))
        assert sorted(cut.splitlines()) == sorted(whole.splitlines())


def test_a_file_that_ends_the_process_which_reads_it_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    archive(tmp_path / "hospital", films=40)
    run = subprocess.run(
        [sys.executable, str(CRASH), str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(run.stdout) == {"crash": ["SIM-1-00007", "SIM-1-00023"], "": 38}


def test_every_reading_process_is_there_before_a_file_is_read(tmp_path: Path) -> None:
    # One that a pool starts while another one ends is waited for in vain: the intake would never end.
    before = set(multiprocessing.active_children())
    pool = _pool(Reader(tmp_path, bytes(32), size=32), 3)
    try:
        started = set(multiprocessing.active_children()) - before
    finally:
        pool.shutdown()
    assert len(started) == 3


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_store_is_pretrained_on_and_fine_tuned_with_its_labels(
    archive: simulate.Simulated, in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> dict[str, object]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        assert ended.value.code == 0, capfd.readouterr().err
        told: dict[str, object] = json.loads(capfd.readouterr().out)
        return told

    took = run(
        "medical", "intake", str(archive.images), "--out", "store", "--size", "32", "--labels", str(archive.labels)
    )
    assert took["found"] == archive.pictures + 5
    assert took["kept"] == archive.pictures
    small = ["--epochs", "1", "--size", "32"]
    assert run("medical", "pretrain", "store", "--out", "base", *small)["images"] == archive.pictures
    tuned = run(
        "medical",
        "finetune",
        "store",
        "--labels",
        "store/labels.csv",
        "--model",
        "base",
        "--steps",
        "5",
        "--out",
        "model",
    )
    assert tuned["labels"] + tuned["unseen"] == archive.pictures  # type: ignore[operator]
    run("medical", "predict", "store", "--model", "model", "--out", "scores")
    scored = pd.read_csv("scores/predictions.csv", dtype=str)
    assert set(scored["image_id"]) == set(pd.read_parquet("store/studies.parquet")["instance"])
