"""Which of the planes in a file are the image: units of FITS, datasets of HDF5, arrays of .npz, by one rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from ssl_lens.data.formats.layout import MOST_CHANNELS, Pixels, is_stack, samples_of
from ssl_lens.data.formats.plane_names import Kind, band_of
from ssl_lens.data.formats.sample import Sample, UnusableImage

_SHOWN = 16
Names: TypeAlias = tuple[str | int, ...]


def plane_names(text: str) -> Names:
    """What stands between commas: `VIS,NIR_Y`, `1,2`."""
    words = [word.strip() for word in text.split(",")]
    return tuple(int(word) if word.isdecimal() and word.isascii() else word for word in words)


class PlaneChoice(NamedTuple):
    """What the user says of the planes of files.

    Attributes:
        planes: those that are the channels, by name or number, in this order; empty: see `choose`. A number is that of
            a FITS unit, the primary being 0, of another array in the file, or, where one array is all there is, of
            its channel; all counted from 0.
        noise: noise, variance or weight of the image, one for all channels or one for each: where it is not a positive
            number, the pixel is flagged.
    """

    planes: Names = ()
    noise: Names = ()


EVERYTHING = PlaneChoice()


class Plane(NamedTuple):
    """An array of a file, not yet read.

    Attributes:
        name: in the file; "" for none.
        number: by which it can be chosen.
        shape: its axes.
        kind: what its name or its header says.
        channels: names of its channels, if they have any.
    """

    name: str
    number: int
    shape: tuple[int, ...]
    kind: Kind
    channels: tuple[str, ...] = ()


class Chosen(NamedTuple):
    """Places, in the list of planes, of those that are read.

    Attributes:
        planes: they become the channels of one image, or of each image if they are stacks.
        noise: of the noise.
        left_out: names of all others.
        are_images: the planes are images, not channels.
        channels: of the only plane, those that are wanted; None for all.
    """

    planes: tuple[int, ...]
    noise: tuple[int, ...]
    left_out: tuple[str, ...]
    are_images: bool = False
    channels: tuple[int, ...] | None = None


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
    samples = samples_of(_stacked(flux)) if chosen.are_images else _joined([samples_of(pixels) for pixels in flux])
    if chosen.noise:
        samples = _flagged(samples, [pixels_of(i) for i in chosen.noise])
    for sample in samples:
        if chosen.channels is not None:
            sample = with_channels(sample, chosen.channels)
        yield sample._replace(left_out=chosen.left_out)


def choose(planes: Sequence[Plane], choice: PlaneChoice, *, what: str, ordered: bool) -> Chosen:
    """Which planes are the image.

    Those that are asked for. Else the only one; or of those whose name does not say that they are something else the
    only one, or the only one that is known to be flux, or all if each is known to be another band. More than 16 of one
    shape are images. Where nothing tells planes apart, none is taken.

    Args:
        what: the format's word for a plane.
        ordered: the order in the file means something: bands keep it, and planes of another shape than the first are
            not like it. Else bands are put in the order of their wavelengths.
    Raises: UnusableImage if that is not clear, or what is asked for is not there.
    """
    noise = tuple(_place(planes, wanted, "noise", what) for wanted in choice.noise)
    if choice.planes:
        taken, channels = _asked_for(planes, choice.planes, what)
        are_images = False
    else:
        taken, are_images = _by_rule(planes, noise, what, ordered)
        channels = None
    if len(noise) not in (0, 1, len(taken)):
        raise UnusableImage(f"noise={_listed(choice.noise)} for {len(taken)} {what}s; give one for all or one for each")
    used = {*taken, *noise}
    return Chosen(
        taken,
        noise,
        tuple(_shown(plane, what) for i, plane in enumerate(planes) if i not in used),
        are_images,
        channels,
    )


def left_out_line(left_out: Mapping[str, int]) -> str:
    """One line about planes that are not in the images: their names, and in how many images they are not."""
    names = sorted(left_out, key=lambda name: (-left_out[name], name))
    shown = ", ".join(f"{name} ({left_out[name]})" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return f"planes kept out of the images: {shown}{more}"


def with_channels(sample: Sample, channels: Sequence[int]) -> Sample:
    """A sample with these of its channels, in this order.

    Raises: UnusableImage if it has not so many.
    """
    if max(channels) >= len(sample.image):
        raise UnusableImage(
            f"planes={_listed(channels)} of an image of {len(sample.image)} channels, counted from 0; give others"
        )
    return sample._replace(image=np.ascontiguousarray(sample.image[list(channels)]))


def channels_by(choice: PlaneChoice, sample: Sample) -> Sample:
    """The sample of a format whose channels have no names, with the channels that are asked for.

    Names leave nothing to choose where there are as many channels; else they are refused, as is noise.
    """
    planes = choice.planes
    if choice.noise:
        raise UnusableImage(f"noise={_listed(choice.noise)} of a file that has no named planes; leave it out")
    if not planes:
        return sample
    numbers = [plane for plane in planes if isinstance(plane, int)]
    if len(numbers) == len(planes):
        return with_channels(sample, numbers)
    if len(planes) != len(sample.image):
        raise UnusableImage(
            f"planes={_listed(planes)} of an image of {len(sample.image)} channels without names; choose by number, "
            "counted from 0"
        )
    return sample


def _asked_for(planes: Sequence[Plane], wanted: Names, what: str) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Places of the planes; and the channels, where one plane holds them all."""
    if len(planes) == 1:
        (only,) = planes
        names = {name.lower(): i for i, name in enumerate(only.channels)}
        if all(str(one).lower() in names for one in wanted):
            return (0,), tuple(names[str(one).lower()] for one in wanted)
        is_one_channel = len(only.shape) == 2
        if all(isinstance(one, int) for one in wanted) and not (is_one_channel and wanted == (only.number,)):
            return (0,), tuple(one for one in wanted if isinstance(one, int))
        has_no_name = not only.name or (only.kind == "flux" and band_of(only.name) is None)
        if len(wanted) == 1 and is_one_channel and has_no_name and not _matching(planes, wanted[0]):
            return (0,), None  # a name for the only image there is, which has none of its own
    return tuple(_place(planes, one, "planes", what) for one in wanted), None


