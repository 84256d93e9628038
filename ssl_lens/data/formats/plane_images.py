"""The images that the planes of a file make: joined to channels, flagged by their noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from ssl_lens.data.formats.layout import Pixels, is_stack, samples_of
from ssl_lens.data.formats.plane_names import BadWhere, Noise, bad_where
from ssl_lens.data.formats.planes import Plane, PlaneChoice, choose, listed
from ssl_lens.data.formats.sample import Sample, UnusableImage


def read_planes(
    planes: Sequence[Plane], pixels_of: Callable[[int], Pixels], choice: PlaneChoice, *, what: str, ordered: bool
) -> Iterator[Sample]:
    """The images of the chosen planes of a file.

    Args:
        pixels_of: the pixels of the i-th plane.
        what, ordered: as for `choose`.
    Raises: UnusableImage as `choose`, or planes that do not fit each other.
    """
    chosen = choose(planes, choice, what=what, ordered=ordered)
    flux = [pixels_of(i) for i in chosen.planes]
    if choice.marks is not None:
        flux = [_marked(planes[i], of, choice.marks) for i, of in zip(chosen.planes, flux, strict=True)]
    samples = samples_of(_stacked(flux)) if chosen.are_images else _joined([samples_of(pixels) for pixels in flux])
    if chosen.noise:
        kinds = {planes[i].noise for i in chosen.noise}
        kind = kinds.pop() if len(kinds) == 1 else None
        samples = _with_maps(samples, [pixels_of(i) for i in chosen.noise], partial(with_noise, kind=kind), "noise")
    if chosen.mask:
        masks = [_marked(planes[i], pixels_of(i)) for i in chosen.mask]
        samples = _with_maps(samples, masks, without_marked, "mask")
    for sample in samples:
        if chosen.channels is not None:
            sample = with_channels(sample, chosen.channels)
        yield sample._replace(left_out=chosen.left_out)


def with_channels(sample: Sample, channels: Sequence[int]) -> Sample:
    """A sample with these of its channels, in this order.

    Raises: UnusableImage if it has not so many.
    """
    if max(channels) >= len(sample.image):
        raise UnusableImage(
            f"planes={listed(channels)} of an image of {len(sample.image)} channels, counted from 0; give others"
        )
    noise = None if sample.noise is None else sample.noise[list(channels)]
    return sample._replace(image=np.ascontiguousarray(sample.image[list(channels)]), noise=noise)


def channels_by(choice: PlaneChoice, sample: Sample) -> Sample:
    """The sample of a format whose channels have no names, with the channels that are asked for.

    Names leave nothing to choose where there are as many channels; else they are refused, as is noise.
    """
    planes = choice.planes
    for argument, names in (("noise", choice.noise), ("mask", choice.mask)):
        if names:
            raise UnusableImage(f"{argument}={listed(names)} of a file that has no named planes; leave it out")
    if choice.marks is not None:
        sample = sample._replace(image=_bad(sample.image, choice.marks).astype(np.float32))
    if not planes:
        return sample
    numbers = [plane for plane in planes if isinstance(plane, int)]
    if len(numbers) == len(planes):
        return with_channels(sample, numbers)
    if len(planes) != len(sample.image):
        raise UnusableImage(
            f"planes={listed(planes)} of an image of {len(sample.image)} channels without names; choose by number, "
            "counted from 0"
        )
    return sample


def _stacked(planes: Sequence[Pixels]) -> Pixels:
    """Planes of one shape as one array [planes, ...]."""

    def read(i: int | None) -> np.ndarray:
        return np.stack([plane.read(None) for plane in planes]) if i is None else planes[i].read(None)

    return Pixels((len(planes), *planes[0].shape), planes[0].dtype, read)


def _joined(planes: Sequence[Iterator[Sample]]) -> Iterator[Sample]:
    """The images of several planes, one after the other, with the channels of all."""
    if len(planes) == 1:
        yield from planes[0]
        return
    try:
        for parts in zip(*planes, strict=True):
            yield parts[0]._replace(image=np.concatenate(_alike([part.image for part in parts])))
    except ValueError as error:
        if isinstance(error, UnusableImage):
            raise
        raise UnusableImage("the planes hold unequal numbers of images") from None


def _alike(images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    sizes = sorted({image.shape[1:] for image in images})
    if len(sizes) > 1:
        raise UnusableImage(f"the planes of one image have {' and '.join('x'.join(map(str, s)) for s in sizes)} pixels")
    return images


def _with_maps(
    samples: Iterator[Sample], planes: Sequence[Pixels], apply: Callable[[Sample, np.ndarray], Sample], what: str
) -> Iterator[Sample]:
    """The samples with what planes of noise or of masks say of them: one for all images, or one for each."""
    maps: Iterator[Sample] = _joined([samples_of(pixels) for pixels in planes])
    common = None if is_stack(planes[0].shape) else next(maps)
    for sample in samples:
        of_sample = common if common is not None else next(maps, None)
        if of_sample is None:
            raise UnusableImage(f"the {what} has fewer maps than there are images")
        yield apply(sample, of_sample.image)


def _marked(plane: Plane, pixels: Pixels, marks: BadWhere = "nonzero") -> Pixels:
    """Of a mask 1 where a pixel is bad, else 0: by its bits as they are stored, which float32 would not hold."""
    where: BadWhere = "zero" if "zero" in (marks, bad_where(plane.name)) else "nonzero"
    is_numeric = pixels.dtype.kind in "biuf"

    def read(i: int | None) -> np.ndarray:
        return _bad(pixels.read(i), where, plane.bad_bits).astype(np.uint8)

    return Pixels(pixels.shape, np.dtype(np.uint8), read) if is_numeric else pixels


def _bad(values: np.ndarray, where: BadWhere, bits: int | None = None) -> np.ndarray:
    """Whether the pixels of a mask are bad; those that are not numbers are."""
    odd = ~np.isfinite(values)
    if bits is not None:
        return odd | (np.where(odd, 0, values).astype(np.int64) & bits != 0)
    return odd | ((values == 0) if where == "zero" else (values != 0))


def without_marked(sample: Sample, mask: np.ndarray) -> Sample:
    """A sample with NaN where a mask [1 or C, H, W] is not 0.

    Raises: UnusableImage if the mask is of another shape.
    """
    _check_shape(sample, mask, "mask")
    return sample._replace(image=np.where(mask == 0, sample.image, np.float32(np.nan)))


def with_noise(sample: Sample, noise: np.ndarray, kind: Noise | None) -> Sample:
    """A sample with NaN where its noise, variance or weight [1 or C, H, W] is not a positive number.

    The noise of a channel is the median over the other pixels, most of which are sky.

    Args:
        kind: what `noise` is; None where that is not known, so that the sample's noise stays unknown too.
    Raises: UnusableImage if the noise is of another shape.
    """
    _check_shape(sample, noise, "noise")
    good = np.isfinite(noise) & (noise > 0)
    sigma = None
    if kind is not None:
        sigma = np.broadcast_to(
            [_sigma(band[mask], kind) for band, mask in zip(noise, good, strict=True)], len(sample.image)
        )
    return sample._replace(image=np.where(good, sample.image, np.float32(np.nan)), noise=sigma)


def _check_shape(sample: Sample, of_image: np.ndarray, what: str) -> None:
    if of_image.shape[1:] != sample.image.shape[1:] or len(of_image) not in (1, len(sample.image)):
        raise UnusableImage(f"the {what} is of shape {of_image.shape} but the image of {sample.image.shape}")


def _sigma(values: np.ndarray, kind: Noise) -> float:
    """The standard deviation that positive values [n] stand for, in the middle; NaN for none."""
    middle = float(np.median(values.astype(np.float64))) if len(values) else np.nan
    match kind:
        case "sigma":
            return middle
        case "variance":
            return middle**0.5
        case "inverse variance":
            return middle**-0.5
