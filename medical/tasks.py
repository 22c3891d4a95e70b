"""Which question radiographs are pretrained on, and which patches it hides."""

from typing import Literal, get_args

from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.informed_masking import AdaptiveMask, SalientMask, around
from unlabeled.core.masking import BlockMask, Mask, RandomMask, check_hides
from unlabeled.core.pretext import (
    OFFERED,
    Joint,
    MaskedReconstruction,
    NTXent,
    OrderPrediction,
    Pretext,
    Rotation,
    VICReg,
)
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import GridPatches
from unlabeled.core.views import PictureView
from unlabeled.medical.lungs import LungFields

Task = Literal["masked", "contrastive", "vicreg", "rotation", "order", "joint"]
HIDING: tuple[str, ...] = ("masked", "joint")  # the tasks that masking is for
SPARSE = 0.5  # share of the patches that take part in sparse masking
Masking = Literal["random", "lungs", "blocks", "adaptive", "sparse", "sparse-random"]


def build_task(
    backbone: Backbone,
    *,
    task: str,
    masking: Masking,
    mask_ratio: float,
    seed: int,
    temperature: float = 0.2,
    augmentation: float = 1.0,
) -> Pretext:
    """The pretext task of a backbone that reads pictures.

    Args:
        task: masked reconstruction; NT-Xent or VICReg on two crops; quarter turns; scrambled patches; or masked
            reconstruction with NT-Xent beside it at a tenth of the weight (0.03 and 0.3 were no better: settings.md
            in benchmarks/results); or one of :data:`~unlabeled.core.pretext.OFFERED`.
        masking: for the tasks that hide patches: ``random`` ones; random ones, ``lungs`` first, where this picture has
            them (:class:`~unlabeled.medical.lungs.LungFields`); two ``blocks`` (inpainting); ``adaptive`` to what is
            hard at the moment; ``sparse``, where only half of the patches take part at all: those with most contrast,
            and random ones; ``sparse-random``, where that half is random.
        mask_ratio: share of the patches that is hidden (of those that take part).
        temperature: of NT-Xent.
        augmentation: strength of the two views (1: the defaults).

    Raises:
        DataError: no such task or masking, or a masking for a task that hides nothing.
    """
    for name, value, known in (("task", task, (*get_args(Task), *OFFERED)), ("masking", masking, get_args(Masking))):
        if value not in known:
            raise DataError(f"there is no {name} '{value}': choose one of {', '.join(known)}")
    check_hides(task, masking, hiding=HIDING)
    tokenizer, dim = backbone.tokenizer, backbone.encoder.dim
    assert isinstance(tokenizer, GridPatches)
    view, views = PictureView.of_strength(augmentation), derive(seed, "views")

    def masked() -> MaskedReconstruction:
        mask = build_mask(tokenizer, masking=masking, ratio=mask_ratio, seed=derive(seed, "mask"))
        return MaskedReconstruction(tokenizer, mask=mask, norm_eps=backbone.encoder.norm_eps)

    match task:
        case "masked":
            return masked()
        case "contrastive":
            return NTXent(dim, view=view, temperature=temperature, seed=views)
        case "vicreg":
            return VICReg(dim, view=view, seed=views)
        case "rotation":
            return Rotation(dim, seed=views)
        case "order":
            return OrderPrediction(dim, seed=views)
        case "joint":
            contrast = NTXent(dim, view=view, temperature=temperature, seed=views)
            return Joint({"masked": (masked(), 1.0), "contrastive": (contrast, 0.1)})
        case _:
            return OFFERED[task].make(backbone, seed=views)


def build_mask(tokenizer: GridPatches, *, masking: Masking, ratio: float, seed: int) -> Mask:
    """See :func:`build_task`."""
    match masking:
        case "random":
            return RandomMask(ratio, seed=seed)
        case "lungs":
            return RandomMask(ratio, prior=LungFields(tokenizer.rows, tokenizer.columns), seed=seed)
        case "blocks":
            return BlockMask((tokenizer.rows, tokenizer.columns), ratio=ratio, blocks=2, seed=seed)
        case "adaptive":
            return AdaptiveMask(tokenizer.tokens, ratio=around(ratio), seed=seed)
        case "sparse":
            return SalientMask(active=SPARSE, ratio=ratio, seed=seed)
        case "sparse-random":
            return SalientMask(active=SPARSE, chance=1.0, ratio=ratio, seed=seed)
