import math
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import EventModelling, MaskedReconstruction, MaskedTokens, Pretraining
from unlabeled.core.pretext.masked_reconstruction import standardised
from unlabeled.core.tokens import EventFields, GridPatches, Tokens, take
from unlabeled.core.training import TrainingSettings, fit


def image_task(
    *, normalise: bool = True, channels: int = 1, class_token: bool = False
) -> tuple[Backbone, MaskedReconstruction]:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(16, 16), patch=(4, 4), dim=32, channels=channels, class_token=class_token)
    pretext = MaskedReconstruction(tokenizer, mask=RandomMask(0.75), dim=16, depth=1, heads=2, normalise=normalise)
    return Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2)), pretext


def event_task(sizes: tuple[int, ...] = (5, 7), length: int = 8) -> tuple[Backbone, EventModelling]:
    torch.manual_seed(0)
    tokenizer = EventFields(sizes=sizes, dim=32, length=length)
    return Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2, causal=True)), EventModelling(tokenizer, hidden=32)


@pytest.mark.parametrize("class_token", [False, True])
def test_the_reconstruction_never_reads_what_it_has_to_predict(class_token: bool) -> None:
    backbone, pretext = image_task(class_token=class_token)
    x = torch.randn(2, 1, 16, 16)
    prediction, masked = pretext.reconstruct(backbone, x, step=3)
    tokenizer = backbone.tokenizer
    assert isinstance(tokenizer, GridPatches)
    patches = tokenizer.patches(x)
    patches = patches.scatter(1, masked[..., None].expand(-1, -1, 16), 99.0)
    again, same = pretext.reconstruct(backbone, tokenizer.unpatch(patches), step=3)
    assert torch.equal(masked, same)
    assert torch.equal(prediction, again)


def test_a_class_token_is_read_by_the_decoder_and_is_neither_masked_nor_predicted() -> None:
    plain, with_one = image_task(), image_task(class_token=True)
    x = torch.randn(2, 1, 16, 16)
    prediction, masked = with_one[1].reconstruct(with_one[0], x, step=3)
    assert torch.equal(masked, plain[1].reconstruct(plain[0], x, step=3)[1])  # the same draw over the same patches
    assert prediction.shape == (2, 12, 16)
    # A class token that nobody reads would change nothing.
    token = with_one[0].tokenizer.class_token
    assert isinstance(token, torch.nn.Parameter)
    with_one[1].loss(with_one[0], x, 3).total.backward()
    assert token.grad is not None
    assert float(token.grad.abs().max()) > 0
    # By hand: the decoder's input is the class token at position zero, then the patches in their order.
    backbone, pretext = with_one
    kept = pretext.mask(backbone.tokens(x), 3).kept
    seen = pretext.enter(backbone.encoder(backbone.tokens(x).take(kept)))
    whole = pretext.hidden.expand(2, 16, -1).scatter(1, kept[..., None].expand(-1, -1, 16), seen[:, 1:])
    sequence = torch.cat([seen[:, :1], whole + pretext.get_buffer("position")], dim=1)
    decoded = pretext.predict(pretext.decoder(Tokens(sequence, torch.zeros(1, 1, 16))))
    assert torch.allclose(take(decoded[:, 1:], masked), prediction, atol=1e-5)


def test_the_target_is_each_patch_standardised() -> None:
    backbone, pretext = image_task()
    x = torch.randn(2, 1, 16, 16) * 5 + 3
    patch = x[0, 0, 4:8, 8:12].numpy().reshape(-1).astype(float)
    expected = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-4)
    np.testing.assert_allclose(pretext.target(backbone.tokenizer, x)[0, 6].numpy(), expected, rtol=1e-4)  # type: ignore[arg-type]


def test_a_nearly_constant_patch_is_standardised_by_no_less_than_the_floor_by_hand() -> None:
    """Or rounding noise in a background would be as large a target as an edge."""
    # 0.5 +- 0.01, variance 4 x 1e-4 / 3; 0.5 +- 0.0001, variance 4 x 1e-8 / 3; nothing at all.
    patches = torch.tensor([[[0.49, 0.51, 0.49, 0.51], [0.4999, 0.5001, 0.4999, 0.5001], [0.5, 0.5, 0.5, 0.5]]])
    heights = torch.tensor([0.01 / math.sqrt(4e-4 / 3 + 1e-4), 1e-4 / math.sqrt(4e-8 / 3 + 1e-4), 0.0])
    expected = heights[None, :, None] * torch.tensor([-1.0, 1.0, -1.0, 1.0])
    torch.testing.assert_close(standardised(patches), expected, atol=1e-5, rtol=1e-3)


