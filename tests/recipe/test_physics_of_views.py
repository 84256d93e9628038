"""Light is observed, then stretched: what views and evaluators make of the same pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import write_run

from ssl_lens.data.images import ImageSet
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.recipe import load_recipe, replace
from ssl_lens.recipe.start import views_of
from ssl_lens.representation.export import export
from ssl_lens.representation.frozen import load_backbone
from ssl_lens.views.multicrop import MultiCrop, Views

STRETCHES = ["none", "asinh", "log", "percentile", "zscale"]


def images(channels: int) -> ImageSet:
    """Eight images of 40 px and a flux of about 1e-12."""
    pixels = np.random.default_rng(7).gamma(2.0, 1e-12, (8, channels, 40, 40)).astype(np.float32)
    return ImageSet(pixels, tuple(f"{i}.npy" for i in range(8)), None, ())


def views_of_run(run: Path, source: ImageSet, changes: dict[str, object]) -> tuple[MultiCrop, torch.Tensor, Views]:
    """What makes the views of a run, what it is given, and what it makes of that."""
    recipe = replace(load_recipe(run / "recipe.yaml"), changes)
    wide, multicrop = views_of(recipe, load_backbone(run).preprocess, source, source.images)
    linear = wide.linear(torch.from_numpy(source.images))
    return multicrop, linear, multicrop(linear, torch.arange(8), seed=3, epoch=2)


@pytest.mark.usefixtures("no_onnx")
@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_that_nothing_changes_is_what_evaluators_and_exports_see(
    tmp_path: Path, stretch: str, channels: int
) -> None:
    run, source = write_run(tmp_path / "run", f"data.stretch={stretch}", channels=channels), images(channels)
    _, _, views = views_of_run(run, source, {"views.policy": "renderings"})
    export(run, tmp_path / "export")
    for folder in (run, tmp_path / "export"):
        seen = load_backbone(folder).prepare(torch.from_numpy(source.images))
        assert seen.std() > 0.1
        for view in views.global_crops:
            assert torch.equal(view, seen)
        assert torch.equal(views.local_crops[0][0], seen[..., 8:-8, 8:-8])


@pytest.mark.parametrize("stretch", STRETCHES)
def test_without_effects_a_turned_view_is_the_stretch_of_turned_flux(tmp_path: Path, stretch: str) -> None:
    """Without a stretch it is the turned input of the network; else the stretch of a mean, not a mean of stretches."""
    run, source = write_run(tmp_path / "run", f"data.stretch={stretch}"), images(1)
    preprocess = load_backbone(run).preprocess
    multicrop, linear, views = views_of_run(run, source, {"views.lens_safe.probability": 0.0})
    bare = MultiCrop(multicrop.geometry, global_size=32, local_sizes=(16,), local_counts=(1,), margin=multicrop.margin)
    wide = preprocess.stretched(linear)
    turned, turned_input = (bare(pixels, torch.arange(8), seed=3, epoch=2) for pixels in (linear, wide))
    for view, flux, pixels in zip(views.all(), turned.all(), turned_input.all(), strict=True):
        assert torch.equal(view, preprocess.stretched(flux))
        difference = (view - pixels).abs().max()
        assert (difference < 1e-5) if stretch == "none" else (difference > 0.01)


@pytest.mark.parametrize("stretch", ["none", "asinh", "log"])
def test_twice_the_flux_is_not_twice_the_sky(tmp_path: Path, stretch: str) -> None:
    """Bands with a sky of 50 and 500 that nobody subtracted, and a source of 10,000 in the middle."""
    pixels = np.random.default_rng(7).normal(0, 1, (8, 2, 40, 40)) + [[[50.0]], [[500.0]]]
    pixels[:, :, 18:22, 18:22] += 10_000
    source = ImageSet(pixels.astype(np.float32), tuple(f"{i}.npy" for i in range(8)), None, ())
    recipe = load_recipe(write_run(tmp_path / "run", f"data.stretch={stretch}", channels=2) / "recipe.yaml")
    off = {"psf_sigma_px": [0, 0], "sky_offset": [0, 0], "noise_ratio": [0, 0]}
    recipe = replace(recipe, {"views.lens_safe": {"probability": 1.0, "flux_scale": [2.0, 2.0], **off}})
    preprocess = recipe_images.preprocess(recipe, source.images, source.policy)
    wide, multicrop = views_of(recipe, preprocess, source, source.images)
    views = multicrop(wide.linear(torch.from_numpy(source.images)), torch.arange(8), seed=3, epoch=2).global_crops
    flux = preprocess.stretch.inverse(views * preprocess.std + preprocess.mean).flatten(3)
    middle = flux.median(3).values
    np.testing.assert_allclose(middle, torch.tensor([50.0, 500.0]).expand_as(middle), atol=0.5)
    np.testing.assert_allclose(flux.amax(3) - middle, 20_000, rtol=0.01)
