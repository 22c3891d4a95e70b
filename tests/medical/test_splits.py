"""No patient on two sides, ever, and whoever tries is told whom."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import DataError, GateError
from unlabeled.medical import ImageSet, check_no_leak, simulate
from unlabeled.medical.splits import alike_across, digests, first_labels, hold_out, patient_folds, site_folds


def pictures(patients: list[str], labels: list[int], order: list[int] | None = None) -> ImageSet:
    n = len(patients)
    return ImageSet(
        images=np.zeros((n, 16, 16), dtype=np.uint8),
        ids=np.array([f"picture {i}" for i in range(n)]),
        patients=np.array(patients),
        labels=np.array(labels),
        order=None if order is None else np.array(order),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=120),
    st.integers(2, 4),
    st.integers(0, 5),
)
def test_folds_never_share_patients_and_never_lack_a_kind(rows: list[tuple[int, bool]], folds: int, seed: int) -> None:
    # A few patients of each kind, so that folds are possible; then anything.
    base = [(100 + i, i % 2 == 0) for i in range(2 * folds)]
    patients, labels = zip(*[*base, *rows], strict=True)
    fold = patient_folds([str(p) for p in patients], np.array(labels, dtype=int), folds=folds, seed=seed)
    for patient in set(patients):
        assert len({f for f, p in zip(fold, patients, strict=True) if p == patient}) == 1
    ever_sick = {p for p, sick in zip(patients, labels, strict=True) if sick}
    for f in range(folds):
        members = {p for g, p in zip(fold, patients, strict=True) if g == f}
        assert members & ever_sick
        assert members - ever_sick


def test_folds_do_not_depend_on_what_patients_are_called() -> None:
    patients = [str(i // 2) for i in range(40)]
    labels = [(i // 2) % 2 for i in range(40)]
    renamed = [f"P-{(7 * int(p)) % 31:03d}" for p in patients]
    np.testing.assert_array_equal(
        patient_folds(patients, labels, folds=3, seed=1), patient_folds(renamed, labels, folds=3, seed=1)
    )
    assert not np.array_equal(
        patient_folds(patients, labels, folds=3, seed=1), patient_folds(patients, labels, folds=3, seed=2)
    )


def test_too_few_patients_of_a_kind_are_refused_with_the_count() -> None:
    with pytest.raises(DataError, match="at least 3 labelled patients of each kind; there are 1 with the finding"):
        patient_folds(["a", "b", "c", "d", "a"], [1, 0, 0, 0, 1], folds=3, seed=0)


def test_holding_out_keeps_about_the_share_and_the_patients_apart() -> None:
    images = pictures([str(i // 3) for i in range(300)], [(i // 3) % 2 for i in range(300)])
    rest, held = hold_out(images, share=1 / 3, seed=0)
    assert len(rest) + len(held) == 300
    assert 80 <= len(held) <= 120
    assert not set(rest.patients) & set(held.patients)


def test_a_split_that_leaks_is_refused_with_patients_and_pictures_named() -> None:
    train = pictures(["anna", "ben"], [1, 0])
    test = replace(pictures(["ben", "carl"], [0, 1]), ids=np.array(["x.dcm", "y.dcm"]))
    with pytest.raises(GateError, match=r"1 patient\(s\) are in both train and test: ben \(picture 1, x.dcm\)"):
        check_no_leak({"train": train, "test": test})


def test_a_clean_split_has_a_fingerprint_of_its_own() -> None:
    a, b, c = (pictures([name], [1]) for name in "abc")
    b, c = replace(b, ids=np.array(["b"])), replace(c, ids=np.array(["c"]))
    assert check_no_leak({"train": a, "test": b}) == check_no_leak({"train": a, "test": b})
    assert check_no_leak({"train": a, "test": b}) != check_no_leak({"train": a, "test": c})


def test_the_first_labels_follow_the_tables_order_where_it_has_one() -> None:
    images = pictures(["a", "b", "c", "d"], [1, 0, 1, 0], order=[2, -1, 0, 1])
    assert list(first_labels(images, 3, seed=0).ids) == ["picture 2", "picture 3", "picture 0"]


def test_few_labels_keep_the_share_of_pneumonia_and_are_a_prefix_of_more() -> None:
    images = pictures([str(i) for i in range(400)], [int(i % 4 == 0) for i in range(400)])
    some, more = first_labels(images, 40, seed=3), first_labels(images, 80, seed=3)
    assert some.labels is not None
    assert 8 <= some.labels.sum() <= 12
    assert set(some.ids) <= set(more.ids)
    with pytest.raises(DataError, match="500 labels were asked for, but only 400"):
        first_labels(images, 500, seed=0)


def test_digests_tell_who_was_there_only_with_the_salt() -> None:
    salt, other = "00" * 16, "11" * 16
    assert digests(["anna"], salt=salt) == digests(["anna"], salt=salt)
    assert digests(["anna"], salt=salt) != digests(["anna"], salt=other)
    assert "anna" not in digests(["anna"], salt=salt)[0]


def test_one_patient_under_two_names_is_pointed_out_and_look_alikes_are_not() -> None:
    rng = np.random.default_rng(0)
    films = [simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=False, rng=rng, size=64) for _ in range(30)]
    pixels = np.stack([(film / 1.2 * 255).clip(0, 255) for film in films])
    pixels[25] = 0.9 * pixels[3] + 10 + rng.normal(0, 2, (64, 64))  # shown again: another window, noise
    pixels[29] = pixels[28]  # twice in one part: no leak
    images = ImageSet(
        images=pixels.clip(0, 255).astype(np.uint8),
        ids=np.array([f"film {i}" for i in range(30)]),
        patients=np.array([f"patient {i}" for i in range(30)]),
        labels=np.arange(30) % 2,
    )
    parts = {"train": images.take(range(20)), "test": images.take(range(20, 30))}
    (said,) = alike_across(parts)
    assert said.startswith("1 pairs of pictures of train and test look nearly the same: film 3 and film 25.")
    assert alike_across({"train": images.take(range(20)), "test": images.take(range(26, 30))}) == ()
    # Of two parts that both teach nobody needs to know; a third one that judges is compared with both.
    assert alike_across(parts, teaching=list(parts)) == ()
    third = {"train": images.take(range(3)), "test": parts["test"], "others": images.take(range(3, 20))}
    (said,) = alike_across(third, teaching=("train", "others"))
    assert said.startswith("1 pairs of pictures of test and others look nearly the same: film 25 and film 3.")


def test_folds_by_site_hold_one_site_each_and_nobody_twice() -> None:
    images = pictures(["a", "b", "c", "b"], [0, 1, 1, 0])
    with pytest.raises(DataError, match="no site of any picture is known"):
        site_folds(images)

    def at(*sites: str) -> ImageSet:
        return replace(images, attributes={"site": np.array(sites)})

    fold, names = site_folds(at("south", "north", "south", "north"))
    assert (fold.tolist(), names) == ([1, 0, 1, 0], ["north", "south"])
    with pytest.raises(DataError, match="of 1 of 4 labelled pictures the site is not known"):
        site_folds(at("south", "north", "", "north"))
    with pytest.raises(DataError, match=r"one site \(south\)"):
        site_folds(at(*["south"] * 4))
    with pytest.raises(GateError, match=r"1 patient\(s\) were seen at two sites: b\."):
        site_folds(at("south", "north", "south", "south"))
