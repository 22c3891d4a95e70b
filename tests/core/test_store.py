"""Rows on disk are the rows that were written, and memory stays flat over them."""

import gc
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from unlabeled.core import fingerprint
from unlabeled.core.batches import Batches
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.store import Store, unmapped


@settings(max_examples=40, deadline=None)
@given(
    array=hn.arrays(
        st.sampled_from(["uint8", "int16", "float32"]), st.tuples(st.integers(1, 30), st.integers(1, 4)),
        elements={"min_value": 0, "max_value": 100},
    ),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)  # fmt: skip
def test_what_is_written_in_any_parts_is_read_by_us_and_by_numpy(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("store") / "rows.npy"
    parts = np.split(array, sorted(min(cut, len(array)) for cut in cuts))
    store = Store.write(path, parts, row=array.shape[1:], dtype=array.dtype)
    assert (store.shape, store.dtype, len(store)) == (array.shape, array.dtype, len(array))
    rows = np.arange(len(array))[::2]
    np.testing.assert_array_equal(store[rows], array[rows])
    np.testing.assert_array_equal(store[1:3], array[1:3])
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), array)


def test_a_file_of_numpy_s_own_is_a_store(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(Store(tmp_path / "a.npy")[np.array([0, 3])], array[[0, 3]])


def test_batches_from_disk_are_those_from_memory(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (100, 4, 4), dtype=np.uint8)
    store = Store.write(tmp_path / "x.npy", [array], row=(4, 4), dtype=np.uint8)
    for step in (0, 5, 17):
        (one,), (other,) = (Batches(rows, batch_size=16, seed=3).at(step) for rows in (array, store))
        assert torch.equal(one, other)


def test_what_was_drawn_is_a_copy_that_may_be_changed(tmp_path: Path) -> None:
    store = Store.write(tmp_path / "x.npy", [np.zeros((3, 2), np.uint8)], row=(2,), dtype=np.uint8)
    drawn = store[np.array([0])]
    drawn += 7
    assert not store[np.array([0])].any()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    Store.write(path, [np.ones((2, 2), np.uint8)], row=(2,), dtype=np.uint8)

    def parts() -> object:
        yield np.zeros((5, 2), np.uint8)
        raise RuntimeError("the reader broke")

    with pytest.raises(RuntimeError, match="the reader broke"):
        Store.write(path, parts(), row=(2,), dtype=np.uint8)  # type: ignore[arg-type]
    for wrong in (np.zeros((5, 3), np.uint8), np.zeros((5, 2), np.int16)):
        with pytest.raises(DataError, match=r"rows are \(2,\) of uint8 here"):
            Store.write(path, [wrong], row=(2,), dtype=np.uint8)
    assert Store(path)[:].tolist() == [[1, 1], [1, 1]]
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="write a store first"):
        Store(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("hello, hello, hello")
    with pytest.raises(CheckpointError, match=r"no \.npy file"):
        Store(tmp_path / "text.npy")
    with (tmp_path / "objects.npy").open("wb") as stream:
        described = {"descr": "|O", "fortran_order": False, "shape": (2,)}
        np.lib.format.write_array_header_1_0(stream, described)
    with pytest.raises(CheckpointError, match="Python objects, which are never loaded"):
        Store(tmp_path / "objects.npy")
    np.save(tmp_path / "columns.npy", np.asfortranarray(np.ones((3, 4))))
    with pytest.raises(CheckpointError, match="not in rows"):
        Store(tmp_path / "columns.npy")
    np.save(tmp_path / "cut.npy", np.ones((30, 4)))
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="cut short or overlong: 952 bytes of rows, expected 960"):
        Store(tmp_path / "cut.npy")


def test_a_fingerprint_is_the_same_on_disk_and_in_memory_whatever_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(60, dtype=np.int16).reshape(10, 3, 2)
    store = Store.write(tmp_path / "x.npy", [array], row=(3, 2), dtype=np.int16)
    expected = hashlib.blake2b(b"<i2(10, 3, 2)" + array.tobytes(), digest_size=8).hexdigest()
    for at_once in (1, 30, 1 << 20):
        monkeypatch.setattr(fingerprint, "_AT_ONCE", at_once)
        assert fingerprint.of_array(array) == fingerprint.of_array(store) == expected
    assert fingerprint.of_array(array[:0]) != fingerprint.of_array(array[:0].astype(np.int32))


