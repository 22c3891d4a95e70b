"""Whole-batch augmentation and standardisation of radiographs.

One affine map a picture and one resampling, for all pictures of a batch at once: MONAI's per-image chain does
the same about ten times slower on a CPU at these sizes, so it is used at intake only.

Shape suffixes: b batch, c channel (1), h/w rows and columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# A picture of almost one value is not blown up beyond this, in its own units.
LEAST_DEVIATION = 1e-3
# How much pictures are stretched where they are looked at three times.
LOOK = 1.2


def standardise(images_bhw: Tensor) -> Tensor:
    """8-bit or float pictures (B, H, W) -> (B, 1, H, W), each with its own mean 0 and standard deviation 1.

    Exposure and window differ between sites and machines; what is left is the picture.
    """
    x = images_bhw.float()
    mean = x.mean(dim=(1, 2), keepdim=True)
    deviation = x.std(dim=(1, 2), keepdim=True, correction=0)
    return ((x - mean) / deviation.clamp(min=LEAST_DEVIATION))[:, None]


def stretched(images_bhw: Tensor, factor: float) -> Tensor:
    """The middle of 8-bit pictures (B, H, W), ``factor`` times as wide as it was for its height (below 1: as high as
    it was for its width), as 8-bit pictures of the same size."""
    return _stretched(images_bhw[:, None].float(), factor)[:, 0].clamp(0, 255).round().to(torch.uint8)


def looks(images_bchw: Tensor) -> list[Tensor]:
    """Standardised pictures (B, 1, H, W) as a fine-tuned network looks at them: as they are, and stretched by
    ``LOOK`` either way, standardised again (test-time augmentation; benchmarks/results/looks.md)."""
    both = (_stretched(images_bchw, factor) for factor in (LOOK, 1 / LOOK))
    return [images_bchw, *(standardise(x_bchw[:, 0]) for x_bchw in both)]


def _stretched(x_bchw: Tensor, factor: float) -> Tensor:
    height, width = x_bchw.shape[-2:]
    rows, columns = round(height * min(1.0, factor)), round(width * min(1.0, 1 / factor))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = x_bchw[..., top : top + rows, left : left + columns]
    return F.interpolate(middle, size=(height, width), mode="bilinear", align_corners=False)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random affine crops and intensities; a transform for :class:`~unlabeled.core.batches.Batches`.

    The first array of the batch is the pictures; what follows (labels) passes through. Pictures are never
    mirrored: a heart on the wrong side is another finding.

    Attributes:
        smallest: side of the smallest crop, as a share of the picture's.
        rotation: largest rotation, degrees, either way.
        stretch: how much the crop's aspect ratio changes at most: by a factor from exp(-stretch) to exp(stretch),
            uniform in its logarithm.
        contrast: largest exponent change of a gamma curve, and of a gain around the mean, as a share.
        noise: largest standard deviation of added noise, in standard deviations of the picture.
    """

    smallest: float = 0.6
    rotation: float = 5.0
    stretch: float = 0.15
    contrast: float = 0.3
    noise: float = 0.0

    @classmethod
    def of_strength(cls, strength: float) -> "Augment":
        """The defaults at 1, nothing at 0, twice as much of everything but noise at 2."""
        return cls(
            smallest=1 - 0.4 * strength, rotation=5.0 * strength, stretch=0.15 * strength, contrast=0.3 * strength
        )

    def __call__(self, batch: tuple[Tensor, ...], draw: torch.Generator) -> tuple[Tensor, ...]:
        images, *rest = batch
        b = len(images)
        x_bchw = images.float()[:, None] / 255

        def uniform(low: float, high: float) -> Tensor:
            return (torch.rand(b, generator=draw) * (high - low) + low).to(x_bchw.device)

        scale = uniform(self.smallest, 1.0)
        ratio = torch.exp(uniform(-self.stretch, self.stretch))
        angle = torch.deg2rad(uniform(-self.rotation, self.rotation))
        wide, high = scale * ratio.sqrt(), scale / ratio.sqrt()
        # A crop that would not fit into the picture shrinks; cutting one side would take the stretch back.
        over = torch.maximum(wide, high).clamp(min=1)
        wide, high = wide / over, high / over
        right, down = (1 - wide) * uniform(-1, 1), (1 - high) * uniform(-1, 1)
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack(
            [torch.stack([wide * cos, -high * sin, right], 1), torch.stack([wide * sin, high * cos, down], 1)], 1
        )
        grid = F.affine_grid(theta, list(x_bchw.shape), align_corners=False)
        x_bchw = F.grid_sample(x_bchw, grid, mode="bilinear", padding_mode="border", align_corners=False)
        gamma = torch.exp(uniform(-self.contrast, self.contrast))
        x_bchw = standardise(x_bchw.clamp(0, 1)[:, 0] ** gamma[:, None, None])
        if self.noise:
            level = uniform(0, self.noise)[:, None, None, None]
            x_bchw = x_bchw + level * torch.randn(x_bchw.shape, generator=draw).to(x_bchw.device)
        return x_bchw, *rest
