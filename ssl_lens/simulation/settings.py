"""What decides every bit of a set of simulated lenses, and what it cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.errors import InputError
from ssl_lens.simulation.cosmology import einstein_arcsec2_per_msun, einstein_radius_arcsec
from ssl_lens.simulation.galaxies import load_galaxies
from ssl_lens.simulation.instrument import Instrument
from ssl_lens.simulation.lens import CLASSES, Lens, draw_lens, with_light_of
from ssl_lens.simulation.parameters import Parameters, Redraw
from ssl_lens.simulation.substructure import mean_subhalo_mass_msun

VERSION = 4  # to be raised when the same settings give other files


class Image(NamedTuple):
    """One image of a set: a rendering of lens `number` of class `kind`, and its file in the set's folder."""

    kind: str
    number: int
    rendering: int
    name: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides every bit of a set."""

    count_per_class: int
    instrument: Instrument
    parameters: Parameters
    seed: int
    galaxies: Path | None  # folder of real sources
    renderings: int  # images of each lens
    redraw: tuple[Redraw, ...]  # what each of them but the first draws again, besides its noise

    def record(self) -> dict[str, object]:
        """All of it by name, as read back from JSON."""
        flat = {
            "count_per_class": self.count_per_class,
            **dataclasses.asdict(self.instrument),
            **self.parameters.model_dump(),
            "seed": self.seed,
            "galaxies": self.galaxies and load_galaxies(self.galaxies).fingerprint(),
            "renderings": self.renderings,
            "redraw": self.redraw,
            "version": VERSION,
        }
        return json.loads(json.dumps(flat))

    def images(self) -> list[Image]:
        """All images of the set, in the order of its table."""
        digits = len(str(self.renderings - 1))  # so that names sort as the numbers do
        return [
            Image(kind, i, r, f"{kind}/{kind}_{i:06d}{f'_{r:0{digits}d}' if self.renderings > 1 else ''}.npy")
            for kind in CLASSES
            for i in range(self.count_per_class)
            for r in range(self.renderings)
        ]

    def lens_number(self, image: Image) -> int:
        """A number that the renderings of a lens share, and no two lenses of the set."""
        return CLASSES.index(image.kind) * self.count_per_class + image.number

    def draw(self, image: Image) -> tuple[Lens, np.random.Generator]:
        """The lens as an image shows it, and the generator that goes on with the image's noise."""
        key = [self.seed, CLASSES.index(image.kind), image.number]
        galaxies = load_galaxies(self.galaxies).names if self.galaxies else ()
        rng = np.random.default_rng(key)
        lens = draw_lens(rng, image.kind, self.parameters, galaxies)
        if image.rendering:
            rng = np.random.default_rng([*key, image.rendering])
            # Without substructure, which would not be used, and can be refused.
            lens = with_light_of(lens, draw_lens(rng, "no_sub", self.parameters, galaxies), self.redraw)
        return lens, rng

    def check(self) -> None:
        """Raises InputError for values out of range, or that do not go together."""
        for name, least in (("count_per_class", 1), ("seed", 0), ("renderings", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} is too small; set it to {least} or more")
        ranges, camera = self.parameters, self.instrument
        assert ranges.psf_fwhm_arcsec is not None, "the telescope's is to be filled in"
        noisy = ranges.noise == "physical" or camera.noisy_in_deeplense
        lit = "lens_light" in self.redraw and ranges.lens_light[1] > 0
        blurred = "psf" in self.redraw and len(set(ranges.psf_fwhm_arcsec)) > 1
        if self.renderings > 1 and not (noisy or lit or blurred or "source" in self.redraw):
            raise InputError(
                f"renderings={self.renderings} of a lens would be equal images: without noise, "
                f"redraw={','.join(self.redraw)} changes none; add source"
            )
        smallest, largest = _rings(ranges)
        reach = largest + max(map(abs, ranges.source_offset_arcsec)) + ranges.source_radius_arcsec[1]
        if camera.image_size * camera.pixel_scale_arcsec < 2 * reach:
            raise InputError(
                f"image_size={camera.image_size} at pixel_scale_arcsec={camera.pixel_scale_arcsec} cuts the lensed "
                f"arcs; set pixel_scale_arcsec to {2 * reach / camera.image_size + 5e-4:.3f} or more"
            )
        if 4 * ranges.psf_fwhm_arcsec[1] > camera.image_size * camera.pixel_scale_arcsec:
            raise InputError(
                f"psf_fwhm_arcsec={ranges.psf_fwhm_arcsec[1]:g} spreads the light over the borders of images of "
                f"{camera.image_size * camera.pixel_scale_arcsec:g} arcsec; lower it to a quarter of them or less"
            )
        mean = mean_subhalo_mass_msun(ranges.subhalo_slope[1], ranges.subhalo_mass_msun)
        for what, mass, key in (
            ("subhalo", 2 * ranges.subhalo_count[1] * mean, "subhalo_count or subhalo_mass_msun"),
            ("vortex", ranges.vortex_mass_msun[1], "vortex_mass_msun"),
        ):
            # Twice the mean for subhalos: `draw_lens` refuses the rare ones that still outweigh it.
            if mass >= smallest:
                raise InputError(f"{what} mass up to {mass:.2g} Msun in a halo of {smallest:.2g} Msun; lower {key}")


def _rings(ranges: Parameters) -> tuple[float, float]:
    """The smallest mass inside a ring in Msun, and the largest Einstein radius in arcsec."""
    theirs = ranges.distances == "deeplense"
    widest = einstein_arcsec2_per_msun(ranges.lens_redshift[0], ranges.source_redshift[1], as_deeplense=theirs)
    if ranges.einstein_radius_arcsec is not None:
        return ranges.einstein_radius_arcsec[0] ** 2 / widest, ranges.einstein_radius_arcsec[1]
    return ranges.halo_mass_msun[0], float(einstein_radius_arcsec(ranges.halo_mass_msun[1], widest))
