"""A heat map burned over a radiograph, with a legend and a warning that stays on it wherever it goes."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical._result import WARNING

# Longer side of the radiograph, in pixels: text has the same size beside a small picture and a large one.
SIDE = 1024
# Narrower and the text would be cut off.
NARROWEST = 800
# How much of the radiograph the strongest patch hides; the rest lets proportionally more through.
STRONGEST = 0.55
LINE, MARGIN = 30, 14
# Characters to a line that fit into the narrowest.
WRAPPED = 72
# Colour-blind safe (Okabe and Ito, 2008).
RAISES, LOWERS = np.array([213, 94, 0], np.float32), np.array([0, 114, 178], np.float32)
ALARM = (255, 176, 0)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def draw(
    picture: NDArray[np.floating[Any]], heat_map: NDArray[np.floating[Any]], lines: Sequence[str], *, finding: str
) -> NDArray:
    """The radiograph under its heat map, the warning above it, a colour bar and ``lines`` below it.

    Args:
        picture: (H, W) from 0 to 1, bone bright.
        heat_map: (rows, columns) of patches that cover the whole picture: by how much the log odds of one look fall
            without each.
        lines: what stands below; what is too long for the width goes on in the next line.
        finding: what the heat map speaks for.

    Returns:
        (H', W', 3) 8-bit RGB; the radiograph's longer side has 1024 pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    radiograph = _overlaid(picture, heat_map)
    height, width = radiograph.shape[:2]
    lines = [part for line in lines for part in textwrap.wrap(line, WRAPPED)]
    canvas = Image.new("RGB", (max(width, NARROWEST), height + LINE * (len(lines) + 4) + 2 * MARGIN), BLACK)
    canvas.paste(Image.fromarray(radiograph), ((canvas.width - width) // 2, LINE + MARGIN))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=20)
    pen.text((canvas.width / 2, (LINE + MARGIN) / 2), WARNING, fill=ALARM, font=ImageFont.load_default(28), anchor="mm")
    below = LINE + MARGIN + height + MARGIN
    largest = _largest(heat_map)
    canvas.paste(Image.fromarray(_bar(canvas.width - 2 * MARGIN)), (MARGIN, below + LINE))
    pen.text((MARGIN, below + 4), f"How much each region changes the log odds of {finding}", fill=WHITE, font=font)
    for x, text, anchor in (
        (MARGIN, f"{-largest:.2f} (speaks against)", "la"),
        (canvas.width / 2, "0", "ma"),
        (canvas.width - MARGIN, f"(speaks for) +{largest:.2f}", "ra"),
    ):
        pen.text((x, below + 2 * LINE - 6), text, fill=WHITE, font=font, anchor=anchor)
    for number, text in enumerate(lines):
        pen.text((MARGIN, below + LINE * (number + 3)), text, fill=WHITE, font=font)
    return np.asarray(canvas)


def _overlaid(picture: NDArray[np.floating[Any]], heat_map: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    from PIL import Image

    rows, columns = picture.shape
    scale = SIDE / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))  # Pillow says width first
    grey = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    base = np.asarray(grey.resize(size, Image.Resampling.LANCZOS), dtype=np.float32)[..., None]
    relative = Image.fromarray((heat_map / _largest(heat_map)).astype(np.float32))
    strength = np.clip(np.asarray(relative.resize(size, Image.Resampling.BILINEAR)), -1, 1)[..., None]
    return _tinted(base, strength)


def _bar(width: int) -> NDArray[np.uint8]:
    """From what speaks against to what speaks for, over the same grey throughout."""
    strength = np.broadcast_to(np.linspace(-1, 1, width, dtype=np.float32)[None, :, None], (LINE // 2, width, 1))
    return _tinted(np.full((LINE // 2, width, 1), 128, dtype=np.float32), strength)


def _tinted(grey: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W, 1) grey from 0 to 255, and strength from -1 to 1 -> (H, W, 3)."""
    colour = np.where(strength >= 0, RAISES, LOWERS)
    share = STRONGEST * np.abs(strength)
    return np.asarray(((1 - share) * grey + share * colour).round(), dtype=np.uint8)


def _largest(heat_map: NDArray[np.floating[Any]]) -> float:
    return float(np.abs(heat_map).max()) or 1.0
