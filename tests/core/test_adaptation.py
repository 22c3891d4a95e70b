"""Scores of another source are brought back by what their distribution alone tells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.adaptation import LEAST, location_scale
from unlabeled.core.evaluation import balanced_accuracy


def two_classes(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) < share * n).astype(int)
    return labels, np.where(labels == 1, rng.normal(2.5, 1.2, n), rng.normal(-2, 1, n))


@settings(max_examples=15, deadline=None)
@given(shift=st.floats(-4, 4), scale=st.floats(0.6, 1.6), share=st.floats(0.15, 0.85))
def test_a_move_of_both_classes_is_found_and_taken_back(shift: float, scale: float, share: float) -> None:
    held_labels, held = two_classes(400, 0.7, seed=0)
    labels, source = two_classes(600, share, seed=1)
    moved = location_scale(scale * source + shift, held_labels=held_labels, held_logits=held)
    assert moved.scale == pytest.approx(scale, rel=0.2)
    assert moved.shift == pytest.approx(shift, abs=0.6)
    assert moved.share == pytest.approx(share, abs=0.07)
    back = moved.back(scale * source + shift)
    assert np.corrcoef(back, source)[0, 1] == pytest.approx(1)
    assert balanced_accuracy(labels, back >= 0) > 0.95


def test_scores_that_did_not_move_are_left_nearly_as_they_are() -> None:
    held_labels, held = two_classes(400, 0.7, seed=0)
    labels, source = two_classes(600, 0.3, seed=2)
    moved = location_scale(source, held_labels=held_labels, held_logits=held)
    assert abs(moved.shift) < 0.25
    assert moved.scale == pytest.approx(1, abs=0.08)
    assert balanced_accuracy(labels, moved.back(source) >= 0) > balanced_accuracy(labels, source >= 0) - 0.01
    assert moved.share == pytest.approx(0.3, abs=0.03)
    assert f"taking {100 * moved.share:.0f} % for positive" in moved.says()


def test_too_few_cases_or_one_class_are_refused() -> None:
    held_labels, held = two_classes(400, 0.7, seed=0)
    with pytest.raises(ValueError, match=f"to {LEAST} cases or more, got 3"):
        location_scale([0.0, 1.0, 2.0], held_labels=held_labels, held_logits=held)
    with pytest.raises(ValueError, match="of both classes only"):
        location_scale(held, held_labels=np.ones(400), held_logits=held)
