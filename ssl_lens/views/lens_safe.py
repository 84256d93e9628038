"""The policy `lens_safe`: whatever a telescope may do to a lens, and nothing else."""

from __future__ import annotations

import math

from ssl_lens.errors import InputError
from ssl_lens.section import NonNegative, Probability, Range, SignedRange
from ssl_lens.views.geometry import LensSafe
from ssl_lens.views.photometry import Effect, Photometry
from ssl_lens.views.policy import Policy


class LensSafePolicy(Policy):
    """Views that keep the pixel scale: rotation, mirror, shift, then what an instrument may do to a view.

    Each effect of an instrument applies to the flux, before it is stretched, with `probability`, its strength drawn
    evenly from the range. Sky and noise are in units of the noise, of each channel: that of the image where noise maps
    are read, else the set's (1.48 times the median deviation of the pixels). A noise_ratio of 1 is what half the
    exposure has more.
    """

    max_shift_px: NonNegative = 4.0
    flux_scale: Range = (0.9, 1.1)
    psf_sigma_px: Range = (0.3, 0.8)
    sky_offset: SignedRange = (-0.2, 0.2)
    noise_ratio: Range = (0.25, 1.0)
    probability: Probability = 0.5

    def geometry(self) -> LensSafe:
        return LensSafe(self.max_shift_px)

    def flux_effects(self) -> Photometry:
        return Photometry(
            flux_scale=Effect(*self.flux_scale, self.probability),
            psf_sigma_px=Effect(*self.psf_sigma_px, self.probability),
            sky_offset=Effect(*self.sky_offset, self.probability),
            noise_ratio=Effect(*self.noise_ratio, self.probability),
        )

    def added_noise(self) -> tuple[float, float] | None:
        return self.noise_ratio if self.probability else None

    def margin_px(self, size: int) -> float:
        """A corner of a view that is turned lies half a diagonal from the view's centre, not half a side."""
        return size * (math.sqrt(0.5) - 0.5) + self.max_shift_px

    def check(self, size: int) -> None:
        if math.ceil(3 * self.psf_sigma_px[1]) >= size:
            raise InputError(
                f"psf_sigma_px reaches {self.psf_sigma_px[1]} px, too wide a blur for size={size}; "
                f"set it below {size / 3:.1f} px"
            )
