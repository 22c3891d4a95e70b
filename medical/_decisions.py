"""What a fine-tuned model says of each picture, and how sure it may be: everything from held-out predictions.

Log odds of held-out pictures are those of a network that did not learn from them. With validation pictures they are
of the very network that is used later, and the stated rates hold exactly (for exchangeable pictures). Without, each is
of one fold's network, and later pictures are judged by all of them together: the rates then hold approximately.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core import prevalence as shares
from unlabeled.core.adaptation import Moved, location_scale
from unlabeled.core.conformal import Abstention, needed, venn_abers
from unlabeled.core.errors import DataError
from unlabeled.core.operating import OperatingPoint, operating_point
from unlabeled.core.prevalence import Prevalence
from unlabeled.medical._finetuning import DECIMALS
from unlabeled.medical._novelty import CANNOT, Outlying
from unlabeled.medical.images import PNEUMONIA, ImageSet
from unlabeled.medical.model import PneumoniaModel

if TYPE_CHECKING:
    import pandas as pd

REFER = "refer"
UNCERTAIN, STRANGE = "uncertain", "out of distribution"


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user asks of the decisions.

    Attributes:
        sensitivity: of the operating point, above 0 and at most 1.
        error_rate: share of wrong calls among the pictures of a class, above which the rest is referred.
        prevalence: share with the finding where the pictures come from; ``estimate`` finds it from their scores,
            ``None``: as among the labels.
        assured: lower the threshold until even the lower bound of the sensitivity, over patients, is at the target.
        adapt: bring the scores of pictures of another source back to where held-out ones were
            (:mod:`unlabeled.core.adaptation`), by all of them together.
    """

    sensitivity: float = 0.95
    error_rate: float = 0.05
    prevalence: float | Literal["estimate"] | None = None
    assured: bool = False
    adapt: bool = False

    @classmethod
    def of_text(cls, *, prevalence: str | None, **numbers: Any) -> "Stated":
        """The same, with the prevalence as somebody typed it.

        Raises:
            DataError: it is neither a number nor ``estimate``.
        """
        if prevalence is None or prevalence == "estimate":
            return cls(prevalence="estimate" if prevalence else None, **numbers)
        try:
            return cls(prevalence=float(prevalence), **numbers)
        except ValueError:
            raise DataError(f"a prevalence is a number between 0 and 1 or 'estimate', got '{prevalence}'") from None

    def check(self) -> None:
        """Raises a DataError where a number is out of its range."""
        if not 0 < self.sensitivity <= 1:
            raise DataError(f"a sensitivity must be above 0 and at most 1, got {self.sensitivity:g}")
        if not 0 < self.error_rate < 1:
            raise DataError(f"an error rate must be between 0 and 1, got {self.error_rate:g}")
        if self.prevalence not in (None, "estimate") and not 0 < float(self.prevalence) < 1:
            raise DataError(f"a prevalence must be between 0 and 1 (or 'estimate'), got {self.prevalence}")


class HeldOut(NamedTuple):
    """Predictions on pictures that a network did not learn from, (M,) each.

    Attributes:
        labels: 1 with the finding, 0 without.
        logits: log odds, rounded.
        patients: by number.
    """

    labels: NDArray[np.int64]
    logits: NDArray[np.float64]
    patients: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """One row a picture, and where the numbers come from.

    Attributes:
        table: see :func:`decide`.
        stated: what was asked for.
        point: the operating point.
        notes: what a reader has to know: what could not be promised, and why.
        estimated: the prevalence found, where it was to be estimated.
        now: the prevalence that ``probability_at_prevalence`` is for, or ``None``.
        outlying: how unlike the model's own pictures these are, or ``None`` where it cannot tell.
        moved: how their scores were adapted, or ``None``.
    """

    table: "pd.DataFrame"
    stated: Stated
    point: OperatingPoint
    notes: tuple[str, ...]
    estimated: Prevalence | None
    now: float | None
    outlying: Outlying | None
    moved: Moved | None = None


def held_out(model: PneumoniaModel) -> HeldOut:
    """What the model keeps of held-out predictions.

    Raises:
        DataError: nothing, because it is not fine-tuned or an earlier version saved it.
    """
    model.check_fine_tuned()
    kept = (model.finetuning_ or {}).get("held_out")
    if kept is None:
        raise DataError("this model keeps no held-out predictions to decide with: fine-tune it again")
    labels = np.asarray(kept["label"], dtype=np.int64)
    patients = kept.get("patient", range(len(labels)))  # an earlier version counted each picture as a patient
    return HeldOut(labels, _rounded(np.asarray(kept["logit"], dtype=float)), np.asarray(patients, dtype=np.int64))


