"""The flag of what is unlike: raised as often as stated, by a record that names nobody and reads back the same."""

import json

import numpy as np
import pytest

from unlabeled.core.novelty import Novelty, fit_novelty


def test_familiar_patients_are_flagged_at_the_stated_rate() -> None:
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(60):
        of = np.repeat(np.arange(40), 2)
        held = rng.normal(size=(40, 6))[of] + 0.1 * rng.normal(size=(80, 6))
        novelty = fit_novelty(rng.normal(size=(200, 6)), held, groups=of, rate=0.1)
        flagged.append(novelty.flagged(novelty.p_values(novelty.score(rng.normal(size=(40, 6))))).mean())
    assert 0.04 < np.mean(flagged) < 0.12


def test_a_distance_by_hand_and_the_same_after_reading_back() -> None:
    rng = np.random.default_rng(0)
    familiar = rng.normal(size=(20000, 2)) * [1, 3]
    made = fit_novelty(familiar, familiar[:50], groups=[f"Anna {i}" for i in range(50)], facts={"fitted_on": 20000})
    # sqrt((x / 1)^2 + (y / 3)^2) / sqrt(2 dimensions)
    assert made.score([[2.0, 0.0], [0.0, 6.0]]) == pytest.approx([2**0.5, 2**0.5], rel=0.03)
    stated = json.loads(json.dumps(made.manifest()))
    read = Novelty.of_tensors(made.tensors(), stated)
    np.testing.assert_array_equal(read.score(familiar[:9]), made.score(familiar[:9]))
    np.testing.assert_array_equal(read.p_values([0.1, 9.0]), made.p_values([0.1, 9.0]))
    assert (read.rate, read.facts, read.can_flag) == (0.05, {"fitted_on": 20000}, True)
    assert "Anna" not in str(stated) + str(made.tensors())


def test_too_few_patients_raise_no_flag() -> None:
    rng = np.random.default_rng(0)
    few = fit_novelty(rng.normal(size=(50, 3)), rng.normal(size=(60, 3)), groups=np.arange(60) % 18)
    assert not few.can_flag
    assert not few.flagged(few.p_values(few.score(np.full((4, 3), 99.0)))).any()
