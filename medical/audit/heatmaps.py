"""Heat maps put to the test: do the patches they name move the model, does what was learnt show in them, and do they
point where a reader drew a box?

Shape suffixes: n picture, t patch, k step of a curve.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.core.audit.attribution import area, rank_correlation, shuffled_weights
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate, bootstrap, share
from unlabeled.core.intervals import square_and_add
from unlabeled.core.seeds import derive
from unlabeled.medical._network import Member, mean_log_odds
from unlabeled.medical._tables import find
from unlabeled.medical.images import ImageSet
from unlabeled.medical.intake.borders import Border
from unlabeled.medical.model import PneumoniaModel

PICTURES, STEPS, ORDERS = 40, 8, 3
# Of these, those whose maps are compared with a randomised network's, which costs as much again.
COMPARED = 20
# Columns of what was cut off a film before it was padded, in the order of a `Border`.
BORDERS = ("border_top", "border_bottom", "border_left", "border_right")
Floats = NDArray[np.float64]


class Box(NamedTuple):
    """Left, top, width and height: in pixels of the original picture, or in shares of its sides (all at most 1); and
    the original's rows and columns that were cut off before it was padded, ``None`` where that is not known."""

    left: float
    top: float
    width: float
    height: float
    cut: Border | None = None


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Deletion and insertion (Petsiuk et al., "RISE", BMVC 2018), with patches left out.

    Attributes:
        share: of the patches, of each step (K,).
        deletion, insertion: mean probability of the call that the model makes in one look (K,), patches taken away or
            shown in the order of the map.
        deletion_random, insertion_random: the same in random orders.
        deletion_gain: area under the random deletion curve minus the map's; above 0 the map names what matters.
        insertion_gain: area under the map's insertion curve minus the random one's.
    """

    share: Floats
    deletion: Floats
    insertion: Floats
    deletion_random: Floats
    insertion_random: Floats
    deletion_gain: Estimate
    insertion_gain: Estimate


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """With boxes that readers drew.

    Attributes:
        pictures: with a box.
        pointing: share of pictures whose strongest patch lies in a box (Zhang et al., 2018).
        mass: share of what speaks for the finding that lies inside boxes.
        by_chance: what both would be for a map without any idea: the share of the picture, without the black that it
            was padded with, that boxes cover.
        pointing_gain, mass_gain: either minus what chance gives, paired by picture.
    """

    pictures: int
    pointing: Estimate
    mass: Estimate
    by_chance: Estimate
    pointing_gain: Estimate
    mass_gain: Estimate


@dataclass(frozen=True, kw_only=True)
class HeatMapChecks:
    """All of them.

    Attributes:
        pictures: that deletion and insertion looked at.
        compared: that a randomised network's maps were compared on; maps of one value everywhere rank nothing.
        faithful: deletion and insertion.
        randomised: rank correlation of maps with those of the same network with shuffled weights; near 0 as it should
            be (Adebayo et al., 2018).
        boxes: or ``None`` where nobody drew any.
    """

    pictures: int
    compared: int
    faithful: Faithfulness
    randomised: Estimate
    boxes: Agreement | None


def check_maps(
    model: PneumoniaModel,
    images: ImageSet,
    *,
    boxes: Mapping[str, Sequence[Box]] | None = None,
    pictures: int = PICTURES,
    seed: int = 0,
) -> HeatMapChecks:
    """Puts the maps of up to ``pictures`` pictures to the test; boxes are compared on pictures that have one.

    Args:
        boxes: by picture id.
    """
    # First, because boxes whose place is not known end it.
    agreed = None if boxes is None else agreement(model, images, boxes, pictures=pictures, seed=seed)
    rng = np.random.default_rng(derive(seed, "heat maps") % 2**32)
    some = images.take(np.sort(rng.permutation(len(images))[:pictures]))
    maps = model.explain(some).reshape(len(some), -1)
    few = some.take(np.arange(min(COMPARED, len(some))))
    correlation = rank_correlation(maps[: len(few)], randomised(model, seed=seed).explain(few).reshape(len(few), -1))
    return HeatMapChecks(
        pictures=len(some),
        compared=int(np.isfinite(correlation).sum()),
        faithful=faithfulness(model, some, maps, seed=seed),
        randomised=bootstrap(_mean, correlation, groups=few.patients, samples=500),
        boxes=agreed,
    )


def randomised(model: PneumoniaModel, *, seed: int = 0) -> PneumoniaModel:
    """A copy of a fine-tuned model that has forgotten everything: each tensor's numbers in another order."""
    other = copy.deepcopy(model)
    other.module_ = shuffled_weights(model.module_, seed=derive(seed, "encoder") % 2**32)
    other.members_ = [
        Member(
            shuffled_weights(member.classifier, seed=derive(seed, "network", i) % 2**32),
            None if member.probe is None else shuffled_weights(member.probe, seed=derive(seed, "probe", i) % 2**32),
        )
        for i, member in enumerate(model.members_)
    ]
    return other


