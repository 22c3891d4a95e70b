"""The masked autoencoders of other libraries, as their users would set them up: the network, its loss, its features."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SIDE, PATCH, DIM, DEPTH, HEADS, DECODER, RATIO = 64, 8, 192, 6, 3, (96, 2, 3), 0.75


class Peer(NamedTuple):
    model: nn.Module
    loss: Callable[[Tensor], Tensor]  # of pictures (B, 1, H, W)
    features: Callable[[Tensor], Tensor]  # mean tokens (B, D) of pictures of which nothing is hidden


def vit_mae() -> Peer:
    """transformers' ViTMAEForPreTraining."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    dim, depth, heads = DECODER
    model: Any = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=SIDE, patch_size=PATCH, num_channels=1, hidden_size=DIM, num_hidden_layers=DEPTH,
            num_attention_heads=HEADS, intermediate_size=4 * DIM, decoder_hidden_size=dim,
            decoder_num_hidden_layers=depth, decoder_num_attention_heads=heads, decoder_intermediate_size=4 * dim,
            mask_ratio=RATIO, norm_pix_loss=True,
        )
    ).train()  # fmt: skip
    _with_positions(model)

    def features(x: Tensor) -> Tensor:
        settings = model.vit.embeddings.config
        settings.mask_ratio = 0.0
        tokens: Tensor = model.vit(x).last_hidden_state
        settings.mask_ratio = RATIO
        return tokens[:, 1:].mean(dim=1)

    return Peer(model, lambda x: model(x).loss, features)


def _with_positions(model: Any) -> None:
    """Initialise by the library's own functions what transformers 5.23 leaves at zero in a model made from a config.

    Its position embeddings, the encoder's as the decoder's, are skipped or overwritten after they were computed;
    without them the recipe does not learn at all (its loss stays near that of the mean patch).
    """
    embeddings, decoder = model.vit.embeddings, model.decoder
    for part in (*embeddings.modules(), *embeddings.parameters(), *decoder.modules(), *decoder.parameters()):
        part._is_hf_initialized = False
    embeddings.initialize_weights()
    decoder.initialize_weights(embeddings.patch_embeddings.num_patches)
    assert embeddings.position_embeddings.any()
    assert decoder.decoder_pos_embed.any()


def monai_mae() -> Peer:
    """MONAI's MaskedAutoEncoderViT, which leaves the loss to its user: that of the paper, with normalised targets."""
    from monai.networks.nets import MaskedAutoEncoderViT

    dim, depth, heads = DECODER
    model: Any = MaskedAutoEncoderViT(
        in_channels=1, img_size=SIDE, patch_size=PATCH, hidden_size=DIM, mlp_dim=4 * DIM, num_layers=DEPTH,
        num_heads=HEADS, masking_ratio=RATIO, decoder_hidden_size=dim, decoder_mlp_dim=4 * dim,
        decoder_num_layers=depth, decoder_num_heads=heads, spatial_dims=2, qkv_bias=True,
    ).train()  # fmt: skip
    assert model.patch_embedding.position_embeddings.any()
    assert model.decoder_pos_embedding.any()

    def loss(x: Tensor) -> Tensor:
        predicted, mask = model(x)
        b, side = len(x), SIDE // PATCH
        patches = x.reshape(b, 1, side, PATCH, side, PATCH).permute(0, 2, 4, 3, 5, 1).reshape(b, side * side, -1)
        target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        error = (predicted - target).square().mean(-1)
        return (error * mask).sum() / mask.sum()

    def features(x: Tensor) -> Tensor:
        tokens = model.patch_embedding(x)
        first = model.cls_token.expand(len(x), -1, -1)
        encoded: Tensor = model.blocks(torch.cat((first, tokens), dim=1))
        return encoded[:, 1:].mean(dim=1)

    return Peer(model, loss, features)


def plain_optimizer(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    """What everybody takes for such a network: fused AdamW."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, betas=(0.9, 0.95), fused=True)


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """What everybody writes: gradients, clipped, a step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