def test_the_loss_is_the_mean_square_over_masked_patches_only() -> None:
    backbone, pretext = image_task(normalise=False, channels=2)
    x = torch.randn(3, 2, 16, 16)
    with torch.no_grad():
        pretext.predict.weight.zero_()
        pretext.predict.bias.fill_(0.5)
    tokenizer = backbone.tokenizer
    assert isinstance(tokenizer, GridPatches)
    masked = pretext.mask(backbone.tokens(x), 0).masked
    patches = tokenizer.patches(x)
    chosen = torch.stack([patches[i, masked[i]] for i in range(3)])
    expected = (chosen - 0.5).square().mean()
    assert torch.isclose(pretext.loss(backbone, x, 0).total, expected)


def test_an_untrained_uniform_head_is_surprised_by_the_log_of_the_number_of_codes() -> None:
    backbone, pretext = event_task()
    with torch.no_grad():
        for parameter in pretext.heads.parameters():
            parameter.zero_()
    codes = torch.tensor([[1, 2], [4, 6]])
    ahead, rest = pretext.surprisal(backbone, torch.randn(2, 32), codes)
    expected = torch.tensor([[math.log(5), math.log(7)]] * 2)
    assert torch.allclose(ahead, expected)
    assert torch.allclose(rest, expected)


def test_padding_adds_nothing_to_the_loss() -> None:
    backbone, pretext = event_task()
    codes = torch.randint(1, 5, (4, 6, 2))
    padded = torch.cat([codes, torch.zeros(4, 2, 2, dtype=torch.long)], dim=1)
    assert torch.isclose(pretext.loss(backbone, codes, 0).total, pretext.loss(backbone, padded, 0).total, atol=1e-6)


def test_the_surprisal_given_the_other_fields_does_not_read_the_field_itself() -> None:
    backbone, pretext = event_task(sizes=(5, 7, 3))
    history = torch.randn(1, 32)
    whole = pretext.surprisal(backbone, history, torch.tensor([[1, 2, 1]]))[1]
    # -log p over all codes of one field must be a distribution: the probabilities sum to one.
    probabilities = [
        pretext.surprisal(backbone, history, torch.tensor([[1, code, 1]]))[1][0, 1].neg().exp() for code in range(7)
    ]
    assert torch.isclose(torch.stack(probabilities).sum(), torch.tensor(1.0), atol=1e-5)
    assert whole.shape == (1, 3)


def test_event_modelling_learns_what_follows_from_the_past_and_from_the_other_fields() -> None:
    """Field 0 counts 1, 2, 3, 1, 2, 3 (known from the past); field 1 is a coin (log 2 from the past alone);
    field 2 repeats the coin (known from the other field)."""
    backbone, pretext = event_task(sizes=(4, 3, 3), length=9)
    draw = np.random.default_rng(0)
    coin = draw.integers(1, 3, (512, 9, 1))
    count = (np.arange(9)[None, :, None] + draw.integers(0, 3, (512, 1, 1))) % 3 + 1
    codes = np.concatenate([count, coin, coin], axis=2)
    task = Pretraining(backbone, pretext)
    fit(task, Batches(codes, batch_size=64), settings=TrainingSettings(steps=250, lr=3e-3, weight_decay=0.0))
    with torch.no_grad():
        batch = torch.from_numpy(codes[:64])
        history = backbone(batch)[:, 4]  # has read events 0..3
        ahead, rest = pretext.surprisal(backbone, history, batch[:, 4])
    log2 = math.log(2)
    assert ahead[:, 0].mean() < 0.1
    assert 0.8 * log2 < ahead[:, 1].mean() < 1.3 * log2
    assert rest[:, 2].mean() < 0.1


