"""A small archive and a small fine-tuned model of it, for the medical jobs."""

from pathlib import Path

import pytest

from unlabeled.medical import PneumoniaModel, attach, read_images, read_labels, simulate


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> simulate.Simulated:
    """Twelve phantom patients on disk."""
    return simulate.write_archive(tmp_path_factory.mktemp("archive"), patients=12, seed=3)


@pytest.fixture(scope="session")
def small_model(small_archive: simulate.Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = attach(read_images(small_archive.images, size=32), read_labels(small_archive.labels))
    assert images.labels is not None
    model = PneumoniaModel(image_size=32, dim=16, depth=1, heads=2, finetune_steps=5, folds=2)
    model.finetune(images, images.labels, groups=images.patients)
    return model.save(tmp_path_factory.mktemp("models") / "fine-tuned")
