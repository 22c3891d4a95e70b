"""A part of an intake's store is drawn from the disk, and what is learnt from it is the same."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unlabeled.core.store import Store
from unlabeled.medical import ImageSet, PneumoniaModel
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.baselines import PixelRegression
from unlabeled.pipelines._medical_input import divide


@pytest.fixture
def stored(phantoms: ImageSet, tmp_path: Path) -> ImageSet:
    """The phantoms as a store gives them: mapped from a file, with a column of splits."""
    np.save(tmp_path / "pictures.npy", phantoms.pixels)
    people = np.unique(phantoms.patients)
    judges = np.isin(phantoms.patients, people[::3])
    return replace(
        phantoms,
        images=np.load(tmp_path / "pictures.npy", mmap_mode="c"),
        splits=np.where(judges, "test", "train"),
    )


def in_memory(images: ImageSet) -> ImageSet:
    return replace(images, images=np.array(images.pixels))


def test_a_part_stays_on_disk_and_rows_that_are_taken_do_not(stored: ImageSet) -> None:
    part = stored.part("train")
    assert isinstance(part.images, Store)
    assert isinstance(part.select(np.arange(3)).images, Store)
    assert isinstance(part.take(np.arange(3)).images, np.ndarray)
    expected = in_memory(stored).part("train")
    np.testing.assert_array_equal(part.pixels, expected.pixels)
    np.testing.assert_array_equal(part.take([4, 1]).pixels, expected.pixels[[4, 1]])
    assert part.fingerprint() == expected.fingerprint()
    for given in (stored, replace(stored, splits=None)):
        assert isinstance(divide(given, n_labels=None, seed=0).unlabelled.images, Store)


@pytest.mark.parametrize("self_training", [False, True])
def test_what_is_learnt_from_the_disk_is_what_is_learnt_from_memory(stored: ImageSet, self_training: bool) -> None:
    scores = []
    for images in (stored, in_memory(stored)):
        parts = divide(images, n_labels=30, seed=0)
        model = PneumoniaModel(
            image_size=32, patch=8, dim=16, depth=1, heads=2, pretrain_epochs=1, finetune_steps=4,
            self_training=self_training,
        )  # fmt: skip
        model.pretrain(parts.unlabelled)
        assert parts.train.labels is not None
        model.finetune(parts.train, parts.train.labels, unlabelled=parts.unlabelled)
        pixels = PixelRegression().fit(parts.unlabelled.images, labelled(parts.train), groups=parts.train.patients)
        scores.append((model.score(parts.test), model.out_of_distribution(parts.test).p_value, pixels.axes_))
        weights = model.module_.state_dict()
        scores[-1] += tuple(weights[name].numpy() for name in sorted(weights))
    for one, other in zip(*scores, strict=True):
        np.testing.assert_array_equal(one, other)


def labelled(images: ImageSet) -> Labelled:
    assert images.labels is not None
    return Labelled(images.pixels, images.labels)


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_pretraining_on_a_part_takes_no_memory_for_the_rest(tmp_path: Path) -> None:
    """A process of its own begins to pretrain on every other picture of 512 MiB."""
    path = tmp_path / "pictures.npy"
    part = np.random.default_rng(0).integers(0, 256, (1024, 256, 256), dtype=np.uint8)
    Store.write(path, (part for _ in range(8)), row=(256, 256), dtype=np.uint8)
    code = """
import resource, sys
import numpy as np
from unlabeled.core.progress import quiet
from unlabeled.medical import ImageSet, PneumoniaModel

quiet(True)
images = np.load(sys.argv[1], mmap_mode="c")
names = np.arange(len(images)).astype(str)
splits = np.where(np.arange(len(images)) % 2 == 0, "train", "test")
model = PneumoniaModel(image_size=256, patch=64, dim=16, depth=1, heads=2, pretrain_epochs=1)
few = ImageSet(images=np.array(images[:64]), ids=names[:64], patients=names[:64])
model.pretraining_cost(few)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train = ImageSet(images=images, ids=names, patients=names, splits=splits).part("train")
model.pretraining_cost(train)  # takes real steps
train.fingerprint()
print(len(train), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 4096  # 256 MiB
    assert grown < 200, f"{grown} MiB more became resident"