def faithfulness(model: PneumoniaModel, images: ImageSet, maps_nt: Floats, *, seed: int = 0) -> Faithfulness:
    """Deletion and insertion curves of the maps beside random orders; intervals over patients."""
    pixels, tokens = images.pixels, maps_nt.shape[1]
    sign = np.where(_log_odds(model, pixels, np.tile(np.arange(tokens), (len(pixels), 1))) >= 0, 1.0, -1.0)
    steps = np.linspace(0, 1, STEPS + 1)
    counts = np.clip(np.round(steps * tokens).astype(int), 1, tokens)

    def curve(order_nt: NDArray[np.int64], *, insert: bool) -> Floats:
        # At least one patch has to stay: a model shown nothing says nothing.
        shown = [order_nt[:, :c] if insert else order_nt[:, ::-1][:, :c] for c in (counts if insert else counts[::-1])]
        return np.stack([1 / (1 + np.exp(-sign * _log_odds(model, pixels, kept))) for kept in shown], axis=1)

    by_map = np.argsort(-sign[:, None] * maps_nt, axis=1, kind="stable")
    rng = np.random.default_rng(derive(seed, "orders") % 2**32)
    random = [rng.permuted(np.tile(np.arange(tokens), (len(pixels), 1)), axis=1) for _ in range(ORDERS)]
    deletion, insertion = curve(by_map, insert=False), curve(by_map, insert=True)
    deletion_random = np.mean([curve(order, insert=False) for order in random], axis=0)
    insertion_random = np.mean([curve(order, insert=True) for order in random], axis=0)

    def gain(better: Floats, worse: Floats) -> Estimate:
        return bootstrap(_mean, area(better) - area(worse), groups=images.patients, samples=500)

    return Faithfulness(
        share=steps,
        deletion=deletion.mean(axis=0),
        insertion=insertion.mean(axis=0),
        deletion_random=deletion_random.mean(axis=0),
        insertion_random=insertion_random.mean(axis=0),
        deletion_gain=gain(deletion_random, deletion),
        insertion_gain=gain(insertion, insertion_random),
    )


