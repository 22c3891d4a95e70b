"""PyOD's detectors as a part of the score: named, kept, and the same whoever comes with it."""

from pathlib import Path

import numpy as np
import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines import sensors as jobs
from unlabeled.sensors import MachineMonitor, Recording, simulate
from unlabeled.sensors.monitor import PARTS
from unlabeled.sensors.outliers import NAMES, named
from unlabeled.sensors.recording import make

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning"
)


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_that_is_offered_learns_from_a_few_dozen_points_and_judges_a_single_one(name: str) -> None:
    draw = np.random.default_rng(0)
    normal, far = draw.normal(size=(60, 8)), np.full((1, 8), 12.0)
    detector = named(name, seed=0).fit(normal)
    later = draw.normal(size=(20, 8))
    usual = np.array([detector.score(row[None])[0] for row in later])
    np.testing.assert_array_equal(detector.score(later), usual)  # whoever comes with it
    assert np.isfinite(usual).all()
    assert detector.score(far)[0] > np.median(usual)


def test_a_detector_is_one_more_part_that_is_kept_and_scores_alike_after_loading(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    record = make("m", draw.normal(size=(90, 1024, 1)), np.arange(90) / 6, names=("x",), fs=12_800.0)
    monitor = MachineMonitor(steps=6, dim=16, depth=1, heads=2, detector="iforest", random_state=3)
    scores = monitor.fit(record, normal_share=0.5).score(record)
    assert monitor.part_names == (*PARTS, "pyod iforest", "level")
    usual = scores["level"] <= 3
    own = scores.loc[usual, [*PARTS, "pyod iforest"]].mean(axis=1)
    np.testing.assert_allclose(scores.loc[usual, "score"], own, rtol=1e-9)
    again = MachineMonitor.load(monitor.save(tmp_path / "m"))
    assert again.score(record)["score"].equals(scores["score"])
    assert "pyod iforest" in again.explain(record).parts


@pytest.mark.parametrize("name", ["AutoEncoder", "os", "../x", ""])
def test_one_that_is_not_offered_is_refused_before_anything_is_learnt(name: str) -> None:
    record = make("m", np.zeros((90, 1024, 1)), np.arange(90) / 6, names=("x",), fs=12_800.0)
    with pytest.raises(DataError, match=r"is no detector that can be taken here; there are ABOD, COPOD"):
        MachineMonitor(detector=name).fit(record, normal_share=0.5)


@pytest.mark.integration
def test_a_job_gives_each_machine_its_own_detector(plant: list[Recording], in_tmp: Path) -> None:
    files = [simulate.write(machine, in_tmp / "plant") for machine in plant[2:]]
    template = MachineMonitor(steps=20, dim=32, depth=2, detector="HBOS")
    jobs.fit(files, out=in_tmp / "models", normal_share=0.5, template=template)
    done = jobs.score(files, model=in_tmp / "models", out=in_tmp / "scores")
    assert done.files["report"].read_text(encoding="utf-8").count("pyod HBOS") >= 2
    # An encoder that was pretrained without one can be given one.
    jobs.fit(
        files[:1], out=in_tmp / "more", normal_share=0.5, encoder=in_tmp / "models" / "encoder",
        template=MachineMonitor(detector="ECOD"),
    )  # fmt: skip
    assert MachineMonitor.load(in_tmp / "more" / plant[2].asset).part_names[-2:] == ("pyod ECOD", "level")
