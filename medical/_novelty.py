"""Which pictures a pneumonia model takes for its own kind: learnt at fine-tuning, from the encoder as it was before."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.novelty import Novelty, fit_novelty
from unlabeled.core.seeds import derive
from unlabeled.medical import _network as network
from unlabeled.medical._finetuning import Held
from unlabeled.medical.images import ImageSet

# Share of pictures like those learnt from that may be flagged.
RATE = 0.05
# So many pictures are enough for a covariance and for p-values; more would only take time.
FITTED_ON, HELD_OUT = 4000, 1500
# Read of pictures without labels, from which those are chosen.
DRAWN = 20_000
CANNOT = (
    "this model cannot tell what is unlike its own pictures: it was fine-tuned from scratch, on too few pictures or by "
    "an earlier version. Pretrain and fine-tune again"
)
# Of the patients, where there are no validation pictures.
HELD_SHARE = 1 / 3


class Pictures(NamedTuple):
    """(N, S, S) 8-bit, and whose they are (N,)."""

    pixels: NDArray[np.uint8]
    patients: NDArray[np.generic]


class Outlying(NamedTuple):
    """What a model says about how unlike its own pictures N others are, (N,) each.

    Attributes:
        score: distance, higher is stranger.
        p_value: share of held-out familiar pictures (each patient weighs the same) that are as strange.
        flagged: p-value at or below the stated rate; never where too few patients were held out to promise it.
    """

    score: NDArray[np.float64]
    p_value: NDArray[np.float64]
    flagged: NDArray[np.bool_]


def fit(
    backbone: Backbone, learnt_from: Held, chosen_on: Held | None, unlabelled: ImageSet | None, *, seed: int
) -> Novelty | None:
    """Distances of mean tokens to those of the pictures learnt from, with and without labels.

    The p-values come from the pictures ``chosen_on``, or, without them, from a third of the patients that are then not
    fitted on. Those the encoder was pretrained on as well, so its own pictures may look a little too familiar.

    Returns:
        ``None`` where there are too few pictures for a covariance.
    """
    familiar = Pictures(learnt_from.data.images, learnt_from.patients)
    if unlabelled is not None:
        familiar = _together(familiar, _drawn(unlabelled, seed=seed))
    rng = np.random.default_rng(derive(seed, "novelty") % 2**32)
    if chosen_on is not None:
        where, held_out = "validation pictures", Pictures(chosen_on.data.images, chosen_on.patients)
    else:
        where = "a third of the patients"
        people, of = np.unique(familiar.patients, return_inverse=True)
        out = np.isin(of, rng.permutation(len(people))[: round(len(people) * HELD_SHARE)])
        familiar, held_out = _rows(familiar, ~out), _rows(familiar, out)
    familiar, held_out = _some(familiar, FITTED_ON, rng), _some(held_out, HELD_OUT, rng)
    if len(familiar.pixels) < 2 or not len(held_out.pixels):
        return None
    facts = {
        "fitted_on": len(familiar.pixels),
        "held_out": len(held_out.pixels),
        "held_out_patients": len(np.unique(held_out.patients)),
        "where": where,
    }
    return fit_novelty(
        network.embeddings(backbone, familiar.pixels),
        network.embeddings(backbone, held_out.pixels),
        groups=held_out.patients,
        rate=RATE,
        facts=facts,
    )


def judge(novelty: Novelty | None, backbone: Backbone, pixels: NDArray[np.uint8]) -> Outlying:
    """How far pictures (N, S, S) are from familiar.

    Raises:
        DataError: nothing was kept of what is familiar.
    """
    if novelty is None:
        raise DataError(CANNOT)
    score = novelty.score(network.embeddings(backbone, pixels))
    p = novelty.p_values(score)
    return Outlying(score, p, novelty.flagged(p))


def _drawn(images: ImageSet, *, seed: int) -> Pictures:
    """All of them, or, of so many that it would fill the memory, some."""
    if len(images) > DRAWN:
        rng = np.random.default_rng(derive(seed, "novelty", "drawn") % 2**32)
        images = images.take(np.sort(rng.choice(len(images), DRAWN, replace=False)))
    return Pictures(images.pixels, images.patients)


def _together(one: Pictures, other: Pictures) -> Pictures:
    """Both; a picture that is in both counts once, under the name that ``other`` gives it."""
    there = {pixels.tobytes() for pixels in other.pixels}
    new = np.array([pixels.tobytes() not in there for pixels in one.pixels])
    one = _rows(one, new)
    names = [np.asarray(each.patients).astype(str) for each in (one, other)]
    return Pictures(np.concatenate([one.pixels, other.pixels]), np.concatenate(names))


def _some(pictures: Pictures, most: int, rng: np.random.Generator) -> Pictures:
    count = len(pictures.pixels)
    return pictures if count <= most else _rows(pictures, np.sort(rng.choice(count, most, replace=False)))


def _rows(pictures: Pictures, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Pictures:
    return Pictures(pictures.pixels[rows], np.asarray(pictures.patients)[rows])
