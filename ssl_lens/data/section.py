"""The section `data` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ssl_lens.data.folders.layouts import LayoutName, Sizes
from ssl_lens.data.formats.planes import are_names, plane_names
from ssl_lens.section import Auto, Count, Section


class Data(Section):
    """Which images, and how raw pixels become the network's input.

    mask_value: flagged pixels, filled like NaN by the median of their channel; an image with more than max_masked of a
    channel flagged is left out. sizes: what becomes of images of unequal size, cropped or padded to `size`, a side, or
    else to the smallest or largest height and width. stretch: how bright pixels are compressed, by numbers fitted to
    the whole set: of each band, or joint ones, which keep the ratios of bands. A `path` that is a pattern, a URL or a
    .tar is streamed, by `workers` processes of each rank (0: by itself), which draw every image from the next
    `shuffle_buffer` ones. layout: what the folders mean. files: a pattern of the files to read, such as *data.fits.
    planes: names or numbers of the planes of files, or of bands, that become the channels, in this order; noise: those
    of their noise, variance or weight, which flag the pixels where they are not positive numbers, and say how
    much noise views add; mask: those of masks or quality flags, which flag the pixels that they mark.
    renderings: number in the table of the images that all images of a lens share, such as lens_number.
    """

    path: Annotated[str, Field(min_length=1)] | None = None
    layout: LayoutName = "auto"
    files: Annotated[str, Field(min_length=1)] | None = None
    planes: tuple[str | int, ...] = ()
    noise: tuple[str | int, ...] = ()
    mask: tuple[str | int, ...] = ()
    exclude: str | None = None
    renderings: Annotated[str, Field(min_length=1)] | None = None
    probe: str | None = None
    in_channels: Auto | Count = "auto"
    mask_value: float | None = None
    max_masked: Annotated[float, Field(ge=0, lt=1)] = 0.1
    sizes: Sizes = "refuse"
    size: Count | None = None
    center_crop: Count | None = None
    bin: Count = 1
    stretch: Literal["none", "asinh", "log", "percentile", "zscale"] = "none"
    bands: Literal["per_band", "joint"] = "per_band"
    workers: Annotated[int, Field(ge=0)] = 2
    shuffle_buffer: Count = 1000

    @field_validator("planes", "noise", "mask", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """One plane, or several between commas, are a list too."""
        given = plane_names(value) if isinstance(value, str) else value if isinstance(value, list | tuple) else (value,)
        if not are_names(given):
            raise ValueError(f"{value!r} is not a list of planes; write names or numbers from 0, such as [VIS, NIR_Y]")
        return tuple(given)
