"""The search as a plant would run it, and the settings that it offers."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from unlabeled.core.errors import DataError
from unlabeled.core.pretext import Joint, NTXent, VICReg
from unlabeled.core.views import SignalView
from unlabeled.pipelines._sensors_search import search, space_of
from unlabeled.pipelines.sensors import fit
from unlabeled.sensors import MachineMonitor, Recording, simulate


def test_the_strength_of_the_views() -> None:
    assert SignalView.of_strength(1.0) == SignalView()
    assert SignalView.of_strength(2.0).gain == 2 * SignalView().gain
    x = torch.randn(4, 1, 8, 8)
    seen = SignalView.of_strength(0.0)(x, torch.Generator().manual_seed(0))
    assert torch.equal(seen.sort(dim=3).values, x.sort(dim=3).values)  # shifted in time, and nothing else


def test_a_task_is_searched_over_the_settings_that_it_has() -> None:
    assert set(space_of(MachineMonitor(task="masked"))) == {"mask_ratio"}
    assert set(space_of(MachineMonitor(task="contrastive"))) == {"temperature", "augmentation"}
    assert set(space_of(MachineMonitor(task="vicreg"))) == {"augmentation"}
    assert set(space_of(MachineMonitor(task="joint"))) == {"mask_ratio", "augmentation"}
    with pytest.raises(DataError, match="'next' has no mask ratio, temperature or augmentation to search"):
        search([], out=Path("s"), labels=Path("none"), template=MachineMonitor(task="next"))


def test_the_settings_reach_the_task(plant: list[Recording]) -> None:
    given = {"temperature": 0.4, "augmentation": 0.5, "steps": 1}
    views = []
    for task in ("contrastive", "vicreg", "joint"):
        pretext = MachineMonitor(task=task, **given).pretrain(plant[:1]).pretext_  # type: ignore[arg-type]
        if isinstance(pretext, NTXent):
            assert pretext.temperature == 0.4
        compared = pretext.tasks["vicreg"] if isinstance(pretext, Joint) else pretext
        assert isinstance(compared, (NTXent, VICReg))
        views.append(compared.view)
    assert views == [SignalView.of_strength(0.5)] * 3
    for wrong in ({"temperature": 0.0}, {"augmentation": 2.5}):
        with pytest.raises(DataError, match="needs a temperature above 0 and an augmentation between 0 and 2"):
            MachineMonitor(task="contrastive", **wrong).pretrain(plant[:1])  # type: ignore[arg-type]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_search_from_records_to_settings_and_an_encoder_that_fit_takes(
    plant: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    records = [simulate.write(machine, tmp_path / "plant") for machine in plant[2:]]
    failing = plant[-1]
    last = failing.hours[-1]
    known = [(failing.asset, 0, 60, "well"), (failing.asset, last - 60, last, "worn")]
    labels = tmp_path / "known.csv"
    pd.DataFrame(known, columns=["asset", "from", "until", "label"]).to_csv(labels, index=False)
    template = MachineMonitor(steps=24, dim=16, depth=1, heads=2)
    done = search(records, out=tmp_path / "s", labels=labels, trials=3, normal_share=0.5, template=template)
    table = pd.read_csv(done.files["trials"]).set_index("trial")
    assert table.loc[0, "mask_ratio"] == 0.6  # the default first
    assert set(table.index) == {0, 1, 2}
    best = table[table["state"] == "complete"]["auroc"].idxmax()
    assert f"with --mask-ratio {table.loc[best, 'mask_ratio']:.3g}. Next: unlabeled sensors fit " in done.headline
    assert f"--normal-share 0.5 --encoder {tmp_path / 's' / 'model'}" in done.headline
    kept = MachineMonitor.load(done.files["model"])
    assert kept.mask_ratio == pytest.approx(table.loc[best, "mask_ratio"])
    runs = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = runs.get_experiment_by_name("unlabeled/sensors")
    assert experiment is not None
    every = runs.search_runs([experiment.experiment_id])
    nested = [run for run in every if run.data.tags.get("mlflow.parentRunId") == done.run_id]
    assert len(nested) == 3
    assert kept.pretraining_run_ in {run.info.run_id for run in nested}
    assert "looks better than it is" in done.files["report"].read_text(encoding="utf-8")
    fitted = fit(records, out=tmp_path / "m", normal_share=0.5, encoder=done.files["model"])
    assert failing.asset in fitted.details["thresholds"]
    again = search(
        records, out=tmp_path / "t", labels=labels, trials=2, normal_share=0.5, template=template, dry_run=True
    )
    assert not (tmp_path / "t").exists()
    assert "2 trials, none ended early" in str(again.to_json())
