"""Inpainting: whole blocks are hidden and filled in, so that nothing next door gives the answer away.

Source: Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016; here with the visible-only
encoder and the per-patch target of He et al. (CVPR 2022).
"""

from typing import Any, Literal

from unlabeled.core.masking import BlockMask, Prior
from unlabeled.core.pretext.masked_reconstruction import MaskedReconstruction
from unlabeled.core.tokens import GridPatches


class Inpainting(MaskedReconstruction):
    """:class:`MaskedReconstruction` of a few large blocks: ``mean((prediction - target)^2)`` over them.

    Args:
        tokenizer: the backbone's own patch tokenizer.
        ratio: share of the tokens that the blocks cover; on radiographs 0.25 to 0.75 were alike, on vibration a gap in
            frequency of 0.6 was better than one of 0.2 (benchmarks/results/settings.md).
        blocks: how many; two were measured, beside no other number.
        shape: ``block`` (images), ``time`` (a gap in time) or ``band`` (a gap in frequency, an indicator).
        prior: where blocks are worth hiding: weights of the tokens, by which their centres are drawn
            (:class:`~unlabeled.core.masking.Mask`).
        seed: with the step, fixes the blocks.
        decoder: ``dim``, ``depth``, ``heads`` and ``normalise`` of :class:`MaskedReconstruction`.
    """

    def __init__(
        self,
        tokenizer: GridPatches,
        *,
        ratio: float = 0.4,
        blocks: int = 2,
        shape: Literal["block", "time", "band"] = "block",
        prior: Prior | None = None,
        seed: int = 0,
        **decoder: Any,
    ) -> None:
        grid = (tokenizer.rows, tokenizer.columns)
        mask = BlockMask(grid, ratio=ratio, blocks=blocks, shape=shape, prior=prior, seed=seed)
        super().__init__(tokenizer, mask=mask, **decoder)
