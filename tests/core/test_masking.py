import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.informed_masking import AdaptiveMask, SalientMask
from unlabeled.core.masking import BlockMask, RandomMask, random_fields
from unlabeled.core.seeds import generator
from unlabeled.core.tokens import Tokens


def tokens_of(b: int, t: int) -> Tokens:
    return Tokens(torch.zeros(b, t, 4), torch.zeros(1, t, 4))


@settings(max_examples=50, deadline=None)
@given(t=st.integers(4, 80), ratio=st.floats(0.2, 0.8), step=st.integers(0, 10**6))
def test_every_token_is_kept_or_masked_once(t: int, ratio: float, step: int) -> None:
    kept, masked = RandomMask(ratio)(tokens_of(3, t), step)
    assert masked.shape == (3, round(t * ratio))
    together = torch.cat([kept, masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(t).expand(3, -1))


def test_a_draw_is_a_function_of_seed_and_step_alone() -> None:
    mask = RandomMask(0.5, seed=3)
    first = mask(tokens_of(4, 16), 7).masked
    torch.manual_seed(123)
    mask(tokens_of(4, 16), 8)
    assert torch.equal(mask(tokens_of(4, 16), 7).masked, first)
    assert not torch.equal(mask(tokens_of(4, 16), 8).masked, first)
    assert not torch.equal(RandomMask(0.5, seed=4)(tokens_of(4, 16), 7).masked, first)


def test_without_a_prior_all_tokens_are_masked_equally_often() -> None:
    counts = torch.bincount(RandomMask(0.75)(tokens_of(20_000, 8), 0).masked.flatten(), minlength=8) / 20_000
    assert torch.allclose(counts, torch.full((8,), 0.75), atol=0.02)


def test_a_prior_draws_in_proportion_to_its_weights() -> None:
    # One of four is masked: the share of each is then exactly its weight.
    prior = torch.tensor([1.0, 2.0, 3.0, 4.0])
    counts = torch.bincount(RandomMask(0.25, prior=prior)(tokens_of(40_000, 4), 0).masked.flatten(), minlength=4)
    assert torch.allclose(counts / 40_000, prior / 10, atol=0.01)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1])
def test_a_ratio_outside_the_open_interval_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        RandomMask(ratio)


def test_a_ratio_that_leaves_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match="hides 4 of 4 tokens"):
        RandomMask(0.95)(tokens_of(1, 4), 0)


def test_a_prior_that_never_hides_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="positive everywhere"):
        RandomMask(0.5, prior=torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="and finite"):
        RandomMask(0.5, prior=torch.tensor([1.0, float("inf")]))


def test_a_prior_that_looks_at_patches_weighs_each_sequence_by_its_own() -> None:
    patches = torch.zeros(30_000, 4, 2)
    patches[:15_000, 1] = 1.0
    patches[15_000:, 2] = 1.0
    mask = RandomMask(0.25, prior=lambda x: 1 + 3 * x.mean(dim=-1))
    counts = torch.stack(
        [
            torch.bincount(half.flatten(), minlength=4) / 15_000
            for half in mask(tokens_of(30_000, 4), 0, patches).masked.chunk(2)
        ]
    )
    # Weights of 4 to 1, 1 and 1: the share of each is its weight's.
    expected = torch.tensor([[1, 4, 1, 1], [1, 1, 4, 1]]) / 7
    assert torch.allclose(counts, expected, atol=0.015)
    with pytest.raises(ValueError, match="must hand them over"):
        mask(tokens_of(2, 4), 0)
    with pytest.raises(ValueError, match="positive everywhere"):
        RandomMask(0.25, prior=lambda x: x.mean(dim=-1))(tokens_of(1, 4), 0, patches[:1])


def test_a_prior_for_another_number_of_tokens_is_refused_by_every_mask() -> None:
    patches, prior = torch.rand(2, 16, 3), torch.ones(15)
    for mask in (
        RandomMask(0.5, prior=prior),
        BlockMask((4, 4), prior=prior),
        AdaptiveMask(16, prior=prior),
        SalientMask(prior=prior),
    ):
        with pytest.raises(ValueError, match=r"one weight for each of 16 tokens, got \(15,\)"):
            mask(tokens_of(2, 16), 0, patches)


def test_visible_fields_are_never_all_of_them_and_every_count_is_equally_likely() -> None:
    visible = random_fields(torch.Size([30_000, 4]), seed=0, step=0)
    counts = torch.bincount(visible.sum(dim=1), minlength=5) / 30_000
    assert torch.allclose(counts, torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0]), atol=0.01)
    assert torch.allclose(visible.float().mean(dim=0), torch.full((4,), 1.5 / 4), atol=0.01)


@pytest.mark.parametrize("shape", [(7, 1), (500, 5), (3, 40, 30)])
def test_fields_without_a_prior_and_with_an_even_one_are_drawn_by_rank_alone(shape: tuple[int, ...]) -> None:
    draw = generator(4, "fields", 9)
    rank = torch.rand(shape, generator=draw).argsort(dim=-1).argsort(dim=-1)
    expected = rank < torch.randint(0, shape[-1], (*shape[:-1], 1), generator=draw)
    size = torch.Size(shape)
    assert torch.equal(random_fields(size, seed=4, step=9), expected)
    for weight in (1.0, 0.25):
        even = torch.full(shape[-1:], weight)
        assert torch.equal(random_fields(size, seed=4, step=9, prior=even), expected)


def test_fields_are_hidden_one_after_another_in_proportion_to_their_weights() -> None:
    visible = random_fields(torch.Size([60_000, 3]), seed=2, step=0, prior=torch.tensor([3.0, 1.0, 1.0]))
    hidden = ~visible
    number = hidden.sum(dim=1)
    assert torch.allclose(torch.bincount(number, minlength=4) / 60_000, torch.tensor([0, 1, 1, 1]) / 3, atol=0.01)
    # One hidden: 3/5, 1/5, 1/5. Two: the first field is among them with 3/5 + 2 x 1/5 x 3/4 = 0.9, either other one
    # with 1/5 + 3/5 x 1/2 + 1/5 x 1/4 = 0.55. Three: all.
    for count, shares in ((1, [0.6, 0.2, 0.2]), (2, [0.9, 0.55, 0.55]), (3, [1.0, 1.0, 1.0])):
        found = hidden[number == count].float().mean(dim=0)
        assert torch.allclose(found, torch.tensor(shares), atol=0.01)


@pytest.mark.parametrize(
    "prior", [[1.0, 0.0, 1.0], [1.0, -2.0, 1.0], [1.0, 1.0], [3.0], [1.0, float("nan"), 1.0], [1.0, float("inf"), 1.0]]
)
def test_a_field_prior_that_is_not_one_weight_a_field_is_refused(prior: list[float]) -> None:
    with pytest.raises(ValueError, match="one positive weight for each of 3 fields"):
        random_fields(torch.Size([4, 3]), seed=0, step=0, prior=torch.tensor(prior))
