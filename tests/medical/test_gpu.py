"""A pneumonia model on a GPU, where there is one, and what is said where there is none."""

import numpy as np
import pytest
import torch

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, PneumoniaModel


def test_there_has_to_be_something_to_move_and_somewhere_to_move_it() -> None:
    with pytest.raises(DataError, match="nothing to move yet"):
        PneumoniaModel().to("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_there_is_not_is_named(phantoms: ImageSet) -> None:
    model = PneumoniaModel(image_size=32, pretrain_epochs=1).pretrain(phantoms)
    with pytest.raises(ValueError, match="there is no device 'cuda' here"):
        model.to("cuda")
    assert model.to("auto") is model


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("tuning", ["full", "adapters"])
def test_what_was_fine_tuned_on_a_gpu_says_the_same_on_the_cpu(phantoms: ImageSet, tuning: str) -> None:
    assert phantoms.labels is not None
    model = PneumoniaModel(image_size=32, pretrain_epochs=2, finetune_steps=20, tuning=tuning, self_training=True)
    model.pretrain(phantoms).to("cuda")
    model.finetune(phantoms, phantoms.labels, unlabelled=phantoms)
    there = model.score(phantoms)
    assert {p.device.type for p in model.members_[0].classifier.parameters()} == {"cuda"}
    np.testing.assert_allclose(model.to("cpu").score(phantoms), there, atol=1e-4)
