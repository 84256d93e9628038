"""Which of the planes in a file are the image: units of FITS, datasets of HDF5, arrays of .npz, by one rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from ssl_lens.data.formats.layout import MOST_CHANNELS
from ssl_lens.data.formats.plane_names import BadWhere, Kind, Noise, bad_where, band_of, is_mask
from ssl_lens.data.formats.sample import UnusableImage

_SHOWN = 16
Names: TypeAlias = tuple[str | int, ...]


def plane_names(text: str) -> Names:
    """What stands between commas: `VIS,NIR_Y`, `1,2`."""
    words = [word.strip() for word in text.split(",")]
    return tuple(int(word) if word.isdecimal() and word.isascii() else word for word in words)


def are_names(planes: Sequence[object]) -> bool:
    """Whether all of them are names, or numbers from 0."""
    return all((type(one) is int and one >= 0) or (isinstance(one, str) and bool(one)) for one in planes)


class PlaneChoice(NamedTuple):
    """What the user says of the planes of files.

    Attributes:
        planes: those that are the channels, by name or number, in this order; empty: see `choose`. A number is that of
            a FITS unit, the primary being 0, of another array in the file, or, where one array is all there is, of
            its channel; all counted from 0.
        noise: noise, variance or weight of the image, one for all channels or one for each: where it is not a positive
            number, the pixel is flagged; what it is of the rest is the noise of the image.
        mask: masks or quality flags, one for all channels or one for each: pixels that they mark are flagged.
        marks: if the file itself is a mask, which of its pixels are bad: 1 takes the place of these, 0 of the others.
    """

    planes: Names = ()
    noise: Names = ()
    mask: Names = ()
    marks: BadWhere | None = None


EVERYTHING = PlaneChoice()


class Plane(NamedTuple):
    """An array of a file, not yet read.

    Attributes:
        name: in the file; "" for none.
        number: by which it can be chosen.
        shape: its axes.
        kind: what its name or its header says.
        channels: names of its channels, if they have any.
        noise: what it holds, if it is one of noise and its name or its header says so.
        bad_bits: of a mask whose header names its bits, those that are bad; None: any.
    """

    name: str
    number: int
    shape: tuple[int, ...]
    kind: Kind
    channels: tuple[str, ...] = ()
    noise: Noise | None = None
    bad_bits: int | None = None


class Chosen(NamedTuple):
    """Places, in the list of planes, of those that are read.

    Attributes:
        planes: they become the channels of one image, or of each image if they are stacks.
        noise, mask: of the noise and of the masks.
        left_out: names of all others.
        are_images: the planes are images, not channels.
        channels: of the only plane, those that are wanted; None for all.
    """

    planes: tuple[int, ...]
    noise: tuple[int, ...]
    mask: tuple[int, ...]
    left_out: tuple[str, ...]
    are_images: bool = False
    channels: tuple[int, ...] | None = None


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
    mask = tuple(_place(planes, wanted, "mask", what) for wanted in choice.mask)
    _check_kinds([planes[i].name for i in noise], [planes[i].name for i in mask])
    if choice.planes:
        taken, channels = _asked_for(planes, choice.planes, what)
        are_images = False
    else:
        taken, are_images = _by_rule(planes, (*noise, *mask), what, ordered)
        channels = None
    for argument, places, wanted in (("noise", noise, choice.noise), ("mask", mask, choice.mask)):
        given = f"{argument}={listed(wanted)}"
        if len(places) not in (0, 1, len(taken)):
            raise UnusableImage(f"{given} for {len(taken)} {what}s; give one for all or one for each")
        if set(places).intersection(taken):
            raise UnusableImage(f"{given} is the image itself; name the {what} of its {argument}")
    used = {*taken, *noise, *mask}
    return Chosen(
        taken,
        noise,
        mask,
        tuple(_shown(plane, what) for i, plane in enumerate(planes) if i not in used),
        are_images,
        channels,
    )


def _check_kinds(noise: Sequence[str], mask: Sequence[str]) -> None:
    """Refuses a mask for noise, of which 0 would be bad, and what is no mask for one."""
    for name in noise:
        if is_mask(name):
            raise UnusableImage(f"noise={name} is a mask, of which 0 is good; give it as mask={name}")
    for name in mask:
        if bad_where(name) is None:
            raise UnusableImage(
                f"mask={name} is no mask by its name; a noise, weight or exposure map is given as noise={name}, and a "
                "segmentation says nothing of what was measured"
            )


def left_out_line(left_out: Mapping[str, int]) -> str:
    """One line about planes that are not in the images: their names, and in how many images they are not."""
    names = sorted(left_out, key=lambda name: (-left_out[name], name))
    shown = ", ".join(f"{name} ({left_out[name]})" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return f"planes kept out of the images: {shown}{more}"


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


def _by_rule(planes: Sequence[Plane], used: tuple[int, ...], what: str, ordered: bool) -> tuple[tuple[int, ...], bool]:
    """Places of the planes that are the image, and whether each is an image of its own."""
    if len(planes) == 1:
        return (0,), False
    rest = [i for i, plane in enumerate(planes) if plane.kind != "other" and i not in used]
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
    if len(pool) > 1 and set(pool) <= set(bands) and len(keys) == len(bands):
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


def listed(planes: Sequence[str | int]) -> str:
    """Planes as a user writes them."""
    return ",".join(map(str, planes))
