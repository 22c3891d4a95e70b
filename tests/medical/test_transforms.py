"""Standardisation and augmentation of whole batches."""

import numpy as np
import torch

from unlabeled.core.batches import Batches
from unlabeled.medical.transforms import Augment, standardise, stretched


def test_each_picture_has_mean_0_and_deviation_1_whatever_its_exposure() -> None:
    images = torch.randint(0, 100, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = standardise(images)
    torch.testing.assert_close(x.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=(1, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardise(images.float() * 2 + 30), x, atol=1e-5, rtol=1e-5)


def test_with_nothing_to_vary_augmentation_is_standardisation() -> None:
    images = torch.randint(0, 255, (4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    still = Augment(smallest=1.0, rotation=0.0, stretch=0.0, contrast=0.0)
    (x,) = still((images,), torch.Generator())
    torch.testing.assert_close(x, standardise(images), atol=2e-4, rtol=1e-4)


def test_a_crop_never_leaves_the_picture_and_never_mirrors() -> None:
    # Brightness rises from left to right: so it must in every crop, from no darker to no brighter than the picture.
    ramp = torch.arange(32).repeat(32, 1).mul(8).to(torch.uint8).expand(64, -1, -1)
    augment = Augment(rotation=0.0, contrast=0.0)
    (x,) = augment((ramp,), torch.Generator().manual_seed(0))
    assert bool((x.diff(dim=3) >= -1e-5).all())


def test_batches_repeat_and_labels_pass_through() -> None:
    images = np.random.default_rng(0).integers(0, 255, (10, 16, 16), dtype=np.uint8)
    labels = torch.arange(10)

    def batches() -> Batches:
        return Batches(images, labels, batch_size=4, seed=3, transform=Augment())

    x, y = batches().at(1)
    again, same = batches().at(1)
    torch.testing.assert_close(x, again)
    assert y.tolist() == same.tolist() == batches().rows_at(1).tolist()
    other, _ = batches().at(0)
    assert x.shape == other.shape == (4, 1, 16, 16)


def test_augmentation_computes_where_the_pictures_are() -> None:
    """A mixture of devices would be refused; no GPU is needed to see it."""
    images = torch.zeros(4, 16, 16, dtype=torch.uint8, device="meta")
    (x,) = Augment(noise=0.1)((images,), torch.Generator())
    assert x.device.type == "meta"
    assert x.shape == (4, 1, 16, 16)


def side(augment: Augment, *, rows: bool) -> torch.Tensor:
    """Share of the picture's rows (or columns) that each of 500 crops covers: an exponential has the same shape
    wherever it is cropped, steeper the more of it there is, and standardising leaves its shape alone."""
    steep = 5 / 65
    curve = 255 * torch.exp(steep * (torch.arange(65.0) - 64))
    picture = curve.expand(500, 65, -1)
    (x,) = augment((picture.mT if rows else picture,), torch.Generator().manual_seed(0))
    line = x[:, 0, :, 32] if rows else x[:, 0, 32, :]
    return torch.log((line[:, 64] - line[:, 32]) / (line[:, 32] - line[:, 0])) / (32 * steep)


def test_crops_are_stretched_both_ways_alike_and_as_far_as_asked() -> None:
    augment = Augment(rotation=0.0, contrast=0.0, smallest=0.6, stretch=0.45)
    wide, high = side(augment, rows=False), side(augment, rows=True)
    logs = torch.log(wide / high)
    assert 0.43 < logs.max() < 0.46
    assert -0.46 < logs.min() < -0.43
    assert abs(float(logs.mean())) < 0.03
    assert max(wide.max(), high.max()) < 1.005
    # No crop holds less than 0.6 x 0.6 of the picture by area.
    assert (wide * high).min() > 0.6**2 - 0.01


def test_stretched_pictures_show_their_middle_wider_or_higher() -> None:
    picture = torch.zeros(1, 40, 40, dtype=torch.uint8)
    picture[:, 16:24, 16:24] = 200
    for factor, rows, columns in ((1.25, 8, 10), (0.8, 10, 8)):
        lit = stretched(picture, factor)[0] > 100
        assert (int(lit.any(dim=1).sum()), int(lit.any(dim=0).sum())) == (rows, columns)
    assert torch.equal(stretched(picture, 1.0), picture)
