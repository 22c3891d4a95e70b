"""What spoils a training, and what does not fit, is said at once, and nothing spoilt is gone on from."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unlabeled.core import checkpoints
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Encoder
from unlabeled.core.errors import BadBatchError, CheckpointError, TrainingError
from unlabeled.core.exchange import huggingface
from unlabeled.core.informed_masking import AdaptiveMask, SalientMask
from unlabeled.core.masking import RandomMask
from unlabeled.core.optimization import TrainingSettings
from unlabeled.core.pretext import Joint, Loss, MaskedReconstruction, NTXent, VICReg
from unlabeled.core.processes import Processes
from unlabeled.core.resume import TrainingState
from unlabeled.core.tokens import EventFields, GridPatches
from unlabeled.core.training import fit
from unlabeled.core.views import PictureView


class Root(nn.Module):
    """The square root of a weight's square: its loss is 0 and its gradient not a number where a row is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2))

    def forward(self, batch: tuple[Tensor, ...], step: int) -> Loss:
        return Loss((self.weight * batch[0]).square().sqrt().mean() + self.other.square().sum(), {})


def ones(n: int = 64) -> np.ndarray:
    return np.ones(n, dtype="float32")


def test_a_gradient_that_is_not_finite_stops_the_training_and_no_spoilt_state_is_kept(tmp_path: Path) -> None:
    rows, settings = ones(), TrainingSettings(steps=20, checkpoint_every=5, log_every=20)
    batches = Batches(rows, batch_size=8)
    spoilt = 7
    rows[batches.rows_at(spoilt)[0]] = 0
    with pytest.raises(BadBatchError, match=r"norm of the gradients was nan at step 7") as found:
        fit(Root(), batches, settings=settings, state=tmp_path / "state")
    assert found.value.step == spoilt
    assert found.value.rows == batches.rows_at(spoilt).tolist()
    assert "its newest state is of step 5" in str(found.value)
    rows[:] = 1  # the data is mended, and the same call goes on from before the defect
    module = Root()
    assert fit(module, batches, settings=settings, state=tmp_path / "state").resumed_from == 5
    assert torch.isfinite(module.weight).all()


def test_a_judge_is_not_asked_what_a_network_of_no_numbers_is_worth() -> None:
    rows = ones()
    batches = Batches(rows, batch_size=8)
    rows[batches.rows_at(3)[0]] = 0

    def judge() -> float:
        return 1.0

    with pytest.raises(BadBatchError, match=r"norm of the gradients was nan at step 3") as found:
        fit(Root(), batches, settings=TrainingSettings(steps=20, log_every=20), validate=judge, validate_every=5)
    assert found.value.rows == batches.rows_at(3).tolist()


def test_the_norm_of_the_gradients_is_a_curve() -> None:
    module = Root()
    with torch.no_grad():
        module.other.zero_()
    history = fit(module, Batches(ones(), batch_size=8), settings=TrainingSettings(steps=1, log_every=1))
    assert history.curves["gradient_norm"] == [(1, pytest.approx(1.0))]  # d|w x|/dw = 1


def test_a_state_of_other_trained_parameters_is_refused(tmp_path: Path) -> None:
    settings = TrainingSettings(steps=10, checkpoint_every=5)
    fit(Root(), Batches(ones(), batch_size=8), settings=settings, state=tmp_path / "state")
    frozen = Root()
    frozen.weight.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"trained other parameters \('weight' in one of the two only\). Delete"):
        fit(frozen, Batches(ones(), batch_size=8), settings=settings, state=tmp_path / "state")


def test_what_the_optimiser_remembers_goes_back_to_the_parameters_of_the_same_names(tmp_path: Path) -> None:
    module = Root()
    optimizer = torch.optim.AdamW([{"params": [module.other]}, {"params": [module.weight]}], lr=0.1)
    module((torch.ones(4),), 0).total.backward()
    optimizer.step()
    state = TrainingState(tmp_path / "state", {})
    state.save(module, optimizer, step=1, history={}, best={}, stale=0, window=[])
    again = Root()
    turned = torch.optim.AdamW([{"params": [again.weight]}, {"params": [again.other]}], lr=0.1)
    assert state.load(again, turned) is not None
    for one, other in ((module.weight, again.weight), (module.other, again.other)):
        assert torch.equal(optimizer.state[one]["exp_avg"], turned.state[other]["exp_avg"])


