"""The search as an analyst would run it, and the settings that it offers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from unlabeled.core.errors import DataError
from unlabeled.core.pretext import Joint, MaskedTokens, NTXent, VICReg
from unlabeled.core.search import FIRST_RUNG, REDUCTION, Range
from unlabeled.core.views import HistorySlice
from unlabeled.fraud import FraudDetector, Size, transactions
from unlabeled.fraud.history_model import HistoryModel
from unlabeled.fraud.tasks import Question
from unlabeled.pipelines import fraud
from unlabeled.pipelines._fraud_search import _asked, search, space_of

TINY = Size(dim=16, depth=1, heads=2, length=16, steps=5, batch_size=8)


def test_the_strength_of_the_views() -> None:
    assert HistorySlice.of_strength(1.0) == HistorySlice()
    batch = torch.arange(1, 41).view(2, 20, 1)
    whole = HistorySlice.of_strength(0.0)(batch, torch.Generator().manual_seed(0))
    assert torch.equal(whole, batch)
    lengths = [
        (HistorySlice.of_strength(strength)(batch, torch.Generator().manual_seed(0)) != 0).sum() for strength in (1, 2)
    ]
    assert lengths[0] > lengths[1]
    strong = HistorySlice.of_strength(2.0)
    assert (strong.shortest, strong.longest) == pytest.approx((0.09, 0.64))


def test_a_task_is_searched_over_the_settings_that_it_has() -> None:
    assert space_of(FraudDetector(task="events+tokens")) == {"mask_ratio": Range(0.1, 0.6)}
    assert set(space_of(FraudDetector(task="events+tokens", masking="run"))) == {"mask_ratio"}
    assert set(space_of(FraudDetector(task="events+contrastive"))) == {"temperature", "augmentation"}
    assert set(space_of(FraudDetector(task="events+vicreg"))) == {"augmentation"}
    for task in ("events", "events+order"):
        with pytest.raises(DataError, match=r"no mask ratio, temperature or augmentation to search: choose events\+"):
            search(Path("none"), out=Path("s"), template=FraudDetector(task=task))


def test_defaults_that_lie_outside_of_what_is_searched_are_refused(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table.to_parquet("payments.parquet")
    template = FraudDetector(size=TINY, task="events+vicreg", augmentation=2.0)
    with pytest.raises(
        DataError, match=r"the augmentation to begin with, 2, is not in what is searched: 0\.25 to 1\.75"
    ):
        search(Path("payments.parquet"), out=tmp_path / "s", trials=1, template=template)


def test_the_settings_reach_the_task_and_come_back_from_disk(table: pd.DataFrame, tmp_path: Path) -> None:
    given = {"mask_ratio": 0.4, "temperature": 0.5, "augmentation": 0.5}
    for task in ("events+contrastive", "events+vicreg", "events+tokens"):
        detector = FraudDetector(size=TINY, task=task, **given)  # type: ignore[arg-type]
        detector.pretrain(table)
        for model in detector.models_:
            assert isinstance(model.pretext, Joint)
            beside = next(part for name, part in model.pretext.tasks.items() if name != "events")
            if isinstance(beside, NTXent):
                assert beside.temperature == 0.5
            if isinstance(beside, (NTXent, VICReg)):
                assert beside.view == HistorySlice.of_strength(0.5)
            if isinstance(beside, MaskedTokens):
                assert beside.ratio == 0.4
    back = FraudDetector.load(detector.save(tmp_path / "m"))
    assert back.question == Question(task="events+tokens", **given)
    assert {model.question for model in back.models_} == {back.question}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mask_ratio": 0.95}, "the mask ratio must be above 0 and at most 0.9, got 0.95"),
        ({"temperature": 0.0}, "the temperature must be above 0, got 0.0"),
        ({"augmentation": 2.5}, "the strength of the augmentation must be between 0 and 2, got 2.5"),
    ],
)
def test_a_setting_out_of_its_range_is_said_before_anything_is_read(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        FraudDetector(**wrong).pretrain(pd.DataFrame({"no": ["payments"]}))  # type: ignore[arg-type]


def test_a_trial_is_never_judged_so_often_that_its_last_look_could_end_it(table: pd.DataFrame) -> None:
    looks: dict[str, int] = {}

    def judge(model: HistoryModel) -> float:
        looks[model.name] = looks.get(model.name, 0) + 1
        return float(looks[model.name])

    FraudDetector(size=replace(TINY, steps=15)).pretrain(table, judge=judge)
    assert looks == {"card": 8, "merchant": 8}
    # The third rung of the halving is at 18: nothing that has come to its end is given up there.
    assert sum(looks.values()) < FIRST_RUNG * REDUCTION**2


def test_of_each_card_one_fraud_and_one_genuine_payment_judge_at_most(table: pd.DataFrame) -> None:
    known = transactions(table)
    asked = _asked(known, known.label, seed=0)
    card = known.codes("entity")
    assert card is not None
    for kind in (0, 1):
        judges = card[asked[known.label[asked] == kind]]
        assert len(judges) == len(np.unique(judges)) > 1
    hidden = np.where(np.arange(len(known)) % 2, known.label, -1)
    assert (hidden[_asked(known, hidden, seed=0)] >= 0).all()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_search_from_a_table_to_settings_and_a_model_that_finetune_takes(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    table.to_parquet("payments.parquet")
    size = replace(TINY, steps=24)
    template = FraudDetector(size=size, task="events+contrastive")
    done = search(Path("payments.parquet"), out=tmp_path / "s", trials=3, template=template)
    trials = pd.read_csv(done.files["trials"]).set_index("trial")
    assert trials.loc[0, ["temperature", "augmentation"]].tolist() == [0.2, 1.0]  # the defaults first
    assert set(trials.index) == {0, 1, 2}
    best = trials[trials["state"] == "complete"]["auroc"].idxmax()
    assert f"with --temperature {trials.loc[best, 'temperature']:.3g} --augmentation " in done.headline
    assert f"Next: unlabeled fraud finetune payments.parquet --model {tmp_path / 's' / 'model'}" in done.headline
    kept = FraudDetector.load(done.files["model"])
    assert kept.temperature == pytest.approx(trials.loc[best, "temperature"])
    assert kept.augmentation == pytest.approx(trials.loc[best, "augmentation"])
    runs = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = runs.get_experiment_by_name("unlabeled/fraud")
    assert experiment is not None
    every = runs.search_runs([experiment.experiment_id])
    nested = [run for run in every if run.data.tags.get("mlflow.parentRunId") == done.run_id]
    assert len(nested) == 3
    assert kept.manifest_["run_id"] in {run.info.run_id for run in nested}
    assert "looks better than it is" in done.files["report"].read_text(encoding="utf-8")
    taught = fraud.finetune(Path("payments.parquet"), model=done.files["model"], out=tmp_path / "m")
    assert taught.details["frauds"] > 0
    again = search(Path("payments.parquet"), out=tmp_path / "t", trials=2, template=template, dry_run=True)
    assert not (tmp_path / "t").exists()
    assert "2 trials, none ended early" in str(again.to_json())


def test_payments_that_stand_alone_have_nothing_to_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"time": np.arange(60), "amount": rng.gamma(2, 20, 60), "is_fraud": np.arange(60) % 5 == 0})
    frame.to_parquet(tmp_path / "alone.parquet")
    with pytest.raises(DataError, match="stand alone here: there is no history whose pretraining has settings"):
        search(tmp_path / "alone.parquet", out=tmp_path / "s")