def _place(planes: Sequence[Plane], wanted: str | int, argument: str, what: str) -> int:
    found = _matching(planes, wanted)
    if len(found) != 1:
        names = ", ".join(_shown(plane, what, numbered=True) for plane in planes[:_SHOWN])
        number = f"no {what}" if not found else f"{len(found)} {what}s"
        raise UnusableImage(f"{argument}={wanted}: {number} of this name or number in the file ({names}); give another")
    return found[0]


def _matching(planes: Sequence[Plane], wanted: str | int) -> list[int]:
    """Places of the planes of this number or name, of any case: the whole of it, its last part, or its band."""
    if isinstance(wanted, int):
        return [i for i, plane in enumerate(planes) if plane.number == wanted]
    names = [plane.name.lower() for plane in planes]
    name = wanted.lower()
    for alike in (names, [own.rpartition("/")[2] for own in names]):
        if name in alike:
            return [i for i, own in enumerate(alike) if own == name]
    bands = [band_of(plane.name) if plane.kind != "other" else None for plane in planes]
    asked = band_of(wanted)
    return [i for i, band in enumerate(bands) if band and asked and band.key == asked.key]


def _by_rule(planes: Sequence[Plane], noise: tuple[int, ...], what: str, ordered: bool) -> tuple[tuple[int, ...], bool]:
    """Places of the planes that are the image, and whether each is an image of its own."""
    if len(planes) == 1:
        return (0,), False
    rest = [i for i, plane in enumerate(planes) if plane.kind != "other" and i not in noise]
    bands = [i for i in rest if band_of(planes[i].name) is not None]
    known = [i for i in rest if planes[i].kind == "flux"]
    keys = {band.key for i in bands if (band := band_of(planes[i].name)) is not None}
    if len(bands) > 1 and len(keys) == len(bands) and set(known) <= set(bands):
        known = bands
    pool = known or rest
    if ordered and pool:
        pool = [i for i in pool if planes[i].shape == planes[pool[0]].shape]
    if len(pool) == 1:
        return (pool[0],), False
    if ordered and len(pool) > MOST_CHANNELS:
        return tuple(pool), True
    if len(pool) > 1 and pool == bands and len(keys) == len(bands):
        return tuple(pool if ordered else sorted(pool, key=lambda i: _wavelength(planes[i]))), False
    names = ", ".join(_shown(plane, what, numbered=True) for plane in planes[:_SHOWN])
    names += ", ..." if len(planes) > _SHOWN else ""
    example = "" if not planes else f", or choose, such as planes={_shortest(planes[(pool or [0])[0]])}"
    raise UnusableImage(
        f"{len(planes)} {what}s in the file ({names}), and nothing says which are the image; needed is one {what}, or "
        f"one named image, images or data{example}"
    )


def _wavelength(plane: Plane) -> float:
    band = band_of(plane.name)
    return 0 if band is None else band.wavelength_nm


def _shortest(plane: Plane) -> str:
    return plane.name or str(plane.number)


def _shown(plane: Plane, what: str, *, numbered: bool = False) -> str:
    if numbered and what == "plane":
        return f"{plane.number} {plane.name}".strip()
    return plane.name or f"{what} {plane.number}"


def _listed(planes: Sequence[str | int]) -> str:
    return ",".join(map(str, planes))


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


def _flagged(samples: Iterator[Sample], noise: Sequence[Pixels]) -> Iterator[Sample]:
    """The samples, with NaN where their noise is not a positive number."""
    maps: Iterator[Sample] = _joined([samples_of(pixels) for pixels in noise])
    common = None if is_stack(noise[0].shape) else next(maps)
    for sample in samples:
        noise_map = common if common is not None else next(maps, None)
        if noise_map is None:
            raise UnusableImage("the noise has fewer maps than there are images")
        yield flag_by_noise(sample, noise_map.image)


def flag_by_noise(sample: Sample, noise: np.ndarray) -> Sample:
    """A sample with NaN where its noise, variance or weight [1 or C, H, W] is not a positive number.

    Raises: UnusableImage if the noise is of another shape.
    """
    if noise.shape[1:] != sample.image.shape[1:] or len(noise) not in (1, len(sample.image)):
        raise UnusableImage(f"the noise is of shape {noise.shape} but the image of {sample.image.shape}")
    good = np.isfinite(noise) & (noise > 0)
    return sample._replace(image=np.where(good, sample.image, np.float32(np.nan)))