def decide(model: PneumoniaModel, images: ImageSet, stated: Stated | None = None) -> Decisions:
    """Everything that the model says of pictures, one row each, in their order.

    Columns: ``image_id``; ``probability`` (temperature-scaled), ``call`` and ``threshold`` (best balanced accuracy);
    ``calibrated`` with ``calibrated_low`` and ``calibrated_high`` (Venn-Abers); ``sensitive_call`` and
    ``sensitive_threshold`` (the operating point at the stated sensitivity); ``decision`` (the finding, that it is not
    there, or refer, at the stated error rate) and ``reason`` of a referral (uncertain, out of distribution);
    ``ood_p_value`` and
    ``ood_flag`` (empty where the model cannot tell); ``probability_at_prevalence`` (empty where no prevalence was
    stated, or the estimated one is not to be believed).

    Raises:
        DataError: not fine-tuned, a stated number out of its range, or too few pictures to adapt to, or patients to
            estimate a prevalence from.
    """
    import pandas as pd

    stated = stated or Stated()
    stated.check()
    held, decision = held_out(model), model.decision_
    assert decision is not None
    raw = model._logits(images)
    moved = adapted_to(raw, held) if stated.adapt else None
    raw = raw if moved is None else moved.back(raw)
    logits, probability = _rounded(raw), decision.probability(raw)
    outlying = None if model.novelty_ is None else model.out_of_distribution(images)
    point = operating_point_of(model, stated)
    interval = venn_abers(held.labels, held.logits, logits)
    abstention = abstention_of(held, stated.error_rate)
    called, reason = _referred(abstention.decide(logits).called, outlying)
    estimated = _estimated(model, held, probability, images, stated)
    now = _prevalence_now(stated, estimated)
    shifted = (
        np.full(len(images), np.nan)
        if now is None
        else shares.recalibrate(probability, before=decision.prevalence, now=now)
    )
    table = pd.DataFrame(
        {
            "image_id": images.ids.astype(object),
            "probability": probability,
            "call": _words(probability >= decision.threshold, model.finding),
            "threshold": decision.threshold,
            "calibrated": interval.value,
            "calibrated_low": interval.low,
            "calibrated_high": interval.high,
            "sensitive_call": _words(probability >= point.threshold, model.finding),
            "sensitive_threshold": point.threshold,
            "decision": [{1: model.finding, 0: absent(model.finding), -1: REFER}[int(c)] for c in called],
            "reason": reason,
            "ood_p_value": np.nan if outlying is None else outlying.p_value,
            "ood_flag": pd.array([pd.NA] * len(images) if outlying is None else outlying.flagged, dtype="boolean"),
            "probability_at_prevalence": shifted,
        }
    )
    return Decisions(
        table=table, stated=stated, point=point,
        notes=(*_notes(model, abstention), *(() if moved is None else (moved.says(),))),
        estimated=estimated, now=now, outlying=outlying, moved=moved,
    )  # fmt: skip


def adapted_to(logits: NDArray[np.float64], held: HeldOut) -> Moved:
    """How the scores of a source lie to held-out ones; a DataError where they are too few to tell."""
    try:
        return location_scale(logits, held_labels=held.labels, held_logits=held.logits)
    except ValueError as error:
        raise DataError(f"{error}: leave --adapt out") from None


def operating_point_of(model: PneumoniaModel, stated: Stated) -> OperatingPoint:
    """The threshold on ``probability`` for a stated sensitivity, from the model's held-out predictions."""
    held, decision = held_out(model), model.decision_
    assert decision is not None
    return operating_point(
        held.labels,
        decision.probability(held.logits),
        stated.sensitivity,
        groups=held.patients,
        assured=stated.assured,
    )


def abstention_of(held: HeldOut, rate: float) -> Abstention:
    """The calls at a stated error rate."""
    return Abstention(labels=held.labels, scores=held.logits, groups=held.patients, rate=rate)


