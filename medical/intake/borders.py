"""Collimation borders: uniform dark or bright bands along a picture's edges, found and cut off.

Careful rather than complete: a band is cut only where it is one grey near either end of the scale, straight (along the
edge), and ends in a step along at least half of its length. Air beside a body ends in the body's outline and stays; so
do tilted and round borders.

Shapes: h rows, w columns, n lines along an edge, s samples of a line.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A band's grey lies within so much of the darkest or brightest.
_EXTREME = 0.10
# Its pixels differ from its grey by no more than this, but for a share of them (marks, dust, noise).
_TOLERANCE = 0.04
_UNIFORM = 0.98
# What lies behind it differs by more than twice the tolerance along this share of its length.
_STEP = 0.5
# How far behind its last line that is looked at, in shares of the side: an edge is blurred by so much.
_BLUR = 0.01
# A band is at least so many lines, and no more than this share of its side; both bands of a side no more than this.
_THINNEST = 2
MOST_OF_A_SIDE = 0.30
MOST_OF_BOTH = 0.50
# Lines are sampled at about so many places: a band does not hide between them.
_SAMPLES = 256


class Border(NamedTuple):
    """Rows and columns to cut off."""

    top: int
    bottom: int
    left: int
    right: int


NONE = Border(0, 0, 0, 0)


def find(picture_hw: NDArray[np.float32]) -> Border:
    """The bands of a picture from 0 to 1. At least half of its rows and half of its columns stay."""
    height, width = picture_hw.shape
    views = (picture_hw, picture_hw[::-1], picture_hw.T, picture_hw.T[::-1])
    depths = [_depth(view) for view in views]
    # The step is looked for where no other band crosses.
    inner = [slice(depths[2], width - depths[3])] * 2 + [slice(depths[0], height - depths[1])] * 2
    cut = [
        depth if depth and _ends_in_a_step(view[:, along], depth) else 0
        for view, depth, along in zip(views, depths, inner, strict=True)
    ]
    for first, side in ((0, height), (2, width)):
        if cut[first] + cut[first + 1] > MOST_OF_BOTH * side:
            cut[first] = cut[first + 1] = 0
    return Border(*cut)


def cut_off(picture_hw: NDArray[np.float32], border: Border) -> NDArray[np.float32]:
    height, width = picture_hw.shape
    return picture_hw[border.top : height - border.bottom, border.left : width - border.right]


def _depth(lines_nw: NDArray[np.float32]) -> int:
    """How many lines from the first on are of the first one's grey; 0 where that is none near black or white."""
    most = int(MOST_OF_A_SIDE * len(lines_nw))
    sampled_ns = lines_nw[: most + 1, :: max(1, lines_nw.shape[1] // _SAMPLES)]
    if not most or not sampled_ns.shape[1]:
        return 0
    grey = float(np.median(sampled_ns[0]))
    if _EXTREME < grey < 1 - _EXTREME:
        return 0
    uniform_n = (np.abs(sampled_ns - grey) <= _TOLERANCE).mean(axis=1) >= _UNIFORM
    # One that goes on beyond the most that may go is no border but the picture.
    depth = 0 if uniform_n.all() else int(np.argmin(uniform_n))
    return depth if depth >= _THINNEST else 0


def _ends_in_a_step(lines_nw: NDArray[np.float32], depth: int) -> bool:
    behind = lines_nw[min(len(lines_nw) - 1, depth + max(2, round(_BLUR * len(lines_nw))))]
    if not len(behind):
        return False
    return bool((np.abs(behind - np.median(lines_nw[0])) > 2 * _TOLERANCE).mean() >= _STEP)
