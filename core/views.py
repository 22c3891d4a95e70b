"""Random views of a raw batch for contrastive tasks: what may change without the thing being another.

A view is ``view(batch, generator) -> batch`` of the same shape; each item gets a draw of its own. Which changes leave a
thing the same is domain knowledge: the defaults here are for upright grey pictures, for time-frequency pictures in
decibels or standard units, and for histories of events.

Shape suffixes: b batch, c channel, h/w rows and columns (frequency and time of a spectrogram), l event, f field.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PictureView:
    """A random crop, resized, with another contrast, brightness and some noise (after Chen et al., 2020; no mirror: an
    upright picture has a left and a right).

    Attributes:
        smallest: side of the smallest crop, as a share of the picture's.
        contrast: largest change of the contrast, as a share.
        brightness: largest shift, in the batch's own units (standard deviations for standardised pictures).
        noise: standard deviation of added noise.

    All four were measured together only (:meth:`of_strength`).
    """

    smallest: float = 0.6
    contrast: float = 0.4
    brightness: float = 0.2
    noise: float = 0.1

    @classmethod
    def of_strength(cls, strength: float) -> "PictureView":
        """The defaults at 1, nothing at 0, twice as much of everything at 2.

        On radiographs neither 0.5 nor 1.5 was better than 1 (benchmarks/results/settings.md).
        """
        return cls(
            smallest=1 - 0.4 * strength, contrast=0.4 * strength, brightness=0.2 * strength, noise=0.1 * strength
        )

    def __call__(self, batch: Tensor, draw: torch.Generator) -> Tensor:
        b = len(batch)
        side = _uniform(b, self.smallest, 1.0, draw)
        right, down = ((1 - side) * _uniform(b, -1.0, 1.0, draw) for _ in range(2))
        zero = torch.zeros(b)
        theta = torch.stack([torch.stack([side, zero, right], 1), torch.stack([zero, side, down], 1)], 1)
        grid = F.affine_grid(theta.to(batch), list(batch.shape), align_corners=False)
        x = F.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
        gain = 1 + _uniform(b, -self.contrast, self.contrast, draw)
        shift = _uniform(b, -self.brightness, self.brightness, draw)
        x = x * gain.view(b, 1, 1, 1).to(x) + shift.view(b, 1, 1, 1).to(x)
        return x + self.noise * torch.randn(x.shape, generator=draw).to(x)


@dataclass(frozen=True, kw_only=True)
class SignalView:
    """Gain, noise, a shift in time and a masked band of a time-frequency picture (B, C, frequency, time); after
    SpecAugment (Park et al., 2019).

    Attributes:
        gain: largest added level (a gain is a sum where levels are logarithmic).
        noise: standard deviation of added noise.
        shift: largest shift in time, as a share of the length; what leaves at one end comes in at the other.
        band: widest masked band, as a share of the rows; it is set to the item's mean.

    Half and twice the strength of gain, noise and band could not be told apart from the defaults on vibration, nor half
    the shift; without any shift NT-Xent ended 0.13 higher, which was seen on how runs ended, so that the default
    stays. At each of these, NT-Xent encoders told late from early life worse than untrained ones on average
    (benchmarks/results/settings.md): what views change, the level among it, an encoder learns to ignore.
    """

    gain: float = 0.5
    noise: float = 0.1
    shift: float = 0.5
    band: float = 0.2

    @classmethod
    def of_strength(cls, strength: float) -> "SignalView":
        """The defaults at 1, no gain, noise or band at 0, twice as much at 2; the shift stays."""
        return cls(gain=0.5 * strength, noise=0.1 * strength, band=0.2 * strength)

    def __call__(self, batch: Tensor, draw: torch.Generator) -> Tensor:
        b, _, h, w = batch.shape
        shift = (_uniform(b, -self.shift, self.shift, draw) * w).round().long()
        column = (torch.arange(w) - shift[:, None]) % w
        x = batch.gather(3, column.view(b, 1, 1, w).expand(batch.shape).to(batch.device))
        wide = _uniform(b, 0.0, self.band, draw) * h
        first = _uniform(b, 0.0, 1.0, draw) * (h - wide)
        row = torch.arange(h) + 0.5  # its middle: both ends are as likely to be hidden
        hidden = (row >= first[:, None]) & (row < (first + wide)[:, None])
        x = torch.where(hidden.view(b, 1, h, 1).to(x.device), x.mean(dim=(1, 2, 3), keepdim=True), x)
        x = x + _uniform(b, -self.gain, self.gain, draw).view(b, 1, 1, 1).to(x)
        return x + self.noise * torch.randn(x.shape, generator=draw).to(x)


@dataclass(frozen=True, kw_only=True)
class HistorySlice:
    """A random run of a history's events (B, L, F), padded on the right (CoLES: Babaev et al., 2022).

    Attributes:
        shortest, longest: of the run, as shares of the history; a single event stays as it is. On payments
            longer and shorter runs (:meth:`of_strength` at 0.5 and 2) were not clearly better with either task that
            takes them (benchmarks/results/fraud_tasks.md).
    """

    shortest: float = 0.3
    longest: float = 0.8

    @classmethod
    def of_strength(cls, strength: float) -> "HistorySlice":
        """The defaults at 1, whole histories at 0; at 2 both shares are squared, so that two runs have less in
        common."""
        return cls(shortest=0.3**strength, longest=0.8**strength)

    def __call__(self, batch: Tensor, draw: torch.Generator) -> Tensor:
        b, length, _ = batch.shape
        real = (batch[..., 0] != 0).sum(dim=1).cpu()
        size = (_uniform(b, self.shortest, self.longest, draw) * real).round().long().clamp(min=1)
        size = torch.minimum(size, real)
        start = (_uniform(b, 0.0, 1.0, draw) * (real - size + 1)).long().clamp(max=length - 1)
        place = torch.arange(length)
        taken = (start[:, None] + place).clamp(max=length - 1)
        inside = place < size[:, None]
        x = batch.gather(1, taken.to(batch.device)[..., None].expand_as(batch))
        return torch.where(inside.to(batch.device)[..., None], x, torch.zeros_like(x))


def _uniform(b: int, low: float, high: float, draw: torch.Generator) -> Tensor:
    return torch.rand(b, generator=draw) * (high - low) + low