def agreement(
    model: PneumoniaModel,
    images: ImageSet,
    boxes: Mapping[str, Sequence[Box]],
    *,
    pictures: int = PICTURES,
    seed: int = 0,
) -> Agreement:
    """Of the maps with boxes.

    Raises:
        DataError: no picture has a box; boxes are in pixels, or pictures padded, and the size of the original is not
            known; or pictures are padded and nobody says what was cut off before.
    """
    known = [next((name for name in _names(str(identity)) if name in boxes), "") for identity in images.ids]
    marked = np.flatnonzero([bool(name) for name in known])
    if not len(marked):
        raise DataError(f"none of {len(boxes)} pictures with boxes is among those audited: compare the ids")
    rng = np.random.default_rng(derive(seed, "boxes") % 2**32)
    rows_ = np.sort(rng.permutation(marked)[:pictures])
    some = images.take(rows_)
    places = []
    for i, name in enumerate(known[row] for row in rows_):
        size = (0, 0) if some.sizes is None else (int(some.sizes[i, 0]), int(some.sizes[i, 1]))
        place = _on_padded if some.framing == "padded" else _on_stretched
        places.append([place(box, size, name) for box in boxes[name]])
    maps = model.explain(some)
    rows, columns = maps.shape[1:]
    inside, mass, covered = [], [], []
    for found, map_rc in zip(places, maps, strict=True):
        mask = coverage([box for box, _ in found], rows, columns)
        film = coverage([film for _, film in found], rows, columns)
        favour = np.clip(map_rc, 0, None)
        inside.append(float(mask.flat[int(map_rc.argmax())] >= 0.5))
        mass.append(float((favour * mask).sum() / favour.sum()) if favour.sum() > 0 else 0.0)
        covered.append(float(mask.sum() / film.sum()))

    pointing, within, chance = (
        bootstrap(share, values, groups=some.patients, samples=500) for values in (inside, mass, covered)
    )
    return Agreement(
        pictures=len(some),
        pointing=pointing,
        mass=within,
        by_chance=chance,
        pointing_gain=_gain(inside, covered, some.patients, (pointing, chance)),
        mass_gain=_gain(mass, covered, some.patients, (within, chance)),
    )


