"""The search as a hospital would run it, and the settings that it offers."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from unlabeled.core.errors import DataError
from unlabeled.core.views import PictureView
from unlabeled.medical import PneumoniaModel, simulate
from unlabeled.medical.transforms import Augment
from unlabeled.pipelines._medical_search import search, space_of


def test_the_strength_of_an_augmentation() -> None:
    assert Augment.of_strength(1.0) == Augment()
    assert PictureView.of_strength(1.0) == PictureView()
    assert PictureView.of_strength(2.0).contrast == 2 * PictureView().contrast
    still = Augment.of_strength(0.0)
    x = torch.randint(0, 256, (2, 16, 16), dtype=torch.uint8)
    (moved,) = still((x,), torch.Generator().manual_seed(0))
    mean, spread = (
        f(x.float(), (1, 2), keepdim=True) for f in (torch.mean, lambda *a, **k: torch.std(*a, **k, correction=0))
    )
    torch.testing.assert_close(moved[:, 0], (x - mean) / spread, rtol=1e-3, atol=1e-3)


def test_a_task_is_searched_over_the_settings_that_it_has() -> None:
    assert set(space_of(PneumoniaModel(task="masked"))) == {"mask_ratio", "augmentation"}
    assert set(space_of(PneumoniaModel(task="contrastive"))) == {"temperature", "augmentation"}
    assert set(space_of(PneumoniaModel(task="joint"))) == {"mask_ratio", "temperature", "augmentation"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mask_ratio": 1.0}, "mask ratio must be between 0 and 1, got 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"augmentation": 3.0}, "strength of the augmentation must be between 0 and 2"),
    ],
)
def test_settings_out_of_range_are_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        PneumoniaModel(**wrong).check()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_search_from_pictures_to_settings(archive: simulate.Simulated, in_tmp: Path) -> None:
    from mlflow import MlflowClient

    done = search(archive.images, labels=archive.labels, out=in_tmp / "s", size=32, epochs=1, trials=3)
    table = pd.read_csv(done.files["trials"]).set_index("trial")
    assert set(table.index) == {0, 1, 2}
    assert table.loc[0, "mask_ratio"] == 0.75  # the defaults first
    assert table.loc[0, "augmentation"] == 1.0
    best = table[table["state"] == "complete"]["auroc"].idxmax()
    assert done.details["best"]["mask_ratio"] == pytest.approx(table.loc[best, "mask_ratio"])
    assert f"--mask-ratio {table.loc[best, 'mask_ratio']:.3g}" in done.headline
    # The command that it recommends makes the very model that won.
    assert f"medical pretrain {archive.images} --size 32 --task masked --masking random --mask-ratio" in done.headline
    model = PneumoniaModel.load(done.files["model"])
    assert model.mask_ratio == pytest.approx(table.loc[best, "mask_ratio"])
    runs = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db")
    experiment = runs.get_experiment_by_name("unlabeled/medical")
    assert experiment is not None
    nested = [
        run for run in runs.search_runs([experiment.experiment_id])
        if run.data.tags.get("mlflow.parentRunId") == done.run_id
    ]  # fmt: skip
    assert len(nested) == 3
    for run in nested:  # one that ended early may do so before the first point of its loss
        ended_early = run.data.tags["unlabeled.trial"] == "ended early"
        assert {"validation", "score", *(() if ended_early else ("loss",))} <= set(run.data.metrics)
    assert "looks better than it is" in done.files["report"].read_text(encoding="utf-8")
