"""Every pretext task: what its loss is by hand, and what it must not see. That it can be learnt: test_learning.py."""

import math

import numpy as np
import pytest
import torch
from every_task import IMAGES, TASKS, codes, events, fields, grid, patches, same
from torch import Tensor

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.masking import RandomMask, random_fields
from unlabeled.core.pretext import (
    EventModelling,
    Joint,
    MaskedReconstruction,
    MaskedTokens,
    NextPatch,
    NTXent,
    OrderPrediction,
    Rotation,
    VICReg,
)
from unlabeled.core.pretext.rotation import turned
from unlabeled.core.tokens import EventFields
from unlabeled.core.views import PictureView


@pytest.mark.parametrize("name", TASKS)
def test_a_task_repeats_itself_teaches_the_encoder_and_draws_anew_at_every_step(name: str) -> None:
    backbone, task, batch = TASKS[name]()
    torch.manual_seed(1)
    first = task.loss(backbone, batch, 3)
    torch.manual_seed(2)
    assert torch.equal(task.loss(backbone, batch, 3).total, first.total)
    assert first.total.ndim == 0
    assert all(not part.requires_grad for part in first.parts.values())
    if name not in ("next patch", "next segment"):
        assert not torch.equal(task.loss(backbone, batch, 4).total, first.total)
    first.total.backward()
    gradients = [p.grad for p in backbone.encoder.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0
    assert all(p.grad is not None for p in task.parameters())


def test_nt_xent_by_hand() -> None:
    task = NTXent(4, view=same, temperature=0.5)
    one, other = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    r = 1 / math.sqrt(2)
    # Unit vectors a=(1,0) b=(0,1) a'=(1,0) b'=(r,r); cosine / 0.5.
    s = {"ab": 0.0, "aa": 2.0, "ab'": 2 * r, "ba'": 0.0, "bb'": 2 * r, "a'b'": 2 * r}
    e = math.exp
    terms = [
        -math.log(e(s["aa"]) / (e(s["ab"]) + e(s["aa"]) + e(s["ab'"]))),
        -math.log(e(s["bb'"]) / (e(s["ab"]) + e(s["ba'"]) + e(s["bb'"]))),
        -math.log(e(s["aa"]) / (e(s["aa"]) + e(s["ba'"]) + e(s["a'b'"]))),
        -math.log(e(s["bb'"]) / (e(s["ab'"]) + e(s["bb'"]) + e(s["a'b'"]))),
    ]
    assert task.compare(one, other).total.item() == pytest.approx(np.mean(terms), rel=1e-6)


def test_nt_xent_of_indistinguishable_views_is_the_log_of_their_number() -> None:
    same_everywhere = torch.ones(8, 4)
    assert NTXent(4, view=same).compare(same_everywhere, same_everywhere).total.item() == pytest.approx(math.log(15))


def test_vicreg_by_hand() -> None:
    task = VICReg(4, view=same)
    one = torch.tensor([[0.5, 0.5], [-0.5, -0.5], [0.0, 0.0]])
    other = torch.tensor([[1.0, 0.3], [-1.0, 0.0], [0.0, 0.6]])
    found = task.compare(one, other)
    alike = (0.5**2 + 0.2**2 + 0.5**2 + 0.5**2 + 0.0 + 0.6**2) / 6
    # Variances over the three rows, by n - 1: 0.25 twice; 1, of which nothing is missing, and 0.09.
    first, second = 1 - math.sqrt(0.2501), (0 + 1 - math.sqrt(0.0901)) / 2
    # Covariances: 0.25, and (0 + 0.3 + 0) / 2; squared, both ways, over two dimensions.
    shared = 0.25**2 + 0.15**2
    assert found.parts["invariance"].item() == pytest.approx(alike)
    assert found.parts["variance"].item() == pytest.approx((first + second) / 2, abs=1e-5)
    assert found.parts["covariance"].item() == pytest.approx(shared)
    assert found.total.item() == pytest.approx(25 * alike + 25 * (first + second) / 2 + shared, rel=1e-5)


def test_vicreg_is_dear_where_everything_collapsed() -> None:
    task = VICReg(4, view=same)
    draw = torch.Generator().manual_seed(0)
    spread, point = torch.randn(512, 8, generator=draw), torch.zeros(512, 8)
    assert task.compare(point, point).total > 20
    assert task.compare(spread, spread).total < 3


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    picture = torch.arange(4.0).view(1, 1, 2, 2)  # 0 1 / 2 3
    expected = {0: [0, 1, 2, 3], 1: [1, 3, 0, 2], 2: [3, 2, 1, 0], 3: [2, 0, 3, 1]}
    for turns, numbers in expected.items():
        assert turned(picture, torch.tensor([turns])).flatten().tolist() == numbers
    with pytest.raises(ValueError, match="only square pictures"):
        turned(torch.zeros(1, 1, 2, 4), torch.tensor([1]))


def test_turns_are_all_alike_and_knowing_nothing_of_them_costs_log_four(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = Rotation(32), []

    def counted(batch: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        seen.append(turns)
        return turned(batch, turns)

    monkeypatch.setattr("unlabeled.core.pretext.rotation.turned", counted)
    with torch.no_grad():
        task.head[1].weight.zero_()  # type: ignore[union-attr, operator]
        task.head[1].bias.zero_()  # type: ignore[union-attr, operator]
        found = [task.loss(grid(), torch.zeros(200, 1, 16, 16), step).total.item() for step in range(4)]
    assert found == pytest.approx([math.log(4)] * 4)
    counts = torch.cat(seen).bincount(minlength=4)
    assert ((counts > 160) & (counts < 240)).all()  # 200 each, give or take three deviations


def test_scrambling_moves_the_stated_share_and_loses_nothing() -> None:
    backbone, task = grid(), OrderPrediction(32, share=0.5)
    x = torch.randn(200, 1, 16, 16)
    mixed, which = task.scrambled(backbone, x, 0)
    assert 60 < int(which.sum()) < 140
    assert torch.equal(mixed[~which], x[~which])
    before, after = patches(backbone).patches(x[which]), patches(backbone).patches(mixed[which])
    assert torch.equal(before.sum(-1).sort(1).values, after.sum(-1).sort(1).values)
    assert ((before != after).any(-1).sum(1) == 8).all()  # half of sixteen, each somewhere else


def test_half_of_the_items_are_scrambled() -> None:
    """log 2 is the loss of knowing nothing only where there are as many of either."""
    backbone, task = grid(), OrderPrediction(32)
    count = sum(int(task.scrambled(backbone, torch.zeros(200, 1, 16, 16), step)[1].sum()) for step in range(20))
    assert count == pytest.approx(2000, abs=100)  # of 4000, with a standard deviation of 32


def test_one_event_alone_is_never_called_scrambled() -> None:
    backbone, task = events(), OrderPrediction(32)
    batch = torch.zeros(20, 8, 2, dtype=torch.long)
    batch[:10, 0] = 3  # the other ten histories are empty
    assert not any(bool(task.scrambled(backbone, batch, step)[1].any()) for step in range(20))
    batch[:, :2] = 3
    assert any(bool(task.scrambled(backbone, batch, step)[1].any()) for step in range(20))


def test_segments_move_as_whole_columns() -> None:
    backbone, task = grid(), OrderPrediction(32, unit="segment", share=1.0)
    x = torch.arange(16.0).expand(50, 1, 16, 16).clone()  # every column says which it is
    mixed, which = task.scrambled(backbone, x, 0)
    for picture in mixed[which]:
        starts = picture[0, 0, ::4]
        assert sorted(starts.tolist()) == [0, 4, 8, 12]
        assert torch.equal(picture[0], (starts.repeat_interleave(4) + torch.arange(4.0).repeat(4)).expand(16, 16))
        assert not torch.equal(starts, torch.tensor([0.0, 4, 8, 12]))


def test_scrambled_histories_keep_their_padding() -> None:
    backbone, task = events(), OrderPrediction(32, share=1.0)
    batch = torch.zeros(100, 8, 2, dtype=torch.long)
    batch[:, :5, 0], batch[:, :5, 1] = torch.tensor([1, 2, 3, 4, 1]), torch.arange(1, 6)
    batch[7, 1:] = 0  # one event alone cannot be out of order
    mixed, which = task.scrambled(backbone, batch, 2)
    assert not which[7]
    assert not mixed[:, 5:].any()
    for history in mixed[which]:
        assert sorted(history[:5, 1].tolist()) == [1, 2, 3, 4, 5]
        assert history[:5, 1].tolist() != [1, 2, 3, 4, 5]


def test_hidden_fields_are_not_read_and_shares_are_as_stated() -> None:
    backbone = events(sizes=(5, 7))
    task = MaskedTokens(fields(backbone), ratio=0.3, prior=torch.tensor([1.0, 3.0]))
    batch = codes(b=400)
    hidden = task.hide(batch, 0)
    real = batch[..., 0] != 0
    assert not hidden[~real].any()
    assert hidden.flatten(1).any(dim=1).all()
    share = hidden[real].float().mean(dim=0)
    assert share.tolist() == pytest.approx([0.15, 0.45], abs=0.03)
    other = torch.where(hidden, torch.tensor([1, 1]), batch)
    for a, b in zip(task.logits(backbone, batch, hidden), task.logits(backbone, other, hidden), strict=True):
        assert torch.equal(a, b)


# What the heads of an event task are made to answer whatever they read, a row a field.
ANSWER = ([0.1, 0.1, 0.2, 0.2, 0.4], [0.04, 0.05, 0.06, 0.1, 0.2, 0.25, 0.3])


def answering(task: EventModelling | MaskedTokens) -> None:
    """Sets the heads of a task over fields of 5 and 7 codes to ``ANSWER``."""
    with torch.no_grad():
        for head, shares in zip(task.heads, ANSWER, strict=True):
            assert isinstance(head, torch.nn.Linear)
            head.weight.zero_()
            head.bias.copy_(torch.tensor(shares).log())


def surprisals(batch: Tensor, asked: Tensor) -> list[float]:
    """``-log p`` by ``ANSWER`` of the codes (B, L, F) that are asked for."""
    return [-math.log(ANSWER[f][int(batch[b, e, f])]) for b, e, f in asked.nonzero().tolist()]


def test_the_loss_of_masked_tokens_is_over_the_hidden_fields_alone_by_hand() -> None:
    backbone, batch = events(), codes()
    task = MaskedTokens(fields(backbone), ratio=0.3)
    answering(task)
    hidden, every = (surprisals(batch, asked) for asked in (task.hide(batch, 4), batch != 0))
    assert 0 < len(hidden) < len(every)
    assert np.mean(hidden) != pytest.approx(np.mean(every), rel=1e-3)
    assert task.loss(backbone, batch, 4).total.item() == pytest.approx(np.mean(hidden), rel=1e-5)


def test_event_modelling_asks_for_every_field_ahead_and_for_the_hidden_ones_given_the_others_by_hand() -> None:
    backbone, batch = events(causal=True), codes()
    task = EventModelling(fields(backbone), seed=3)
    answering(task)
    real = batch[..., 0] != 0
    asked = torch.zeros_like(batch, dtype=torch.bool)
    asked[real] = ~random_fields(batch[real].shape, seed=3, step=4)
    hidden, every = (surprisals(batch, which) for which in (asked, batch != 0))
    assert np.mean(hidden) != pytest.approx(np.mean(every), rel=1e-3)
    found = task.loss(backbone, batch, 4)
    assert found.parts["next_event"].item() == pytest.approx(np.mean(every), rel=1e-5)
    assert found.parts["masked_field"].item() == pytest.approx(np.mean(hidden), rel=1e-5)
    assert found.total.item() == pytest.approx(np.mean(every) + np.mean(hidden), rel=1e-5)


def test_event_modelling_does_not_read_the_field_that_it_asks_for() -> None:
    """-log p over all codes of one hidden field must be a distribution: the probabilities sum to one."""
    backbone = events(causal=True)
    task = EventModelling(fields(backbone))
    step = next(n for n in range(50) if random_fields(torch.Size([1, 2]), seed=0, step=n).tolist() == [[True, False]])

    def probability(first: int, second: int) -> Tensor:
        return task.loss(backbone, torch.tensor([[[first, second]]]), step).parts["masked_field"].neg().exp()

    assert sum(probability(2, code).item() for code in range(7)) == pytest.approx(1.0, abs=1e-5)
    assert probability(2, 3).item() != pytest.approx(probability(4, 3).item(), rel=1e-4)  # the visible field is read


def test_what_is_hidden_of_an_event_is_told_in_that_event_s_own_place() -> None:
    """Without blocks no place reads another, so that what is visible of an event shows in its own answer alone."""
    tokenizer = EventFields(sizes=(5, 7), dim=32, length=8)
    backbone, task = Backbone(tokenizer, Encoder(dim=32, depth=0, heads=2)), MaskedTokens(tokenizer)
    batch = codes(b=3)
    hidden = torch.zeros(3, 8, 2, dtype=torch.bool)
    hidden[:, 2, 1] = True
    changed = batch.clone()
    changed[:, 2, 0] = batch[:, 2, 0] % 4 + 1
    before, after = (task.logits(backbone, read, hidden)[1] for read in (batch, changed))
    moved = (before - after).abs().amax(dim=2) > 1e-6
    assert moved.tolist() == [[event == 2 for event in range(8)]] * 3


@pytest.mark.parametrize("task", [EventModelling, MaskedTokens])
def test_a_prior_of_other_fields_is_refused(task: type[EventModelling] | type[MaskedTokens]) -> None:
    with pytest.raises(ValueError, match="one positive weight for each of 2 fields"):
        task(fields(events()), prior=torch.tensor([1.0, 1.0, 2.0]))


def test_a_prior_is_in_the_loss_but_not_among_the_weights() -> None:
    backbone = events(causal=True)
    task = EventModelling(fields(backbone), prior=torch.tensor([1.0, 9.0]), seed=6)
    plain = EventModelling(fields(backbone), seed=6)
    plain.load_state_dict(task.state_dict())
    ours, theirs = (one.loss(backbone, codes(), 2).parts for one in (task, plain))
    assert torch.equal(ours["next_event"], theirs["next_event"])
    assert not torch.equal(ours["masked_field"], theirs["masked_field"])


def test_a_run_hides_whole_events_in_one_piece() -> None:
    backbone = events()
    hidden = MaskedTokens(fields(backbone), ratio=0.4, run=True).hide(codes(), 1)
    assert torch.equal(hidden[..., 0], hidden[..., 1])
    event = hidden[..., 0].int()
    assert event.sum(dim=1).tolist() == [2] + [3] * 15  # 0.4 of five events, of eight
    edges = torch.nn.functional.pad(event, (1, 1)).diff(dim=1).abs().sum(dim=1)
    assert (edges == 2).all()


def test_the_next_patch_is_foretold_from_those_before_it_alone() -> None:
    for order in ("raster", "time"):
        backbone = grid(causal=True)
        task = NextPatch(patches(backbone), order=order)  # type: ignore[arg-type]
        x = torch.randn(2, 1, 16, 16)
        before, target = task.foretell(backbone, x)
        changed = x.clone()
        changed[:, :, 8:12, 4:8] += 5.0  # patch (2, 1): ninth in raster order, sixth column by column
        position = 9 if order == "raster" else 6
        after, _ = task.foretell(backbone, changed)
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.equal(before[:, position:], after[:, position:])
        assert target.shape == (2, 15, 16)
    with pytest.raises(ValueError, match="needs a causal encoder"):
        NextPatch(patches(grid())).loss(grid(), x, 0)


def test_the_target_is_the_next_patch_in_reading_order_by_hand() -> None:
    # Four patches: 1 and 2 above, 3 and 4 below. One half of each is minus its number, the other its number.
    number = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(4, dim=0).repeat_interleave(4, dim=1)
    picture = (number * torch.tensor([-1.0, -1.0, 1.0, 1.0] * 2))[None, None]
    backbone = grid(causal=True, size=8)
    pattern = torch.tensor([-1.0, -1.0, 1.0, 1.0] * 4)
    for order, numbers in (("raster", [2.0, 3.0, 4.0]), ("time", [3.0, 2.0, 4.0])):
        raw, standard = (
            NextPatch(patches(backbone), order=order, normalise=normalise).foretell(backbone, picture)[1]  # type: ignore[arg-type]
            for normalise in (False, True)
        )
        assert torch.equal(raw, torch.tensor(numbers)[None, :, None] * pattern)
        expected = [n / math.sqrt(n**2 * 16 / 15 + 1e-4) for n in numbers]
        torch.testing.assert_close(standard, torch.tensor(expected)[None, :, None] * pattern)


def test_the_two_views_of_a_thing_are_drawn_apart() -> None:
    backbone = grid()
    one, other = NTXent(32, view=PictureView()).views(backbone, IMAGES, 3)
    assert bool(((one - other).abs().amax(dim=1) > 1e-3).all())
    one, other = NTXent(32, view=same).views(backbone, IMAGES, 3)
    torch.testing.assert_close(one, other)


def test_a_joint_task_projects_as_its_first_task_that_does() -> None:
    backbone, embedding = grid(), torch.randn(3, 32)
    fill, match = MaskedReconstruction(patches(backbone), mask=RandomMask()), NTXent(32, view=same, projection=(16, 8))
    assert Joint({"fill": (fill, 1.0), "match": (match, 0.5)}).project(embedding).shape == (3, 8)
    for tasks in ((fill, match), (match, fill), (fill, match, NTXent(32, view=same))):
        joint = Joint({str(number): (task, 1.0) for number, task in enumerate(tasks)})
        assert torch.equal(joint.project(embedding), match.projector(embedding))
    assert torch.equal(Joint({"fill": (fill, 1.0)}).project(embedding), embedding)


def test_a_joint_loss_is_the_weighted_sum() -> None:
    backbone = grid()
    fill, turn = MaskedReconstruction(patches(backbone), mask=RandomMask()), Rotation(32)
    joint = Joint({"fill": (fill, 2.0), "turn": (turn, 0.5)}).loss(backbone, IMAGES, 6)
    expected = 2 * fill.loss(backbone, IMAGES, 6).total + 0.5 * turn.loss(backbone, IMAGES, 6).total
    torch.testing.assert_close(joint.total, expected)
    assert {"fill.masked_mse", "turn.rotation", "turn.turns_right"} == set(joint.parts)
    with pytest.raises(ValueError, match="above 0"):
        Joint({"fill": (fill, 0.0)})


def test_visible_only_is_the_full_encoder_under_an_attention_mask() -> None:
    backbone = grid()
    tokens = backbone.tokens(IMAGES)
    kept, masked = RandomMask(0.75)(tokens, 0)
    alone = backbone.encoder(tokens.take(kept))
    pad = torch.zeros(16, 16, dtype=torch.bool).scatter(1, masked, True)
    whole = backbone.encoder(type(tokens)(tokens.x, tokens.position, pad))
    torch.testing.assert_close(alone, whole.gather(1, kept[..., None].expand(-1, -1, 32)), atol=1e-5, rtol=1e-4)
