import numpy as np
import pytest

from ssl_lens.data.images import ImageSet
from ssl_lens.errors import InputError
from ssl_lens.simulation.galaxies import Galaxies, galaxy_of, load_galaxies
from ssl_lens.simulation.instrument import instrument
from ssl_lens.simulation.lens import draw_lens
from ssl_lens.simulation.parameters import Parameters
from ssl_lens.simulation.telescope import Telescope


def _blob(x: float, y: float, sigma: float, size: int = 64) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)[None]


def test_the_sky_is_taken_off_and_the_light_centred():
    galaxy = galaxy_of(_blob(25.0, 37.0, 4.0) + 7, "a")
    assert galaxy.light.sum() == pytest.approx(1)
    assert galaxy.light.min() == 0
    rows, columns = np.indices(galaxy.light.shape)
    assert (galaxy.light * rows).sum() == pytest.approx(31.5, abs=0.51)
    assert (galaxy.light * columns).sum() == pytest.approx(31.5, abs=0.51)
    assert galaxy.half_light_radius_px == pytest.approx(4 * np.sqrt(2 * np.log(2)), abs=0.4)


def test_noise_and_neighbours_are_not_light():
    clean = galaxy_of(_blob(30.0, 33.0, 4.0), "a")
    noise = np.random.default_rng(0).normal(0, 0.02, (1, 64, 64)).astype(np.float32)
    noisy = galaxy_of(_blob(30.0, 33.0, 4.0) + _blob(55.0, 8.0, 2.0) + noise + 3, "b")
    assert noisy.half_light_radius_px == pytest.approx(clean.half_light_radius_px, abs=0.5)
    assert np.count_nonzero(noisy.light) < 0.25 * noisy.light.size
    assert np.abs(noisy.light - clean.light).sum() < 0.1
    with pytest.raises(InputError, match="no light above its border"):
        galaxy_of(noise * np.float32(1e-3), "c")


def test_channels_add_up():
    one, two = _blob(31, 31, 3.0), _blob(31, 31, 6.0)
    np.testing.assert_allclose(
        galaxy_of(np.concatenate([one, two]), "a").light, galaxy_of(one + two, "a").light, atol=1e-7
    )


def test_a_galaxy_without_light_is_refused():
    with pytest.raises(InputError, match="source galaxy a.npy has no light above its border; remove it"):
        galaxy_of(np.ones((1, 16, 16), np.float32), "a.npy")


def test_the_fingerprint_knows_names_and_pixels():
    images = np.concatenate([_blob(30, 30, 3.0), _blob(30, 30, 4.0)])[:, None]
    prints = {
        Galaxies(ImageSet(pixels, names, None, ())).fingerprint()
        for pixels, names in ((images, ("a", "b")), (images, ("a", "c")), (images[::-1].copy(), ("a", "b")))
    }
    assert len(prints) == 3


def test_a_lensed_galaxy_looks_like_the_profile_it_has(tmp_path, monkeypatch):
    """A picture of an exponential disc is lensed as the disc itself is."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "galaxies").mkdir()
    radius = np.hypot(*(np.indices((257, 257)) - 128.0))
    np.save(tmp_path / "galaxies" / "disc.npy", np.exp(-radius / 12))
    galaxies = load_galaxies(tmp_path / "galaxies")
    ranges = instrument("model_i").filled(Parameters(exposure_s=(1e3, 1e3), source_ellipticity=(0.0, 0.0)))
    telescope = Telescope(instrument("model_i", 64, 0.1), galaxies=galaxies)
    pictured = draw_lens(np.random.default_rng(3), "no_sub", ranges, galaxies.names)
    drawn = draw_lens(np.random.default_rng(3), "no_sub", ranges)
    assert pictured.source_image == "disc.npy"
    flux, expected = telescope.flux(pictured), telescope.flux(drawn)
    assert np.abs(flux - expected).max() < 0.05 * expected.max()
    assert flux.sum() == pytest.approx(expected.sum())


def test_a_galaxy_is_turned_by_its_angle(tmp_path, monkeypatch):
    from dataclasses import replace

    images = _blob(31.5, 31.5, 3.0) + _blob(43.5, 31.5, 3.0)
    galaxies = Galaxies(ImageSet(images[None], ("a",), None, ()))
    telescope = Telescope(instrument("model_i", 64, 0.1), galaxies=galaxies)
    lens = draw_lens(np.random.default_rng(3), "no_sub", instrument("model_i").filled(Parameters()), galaxies.names)
    still = replace(lens, lens_e1=0.0, lens_e2=0.0, gamma1=0.0, gamma2=0.0, source_x_arcsec=0.0, source_y_arcsec=0.0)
    first = telescope.flux(replace(still, source_angle_rad=0.0))[0]
    second = telescope.flux(replace(still, source_angle_rad=np.pi / 2))[0]
    turned = np.rot90(first), np.rot90(first, -1)
    assert min(np.abs(second - quarter).max() for quarter in turned) < 1e-6 * first.max()
    assert np.abs(second - first).max() > 0.05 * first.max()