def test_rows_come_in_the_order_asked_for_and_only_those_there_are(tmp_path: Path) -> None:
    array = np.arange(20, dtype=np.int16).reshape(10, 2)
    store = Store.write(tmp_path / "x.npy", [array], row=(2,), dtype=np.int16)
    for rows in ([7, 2, 3, 3, 0], [-1, 4], []):
        np.testing.assert_array_equal(store[np.array(rows, dtype=int)], array[np.array(rows, dtype=int)])
    np.testing.assert_array_equal(store[::-3], array[::-3])
    with pytest.raises(IndexError):
        store[np.array([10])]
    with (tmp_path / "x.npy").open("r+b") as stream:
        stream.truncate(150)
    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        store[np.array([9])]


def test_a_whole_mapped_file_is_read_and_a_part_of_one_stays_what_it_is(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    np.save(tmp_path / "x.npy", array)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    whole = unmapped(mapped)
    assert isinstance(whole, Store)
    np.testing.assert_array_equal(whole[:], array)
    assert fingerprint.of_array(mapped) == fingerprint.of_array(array)
    for part in (mapped[2:5], mapped[::-1], mapped[[3, 1]], mapped.reshape(3, 8), array):
        assert unmapped(part) is part
        assert fingerprint.of_array(part) == fingerprint.of_array(np.array(part))


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_resident_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A process of its own reads every row of 512 MiB in a random order, and a fingerprint of the same file mapped."""
    path = tmp_path / "large.npy"
    part = np.random.default_rng(0).integers(0, 256, (4096, 4096), dtype=np.uint8)
    Store.write(path, (part for _ in range(32)), row=(4096,), dtype=np.uint8)
    code = """
import sys
import numpy as np
from unlabeled.core.store import Store

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096

store = Store(sys.argv[1])
order = np.random.default_rng(0).permutation(len(store))
before, most, total = resident(), 0, 0
for rows in np.split(order, 512):
    total += store[np.sort(rows)].nbytes
    most = max(most, resident() - before)
from unlabeled.core import fingerprint
before = resident()
fingerprint.of_array(np.load(sys.argv[1], mmap_mode="c"))
print(total, most, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    total, most, mapped = map(int, done.stdout.split())
    assert total == 512 << 20
    assert most < 32 << 20, f"{most >> 20} MiB became resident"
    assert mapped < 128 << 20, f"{mapped >> 20} MiB became resident"


@given(rows=st.lists(st.integers(-10, 9), max_size=12), again=st.integers(0, 2**12 - 1))
def test_rows_that_were_taken_are_those_of_the_array(rows: list[int], again: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        array = np.arange(20, dtype=np.int16).reshape(10, 2)
        store = Store.write(Path(folder) / "x.npy", [array], row=(2,), dtype=np.int16)
        chosen = np.array(rows, dtype=int)
        some, expected = store.take(chosen), array[chosen]
        assert (some.shape, len(some)) == (expected.shape, len(expected))
        np.testing.assert_array_equal(some[:], expected)
        assert fingerprint.of_array(some) == fingerprint.of_array(expected)
        mask = np.array([again >> bit & 1 for bit in range(len(rows))], dtype=bool)
        np.testing.assert_array_equal(some.take(mask)[:], expected[mask])
        np.testing.assert_array_equal(store[:], array)  # the store itself is as it was


def test_rows_that_were_taken_outlive_the_store_and_only_rows_there_are_can_be(tmp_path: Path) -> None:
    array = np.arange(20, dtype=np.int16).reshape(10, 2)
    some = Store.write(tmp_path / "x.npy", [array], row=(2,), dtype=np.int16).take(np.array([3, 1]))
    gc.collect()
    np.testing.assert_array_equal(some[:], array[[3, 1]])
    np.testing.assert_array_equal(np.asarray(some), array[[3, 1]])
    with pytest.raises(IndexError):
        some.take(np.array([2]))
