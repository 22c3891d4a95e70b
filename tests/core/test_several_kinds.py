"""One trunk for pictures, spectra and histories: what is shared, what is balanced, and that each kind learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unlabeled.core import meter
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import EventModelling, MaskedReconstruction, Pretraining
from unlabeled.core.several_kinds import Lesson, SeveralKinds, SideBySide, of_kind, sharing, teach_together, together
from unlabeled.core.tokens import EventFields, GridPatches
from unlabeled.core.training import History, TrainingSettings, fit


def three_kinds() -> SeveralKinds:
    torch.manual_seed(0)
    trunk = Encoder(dim=32, depth=2, heads=2)
    pictures = GridPatches(grid=(16, 16), patch=(4, 4), dim=32)
    spectra = GridPatches(grid=(16, 8), patch=(8, 4), dim=32, channels=2)
    payments = EventFields(sizes=(4, 6), dim=32, length=8)
    small = {"dim": 16, "depth": 1, "heads": 2}
    return SeveralKinds(
        {
            "pictures": Pretraining(
                Backbone(pictures, trunk), MaskedReconstruction(pictures, mask=RandomMask(0.5), **small)
            ),
            "spectra": Pretraining(
                Backbone(spectra, sharing(trunk, causal=False)),
                MaskedReconstruction(spectra, mask=RandomMask(0.5), normalise=False, **small),
            ),
            "payments": Pretraining(
                Backbone(payments, sharing(trunk, causal=True)), EventModelling(payments, hidden=32)
            ),
        }
    )


def data() -> SideBySide:
    draw = np.random.default_rng(0)
    wave = np.sin(np.arange(16)[:, None] / 2 + draw.uniform(0, 6, (200, 1, 1, 1))).astype(np.float32)
    pictures = np.broadcast_to(wave, (200, 1, 16, 16)).copy()
    spectra = np.broadcast_to(wave[:150], (150, 2, 16, 8)).copy() * 5  # in units of their own
    start = draw.integers(0, 3, (120, 1))
    count = (start + np.arange(8)) % 3 + 1
    payments = np.stack([count, count + 1], axis=2)
    return SideBySide(
        {
            "pictures": Batches(pictures, batch_size=32),
            "spectra": Batches(spectra, batch_size=16, seed=1),
            "payments": Batches(payments, batch_size=24, seed=2),
        }
    )


def train(module: SeveralKinds, *, steps: int = 60, state: Path | None = None, stop: int | None = None) -> History:
    def log(values: dict[str, float], step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    settings = TrainingSettings(steps=steps, lr=3e-3, log_every=5, checkpoint_every=10)
    return fit(module, data(), settings=settings, state=state, log=log)


def test_the_blocks_are_one_and_everything_else_is_a_kind_s_own() -> None:
    module = three_kinds()
    encoders = [task.backbone.encoder for task in module.tasks.values()]  # type: ignore[union-attr]
    assert len({id(encoder.blocks[0].qkv.weight) for encoder in encoders}) == 1  # type: ignore[union-attr]
    assert [encoder.causal for encoder in encoders] == [False, False, True]
    alone = sum(p.numel() for p in Encoder(dim=32, depth=2, heads=2).parameters())
    heads = sum(p.numel() for name, p in module.named_parameters() if ".encoder." not in name)
    assert sum(p.numel() for p in module.parameters()) == alone + heads


def test_a_shared_causal_encoder_still_does_not_see_the_future() -> None:
    backbone = three_kinds().backbone("payments")
    codes = torch.randint(1, 4, (3, 8, 2))
    changed = codes.clone()
    changed[:, 5:] = 1
    assert torch.equal(backbone(codes)[:, :6], backbone(changed)[:, :6])


def test_every_kind_counts_the_same_whatever_its_units() -> None:
    module, batch = three_kinds(), data().at(0)
    first = module(batch, 0)
    assert first.total.item() == pytest.approx(1.0)  # each loss over its own level, averaged
    levels = module.get_buffer("level").tolist()
    assert levels == pytest.approx([first.parts[kind].item() for kind in ("pictures", "spectra", "payments")])
    assert levels[1] > 5 * levels[0]
    before = module.get_buffer("level").clone()
    second = module(data().at(1), 1)
    expected = 0.98 * before[0] + 0.02 * second.parts["pictures"]
    assert module.get_buffer("level")[0].item() == pytest.approx(expected.item())


def test_all_kinds_learn_in_one_training() -> None:
    history = train(three_kinds(), steps=150)
    for kind in ("pictures", "spectra", "payments"):
        curve = [value for _, value in history.curves[kind]]
        assert curve[-1] < 0.7 * curve[0], kind


def test_an_interrupted_joint_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, cut, again = three_kinds(), three_kinds(), three_kinds()
    curves = train(whole, state=tmp_path / "whole").curves
    with pytest.raises(KeyboardInterrupt):
        train(cut, state=tmp_path / "cut", stop=35)
    history = train(again, state=tmp_path / "cut")
    assert history.resumed_from == 30
    assert history.curves == curves
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_tokens_of_a_step_are_those_of_all_kinds() -> None:
    """32 pictures of 16 patches, 16 spectra of 4, 24 histories of 8 payments and a start token."""
    assert meter.tokens_of(three_kinds(), data().at(0)) == 32 * 16 + 16 * 4 + 24 * 9


def test_fine_tuning_one_kind_leaves_the_trunk_alone() -> None:
    module = three_kinds()
    own = module.backbone("pictures")
    with torch.no_grad():
        own.encoder.blocks[0].qkv.weight.zero_()  # type: ignore[union-attr]
    assert module.tasks["pictures"].backbone.encoder.blocks[0].qkv.weight.abs().sum() > 0  # type: ignore[union-attr]


def test_an_encoder_of_its_own_is_refused() -> None:
    module = three_kinds()
    tokenizer = GridPatches(grid=(8, 8), patch=(4, 4), dim=32)
    stranger = Pretraining(
        Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2)), MaskedReconstruction(tokenizer, mask=RandomMask(0.5))
    )
    with pytest.raises(ValueError, match="encoder of 'stranger' has blocks of its own"):
        SeveralKinds({**dict(module.tasks.items()), "stranger": stranger})  # type: ignore[dict-item]


def test_each_kind_is_watched_and_that_changes_nothing() -> None:
    settings = TrainingSettings(steps=30, lr=3e-3, log_every=5, checkpoint_every=10)
    watched = teach_together(lessons(), settings=settings)
    several, batches = together(lessons())
    plain = fit(several, batches, settings=settings)
    looks = {name: curve for name, curve in watched.curves.items() if "watch." in name}
    assert {name.partition(".")[0] for name in looks} == {"pictures", "spectra", "payments"}
    assert {name: curve for name, curve in watched.curves.items() if name not in looks} == plain.curves
    own = of_kind(watched, "spectra").curves["watch.effective_rank"]
    assert own == looks["spectra.watch.effective_rank"]
    assert len(own) > 1


def lessons() -> dict[str, Lesson]:
    module, together = three_kinds(), data()
    return {
        kind: Lesson(Pretraining(module.backbone(kind), task.pretext), together.kinds[kind])  # type: ignore[union-attr,arg-type]
        for kind, task in module.tasks.items()
    }


def test_kinds_taught_together_leave_with_the_same_blocks_each_in_a_copy_of_its_own() -> None:
    taught = lessons()
    held = {kind: lesson.module.backbone for kind, lesson in taught.items()}  # whoever made them holds on to these
    assert len({id(x.module.backbone.encoder.blocks) for x in taught.values()}) == 3
    settings = TrainingSettings(steps=150, lr=3e-3, log_every=5)
    history = teach_together(taught, settings=settings)
    for kind in taught:
        curve = [value for _, value in history.curves[kind]]
        assert curve[-1] < 0.8 * curve[0], kind
    assert all(lesson.module.backbone is held[kind] for kind, lesson in taught.items())
    one, *others = (x.module.backbone.encoder for x in taught.values())
    for other in others:
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
    assert [x.module.backbone.encoder.causal for x in taught.values()] == [False, False, True]
    with torch.no_grad():
        next(one.parameters()).add_(1.0)
    assert not torch.equal(next(one.parameters()), next(others[0].parameters()))
    alone = of_kind(history, "payments")
    assert {name for name in alone.curves if not name.startswith("watch.")} == {"loss", "next_event", "masked_field"}
    assert alone.curves["loss"] == history.curves["payments"]
    # What a kind goes on with is what was trained: its loss now is the curve's, not the untrained one.
    lesson = taught["spectra"]
    assert lesson.module(lesson.batches.at(0), 0).total.item() < 1.3 * history.curves["spectra"][-1][1]


def test_kinds_of_different_sizes_are_not_taught_together() -> None:
    taught = lessons()
    spectra = GridPatches(grid=(16, 8), patch=(8, 4), dim=32, channels=2)
    deeper = Pretraining(
        Backbone(spectra, Encoder(dim=32, depth=3, heads=2)), MaskedReconstruction(spectra, mask=RandomMask(0.5))
    )
    taught["spectra"] = taught["spectra"]._replace(module=deeper)
    with pytest.raises(ValueError, match=r"the encoder of 'spectra' is .*'depth': 3.*make them alike"):
        teach_together(taught, settings=TrainingSettings(steps=1))
