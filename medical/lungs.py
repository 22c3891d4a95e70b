"""Where the lungs are on a frontal chest film: an average of anatomy, moved to where this film is dark.

No segmenter, no labels. Shape suffixes: b batch, t token, p numbers in a patch, s side.
"""

import torch
from torch import Tensor

# Of an upright frontal film that fills the frame, as shares of its height and width.
_MIDDLE = 0.45
_SIDES = (0.30, 0.70)
_HALF_HEIGHT, _HALF_WIDTH = 0.30, 0.17
_LOOKED_AT = 1.4  # times these half axes: where a lung of an unusual film may be
_FOLLOWED = 0.5  # share of the way to where the film is dark; the rest is trust in the average
_FARTHEST = 0.1  # of the frame, that a lung is moved
_EMPTY = 0.01  # of the film's mean patch variance: collimated away, or air beside the body


class LungFields:
    """Weights of patches by how far they lie in the lung fields, for a mask's prior (:class:`~unlabeled.core.masking
    .Mask`): 1 outside, ``inside`` within.

    Two soft ellipses stand for the lung fields of the average film (:func:`lung_prior`). On each film, each of them is
    moved half of the way to the centre of what is darker than the film's median around it, at most a tenth of the
    frame. Only the place follows the picture: a bright patch within a dark lung is what an opacity looks like, and
    keeps its weight. Patches that hold nothing weigh 1.

    Args:
        rows, columns: of the patches.
        inside: weight within; no other was measured, and 3 was no better than none
            (benchmarks/results/frontier-long.md).
    """

    def __init__(self, rows: int, columns: int, *, inside: float = 3.0) -> None:
        self.rows, self.columns, self.inside = rows, columns, inside

    def __call__(self, patches_btp: Tensor) -> Tensor:
        """Raw patches (B, T, P), air dark and bone bright -> weights (B, T)."""
        x = patches_btp.float()
        level, contrast = x.mean(dim=-1), x.var(dim=-1, correction=0)
        holds = contrast > _EMPTY * contrast.mean(dim=1, keepdim=True)
        centre_bs2 = self.centres(level, holds)
        distance = _distance(self.rows, self.columns, centre_bs2.to("cpu")).amin(dim=1).to(x.device)
        return torch.where(holds, _weight(distance, self.inside), torch.ones_like(level))

    def centres(self, level_bt: Tensor, holds_bt: Tensor) -> Tensor:
        """Height and width of each lung's centre, (B, 2 sides, 2), shares of the frame."""
        y_t, x_t = _places(self.rows, self.columns)
        place_t2 = torch.stack([y_t, x_t], dim=1).to(level_bt)
        average_s2 = _average().to(level_bt)
        near_st = _distance(self.rows, self.columns, _average()[None])[0].to(level_bt) < _LOOKED_AT**2
        dark_bt = (level_bt.median(dim=1, keepdim=True).values - level_bt).clamp(min=0) * holds_bt
        weight_bst = dark_bt[:, None] * near_st
        total_bs = weight_bst.sum(dim=-1, keepdim=True)
        found_bs2 = (weight_bst @ place_t2) / total_bs.clamp(min=1e-12)
        # What the middle of the patches looked at is when all of them are alike: a grid need not be symmetrical.
        usual_s2 = (near_st.float() @ place_t2) / near_st.sum(dim=-1, keepdim=True).clamp(min=1)
        moved = _FOLLOWED * (found_bs2 - usual_s2).clamp(-_FARTHEST / _FOLLOWED, _FARTHEST / _FOLLOWED)
        return average_s2 + torch.where(total_bs > 0, moved, torch.zeros_like(moved))


def lung_prior(rows: int, columns: int, *, inside: float = 3.0) -> Tensor:
    """Weights (rows x columns,) of an average frontal chest film: 1 outside the lung fields, ``inside`` within.

    Two soft ellipses stand for the lung fields of an upright frontal film that fills the frame: centres at 45 % of the
    height and 30 and 70 % of the width, half axes 30 and 17 %. No claim about a single patient.
    """
    return _weight(_distance(rows, columns, _average()[None])[0].amin(dim=0), inside)


def _average() -> Tensor:
    return torch.tensor([[_MIDDLE, side] for side in _SIDES])


def _places(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Heights and widths of the patches' middles, (T,) each, shares of the frame."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return y.reshape(-1), x.reshape(-1)


def _distance(rows: int, columns: int, centre_bs2: Tensor) -> Tensor:
    """Squared distance of every patch from both centres in half axes of the ellipses, (B, S, T): 1 on their edge."""
    y_t, x_t = _places(rows, columns)
    down = (y_t - centre_bs2[..., :1]) / _HALF_HEIGHT
    across = (x_t - centre_bs2[..., 1:]) / _HALF_WIDTH
    return down**2 + across**2


def _weight(distance: Tensor, inside: float) -> Tensor:
    return 1 + (inside - 1) * torch.sigmoid(4 * (1 - distance))