def test_a_state_whose_manifest_is_damaged_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    settings = TrainingSettings(steps=20, checkpoint_every=5)
    fit(Root(), Batches(ones(), batch_size=8), settings=settings, state=tmp_path / "state")
    newest = sorted((tmp_path / "state").glob("step-*"))[-1] / checkpoints.MANIFEST
    content = json.loads(newest.read_text())
    newest.write_text(json.dumps({**content, "history": 3}))
    history = fit(Root(), Batches(ones(), batch_size=8), settings=settings, state=tmp_path / "state")
    assert history.resumed_from == content["step"] - 5


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_validation_that_is_no_number_is_no_best_score(score: float) -> None:
    with pytest.raises(TrainingError, match=rf"validation gave {score} at step 5"):
        fit(
            Root(), Batches(ones(), batch_size=8), settings=TrainingSettings(steps=10), validate=lambda: score,
            validate_every=5,
        )  # fmt: skip


def test_descriptions_that_differ_are_told_apart_entry_by_entry() -> None:
    saved = {"model": {"lr": 1.0, "patch": [8, 8], "deep": {"a": 1, "gone": 2}}, "seed": 0}
    wanted = {"model": {"lr": 0.5, "patch": [8, 8], "deep": {"a": 1}}, "seed": 0}
    with pytest.raises(CheckpointError) as found:
        checkpoints.check_same(saved, wanted, what="it")
    assert str(found.value) == "it does not fit: model.deep.gone: saved 2, now nothing; model.lr: saved 1.0, now 0.5"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def test_a_pickle_under_a_checkpoints_name_is_a_damaged_checkpoint_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = checkpoints.save(tmp_path / "m", kind="k", tensors={"a": torch.ones(1)}, manifest={})
    (folder / checkpoints.WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    manifest = json.loads((folder / checkpoints.MANIFEST).read_text())
    (folder / checkpoints.MANIFEST).write_text(json.dumps({**manifest, "sha256": {}}))
    with pytest.raises(CheckpointError, match=r"weights.safetensors holds no safetensors weights"):
        checkpoints.load(folder)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"warmup": 2.0}, "warmup must be between 0 and 1"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or above"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0"),
    ],
)
def test_settings_out_of_their_range_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingSettings(steps=1, **change)


@pytest.mark.parametrize("change", [{"strength": float("nan")}, {"momentum": 2.0}, {"spread": 1.0}])
def test_an_adaptive_mask_that_could_not_adapt_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="an adaptive mask needs"):
        AdaptiveMask(16, **change)  # type: ignore[arg-type]


def test_names_and_weights_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="salience must be one of variance, energy, entropy, got 'surprise'"):
        SalientMask(salience="surprise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights of VICReg must be finite"):
        VICReg(8, view=PictureView(), variance=float("nan"))
    with pytest.raises(ValueError, match="temperature must be above 0 and finite, got inf"):
        NTXent(8, view=PictureView(), temperature=float("inf"))
    with pytest.raises(ValueError, match="finite weight above 0"):
        Joint({"a": (NTXent(8, view=PictureView()), float("nan"))})
    with pytest.raises(ValueError, match="there is no device 'gpu'"):
        Processes("gpu")


def test_sizes_that_make_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        GridPatches(grid=(8, 8), patch=(0, 4), dim=8)
    with pytest.raises(ValueError, match="heads=0 does not divide"):
        Encoder(dim=8, heads=0)


def test_a_code_that_its_field_does_not_have_is_named() -> None:
    tokenizer = EventFields(sizes=(4, 3), dim=8, length=5)
    with pytest.raises(ValueError, match=r"from 0 to below \[4, 3\] by field, got up to \[3, 7\]"):
        tokenizer(torch.tensor([[[3, 2], [1, 7]]]))


@pytest.mark.parametrize("value", [0, "big", None])
def test_a_hugging_face_config_that_makes_no_network_is_damaged(tmp_path: Path, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "num_attention_heads": value}))
    save_file({"a": torch.ones(1)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"num_attention_heads is .*, not a whole number"):
        huggingface.read(tmp_path, grid=(64, 64))


def test_several_tasks_name_what_is_particular_to_one_of_them() -> None:
    tokenizer = GridPatches(grid=(8, 8), patch=(4, 4), dim=8)
    masked = MaskedReconstruction(tokenizer, mask=RandomMask(0.5), dim=8, depth=1, heads=1)
    both = Joint({"contrastive": (NTXent(8, view=PictureView()), 1.0), "masked": (masked, 1.0)})
    assert both.remedies == masked.remedies
    assert "--mask-ratio" in both.remedies[1]
