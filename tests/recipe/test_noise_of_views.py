"""Noise maps decide how much noise views add: of each image its own, from the file to the training step."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from shard_files import member, write_tar

from ssl_lens.data.images import ImageSet
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.compose import Pretraining, compose
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.recipe.start import views_of

SIGMA = 1e-12 * 2.0 ** (np.arange(16) % 4)  # of each image, in flux
ALONE = "views.lens_safe={probability: 1, flux_scale: [1, 1], psf_sigma_px: [0, 0], sky_offset: [0, 0], %s}"
HALF = ALONE % "noise_ratio: [0.5, 0.5]"


@pytest.fixture
def cutouts(tmp_path: Path) -> Path:
    """16 nearly empty files of two bands with a variance plane each, every other one for tests."""
    rng = np.random.default_rng(0)
    for i, sigma in enumerate(SIGMA):
        folder = tmp_path / "cutouts" / ("test" if i % 2 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        units = [fits.PrimaryHDU()]
        for band, factor in (("VIS", 1), ("NIR_Y", 3)):
            variance = np.full((20, 20), (factor * sigma) ** 2, np.float32)
            variance[3, 4] = 0  # a pixel that was not measured
            units.append(fits.ImageHDU((1e-14 * rng.normal(size=(20, 20))).astype(np.float32), name=band))
            units.append(fits.ImageHDU(variance, name=f"{band}_VARIANCE"))
        fits.HDUList(units).writeto(folder / f"{i:02d}.fits")
    return tmp_path / "cutouts"


def of_cutouts(folder: Path | str, *more: str) -> list[str]:
    noise = "data.noise=[VIS_VARIANCE,NIR_Y_VARIANCE]"
    return [f"data.path={folder}", noise, "data.planes=[VIS,NIR_Y]", "optim.batch_size=8", HALF, *more]


def added(run: Pretraining) -> dict[str, np.ndarray]:
    """By image, the scatter in flux of its views in the first step, of each channel; without a stretch."""
    ((_, index),), (views,) = run.batches.at(0), run.views_at(0)
    scatter = views.global_crops.std(dim=(3, 4)).mean(dim=0) * run.preprocess.unit
    return {run.names[i]: values.numpy() for i, values in zip(index.tolist(), scatter, strict=True)}


def test_each_image_has_noise_of_its_own(tiny_recipe: Callable[..., Recipe], cutouts: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    seen = added(compose(tiny_recipe("a", *of_cutouts(cutouts))))
    assert sorted(seen) == [f"train/{i:02d}.fits" for i in range(0, 16, 2)]
    for name, scatter in seen.items():
        np.testing.assert_allclose(scatter, 0.5 * SIGMA[int(name[6:8])] * np.array([1, 3]), rtol=0.1)
    assert "views add 0.5 to 0.5 times the noise of each image, which data.noise=VIS_VARIANCE,NIR_Y_VARIANCE says" in (
        caplog.text
    )
    assert ": in the middle 2.5e-12 7.5e-12\n" in caplog.text


def test_noise_is_kept_with_the_run_and_asked_for_when_it_goes_on(
    tiny_recipe: Callable[..., Recipe], cutouts: Path, tmp_path: Path
) -> None:
    compose(tiny_recipe("a", *of_cutouts(cutouts)))
    assert len(json.loads((tmp_path / "a" / "images.json").read_text())["noise"]) == 64
    for file in cutouts.rglob("*.fits"):
        with fits.open(file, mode="update") as units:
            units["VIS_VARIANCE"].data *= 4
    with pytest.raises(ValueError, match="restore"):
        compose(tiny_recipe("a", *of_cutouts(cutouts), "run.resume=auto"))


def test_noise_is_added_to_flux_and_then_stretched(tiny_recipe: Callable[..., Recipe], cutouts: Path) -> None:
    """As much of it in flux in the sky as on a source of a hundred times its deviation, which asinh compresses."""
    rng = np.random.default_rng(1)
    for file in sorted(cutouts.glob("train/*.fits")):
        with fits.open(file, mode="update") as units:
            units["VIS"].data += 5e-12 * rng.normal(size=(20, 20))
            units["VIS"].data[5:15, 5:15] += 1e-9
    more = ("data.stretch=asinh", "views.global_size=20", "views.lens_safe.max_shift_px=0")
    run = compose(tiny_recipe("a", *of_cutouts(cutouts, *more)))

    def flux() -> torch.Tensor:
        (views,) = run.views_at(0)
        preprocess = run.preprocess
        return preprocess.stretch.inverse(views.global_crops * preprocess.std + preprocess.mean)[:, :, 0]

    own = 0.5 * SIGMA[[int(run.names[i][6:8]) for i in run.indices_at(0)[0].tolist()]]
    noisy, run.multicrop.flux_effects = flux(), None
    noise = noisy - flux()
    assert noisy[..., 7:13, 7:13].mean() / run.preprocess.unit[0] > 100
    for part in (noise[..., 7:13, 7:13], noise[..., :2]):
        np.testing.assert_allclose(part.flatten(2).std(2).mean(0), own, rtol=0.2)
    assert (run.multicrop.sky.noise[0, 0, 0] * run.preprocess.unit[0]).item() == pytest.approx(1e-12)


@pytest.mark.parametrize("kind", ["renderings", "array"])
def test_noise_of_renderings_and_of_sets_in_memory(
    tiny_recipe: Callable[..., Recipe], cutouts: Path, kind: str
) -> None:
    """Pairs of renderings of which each has its own noise, and so has every view."""
    rows = [f"train/{i:02d}.fits,{i // 4}" for i in range(0, 16, 2)]
    (cutouts / "targets.csv").write_text("\n".join(["name,lens", *rows]))
    recipe = tiny_recipe("a", *of_cutouts(cutouts, "optim.batch_size=4"))
    if kind == "renderings":
        recipe = tiny_recipe("a", *of_cutouts(cutouts, "optim.batch_size=4", "data.renderings=lens"))
        run = compose(recipe)
        ((_, index),), (views,) = run.batches.at(0), run.views_at(0)
        own = SIGMA[[[4 * i, 4 * i + 2] for i in index.tolist()]]  # [B, k]
        scatter = (views.global_crops.std(dim=(3, 4)) * run.preprocess.unit).numpy()  # [V, B, C]
        np.testing.assert_allclose(scatter, 0.5 * own.T[..., None] * [1, 3], rtol=0.2)
        return
    packed = recipe_images.image_source(recipe)
    assert packed.noise is not None
    images = ImageSet(np.asarray(packed.images), packed.names, None, (), noise=packed.noise)
    preprocess = recipe_images.preprocess(recipe, images.images, images.policy)
    wide, multicrop = views_of(recipe, preprocess, images, images.images)
    views = multicrop(wide.linear(torch.from_numpy(images.images[:])), torch.arange(8), seed=0, epoch=0)
    scatter = (views.global_crops.std(dim=(3, 4)).mean(0) * preprocess.unit).numpy()
    np.testing.assert_allclose(scatter, 0.5 * SIGMA[::2, None] * [1, 3], rtol=0.1)


@pytest.mark.parametrize("kind", ["shards", "weights", "imagenet"])
def test_where_noise_is_not_known_it_is_said_and_nothing_changes(
    tiny_recipe: Callable[..., Recipe], cutouts: Path, tmp_path: Path, caplog, kind: str
) -> None:
    caplog.set_level(logging.INFO)
    given = of_cutouts(cutouts, ALONE % "noise_ratio: [50, 50]")
    if kind == "shards":
        files = sorted(cutouts.glob("train/*.fits"))
        write_tar(tmp_path / "0.tar", [member(file.name, file.read_bytes()) for file in files])
        given = of_cutouts(tmp_path / "0.tar", "data.workers=0", *given[-1:])
    elif kind == "weights":
        for file in cutouts.rglob("*.fits"):
            with fits.open(file, mode="update") as units:
                units[2].name, units[4].name = "VIS_WHT", "NIR_Y_WHT"
        given[1] = "data.noise=[VIS_WHT,NIR_Y_WHT]"
    else:
        given[-1:] = ["views.policy=imagenet"]
    run = compose(tiny_recipe("a", *given))
    if kind == "imagenet":
        assert "views add" not in caplog.text
        return
    assert "flags pixels alone, and views add 50 to 50 times the noise of the whole set: shards are" in caplog.text
    for scatter in added(run).values():  # which is 1e-14 in both bands
        np.testing.assert_allclose(scatter, 50e-14, rtol=0.15)
