"""Blocks, adaptive and salient masks: exact counts, shapes, memory, and that nothing is never seen."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.informed_masking import AdaptiveMask, SalientMask, salience
from unlabeled.core.masking import BlockMask, Mask, RandomMask
from unlabeled.core.pretext import Inpainting, MaskedReconstruction
from unlabeled.core.tokens import GridPatches, Tokens


def tokens_of(b: int, t: int) -> Tokens:
    return Tokens(torch.zeros(b, t, 4), torch.zeros(1, t, 4))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(3, 9),
    columns=st.integers(3, 9),
    ratio=st.floats(0.2, 0.7),
    blocks=st.integers(1, 3),
    shape=st.sampled_from(["block", "time", "band"]),
    step=st.integers(0, 1000),
)
def test_blocks_hide_exactly_their_share_and_name_every_token_once(
    rows: int, columns: int, ratio: float, blocks: int, shape: str, step: int
) -> None:
    t = rows * columns
    mask = BlockMask((rows, columns), ratio=ratio, blocks=blocks, shape=shape)  # type: ignore[arg-type]
    kept, masked = mask(tokens_of(3, t), step)
    assert masked.shape == (3, round(t * ratio))
    assert torch.equal(torch.cat([kept, masked], 1).sort(1).values, torch.arange(t).expand(3, -1))


def test_one_block_is_one_piece_and_much_less_ragged_than_chance() -> None:
    kept, masked = BlockMask((12, 12), ratio=0.25, blocks=1)(tokens_of(50, 144), 0)
    assert len(kept) == 50
    for row in masked:
        hidden = {(int(i) // 12, int(i) % 12) for i in row}
        reached, new = set(), {min(hidden)}
        while new:
            reached |= new
            new = {(a + da, b + db) for a, b in new for da, db in ((0, 1), (1, 0), (0, -1), (-1, 0))} & hidden - reached
        assert reached == hidden


def test_several_blocks_lie_apart_and_share_what_is_hidden() -> None:
    prior = torch.full((64,), 1e-6)
    prior[[9, 54]] = 1.0  # second row and column, and the seventh
    masked = BlockMask((8, 8), ratio=0.28, blocks=2, prior=prior)(tokens_of(100, 64), 0).masked
    for corner in (9, 54):
        assert (masked == corner).any(dim=1).all()
    upper = ((masked // 8 + masked % 8) < 7).sum(dim=1)
    assert ((upper >= 4) & (upper <= 14)).all()  # of 18


def test_blocks_are_of_random_proportions() -> None:
    masked = BlockMask((24, 24), ratio=0.1, blocks=1)(tokens_of(100, 576), 0).masked
    rows, columns = masked // 24, masked % 24
    height, width = (x.amax(dim=1) - x.amin(dim=1) + 1.0 for x in (rows, columns))
    assert ((height / width) > 1.5).any()
    assert ((width / height) > 1.5).any()


def test_a_time_gap_hides_whole_columns_and_a_band_whole_rows() -> None:
    for shape, axis in (("time", 0), ("band", 1)):
        masked = BlockMask((4, 8), ratio=0.5, blocks=1, shape=shape)(tokens_of(20, 32), 5).masked  # type: ignore[arg-type]
        hidden = torch.zeros(20, 32).scatter(1, masked, 1.0).view(20, 4, 8)
        whole = hidden.amin(dim=1 + axis)
        assert torch.equal(hidden.amax(dim=1 + axis), whole)
        assert (whole.diff(dim=1).abs().sum(dim=1) <= 2).all()  # one gap


def test_inpainting_takes_a_prior_for_where_its_blocks_are() -> None:
    prior = torch.full((64,), 1e-6)
    prior[9] = 1.0
    tokenizer = GridPatches(grid=(16, 16), patch=(2, 2), dim=16)
    masked = Inpainting(tokenizer, ratio=0.14, blocks=1, prior=prior).mask(tokens_of(200, 64), 0).masked
    assert (masked == 9).any(dim=1).all()


def test_a_prior_pulls_blocks_towards_it() -> None:
    prior = torch.full((64,), 1e-6)
    prior[9] = 1.0
    masked = BlockMask((8, 8), ratio=0.14, blocks=1, prior=prior)(tokens_of(200, 64), 0).masked
    assert (masked == 9).any(dim=1).all()


def test_without_strength_an_adaptive_mask_is_a_random_one() -> None:
    adaptive = AdaptiveMask(16, ratio=(0.5, 0.5), strength=0.0, spread=0.0, seed=4, warmup=1)
    for step in range(5):
        adaptive.observe(torch.arange(16).expand(2, -1), torch.arange(16.0).expand(2, -1))
        assert torch.equal(
            adaptive(tokens_of(3, 16), step).masked, RandomMask(0.5, seed=4)(tokens_of(3, 16), step).masked
        )


def test_hard_places_are_hidden_more_often_and_easy_ones_still_sometimes() -> None:
    mask = AdaptiveMask(16, ratio=(0.5, 0.5), strength=1.0, warmup=3)
    error = torch.ones(4, 16)
    error[:, 5], error[:, 6] = 10.0, 0.0
    for _ in range(4):
        mask.observe(torch.arange(16).expand(4, -1), error)
    share = torch.bincount(mask(tokens_of(4000, 16), 0).masked.flatten(), minlength=16) / 4000
    assert share[5] > 0.85
    assert 0.1 < share[6] < share[7]


def test_the_memory_counts_only_once_every_place_was_seen() -> None:
    """What was never seen has no error yet: taken for zero it would be the easiest place of all, and stay unseen."""
    mask, random = AdaptiveMask(16, ratio=(0.5, 0.5), strength=1.0, warmup=2, seed=4), RandomMask(0.5, seed=4)

    def hidden(mask: Mask) -> torch.Tensor:
        return mask(tokens_of(50, 16), 3).masked

    error = torch.linspace(1, 20, 15).expand(4, -1)
    for _ in range(5):
        mask.observe(torch.arange(15).expand(4, -1), error)
    assert mask.get_buffer("level")[0] == 5  # long after the warm-up
    assert torch.equal(hidden(mask), hidden(random))
    mask.observe(torch.full((4, 1), 15), torch.ones(4, 1))
    assert not torch.equal(hidden(mask), hidden(random))


def test_the_share_follows_the_error_by_hand() -> None:
    mask = AdaptiveMask(4, ratio=(0.5, 0.75), momentum=0.0, warmup=2, floor=0.5)
    shares = []
    for error in (9.0, 8.0, 6.0, 4.0, 1.0, 8.0):
        mask.observe(torch.arange(4)[None], torch.full((1, 4), error))
        shares.append(mask.share())
    # Early error 8: at 6 half of the way to its half, at 4 and below all of it, and back where it was.
    assert shares == pytest.approx([0.5, 0.5, 0.625, 0.75, 0.75, 0.5])


def sequences(*deviations: float) -> torch.Tensor:
    """(B, 20, 2): every patch of a sequence is plus and minus its deviation."""
    return torch.tensor([[-1.0, 1.0]]).expand(len(deviations), 20, 2) * torch.tensor(deviations)[:, None, None]


def test_less_is_hidden_of_sequences_that_are_foretold_to_be_hard_by_hand() -> None:
    mask = AdaptiveMask(20, ratio=(0.5, 0.5), strength=0.0, spread=0.1, momentum=0.0, warmup=1)
    held = sequences(1.0, math.e, 1.0, math.e)  # log variances 0 and 2: mean 1, standard deviation 1
    everywhere = torch.arange(20).expand(4, -1)
    mask.observe(everywhere, torch.tensor([3.0, 5.0, 3.0, 5.0])[:, None].expand(4, 20), held)
    asked = sequences(math.e, 1.0, math.e**0.5, math.e**9)
    assert mask.foretold(asked).tolist() == pytest.approx([1.0, -1.0, 0.0, 2.0], abs=1e-4)  # held to two deviations
    groups = mask.groups(asked)
    assert groups is not None
    assert [rows.tolist() for rows in groups] == [[1], [2], [0], [3]]  # from easy to hard
    hidden = [mask(tokens_of(1, 20), 0, asked[rows]).masked.shape[1] for rows in groups]
    assert hidden == [12, 10, 8, 6]  # of 20: 0.6, 0.5, 0.4 and 0.3


def test_all_sequences_are_treated_alike_where_nothing_tells_the_hard_ones_and_where_they_are_judged() -> None:
    mask = AdaptiveMask(20, warmup=1, momentum=0.0)
    held, everywhere = sequences(1.0, 2.0, 1.0, 2.0), torch.arange(20).expand(4, -1)
    mask.observe(everywhere, torch.tensor([3.0, 3.0, 5.0, 5.0])[:, None].expand(4, 20), held)  # no correlation

    def hidden() -> set[int]:
        groups = mask.groups(held)
        assert groups is not None
        return {mask(tokens_of(len(rows), 20), 0, held[rows]).masked.shape[1] for rows in groups}

    assert len(hidden()) == 1
    mask.observe(everywhere, torch.tensor([3.0, 5.0, 3.0, 5.0])[:, None].expand(4, 20), held)
    assert len(hidden()) > 1
    assert AdaptiveMask(20, spread=0.0).groups(held) is None
    mask.eval()
    assert mask.groups(held) is None
    usual = mask(tokens_of(1, 20), 0).masked
    assert torch.equal(mask(tokens_of(1, 20), 0, sequences(9.0)).masked, usual)


def test_the_loss_over_groups_is_the_mean_over_all_hidden_tokens() -> None:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(16, 16), patch=(4, 4), dim=32)
    mask = AdaptiveMask(16, ratio=(0.5, 0.5), spread=0.2, warmup=1, momentum=0.0)
    task = MaskedReconstruction(tokenizer, mask=mask, dim=16, depth=1, heads=2, normalise=False)
    backbone = Backbone(tokenizer, Encoder(dim=32, depth=1, heads=2))
    x = torch.randn(8, 1, 16, 16) * torch.linspace(0.2, 2.0, 8)[:, None, None, None]
    with torch.no_grad():
        prediction, masked = task.reconstruct(backbone, x, 0)
    error = (prediction - tokenizer.patches(x).gather(1, masked[..., None].expand(-1, -1, 16))).square().mean(dim=-1)
    mask.observe(masked, error, tokenizer.patches(x))  # errors follow the variance: patches are not standardised
    state = {name: value.clone() for name, value in mask.state_dict().items()}
    lengths: list[tuple[int, int]] = []
    hook = backbone.encoder.register_forward_pre_hook(lambda _, given: lengths.append(tuple(given[0].x.shape[:2])))
    total = task.loss(backbone, x, 1).total
    hook.remove()
    assert [rows for rows, _ in lengths] == [2, 2, 2, 2]
    kept = [length for _, length in lengths]
    assert kept == sorted(kept)
    assert kept[0] < 8 < kept[-1]  # of the hard ones more is shown

    mask.load_state_dict(state)
    errors, drawn = [], list[list[set[int]]]()
    for number, rows in enumerate(mask.groups(tokenizer.patches(x)) or []):
        prediction, masked = task.reconstruct(backbone, x[rows], 1 + number * 2**40)
        drawn.append([set(row.tolist()) for row in masked])
        truth = tokenizer.patches(x[rows]).gather(1, masked[..., None].expand(-1, -1, 16))
        errors += (prediction - truth).square().mean(dim=-1).flatten().tolist()
    assert total.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    # The groups' masks are draws of their own: what is hidden of a hard row is not a part of what is of an easy one.
    nested = [b <= a for one, other in itertools.pairwise(drawn) for a, b in zip(one, other, strict=True)]
    assert sum(nested) < len(nested) / 2
    assert mask.get_buffer("level")[0] == 1
    task.loss(backbone, x, 1)
    assert mask.get_buffer("level")[0] == 2  # four groups are one look


def test_groups_forget_as_fast_as_a_whole_batch() -> None:
    whole, parts = (AdaptiveMask(4, momentum=0.5, warmup=1) for _ in range(2))
    for mask in (whole, parts):
        mask.observe(torch.arange(4)[None], torch.full((1, 4), 8.0))
    whole.observe(torch.arange(4)[None], torch.full((1, 4), 2.0))
    for _ in range(4):
        parts.observe(torch.arange(4)[None], torch.full((1, 4), 2.0), part=0.25)
    assert parts.difficulty.tolist() == pytest.approx([5.0] * 4)  # half of the way from 8 to 2
    assert torch.allclose(whole.difficulty, parts.difficulty)  # type: ignore[arg-type]
    assert torch.allclose(whole.level, parts.level)  # type: ignore[arg-type]


def test_an_adaptive_mask_comes_back_from_its_state() -> None:
    mask, other = AdaptiveMask(9, warmup=1), AdaptiveMask(9, warmup=1)
    mask.observe(torch.arange(9)[None], torch.arange(9.0)[None])
    other.load_state_dict(mask.state_dict())
    assert torch.equal(mask(tokens_of(5, 9), 3).masked, other(tokens_of(5, 9), 3).masked)


def test_training_fills_the_memory_and_looking_does_not() -> None:
    tokenizer = GridPatches(grid=(16, 16), patch=(4, 4), dim=32)
    task = MaskedReconstruction(tokenizer, mask=AdaptiveMask(16, ratio=(0.5, 0.5)), dim=16, depth=1, heads=2)
    backbone, x = Backbone(tokenizer, Encoder(dim=32, depth=1, heads=2)), torch.randn(4, 1, 16, 16)
    task.eval()
    task.loss(backbone, x, 0)
    assert not task.mask.get_buffer("looks").any()
    task.train()
    task.loss(backbone, x, 0)
    assert task.mask.get_buffer("looks").sum() >= 8


def test_salience_by_hand() -> None:
    patches = torch.tensor([[[0.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]])
    assert salience(patches, kind="variance").tolist() == [[0, 0, 0.25]]
    assert salience(patches, kind="energy").tolist() == [[0, 1, 0.5]]
    torch.testing.assert_close(salience(patches, kind="entropy"), torch.tensor([[0.0, 0.0, 0.6931472]]))


def test_entropy_is_over_sixteen_bins_by_hand() -> None:
    patches = torch.stack([torch.arange(16.0), torch.arange(16.0) % 2 * 15, torch.arange(16.0) // 2 * 2])[None]
    # Sixteen numbers in a bin each, two numbers, eight numbers.
    expected = torch.tensor([[math.log(16), math.log(2), math.log(8)]])
    torch.testing.assert_close(salience(patches, kind="entropy"), expected)


def test_a_prior_says_which_of_equally_salient_tokens_take_part() -> None:
    patches, prior = torch.tensor([-1.0, 1.0]).expand(5, 20, 2).clone(), torch.ones(20)
    prior[[3, 11, 12, 19]] = 2.0
    mask = SalientMask(active=0.2, chance=0.0, ratio=0.5, prior=prior)
    kept, masked = mask(tokens_of(5, 20), 0, patches)
    assert torch.cat([kept, masked], dim=1).sort(dim=1).values.tolist() == [[3, 11, 12, 19]] * 5
    # It multiplies the salience: with a variance of 4, twice that of the prior's tokens, token 0 comes first.
    patches[:, 0] *= 2
    kept, masked = SalientMask(active=0.1, chance=0.0, ratio=0.5, prior=prior)(tokens_of(5, 20), 0, patches)
    assert torch.cat([kept, masked], dim=1).sort(dim=1).values.tolist() == [[0, 3]] * 5


def test_which_of_the_tokens_that_take_part_are_hidden_changes_from_step_to_step() -> None:
    """Or the kept ones would never be asked for, where no chance changes who takes part."""
    patches = torch.tensor([-1.0, 1.0]) * torch.arange(1, 21.0)[None, :, None]
    mask, drawn = SalientMask(active=0.5, chance=0.0, ratio=0.5), []
    for step in range(30):
        kept, masked = mask(tokens_of(1, 20), step, patches)
        assert sorted(torch.cat([kept, masked], dim=1)[0].tolist()) == list(range(10, 20))
        drawn += masked[0].tolist()
    often = torch.bincount(torch.tensor(drawn), minlength=20)[10:]
    assert bool((often > 5).all())  # each fifteen times on average
    assert bool((often < 25).all())


def test_sparse_takes_the_salient_tokens_and_a_bounded_share_of_chance() -> None:
    patches = torch.zeros(64, 20, 4)
    patches[:, :8, 0] = torch.arange(1, 9.0)  # eight tokens hold something
    mask = SalientMask(active=0.5, chance=0.2, ratio=0.5)
    kept, masked = mask(tokens_of(64, 20), 3, patches)
    part = torch.cat([kept, masked], dim=1)
    assert kept.shape[1] == masked.shape[1] == 5
    assert all(len(set(row.tolist())) == 10 for row in part)
    assert all(set(range(8)) <= set(row.tolist()) for row in part)
    by_chance = torch.bincount(part.flatten(), minlength=20)[8:]
    assert by_chance.sum() == 2 * 64
    assert (by_chance > 0).all()  # over a batch every empty token is seen


def test_with_chance_alone_salience_does_not_matter() -> None:
    patches = torch.zeros(4000, 10, 2)
    patches[:, 0, 0] = 9.0
    kept, masked = SalientMask(active=0.5, chance=1.0, ratio=0.5)(tokens_of(4000, 10), 0, patches)
    share = torch.bincount(torch.cat([kept, masked], 1).flatten(), minlength=10) / 4000
    assert torch.allclose(share, torch.full((10,), 0.5), atol=0.04)


def test_sparse_reconstruction_costs_and_reads_only_the_tokens_that_take_part() -> None:
    tokenizer = GridPatches(grid=(16, 16), patch=(4, 4), dim=32)
    mask = SalientMask(active=0.5, chance=0.0, ratio=0.5)
    task = MaskedReconstruction(tokenizer, mask=mask, dim=16, depth=1, heads=2)
    backbone = Backbone(tokenizer, Encoder(dim=32, depth=1, heads=2))
    patches = torch.randn(2, 16, 16) * torch.linspace(0.1, 3, 16)[None, :, None]
    prediction, masked = task.reconstruct(backbone, tokenizer.unpatch(patches), 0)
    assert prediction.shape[1] == 4
    assert (masked >= 6).all()
    changed = patches.clone()
    changed[:, :4] *= 1.01  # still the least salient: not looked at
    again, _ = task.reconstruct(backbone, tokenizer.unpatch(changed), 0)
    assert torch.equal(prediction, again)


@pytest.mark.parametrize("mask", [BlockMask((4, 4)), AdaptiveMask(16), SalientMask()])
def test_draws_repeat_for_one_seed_and_step(mask: Mask) -> None:
    patches = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(0))
    first = mask(tokens_of(4, 16), 7, patches)
    torch.manual_seed(1)
    assert torch.equal(mask(tokens_of(4, 16), 7, patches).masked, first.masked)
    assert not torch.equal(mask(tokens_of(4, 16), 8, patches).masked, first.masked)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (
        lambda: SalientMask(active=0.0),
        lambda: AdaptiveMask(4, ratio=(0.5, 1.0)),
        lambda: BlockMask((2, 2), blocks=0),
    ):
        with pytest.raises(ValueError, match=r"must lie|as many blocks"):
            wrong()
    with pytest.raises(ValueError, match="for 3x3 tokens was given 16"):
        BlockMask((3, 3))(tokens_of(1, 16), 0)
    with pytest.raises(ValueError, match="needs the raw patches"):
        SalientMask()(tokens_of(1, 16), 0)


def test_masks_made_for_other_tokens_say_so() -> None:
    with pytest.raises(ValueError, match="for 9 tokens was given 16"):
        AdaptiveMask(9)(tokens_of(2, 16), 0, torch.rand(2, 16, 3))
    with pytest.raises(ValueError, match="needs 1 to as many blocks, got 20"):
        BlockMask((4, 4), blocks=20)


def test_an_adaptive_mask_cuts_a_batch_alike_from_its_first_step_on() -> None:
    mask = AdaptiveMask(16).train()
    groups = mask.groups(torch.rand(10, 16, 3))
    assert groups is not None
    assert sorted(torch.cat(groups).tolist()) == list(range(10))
    assert len(groups) == 4


def test_the_warm_up_ends_although_the_parts_of_a_batch_are_no_round_numbers() -> None:
    mask = AdaptiveMask(16, warmup=2).train()
    patches = torch.rand(10, 16, 3)
    for _ in range(2):
        for rows in mask.groups(patches) or []:  # of three, three, three rows and one
            mask.observe(
                torch.arange(16).expand(len(rows), -1), torch.ones(len(rows), 16), patches[rows], part=len(rows) / 10
            )
    level = mask.get_buffer("level")
    assert level[0] == pytest.approx(2)
    assert level[2] == pytest.approx(1)