def coverage(boxes: Sequence[Box], rows: int, columns: int) -> Floats:
    """Share of each cell (rows, columns) that boxes, in shares of the sides, cover; where two overlap, the larger."""
    result = np.zeros((rows, columns))
    for box in boxes:
        down = _overlap(box.top * rows, (box.top + box.height) * rows, rows)
        across = _overlap(box.left * columns, (box.left + box.width) * columns, columns)
        result = np.maximum(result, down[:, None] * across)
    return result


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Boxes by picture id from a CSV with an id column and x, y (left, top), width, height; rows without a box are
    pictures without a finding.

    Boxes on padded pictures need what was cut off their originals too: border_top, border_bottom, border_left and
    border_right, as an intake's store has them in its studies.csv.

    Raises:
        DataError: not a CSV, a column is missing, or a number cannot be read.
    """
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path} does not exist: expected a CSV with the columns image_id, x, y, width, height")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable CSV: {error}") from None
    lowered = {str(column).strip().lower(): str(column) for column in table.columns}
    name = find(list(table.columns), "id") or lowered.get("patientid")
    missing = [c for c in ("x", "y", "width", "height") if c not in lowered]
    if name is None or missing:
        raise DataError(f"{path}: expected the columns image_id, x, y, width, height; got {', '.join(table.columns)}")
    cuts = [c for c in BORDERS if c in lowered]
    if cuts and len(cuts) < len(BORDERS):
        raise DataError(f"{path}: expected all of the columns {', '.join(BORDERS)}, or none; got {', '.join(cuts)}")
    boxes: dict[str, list[Box]] = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        cells = [str(row[lowered[c]]).strip() for c in ("x", "y", "width", "height")]
        if not any(cells):
            continue
        try:
            left, top, width, height = (float(cell) for cell in cells)
        except ValueError:
            raise DataError(f"{path}, line {line}: expected four numbers, got {', '.join(cells)}") from None
        box = Box(left, top, width, height)
        if not all(np.isfinite(box[:4])) or min(box[:4]) < 0 or min(box.width, box.height) <= 0:
            raise DataError(f"{path}, line {line}: a box needs a place and a size of its own, got {', '.join(cells)}")
        cut = _cut([str(row[lowered[c]]).strip() for c in cuts], f"{path}, line {line}")
        boxes.setdefault(str(row[name]).strip(), []).append(box._replace(cut=cut))
    return boxes


def _names(identity: str) -> tuple[str, str, str]:
    path = PurePosixPath(identity)
    return identity, path.name, path.stem


def _cut(cells: Sequence[str], where: str) -> Border | None:
    """Rows and columns that were cut off; ``None`` where the row does not say."""
    if not any(cells):
        return None
    if not all(cell.isascii() and cell.isdigit() for cell in cells):
        raise DataError(f"{where}: expected whole numbers in {', '.join(BORDERS)}, got {', '.join(cells)}")
    return Border(*(int(cell) for cell in cells))


def _on_stretched(box: Box, size: tuple[int, int], name: str) -> tuple[Box, Box]:
    """A box and the whole film in shares of the square that the film was stretched to."""
    whole = Box(0, 0, 1, 1)
    if max(box[:4]) <= 1:
        return box, whole
    height, width = size
    if not height or not width:
        raise DataError(
            f"the boxes of {name} are in pixels, and the size of its original is not known: give the columns width and "
            "height with the labels, or boxes in shares of the sides"
        )
    return Box(box.left / width, box.top / height, box.width / width, box.height / height), whole


def _on_padded(box: Box, size: tuple[int, int], name: str) -> tuple[Box, Box]:
    """A box and what was left of the film in shares of the square of :func:`~unlabeled.medical._pictures.to_padded`."""
    height, width = size
    if not height or not width:
        raise DataError(
            f"the picture of {name} is padded, and the size of its original is not known: give the columns width and "
            "height with the labels"
        )
    if box.cut is None:
        # Two films of one size become the same square where one of them lost borders all around.
        raise DataError(
            f"where the boxes of {name} lie on its padded picture is not known, because borders of the film may have "
            f"been cut off before: give the columns {', '.join(BORDERS)} with the boxes, as in the studies.csv of the "
            "pictures' intake store (0 where nothing was cut off)"
        )
    cut = box.cut
    rows, columns = height - cut.top - cut.bottom, width - cut.left - cut.right
    if min(rows, columns) <= 0:
        raise DataError(f"the borders given with the boxes of {name} leave nothing of {height} rows, {width} columns")
    across, down = (width, height) if max(box[:4]) <= 1 else (1, 1)
    longest = max(rows, columns)

    def along(first: float, length: float, before: int, inner: int) -> tuple[float, float]:
        """First place and length on the square of what lies on the film that was left."""
        start, end = np.clip([first - before, first + length - before], 0, inner)
        return float(start + (longest - inner) / 2) / longest, float(end - start) / longest

    left, wide = along(box.left * across, box.width * across, cut.left, columns)
    top, high = along(box.top * down, box.height * down, cut.top, rows)
    film = Box((1 - columns / longest) / 2, (1 - rows / longest) / 2, columns / longest, rows / longest)
    return Box(left, top, wide, high), film


def _overlap(first: float, last: float, cells: int) -> Floats:
    edges = np.arange(cells)
    return np.clip(np.minimum(last, edges + 1) - np.maximum(first, edges), 0, 1)


def _log_odds(model: PneumoniaModel, images: NDArray[np.uint8], kept_nk: NDArray[np.int64]) -> Floats:
    """(N,), every picture with patches of its own choice."""
    backbone = model.module_.backbone
    kept = torch.from_numpy(np.ascontiguousarray(kept_nk))
    return mean_log_odds(model.members_, backbone, images, kept) + model.prior_


def _gain(
    found: Sequence[float], by_chance: Sequence[float], patients: NDArray[np.str_], apart: tuple[Estimate, Estimate]
) -> Estimate:
    """Mean difference; where no draw moves it, with an interval from those of both numbers ``apart``."""
    gain = bootstrap(_mean, np.subtract(found, by_chance), groups=patients, samples=500)
    if gain.high > gain.low:
        return gain
    a, b = apart
    return Estimate(gain.value, *square_and_add(gain.value, (a.value, a[1:]), (-b.value, (-b.high, -b.low))))


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