@torch.no_grad()
def test_a_part_of_the_hidden_patches_can_be_asked_for_alone() -> None:
    backbone, whole = image_task()
    part = MaskedReconstruction(
        backbone.tokenizer,  # type: ignore[arg-type]
        mask=RandomMask(0.75), dim=16, depth=1, heads=2, predicted=1 / 3,
    )  # fmt: skip
    part.load_state_dict(whole.state_dict())
    x = torch.randn(3, 1, 16, 16)
    asked = [part.reconstruct(backbone, x, step, predicted=part.predicted)[1] for step in range(20)]
    for step, index in enumerate(asked):
        hidden = whole.reconstruct(backbone, x, step)[1]
        assert index.shape == (3, 4)  # a third of 12
        for row, among in zip(index.tolist(), hidden.tolist(), strict=True):
            assert len(set(row)) == 4
            assert set(row) <= set(among)
    assert len(set(torch.cat(asked).reshape(-1).tolist())) == 16  # no patch is never asked for
    # What it is not asked for plays no part: the loss is the error on those four, given the kept ones and those four.
    prediction, index = part.reconstruct(backbone, x, 7, predicted=part.predicted)
    target = take(part.target(backbone.tokenizer, x), index)  # type: ignore[arg-type]
    assert float(part.loss(backbone, x, 7).total) == pytest.approx(float((prediction - target).square().mean()))
    # Reports fill everything in.
    assert torch.equal(part.reconstruct(backbone, x, 7)[0], whole.reconstruct(backbone, x, 7)[0])
    with pytest.raises(ValueError, match="predicted must lie in"):
        MaskedReconstruction(backbone.tokenizer, mask=RandomMask(0.75), predicted=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("share", "count"), [(0.3, 4), (0.2, 2), (0.01, 1), (0.99, 12)])
def test_the_part_that_is_asked_for_is_the_nearest_whole_number_of_patches(share: float, count: int) -> None:
    backbone, pretext = image_task()
    with torch.no_grad():
        index = pretext.reconstruct(backbone, torch.randn(2, 1, 16, 16), 0, predicted=share)[1]
    assert index.shape == (2, count)  # of 12: 3.6, 2.4, 0.12 and 11.88, one at least


def token_task(*, causal: bool, **settings: Any) -> tuple[Backbone, MaskedTokens]:
    torch.manual_seed(0)
    tokenizer = EventFields(sizes=(5, 7), dim=32, length=8)
    return Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2, causal=causal)), MaskedTokens(tokenizer, **settings)


def test_however_much_a_run_hides_one_of_several_events_is_left_to_tell_the_others_from() -> None:
    _, task = token_task(causal=False, ratio=0.9, run=True)
    lengths = torch.tensor([1, 2, 4, 8, 30])
    codes = torch.where(torch.arange(30)[None, :, None] < lengths[:, None, None], 1, 0).expand(5, 30, 3)
    for step in range(20):
        hidden = task.hide(codes, step).any(dim=2).sum(dim=1)
        assert hidden.tolist() == [1, 1, 3, 7, 27]  # a single event is asked from what is no payment at all
    with pytest.raises(ValueError, match=r"above 0 and at most 0\.9, got 0\.95"):
        token_task(causal=False, ratio=0.95)


def test_masked_tokens_read_both_sides_of_a_causal_encoder_too() -> None:
    """The same weights give the same loss, and what comes later has a say."""
    codes = torch.stack([torch.randint(1, size, (6, 8)) for size in (5, 7)], dim=2)
    codes[0, 5:] = 0
    (causal, ours), (plain, theirs) = (token_task(causal=flag, ratio=0.3, seed=4) for flag in (True, False))
    assert torch.equal(ours.loss(causal, codes, 2).total, theirs.loss(plain, codes, 2).total)
    # Everything else still reads the past alone.
    assert torch.allclose(causal(codes)[:, :3], causal(codes[:, :2]), atol=1e-5)
    hidden = torch.zeros(6, 8, 2, dtype=torch.bool)
    hidden[:, 2] = True
    later = codes.clone()
    later[:, 4] = codes[:, 4] % 4 + 1
    before, after = (ours.logits(causal, read, hidden)[1][1:, 2] for read in (codes, later))
    assert bool(((before - after).abs().amax(dim=1) > 1e-6).all())


def test_a_run_of_whole_events_takes_no_prior_of_fields() -> None:
    with pytest.raises(ValueError, match="every field of them: a prior of fields has no say"):
        token_task(causal=True, run=True, prior=torch.tensor([1.0, 2.0]))
