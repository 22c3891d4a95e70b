"""Every pretext task on payments: from a table to a saved model, and what a prior of fields is."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.pretext import EventModelling, Joint, MaskedTokens
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import EventFields
from unlabeled.fraud import FraudDetector, Size, Transactions
from unlabeled.fraud.detector import Log
from unlabeled.fraud.history_model import HistoryModel
from unlabeled.fraud.tasks import SETTINGS, Masking, Question, Task, build_task, event_modelling, importance
from unlabeled.pipelines import cli, cli_fraud

Parts = tuple[Transactions, Transactions]
WAYS = [(task, "random") for task in get_args(Task)] + [
    ("events+order", "fields"),
    ("events", "fields"),
    ("events+tokens", "fields"),
    ("events+tokens", "run"),
]
# What a second task weighs in the loss, by curve: 0.1 of its own.
SIDE = {
    "events+contrastive": {"contrastive.nt_xent": 1, "contrastive.matched": 0},
    "events+vicreg": {"vicreg.invariance": 25, "vicreg.variance": 25, "vicreg.covariance": 1},
    "events+order": {"order.order": 1},
    "events+tokens": {"tokens.masked_token": 1},
}


def small(**settings: Any) -> FraudDetector:
    size = Size(dim=16, depth=1, heads=2, length=16, steps=15, batch_size=8)
    return FraudDetector(size=size, random_state=1, **settings)


@pytest.fixture(scope="module")
def learnt(parts: Parts) -> Callable[[str, str], FraudDetector]:
    """A detector pretrained in some way; each way once."""
    made: dict[tuple[str, str], FraudDetector] = {}

    def pretrained(task: str, masking: str) -> FraudDetector:
        if (task, masking) not in made:
            made[task, masking] = small(task=task, masking=masking).pretrain(parts[0])
        return made[task, masking]

    return pretrained


@pytest.mark.parametrize(("task", "masking"), WAYS)
def test_every_task_learns_and_its_parts_are_curves(
    task: str, masking: str, learnt: Callable[[str, str], FraudDetector], pretrained: FraudDetector
) -> None:
    model = learnt(task, masking)
    front = "" if task == "events" else "events."
    expected = {"loss", f"{front}next_event", f"{front}masked_field", *SIDE.get(task, ())}
    for name, history in model.history_.items():
        assert expected <= set(history.curves), name
        parts = {curve: np.array(history.curves[curve])[:, 1] for curve in expected}
        side = sum(0.1 * share * parts[curve] for curve, share in SIDE.get(task, {}).items())
        total = parts[f"{front}next_event"] + parts[f"{front}masked_field"] + side
        np.testing.assert_allclose(parts["loss"], total, rtol=1e-4)
    same = (task, masking) == ("events", "random")
    for ours, plain in zip(model.models_, pretrained.models_, strict=True):
        assert (ours.question.task, ours.question.masking) == (task, masking)
        assert list(ours.tensors()) == list(plain.tensors())
        equal = [torch.equal(value, plain.tensors()[name]) for name, value in ours.tensors().items()]
        assert all(equal) if same else not any(equal[-4:])


@pytest.mark.parametrize(("task", "masking"), WAYS)
def test_saved_and_loaded_a_task_gives_the_very_scores(
    task: str, masking: str, learnt: Callable[[str, str], FraudDetector], parts: Parts, tmp_path: Path
) -> None:
    model = learnt(task, masking)
    past, new = parts
    back = FraudDetector.load(model.save(tmp_path / "m"))
    assert {name: back.get_params()[name] for name in ("task", "masking")} == {"task": task, "masking": masking}
    assert [(m.question.task, m.question.masking) for m in back.models_] == [(task, masking)] * 2
    np.testing.assert_array_equal(back.score(new, history=past), model.score(new, history=past))
    tuned = back.finetune(past)
    again = FraudDetector.load(tuned.save(tmp_path / "n"))
    np.testing.assert_array_equal(again.score(new, history=past), tuned.score(new, history=past))


@pytest.mark.parametrize("task", get_args(Task))
def test_the_future_changes_no_score_of_any_task(
    task: str, learnt: Callable[[str, str], FraudDetector], parts: Parts
) -> None:
    model = learnt(task, "random")
    past, new = parts
    half = len(new) // 2
    rows = np.arange(half, len(new))
    frame = new.frame.copy()
    frame.loc[rows, "amount"] = 12_345.0
    frame.loc[rows, "c:category"] = "never seen"
    frame.loc[rows, "entity"] = frame["entity"].iloc[0]
    other = Transactions(new.roles, frame, new.given, new.skipped)
    before, after = (model.score(table, history=past) for table in (new, other))
    np.testing.assert_allclose(before[:half], after[:half], rtol=1e-3, atol=1e-5)
    assert not np.allclose(before[half:], after[half:])


def test_a_folder_of_before_there_were_tasks_is_one_of_events(
    pretrained: FraudDetector, parts: Parts, tmp_path: Path
) -> None:
    folder = pretrained.save(tmp_path / "m")
    content = json.loads((folder / "manifest.json").read_text())
    for entry in (content["settings"], *content["models"]):
        for name in SETTINGS:
            del entry[name]
    (folder / "manifest.json").write_text(json.dumps(content))
    back = FraudDetector.load(folder)
    assert {m.question for m in (back, *back.models_)} == {Question()}
    np.testing.assert_array_equal(back.score(parts[1]), pretrained.score(parts[1]))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"task": "events+order"}, r"task: saved 'events', now 'events\+order'"),
        ({"masking": "fields"}, "masking: saved 'random', now 'fields'"),
    ],
)
@pytest.mark.parametrize("curve", ["loss", "merchants loss"])
def test_an_interrupted_pretraining_goes_on_with_its_own_task_alone(
    curve: str, changed: dict[str, str], words: str, parts: Parts, tmp_path: Path
) -> None:
    """While the first kind of history learns there is a training state; after it, one of what it has learnt."""
    size = Size(dim=16, depth=1, heads=2, length=16, steps=55, batch_size=8)
    model = FraudDetector(size=size, random_state=1)

    def log(values: dict[str, float], step: int) -> None:
        if curve in values and step >= 55:
            raise KeyboardInterrupt

    stop: Log = log
    with pytest.raises(KeyboardInterrupt):
        clone(model).pretrain(parts[0], state=tmp_path / "state", log=stop)
    with pytest.raises(CheckpointError, match=f"interrupted run does not fit: {words}.*Delete .*state"):
        clone(model).set_params(**changed).pretrain(parts[0], state=tmp_path / "state")


@pytest.mark.parametrize("damage", ["weights", "manifest", "no manifest"])
def test_what_was_learnt_of_cards_is_learnt_again_where_it_is_damaged_on_disk(
    damage: str, parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, state = small(), tmp_path / "state"

    def stop(values: dict[str, float], step: int) -> None:
        if "merchants loss" in values:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(model).pretrain(parts[0], state=state, log=stop)
    done = state / "card-done"
    if damage == "weights":
        whole = (done / "weights.safetensors").read_bytes()
        (done / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    elif damage == "manifest":
        (done / "manifest.json").write_text("{")
    else:
        (done / "manifest.json").unlink()
    capsys.readouterr()
    again = clone(model).pretrain(parts[0], state=state)
    assert "what was learnt from card histories is lost" in capsys.readouterr().err
    plain = clone(model).pretrain(parts[0])
    np.testing.assert_array_equal(again.score(parts[1]), plain.score(parts[1]))
    assert again.history_["cards"].resumed_from == 0
    assert again.history_["cards"].curves["loss"] == plain.history_["cards"].curves["loss"]
    # What took its place is whole.
    assert clone(model).pretrain(parts[0], state=state).history_["cards"].resumed_from == 15


def backbone(sizes: tuple[int, ...] = (5, 7, 6)) -> Backbone:
    torch.manual_seed(3)
    return Backbone(EventFields(sizes=sizes, dim=16, length=8), Encoder(dim=16, depth=1, heads=2, causal=True))


def histories(sizes: tuple[int, ...] = (5, 7, 6)) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(1, size, (8, 8), generator=draw) for size in sizes], dim=2)


def test_all_tasks_start_from_the_weights_of_plain_event_modelling_and_hide_what_it_hides() -> None:
    plain = backbone()
    assert isinstance(plain.tokenizer, EventFields)
    events = EventModelling(plain.tokenizer, seed=derive(5, "visible"))
    wanted = events.loss(plain, histories(), 4)
    for task in get_args(Task):
        own = backbone()
        made = build_task(own, task=task, seed=5)
        assert isinstance(made, Joint) == (task != "events")
        found = event_modelling(made).loss(own, histories(), 4)
        assert torch.equal(found.total, wanted.total), task
    own = backbone()
    weighted = build_task(own, prior=torch.tensor([9.0, 1.0, 1.0]), seed=5).loss(own, histories(), 4)
    assert torch.equal(weighted.parts["next_event"], wanted.parts["next_event"])
    assert not torch.equal(weighted.parts["masked_field"], wanted.parts["masked_field"])


def test_masked_tokens_hide_by_the_prior_of_fields_or_whole_payments() -> None:
    batch = histories().repeat(50, 1, 1)
    hidden = {}
    for name, settings in {"prior": {"prior": torch.tensor([4.0, 1.0, 1.0])}, "run": {"run": True}}.items():
        made = build_task(backbone(), task="events+tokens", seed=5, **settings)
        assert isinstance(made, Joint)
        tokens = made.tasks["tokens"]
        assert isinstance(tokens, MaskedTokens)
        hidden[name] = tokens.hide(batch, 0).float().mean(dim=(0, 1))
    assert hidden["prior"].tolist() == pytest.approx([0.5, 0.125, 0.125], abs=0.05)
    assert hidden["run"].tolist() == [0.25] * 3  # two of eight payments, all three fields
    assert event_modelling(build_task(backbone(), task="events+tokens", run=True, seed=5)).prior is None
    with pytest.raises(ValueError, match="a prior of fields has no say"):
        build_task(backbone(), task="events+tokens", run=True, prior=torch.ones(3), seed=5)


def test_a_run_needs_masked_tokens_and_that_is_said_before_anything_is_read() -> None:
    words = r"the task 'events\+order' has no masked tokens to tell them: choose the task 'events\+tokens'"
    with pytest.raises(DataError, match=words):
        small(task="events+order", masking="run").pretrain(pd.DataFrame({"no": ["payments"]}))
    with pytest.raises(DataError, match=words):
        HistoryModel("entity", size=Size(), question=Question(task="events+order", masking="run"), seed=0)
    with pytest.raises(DataError, match=words):
        build_task(backbone(), task="events+order", run=True, seed=0)


@pytest.mark.parametrize("verb", ["pretrain", "backtest"])
def test_the_command_line_says_so_too(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fraud", verb, "absent.csv", "--masking", "run"])
    assert ended.value.code == 1
    assert "the task 'events' has no masked tokens" in capsys.readouterr().err


def test_histories_are_watched_in_two_views(learnt: Callable[[str, str], FraudDetector], parts: Parts) -> None:
    """At every look, and with a view that the seed alone decides."""
    for name, history in learnt("events", "random").history_.items():
        for curve in ("watch.alignment", "watch.uniformity"):
            steps = [step for step, _ in history.curves[curve]]
            assert steps == [step for step, _ in history.curves["watch.effective_rank"]], name
        assert all(0 < value < 2 for _, value in history.curves["watch.alignment"])
        assert all(value < 0 for _, value in history.curves["watch.uniformity"])
    again = small().pretrain(parts[0])
    assert again.history_["cards"].curves == learnt("events", "random").history_["cards"].curves


def test_a_prior_of_fields_weighs_what_was_done_three_times_when_it_was(
    learnt: Callable[[str, str], FraudDetector],
) -> None:
    names = ["amount", "gap", "hour", "last visit", "category"]
    assert importance(names).tolist() == [3, 1, 1, 3, 3]
    for model in learnt("events", "fields").models_:
        assert model.events.prior is not None
        assert model.events.prior.tolist() == importance(model.fields.names).tolist()
        assert {1.0, 3.0} == set(model.events.prior.tolist())
    assert all(model.events.prior is None for model in learnt("events", "random").models_)


def test_payments_that_stand_alone_keep_to_events(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = 300
    frame = pd.DataFrame(rng.normal(size=(n, 2)), columns=["V1", "V2"])
    frame["time_s"], frame["amount"] = np.arange(n) * 60, rng.gamma(2, 20, n)
    plain = small().pretrain(frame)
    assert "stays 'events'" not in capsys.readouterr().err
    assert not any(name in plain.history_["payments"].curves for name in ("watch.alignment", "watch.uniformity"))
    whole = small(task="events+tokens", masking="run").pretrain(frame)
    assert "stays 'events', with random fields" in capsys.readouterr().err
    assert [(m.question.task, m.question.masking) for m in whole.models_] == [("events", "random")]
    np.testing.assert_array_equal(whole.score(frame), plain.score(frame))
    asked = small(task="events+order").pretrain(frame)
    assert "there is no history for 'events+order', and the task stays 'events'" in capsys.readouterr().err
    assert [m.question.task for m in asked.models_] == ["events"]
    np.testing.assert_array_equal(asked.score(frame), plain.score(frame))
    back = FraudDetector.load(asked.save(tmp_path / "m"))
    np.testing.assert_array_equal(back.score(frame), plain.score(frame))


@pytest.mark.parametrize("task", ["events+contrastive", "events+vicreg"])
def test_one_history_alone_cannot_be_told_from_others(task: str, parts: Parts) -> None:
    card = parts[0].frame["entity"].to_numpy()
    lonely = parts[0].take(card == card[0])
    lonely = lonely.take(np.arange(5))
    with pytest.raises(
        DataError, match=r"needs two windows a batch: there are 1, 8 a batch\. Choose the task 'events'"
    ):
        small(task=task).pretrain(lonely)


@pytest.mark.parametrize(("name", "there_are"), [("task", "events, events.contrastive"), ("masking", "random, fields")])
def test_unknown_names_are_refused_with_those_there_are(name: str, there_are: str, parts: Parts) -> None:
    with pytest.raises(DataError, match=rf"no {name} 'jigsaw': choose one of {there_are}"):
        small(**{name: "jigsaw"}).pretrain(parts[0])
    with pytest.raises(DataError, match=f"no {name} 'jigsaw'"):
        HistoryModel(None, size=Size(), seed=0, question=Question(**{name: "jigsaw"}))  # type: ignore[arg-type]


def test_the_command_line_offers_the_very_tasks_there_are() -> None:
    assert get_args(cli_fraud.TaskName) == get_args(Task)
    assert get_args(cli_fraud.MaskingName) == get_args(Masking)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_options_reach_the_model_the_run_and_the_report(
    table: pd.DataFrame, in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]
) -> None:
    table.to_csv(in_tmp / "t.csv", index=False)
    options = ["--task", "events+contrastive", "--masking", "fields", "--steps", "5"]
    options += ["--mask-ratio", "0.3", "--temperature", "0.4", "--augmentation", "1.5"]
    question = Question(task="events+contrastive", masking="fields", mask_ratio=0.3, temperature=0.4, augmentation=1.5)
    commands = {"pretrain": ["--out", "base"], "backtest": ["--out", "replay", "--n-frauds", "10"]}
    for verb, more in commands.items():
        with pytest.raises(SystemExit) as ended:
            cli.main(["fraud", verb, "t.csv", *more, *options, "--quiet"])
        assert ended.value.code == 0
    for folder in ("base", "replay/model"):
        model = FraudDetector.load(folder)
        assert {m.question for m in (model, *model.models_)} == {question}
    for page in ("base/report.html", "replay/report.html"):
        text = Path(page).read_text(encoding="utf-8")
        assert "task</td><td>events+contrastive</td>" in text
        assert "masking</td><td>fields</td>" in text
    runs = complete(in_tmp, "fraud")
    assert set(runs) == {"pretrain base", "pretrain replay/pretrained", "backtest replay"}
    for run in runs.values():
        assert {name: run.data.params[name] for name in SETTINGS} == {
            name: str(value) for name, value in asdict(question).items()
        }
    assert "contrastive.nt_xent" in runs["pretrain base"].data.metrics
    with pytest.raises(SystemExit) as ended:
        cli.main(["fraud", "pretrain", "t.csv", "--task", "jigsaw"])
    assert ended.value.code == 1