def per_study(table: "pd.DataFrame", studies: ArrayLike, *, finding: str = PNEUMONIA) -> "pd.DataFrame":
    """One row a study (in order of first appearance) from :func:`decide`'s rows of its pictures.

    ``probability``, ``calibrated`` and ``probability_at_prevalence`` are those of the mean log odds of its pictures,
    the interval reaches from the lowest bound to the highest. ``call`` and ``sensitive_call`` are the finding where any
    picture's is (so that no sensitivity is lost); ``decision`` is what all pictures agree on, else refer; a study is
    flagged where any of its pictures is, and has its lowest ``ood_p_value``. ``image_ids`` lead back to its pictures.

    Args:
        studies: (N,) which study each row belongs to.
        finding: the model's.
    """
    import pandas as pd

    rows = []
    for study, part in table.assign(study=np.asarray(studies)).groupby("study", sort=False):
        agreed = part.decision.nunique() == 1
        reasons = [reason for reason in (STRANGE, UNCERTAIN) if (part.reason == reason).any()]
        rows.append(
            {
                "study": study,
                "pictures": len(part),
                "image_ids": ";".join(map(str, part.image_id)),
                **{name: _mean_odds(part[name]) for name in ("probability", "calibrated", "probability_at_prevalence")},
                "calibrated_low": part.calibrated_low.min(),
                "calibrated_high": part.calibrated_high.max(),
                **{
                    name: finding if (part[name] == finding).any() else absent(finding)
                    for name in ("call", "sensitive_call")
                },
                "decision": part.decision.iloc[0] if agreed else REFER,
                "reason": (reasons or ["" if agreed else "pictures disagree"])[0],
                "ood_p_value": part.ood_p_value.min(),
                "ood_flag": part.ood_flag.any() if part.ood_flag.notna().all() else pd.NA,
            }
        )
    return pd.DataFrame(rows)


def _referred(called: NDArray[np.int64], outlying: Outlying | None) -> tuple[NDArray[np.int64], list[str]]:
    reason = np.where(called == -1, UNCERTAIN, "")
    if outlying is not None:
        # Referring more can only lower the rate of wrong calls.
        called, reason = np.where(outlying.flagged, -1, called), np.where(outlying.flagged, STRANGE, reason)
    return called, reason.tolist()


def _estimated(
    model: PneumoniaModel,
    held: HeldOut,
    probability: NDArray[np.float64],
    images: ImageSet,
    stated: Stated,
) -> Prevalence | None:
    assert model.decision_ is not None
    if stated.prevalence != "estimate":
        return None
    try:
        return shares.estimate(
            probability,
            held_labels=held.labels,
            held_probability=model.decision_.probability(held.logits),
            groups=images.patients,
            held_groups=held.patients,
            seed=model.random_state,
        )
    except ValueError as error:
        raise DataError(f"{error}: state it (--prevalence 0.1, say), or leave --prevalence out") from None


def _prevalence_now(stated: Stated, estimated: Prevalence | None) -> float | None:
    if estimated is not None:
        return estimated.share.value if estimated.believable else None
    return None if stated.prevalence is None else float(stated.prevalence)


def _notes(model: PneumoniaModel, abstention: Abstention) -> tuple[str, ...]:
    """What could not be promised, and why."""
    notes, few, words = [], needed(abstention.rate), (absent(model.finding), model.finding)
    for count, name, never in zip(abstention.available(), words, words[::-1], strict=True):
        if count < few:
            notes.append(
                f"an error rate of {100 * abstention.rate:g}% needs {few} held-out patients with {name}, there are "
                f"{count}: no picture can be called {never}"
            )
    if len(notes) == 2:
        notes.append("every picture is therefore referred: give more labels, or state a higher error rate")
    if model.novelty_ is None:
        notes.append(f"no picture is flagged as out of distribution: {CANNOT}")
    elif not model.novelty_.can_flag:
        notes.append(
            f"no picture is flagged as out of distribution: that needs {needed(model.novelty_.rate)} held-out patients"
        )
    return tuple(notes)


def absent(finding: str) -> str:
    """How it is called that a finding is not there."""
    return f"no {finding}"


def _words(positive: NDArray[np.bool_], finding: str) -> list[str]:
    return [finding if yes else absent(finding) for yes in positive]


def _rounded(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.round(logits, DECIMALS)
    return found


def _mean_odds(probability: "pd.Series[float]") -> float:
    p = np.clip(probability.to_numpy(dtype=float), 1e-12, 1 - 1e-12)
    return float(1 / (1 + np.exp(-np.mean(np.log(p / (1 - p))))))
