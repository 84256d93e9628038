"""The views of a recipe."""

from __future__ import annotations

from ssl_lens.errors import arguments_named
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.geometry import ImageNetCrops, LensSafe
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.photometry import Effect, Photometry
from ssl_lens.views.section import Views

VIEWS_KEYS = {name: f"views.{name}" for name in Views.model_fields}


@arguments_named(VIEWS_KEYS)
def multicrop_of(recipe: Recipe, pixel_range: tuple[float, float]) -> MultiCrop:
    """The views of a recipe; `pixel_range` of the prepared images is black and white to the imagenet policy."""
    views = recipe.views
    geometry: LensSafe | ImageNetCrops
    photometry: Photometry | ColourJitter
    match views.policy:
        case "lens_safe":
            safe = views.lens_safe
            geometry = LensSafe(safe.max_shift_px)
            photometry = Photometry(
                flux_scale=Effect(*safe.flux_scale, safe.probability),
                psf_sigma_px=Effect(*safe.psf_sigma_px, safe.probability),
                sky_offset=Effect(*safe.sky_offset, safe.probability),
                noise_std=Effect(*safe.noise_std, safe.probability),
            )
        case "imagenet":
            geometry = ImageNetCrops(views.imagenet.global_scale, views.imagenet.local_scale)
            photometry = ColourJitter(black=pixel_range[:1], white=pixel_range[1:])
    return MultiCrop(
        geometry,
        photometry,
        global_size=views.global_size,
        local_sizes=views.local_sizes,
        local_counts=views.local_counts,
        interpolation=views.interpolation,
    )
