"""Simulated images per second and core next to the plain lenstronomy loop, for each class and grid, and to the disk.

    python benchmarks/simulate.py --out FOLDER

The plain loop builds cosmology, grid, PSF and models for every image, as DeepLense does: once with its one sample
a pixel (1x1 in the table), and once with two a side as ours (2x2). Both draw the same lenses and end in an image with
noise, on one thread; then whole sets are made, `simulate_lenses` next to the plain loop that writes the same files. CPU
seconds are counted, so that neighbours on the machine do not.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util import image_util, util
from side_by_side import Comparison, arguments, compare, report, time_in_turn

from ssl_lens.simulation.instrument import Instrument, instrument
from ssl_lens.simulation.lens import CLASSES, Lens, draw_lens
from ssl_lens.simulation.parameters import Model, Parameters
from ssl_lens.simulation.sets import simulate_lenses
from ssl_lens.simulation.telescope import Telescope

IMAGES = 4  # of a class per timed run
Grid: TypeAlias = tuple[Model, int, float]
GRIDS: tuple[Grid, ...] = (("model_i", 150, 0.05), ("model_i", 64, 0.1), ("model_ii", 64, 0.101))
TARGET_RATIO = 3.0


def einstein_radius_arcsec(mass_msun: float | np.ndarray) -> np.ndarray:
    """From a cosmology made again, as the plain loop does for every image."""
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    lens, source = cosmology.angular_diameter_distance(0.5), cosmology.angular_diameter_distance(1.0)
    between = source - lens * 1.5 / 2
    radius = np.sqrt(4 * constants.G * mass_msun * constants.M_sun / constants.c**2 * between / (lens * source))
    return radius.to_value(units.dimensionless_unscaled) * 206265


def plain_image(lens: Lens, camera: Instrument, supersampling: int) -> np.ndarray:
    """Noise-free image [S, S] of a lens, all set up for it alone; in units of the source's brightness at its radius."""
    mass, x, y = lens.point_masses.T
    point_radii = einstein_radius_arcsec(mass)
    lens_model = LensModel(["SIE", "SHEAR"] + ["POINT_MASS"] * len(mass))
    halo_mass = lens.mass_msun - lens.substructure_mass_msun
    lens_kwargs = [
        {"theta_E": einstein_radius_arcsec(halo_mass), "e1": lens.lens_e1, "e2": lens.lens_e2},
        {"gamma1": lens.gamma1, "gamma2": lens.gamma2},
        *({"theta_E": r, "center_x": a, "center_y": b} for r, a, b in zip(point_radii, x, y, strict=True)),
    ]
    source = {
        "amp": 1.0,
        "R_sersic": lens.source_radius_arcsec,
        "n_sersic": lens.source_sersic_index,
        "e1": lens.source_e1,
        "e2": lens.source_e2,
        "center_x": lens.source_x_arcsec,
        "center_y": lens.source_y_arcsec,
    }
    size, scale = camera.image_size, camera.pixel_scale_arcsec
    _, _, ra, dec, _, _, to_angle, _ = util.make_grid_with_coordtransform(size, scale, subgrid_res=1, inverse=False)
    data = ImageData(np.zeros((size, size)), ra_at_xy_0=ra, dec_at_xy_0=dec, transform_pix2angle=to_angle)
    psf = PSF("GAUSSIAN", fwhm=camera.psf_fwhm_arcsec, pixel_size=scale, truncation=5)
    numerics = {"supersampling_factor": supersampling, "supersampling_convolution": supersampling > 1}
    model = ImageModel(data, psf, lens_model, LightModel(["SERSIC_ELLIPSE"]), kwargs_numerics=numerics)
    return model.image(lens_kwargs, [source]) / scale**2


def plain_observation(lens: Lens, camera: Instrument, supersampling: int) -> np.ndarray:
    """The image with noise, counts per second."""
    light = plain_image(lens, camera, supersampling)
    flux = light * (camera.lensed_flux_per_s / light.sum())
    photons = image_util.add_poisson(flux, lens.exposure_s)
    sky = image_util.add_background(flux, camera.background_rms_per_s)
    return flux + photons + sky


def compare_class(kind: str, grid: Grid, supersampling: int, repeats: int) -> Comparison:
    camera = instrument(*grid)
    telescope, ranges = Telescope(camera), camera.filled(Parameters())
    drawn = draw_lens(np.random.default_rng(0), kind, ranges)
    ours, plain = telescope.lensed_light(drawn), plain_image(drawn, camera, 2)
    assert np.sqrt(np.mean((ours - plain) ** 2)) < 1e-5 * ours.max(), "the plain loop makes another image"

    def draws() -> list[tuple[Lens, np.random.Generator]]:
        generators = [np.random.default_rng([1, i]) for i in range(IMAGES)]
        return [(draw_lens(rng, kind, ranges), rng) for rng in generators]

    seconds = time_in_turn(
        {
            "ours": lambda: [telescope.observe(lens, rng) for lens, rng in draws()],
            "plain": lambda: [plain_observation(lens, camera, supersampling) for lens, _ in draws()],
        },
        repeats,
        clock=time.process_time,
    )
    return compare(
        f"{grid[0]}, {camera.image_size} px, {kind}, {supersampling}x{supersampling}",
        seconds["ours"],
        seconds["plain"],
        count=IMAGES,
        unit="images",
        target_ratio=TARGET_RATIO,
    )


def compare_sets(grid: Grid, supersampling: int, repeats: int) -> Comparison:
    """A set of all classes in files, new for every run."""
    model, image_size, pixel_scale_arcsec = grid
    camera = instrument(*grid)
    ranges = camera.filled(Parameters())

    def ours() -> None:
        with TemporaryDirectory() as folder:
            simulate_lenses(
                Path(folder) / "set",
                count_per_class=IMAGES,
                model=model,
                image_size=image_size,
                pixel_scale_arcsec=pixel_scale_arcsec,
                seed=1,
                workers=1,
            )

    def plain() -> None:
        with TemporaryDirectory() as folder:
            for label, kind in enumerate(CLASSES):
                (Path(folder) / kind).mkdir()
                for i in range(IMAGES):
                    lens = draw_lens(np.random.default_rng([1, label, i]), kind, ranges)
                    image = plain_observation(lens, camera, supersampling)[None].astype(np.float32)
                    np.save(Path(folder) / kind / f"{kind}_{i:06d}.npy", image)

    seconds = time_in_turn({"ours": ours, "plain": plain}, repeats, clock=time.process_time)
    return compare(
        f"{model}, {image_size} px, files, {supersampling}x{supersampling}",
        seconds["ours"],
        seconds["plain"],
        count=IMAGES * len(CLASSES),
        unit="images",
        target_ratio=TARGET_RATIO,
    )


def main() -> None:
    given = arguments(__doc__.splitlines()[0], repeats=7)
    rows = [
        compare_class(kind, grid, supersampling, given.repeats)
        for grid in GRIDS
        for kind in CLASSES
        for supersampling in (1, 2)
    ]
    rows += [compare_sets(grid, supersampling, given.repeats) for grid in GRIDS for supersampling in (1, 2)]
    report(rows, given.out / "simulate.json")


if __name__ == "__main__":
    main()
