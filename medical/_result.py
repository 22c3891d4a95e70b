"""What is written of one radiograph, and who says that they wrote it."""

from dataclasses import dataclass

from unlabeled.medical.images import PNEUMONIA

MAKER, PRODUCT = "The unlabeled developers", "unlabeled radiograph model"
WARNING, LIMITS = "RESEARCH ONLY - NOT FOR DIAGNOSIS", "For research only; not a medical device."
# High, so that they stand behind whatever a study holds.
CAPTURE_SERIES, REPORT_SERIES = 9901, 9902


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model says of one radiograph.

    Attributes:
        probability: of the finding, 0 to 1.
        threshold: at or above it the radiograph is called so.
        sensitive_threshold: the operating point for ``sensitivity``.
        sensitivity: that was asked for on held-out radiographs.
        model: fingerprint of the model.
        abstained: why the model gives no call (one sentence), or ``None``.
        calibrated: the calibrated probability with the two ends of its interval, or ``None``.
        finding: what it looks for.
        rule: when the model gives no call (one sentence), or ``None`` where it always gives one.
    """

    probability: float
    threshold: float
    sensitive_threshold: float
    model: str
    sensitivity: float = 0.95
    abstained: str | None = None
    calibrated: tuple[float, float, float] | None = None
    rule: str | None = None
    finding: str = PNEUMONIA

    @property
    def interval(self) -> str | None:
        """The calibrated probability in words."""
        if self.calibrated is None:
            return None
        value, low, high = self.calibrated
        return f"Calibrated probability {value:.3f} ({low:.3f} to {high:.3f}, Venn-Abers)."

    @property
    def call(self) -> str:
        if self.abstained is not None:
            return "no call"
        return self.finding if self.probability >= self.threshold else f"no {self.finding}"
