"""The fixed sample of a run: the same images, and both views of each, whatever they are stored as."""

import numpy as np
import pytest
import torch

from ssl_lens.data.pixels.preprocess import Preprocess, fit_preprocess
from ssl_lens.recipe.monitors import SampleOfFeatures, SampleOfImages, sampled_rows
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.renderings import Centre


@pytest.mark.parametrize(("objects", "sampled"), [(10, 10), (100, 64), (900, 225), (9000, 512)])
def test_a_share_of_the_images_is_sampled_evenly(objects: int, sampled: int) -> None:
    index, rows = sampled_rows(objects, 3)
    assert len(index) == sampled
    assert (index[0], index[-1]) == (0, objects - 1)
    assert np.diff(index).max() - np.diff(index).min() <= 1
    assert rows.tolist() == [3 * i + k for i in index for k in range(3)]


def test_two_renderings_of_a_lens_are_its_views() -> None:
    """Of three; each image has its number in all pixels. The image that is not a view is the first rendering."""
    numbers = np.arange(3 * 150, dtype=np.float32)
    images = np.tile(numbers[:, None, None, None], (1, 1, 8, 8))
    multicrop = MultiCrop(Centre(), global_size=6)
    plain = Preprocess.plain(1)
    sample = SampleOfImages(images, 3, plain, plain, multicrop, seed=0)
    batches = list(sample)
    assert [len(batch.images) for batch in batches] == [64]
    index, _ = sampled_rows(150, 3)
    assert batches[0].images.shape == (64, 1, 8, 8)
    assert batches[0].images[:, 0, 0, 0].tolist() == (3 * index).tolist()
    assert batches[0].views.shape == (2, 64, 1, 6, 6)
    assert batches[0].views[:, :, 0, 0, 0].tolist() == [(3 * index).tolist(), (3 * index + 1).tolist()]
    (of_features,) = SampleOfFeatures(numbers[:, None], 3, torch.device("cpu"))
    assert of_features.images[:, 0].tolist() == (3 * index).tolist()
    assert of_features.views[:, :, 0].tolist() == batches[0].views[:, :, 0, 0, 0].tolist()


def test_single_images_are_seen_whole_and_in_their_views() -> None:
    images = np.random.default_rng(0).normal(size=(130, 1, 10, 10)).astype(np.float32)
    multicrop = MultiCrop(Centre(), global_size=4)
    sample = SampleOfImages(images, 1, Preprocess.plain(1), Preprocess.plain(1).fitted(4, None), multicrop, seed=0)
    named: list[int] = []
    multicrop.register_forward_pre_hook(lambda module, given: named.extend(given[1].tolist()))
    (batch,) = sample
    index, _ = sampled_rows(130, 1)
    assert named == index.tolist()  # by which views are drawn, and each image's noise is known
    assert len(sample) == 64
    np.testing.assert_array_equal(batch.images, images[index][:, :, 1:9, 1:9])  # cut as the frozen network takes it
    np.testing.assert_allclose(batch.views[1], images[index][:, :, 3:7, 3:7], atol=1e-6)


def test_views_are_stretched_once_as_the_whole_images_are() -> None:
    images = np.random.default_rng(0).gamma(1.0, 3.0, size=(64, 1, 8, 8)).astype(np.float32)
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch="asinh")
    sample = SampleOfImages(
        images, 1, fitted, fitted, MultiCrop(Centre(), stretch=fitted.stretched, global_size=8), seed=0
    )
    (batch,) = sample
    torch.testing.assert_close(batch.views[0], batch.images)
    torch.testing.assert_close(batch.images, fitted(torch.from_numpy(images)))
