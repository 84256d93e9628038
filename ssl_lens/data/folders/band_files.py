"""Files that differ only in the name of their band: `J1_g.fits` and `J1_r.fits`, `VIS/J1.fits` and `NIR_Y/J1.fits`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

from ssl_lens.data.folders.roles import name_of
from ssl_lens.data.formats.plane_names import Band, band_of, bands_in

_SEPARATORS = "_-. "
Place: TypeAlias = tuple[str, int]  # the folder that names the band, counted from the file; or the word of its name


class BandFile(NamedTuple):
    """A file that holds one band of an object."""

    file: str
    band: Band


Objects: TypeAlias = dict[str, dict[str, BandFile]]  # by object, by the key of the band


def joined_by_name(names: Sequence[str]) -> tuple[Objects, list[str]]:
    """Finds where the names of files say which band they hold, by there being the same file in other bands.

    A band may be a folder, around or inside those of classes, or stand anywhere in the file's name as a word of its
    own. Single letters, which may mean something else, count only if at least half of the objects have all bands, and
    none is also there without a letter, as `J1.fits` next to its mirror images `J1_h.fits` and `J1_v.fits`.

    Args:
        names: files, relative to the set's folder, with `/`.
    Returns:
        The files of each object by band, the object being the file's path without the band; and all other files.
    """
    plain = {f"{PurePosixPath(name).parent}/{name_of(name)}".removeprefix("./") for name in names}
    found: dict[Place, list[tuple[str, BandFile]]] = defaultdict(list)
    for name in names:
        for place, key, band in _readings(name):
            found[place].append((key, BandFile(name, band)))
    candidates = [objects for readings in found.values() if (objects := _objects(readings, plain)) is not None]
    if not candidates:
        return {}, list(names)
    best = max(candidates, key=lambda objects: sum(map(len, objects.values())))
    joined = {file.file for files in best.values() for file in files.values()}
    return best, [name for name in names if name not in joined]


def _readings(name: str) -> Iterator[tuple[Place, str, Band]]:
    """Ways to read a file's name: where its band stands, its object, and the band."""
    folders, stem = PurePosixPath(name).parts[:-1], name_of(name)
    for i, folder in enumerate(folders):
        band = band_of(folder)
        if band is not None:
            same = [other for other in bands_in(stem) if other.wavelength_nm == band.wavelength_nm]
            own = _without(stem, same[0]) if len(same) == 1 else stem
            yield ("folder", len(folders) - i), "/".join([*folders[:i], *folders[i + 1 :], own]), band
    bands = list(bands_in(stem))
    for i, band in enumerate(bands):
        key = "/".join([*folders, *filter(None, [_without(stem, band)])])
        yield ("from the start", i), key, band
        yield ("from the end", len(bands) - i), key, band


def _without(stem: str, band: Band) -> str:
    """A stem without the band and one of the separators around it."""
    before, after = stem[: band.start].rstrip(_SEPARATORS), stem[band.end :].lstrip(_SEPARATORS)
    separator = stem[band.start - 1] if before and after else ""
    return f"{before}{separator}{after}"


def _objects(readings: Sequence[tuple[str, BandFile]], plain: set[str]) -> Objects | None:
    """The bands of each object; None if they are not bands of the same objects.

    Args:
        plain: the files' names as they are, without suffix.
    """
    objects: Objects = defaultdict(dict)
    for key, file in readings:
        if not key or file.band.key in objects[key]:
            return None
        objects[key][file.band.key] = file
    bands = {band: file.band for files in objects.values() for band, file in files.items()}
    if len(bands) < 2 or max(map(len, objects.values())) < 2:
        return None
    complete = sum(len(files) == len(bands) for files in objects.values())
    if any(band.is_letter for band in bands.values()) and (2 * complete < len(objects) or plain & objects.keys()):
        return None
    return dict(objects)
