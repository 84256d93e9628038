"""Noise maps decide how much noise views add: of each image its own, from the file to the training step."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from shard_files import member, write_tar

from ssl_lens.recipe.compose import Pretraining, compose
from ssl_lens.recipe.recipe import Recipe

SIGMA = 1e-12 * 2.0 ** (np.arange(16) % 4)  # of each image, in flux
ALONE = "views.lens_safe={probability: 1, flux_scale: [1, 1], psf_sigma_px: [0, 0], sky_offset: [0, 0], %s}"
HALF = ALONE % "noise_ratio: [0.5, 0.5], noise_std: [3, 3]"


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
    """By image, the scatter in flux of its views in the first step, of each channel."""
    ((_, index),), (views,) = run.batches.at(0), run.views_at(0)
    scatter = views.global_crops.std(dim=(3, 4)).mean(dim=0) * run.preprocess.std.flatten()
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
    assert ": in the middle 2.5e-12 7.5e-12, prepared " in caplog.text


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


def test_a_stretch_changes_the_noise_as_it_changes_the_sky(tiny_recipe: Callable[..., Recipe], cutouts: Path) -> None:
    run = compose(tiny_recipe("a", *of_cutouts(cutouts, "data.stretch=asinh", "data.bin=2", "views.global_size=8")))
    assert run.multicrop.noise is not None
    faint, bright = run.multicrop.noise[0, 0], run.multicrop.noise[1, 0]  # images 0 and 2: 1 and 4 e-12
    scale = run.preprocess.stretch.scale.flatten()[0].item()
    expected = np.arcsinh(SIGMA[[0, 2]] / 2 / scale) / run.preprocess.std.flatten()[0].item()  # the mean of 2 x 2
    np.testing.assert_allclose([faint, bright], expected, rtol=0.01)


@pytest.mark.parametrize("kind", ["shards", "weights", "imagenet"])
def test_where_noise_is_not_known_it_is_said_and_nothing_changes(
    tiny_recipe: Callable[..., Recipe], cutouts: Path, tmp_path: Path, caplog, kind: str
) -> None:
    caplog.set_level(logging.INFO)
    given = of_cutouts(cutouts)
    if kind == "shards":
        files = sorted(cutouts.glob("train/*.fits"))
        write_tar(tmp_path / "0.tar", [member(file.name, file.read_bytes()) for file in files])
        given = of_cutouts(tmp_path / "0.tar", "data.workers=0")
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
    assert run.multicrop.noise is None
    assert "flags pixels alone, and views add noise of noise_std" in caplog.text
    scatter = np.array(list(added(run).values())) / run.preprocess.std.flatten().numpy()
    np.testing.assert_allclose(scatter, np.hypot(3, 1), rtol=0.1)  # and the images' own, of which there is 1
