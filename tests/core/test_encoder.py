import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.core.encoder import Backbone, Encoder, pool_tokens
from unlabeled.core.tokens import GridPatches, Tokens


def tokens_of(b: int, t: int, d: int, pad: Tensor | None = None) -> Tokens:
    return Tokens(torch.randn(b, t, d), torch.randn(1, t, d), pad)


def test_a_causal_encoder_cannot_see_the_future() -> None:
    encoder = Encoder(dim=16, depth=3, heads=2, causal=True).eval()
    tokens = tokens_of(2, 9, 16)
    before = encoder(tokens)
    later = tokens.x.clone()
    later[:, 5:] = torch.randn(2, 4, 16) * 100
    after = encoder(Tokens(later, tokens.position))
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-2)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("class_token", [False, True])
def test_read_from_both_sides_a_causal_encoder_is_one_that_is_not(padded: bool, class_token: bool) -> None:
    causal, plain = Encoder(dim=16, depth=3, heads=2, causal=True).eval(), Encoder(dim=16, depth=3, heads=2).eval()
    plain.load_state_dict(causal.state_dict())
    pad = torch.tensor([[False] * 6 + [True] * 3, [False] * 9]) if padded else None
    whole = tokens_of(2, 9, 16, pad)
    tokens = Tokens(whole.x, whole.position, pad, torch.randn(1, 1, 16) if class_token else None)
    backwards = causal(tokens)
    assert torch.equal(causal(tokens, both_sides=True), plain(tokens))
    assert not torch.allclose(backwards, plain(tokens), atol=1e-2)
    assert torch.equal(causal(tokens), backwards)  # for that one call alone
    assert torch.equal(plain(tokens, both_sides=True), plain(tokens))


def test_without_causal_every_token_reads_every_other() -> None:
    encoder = Encoder(dim=16, depth=1, heads=2).eval()
    tokens = tokens_of(1, 5, 16)
    later = tokens.x.clone()
    later[:, 4] = torch.randn(16)
    moved = (encoder(tokens) - encoder(Tokens(later, tokens.position))).abs().amax(dim=2)
    assert bool((moved > 1e-6).all())


def test_encoding_the_kept_tokens_equals_encoding_all_with_the_others_hidden_from_attention() -> None:
    encoder = Encoder(dim=16, depth=3, heads=2).eval()
    tokens = tokens_of(2, 10, 16)
    kept = torch.tensor([[0, 3, 4, 9], [1, 2, 7, 8]])
    hidden = torch.ones(2, 10, dtype=torch.bool).scatter(1, kept, False)
    alone = encoder(tokens.take(kept))
    among = encoder(Tokens(tokens.x, tokens.position, hidden))
    assert torch.allclose(alone, among.gather(1, kept[..., None].expand(-1, -1, 16)), atol=1e-5)


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("tail", [1, 4, 10])
def test_a_tail_is_what_the_whole_encoder_says_of_the_last_tokens(tail: int, class_token: bool) -> None:
    encoder = Encoder(dim=16, depth=2, heads=2)
    whole = tokens_of(3, 10, 16)
    tokens = Tokens(
        whole.x.requires_grad_(), whole.position, class_token=torch.randn(1, 1, 16) if class_token else None
    )
    expected, alone = encoder(tokens)[:, -tail:], encoder(tokens, tail=tail)
    assert torch.allclose(alone, expected, atol=1e-5)
    given = torch.randn_like(expected)
    names = [tokens.x, *encoder.parameters()]
    for one, other in zip(
        torch.autograd.grad(expected, names, given), torch.autograd.grad(alone, names, given), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_on_the_right_changes_nothing(causal: bool) -> None:
    encoder = Encoder(dim=16, depth=2, heads=4, causal=causal).eval()
    short = tokens_of(3, 6, 16)
    padded = Tokens(
        F.pad(short.x, (0, 0, 0, 4), value=7.0),
        F.pad(short.position, (0, 0, 0, 4), value=3.0),
        torch.tensor([[False] * 6 + [True] * 4] * 3),
    )
    assert torch.allclose(encoder.embed(short), encoder.embed(padded), atol=1e-5)


def test_a_class_token_is_one_more_token_in_front_that_is_never_padding() -> None:
    encoder = Encoder(dim=16, depth=2, heads=4).eval()
    plain, class_token = tokens_of(3, 6, 16), torch.randn(1, 1, 16)
    by_hand = Tokens(
        torch.cat([class_token.expand(3, -1, -1), plain.x], dim=1),
        torch.cat([torch.zeros(1, 1, 16), plain.position], dim=1),
    )
    expected = encoder(by_hand)
    unpadded = Tokens(plain.x, plain.position, class_token=class_token)
    assert torch.allclose(encoder(unpadded), expected, atol=1e-6)
    assert torch.allclose(encoder.embed(unpadded), expected[:, 1:].mean(dim=1), atol=1e-5)
    assert torch.allclose(encoder.embed(unpadded, "last"), expected[:, -1], atol=1e-5)
    assert torch.allclose(encoder.embed(unpadded, "class"), expected[:, 0], atol=1e-5)
    padded = Tokens(
        F.pad(plain.x, (0, 0, 0, 2), value=7.0),
        F.pad(plain.position, (0, 0, 0, 2), value=3.0),
        torch.tensor([[False] * 6 + [True] * 2] * 3),
        class_token,
    )
    assert torch.allclose(encoder(padded)[:, :7], expected, atol=1e-5)
    assert torch.allclose(encoder.embed(padded), expected[:, 1:].mean(dim=1), atol=1e-5)
    assert torch.allclose(encoder.embed(padded, "last"), expected[:, -1], atol=1e-5)
    assert torch.allclose(encoder.embed(padded, "class"), expected[:, 0], atol=1e-5)


def test_pooling_a_class_token_that_is_not_there_is_refused() -> None:
    backbone = Backbone(GridPatches(grid=(16, 16), patch=(4, 4), dim=32), Encoder(dim=32, depth=1))
    with pytest.raises(ValueError, match="make the tokenizer with class_token=True"):
        backbone.embed(torch.zeros(1, 1, 16, 16), "class")


def test_the_norm_s_eps_reaches_every_norm() -> None:
    encoder = Encoder(dim=16, depth=2, heads=2, norm_eps=1e-3)
    assert {m.eps for m in encoder.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-3}
    assert Encoder(**encoder.config()).config() == encoder.config()


def test_pooling_by_hand() -> None:
    x = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]])
    pad = torch.tensor([[False, False, True], [False, False, False]])
    assert pool_tokens(x, pad, "mean").flatten().tolist() == [2.0, 4.0]
    assert pool_tokens(x, pad, "last").flatten().tolist() == [3.0, 6.0]


def test_a_row_of_a_batch_does_not_depend_on_the_others() -> None:
    backbone = Backbone(GridPatches(grid=(16, 16), patch=(4, 4), dim=32), Encoder(dim=32, depth=2)).eval()
    x = torch.randn(5, 1, 16, 16)
    together = backbone.embed(x)
    alone = torch.cat([backbone.embed(row[None]) for row in x])
    assert torch.allclose(together, alone, atol=1e-5)


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="tokenizer's width 32 differs from the encoder's 64"):
        Backbone(GridPatches(grid=(16, 16), patch=(4, 4), dim=32), Encoder(dim=64))
    with pytest.raises(ValueError, match="heads=5 does not divide dim=32"):
        Encoder(dim=32, heads=5)
