"""Files of one band each, in folders of the bands or named by them, joined to images of as many channels."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ssl_lens.data.folders.band_files import BandFile, joined_by_name
from ssl_lens.data.folders.parts import part_called
from ssl_lens.data.folders.roles import Roles, name_of, roles_of
from ssl_lens.data.formats.plane_images import with_noise, without_marked
from ssl_lens.data.formats.plane_names import bad_where, band_of, is_mask, is_other, noise_kind
from ssl_lens.data.formats.planes import EVERYTHING, Names, PlaneChoice
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.quarantine import Unusable
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

_BAND_FOLDER = re.compile(r"band[ _-]?(\d+)", re.IGNORECASE)


class Source(NamedTuple):
    """What one image, or one stack of images, is read from.

    Attributes:
        name: of the image, relative to the set's folder, with `/`.
        files: its file; or one file per band, in the order of the bands, None where a band is missing.
        bands: names of the bands; empty for a file of its own.
        noise, mask: of each file the file of its noise or mask, None where it is missing; empty for none.
        choice: of the planes in each file.
    """

    name: str
    files: tuple[str | None, ...]
    bands: tuple[str, ...] = ()
    noise: tuple[str | None, ...] = ()
    mask: tuple[str | None, ...] = ()
    choice: PlaneChoice = EVERYTHING


def find_sources(names: Sequence[str], choice: PlaneChoice = EVERYTHING) -> list[Source]:
    """Sorts files into images.

    What belongs to an image and is none, such as its PSF, is kept out (`roles`). Files in two or more sibling folders
    `Band<number>` are bands of one object, and so are files that differ only in the name of their band, wherever it
    stands (`band_files`): the channels follow the numbers or the wavelengths, or the planes that are chosen.

    The object in folders `Band<number>` is what lies between the first and the last digit of the file's name once the
    band's own name is taken out: `Band2/imageSDSS_I-100002.fits` is a band of `100002`. The image is named after the
    object, next to the band folders: `lens/100002`.

    Args:
        names: files, relative to the set's folder, with `/`.
        choice: planes, of the bands or of each file, and their noise, a file next to the image or a plane in it.
    Returns:
        Sources in alphabetical order of their names.
    Raises:
        InputError: two files of one band are the same object, or a band is asked for that is not there.
    """
    roles = roles_of(names)
    parents: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    others = []
    for name in roles.images:
        folder = PurePosixPath(name).parent
        if _BAND_FOLDER.fullmatch(folder.name):
            parents[folder.parent.as_posix()][folder.name].append(name)
        else:
            others.append(name)
    sources = []
    for parent, folders in parents.items():
        if len(folders) == 1:
            sources += [Source(name, (name,)) for name in next(iter(folders.values()))]
        else:
            sources += _join(parent, folders)
    joined, alone = joined_by_name(others)
    sources += _of_band_files(joined)
    sources += [Source(roles.named_after_folder.get(name, name), (name,)) for name in alone]
    return sorted(_as_chosen(sources, choice, roles), key=lambda source: source.name)


def read_source(root: Path, source: Source) -> Iterator[Sample | Unusable]:
    """Reads the images of a source; its bands become the channels of one image.

    Raises:
        UnusableImage: as `read_images`, or a band or its noise is missing, holds several images, or has another size.
    """
    if not source.bands:
        (file,) = source.files
        assert file is not None, "a source without bands has its file"
        if not source.noise and not source.mask:
            yield from read_images(root / file, source.choice)
            return
        yield _with_belonging(root, _only_image(root, file, source.choice, file), source, 0)
        return
    missing = [band for band, file in zip(source.bands, source.files, strict=True) if file is None]
    if missing:
        raise UnusableImage(f"{', '.join(missing)} missing of {len(source.bands)} bands")
    bands: list[Sample] = []
    for i, (band, file) in enumerate(zip(source.bands, source.files, strict=True)):
        sample = _with_belonging(root, _only_image(root, str(file), source.choice, band), source, i)
        if bands and sample.image.shape[1:] != bands[0].image.shape[1:]:
            raise UnusableImage(f"{band} has {sample.image.shape[1:]} pixels but the first {bands[0].image.shape[1:]}")
        bands.append(sample)
    targets = {name: value for band in bands for name, value in band.targets.items()}
    left_out = tuple(dict.fromkeys(plane for band in bands for plane in band.left_out))
    label = next((band.label for band in bands if band.label is not None), None)
    image = np.concatenate([band.image for band in bands])
    noises = [band.noise for band in bands if band.noise is not None]
    sigma = np.concatenate(noises) if len(noises) == len(bands) else None
    yield Sample(image, bands[-1].stored, targets, label=label, left_out=left_out, noise=sigma)


def _only_image(root: Path, file: str, choice: PlaneChoice, what: str) -> Sample:
    samples = read_images(root / file, choice)
    sample = next(samples)
    if isinstance(sample, Unusable):
        raise UnusableImage(f"{what}: {sample.reason}")
    if sample.name is not None:
        raise UnusableImage(f"{what} holds the image {sample.name}, a part of a set; needed is a file without parts")
    if next(samples, None) is not None:
        raise UnusableImage(f"{what} holds several images; needed is one per file")
    return sample


def _with_belonging(root: Path, sample: Sample, source: Source, i: int) -> Sample:
    """The sample of the i-th file, with what the files of its noise and of its mask say."""
    if source.noise:
        file = source.noise[i]
        if file is None:
            raise UnusableImage("the file of its noise is missing")
        if is_mask(file):
            raise UnusableImage(f"{file} is a mask by its name, of which 0 is good; give it as mask, not as noise")
        sample = with_noise(sample, _only_image(root, file, EVERYTHING, file).image, noise_kind(file))
    if source.mask:
        file = source.mask[i]
        if file is None:
            raise UnusableImage("the file of its mask is missing")
        marks = bad_where(_without_parts(file))
        if marks is None:
            raise UnusableImage(f"{file} is no mask by its name; give a noise or weight as noise, not as mask")
        sample = without_marked(sample, _only_image(root, file, PlaneChoice(marks=marks), file).image)
    return sample


def _without_parts(file: str) -> str:
    """A file's name with the folder that says what it is, where the name does not: `valid` is a part, and no mask."""
    *folders, stem = (*PurePosixPath(file).parts[:-1], name_of(file))
    telling = [part for part in (*folders, stem) if is_other(part) and part_called(part) is None]
    return telling[-1] if telling else stem


def _join(parent: str, folders: Mapping[str, list[str]]) -> Iterator[Source]:
    bands = tuple(sorted(folders, key=lambda band: int(_BAND_FOLDER.sub(r"\1", band))))
    objects: dict[str, dict[str, str]] = defaultdict(dict)
    for band in bands:
        for name in folders[band]:
            found = _object_name(name, band)
            if band in objects[found]:
                raise InputError(
                    f"{objects[found][band]} and {name} are both object {found} in {band}; name files by their object"
                )
            objects[found][band] = name
    place = "" if parent == "." else f"{parent}/"
    incomplete = sum(len(files) < len(bands) for files in objects.values())
    logger.info(
        "%s: %d objects in the bands %s, joined to images; %d lack a band",
        parent,
        len(objects),
        ", ".join(bands),
        incomplete,
    )
    for found, files in objects.items():
        yield Source(f"{place}{found}", tuple(files.get(band) for band in bands), bands)


def _object_name(name: str, band: str) -> str:
    stem = re.sub(re.escape(band), "", name_of(name), flags=re.IGNORECASE)
    digits = re.search(r"\d.*\d|\d", stem)
    return digits.group() if digits else stem


def _of_band_files(joined: Mapping[str, Mapping[str, BandFile]]) -> Iterator[Source]:
    """Sources of files joined by name: by object, by the key of the band."""
    first = {key: file.band for files in joined.values() for key, file in files.items()}
    keys = sorted(first, key=lambda key: (first[key].wavelength_nm, key))
    bands = tuple(first[key].name for key in keys)
    if joined:
        incomplete = sum(len(files) < len(keys) for files in joined.values())
        logger.info(
            "%d objects in the bands %s, joined to images; %d lack a band", len(joined), ", ".join(bands), incomplete
        )
    for found, files in joined.items():
        yield Source(found, tuple(files[key].file if key in files else None for key in keys), bands)


def _as_chosen(sources: Sequence[Source], choice: PlaneChoice, roles: Roles) -> Iterator[Source]:
    """The sources with the bands and the noise that are asked for; what is neither is a plane of each file."""
    noise_files, mask_files = _belonging_files(choice.noise, roles), _belonging_files(choice.mask, roles)
    for source in sources:
        planes = choice.planes
        places = _places(source.bands, planes) if source.bands else None
        if places is not None:
            files, bands = zip(*((source.files[i], source.bands[i]) for i in places), strict=True)
            source, planes = source._replace(files=files, bands=bands), ()
        own = PlaneChoice(planes, () if noise_files else choice.noise, () if mask_files else choice.mask)
        noise, mask = (
            tuple(None if file is None else found.get(file) for file in source.files) if found else ()
            for found in (noise_files, mask_files)
        )
        yield source._replace(choice=own, noise=noise, mask=mask)


def _places(bands: Sequence[str], planes: Sequence[str | int]) -> list[int] | None:
    """Where the planes are among the bands; None if none of them is."""
    keys = [getattr(band_of(band), "key", band.lower()) for band in bands]
    asked = [plane if isinstance(plane, int) else getattr(band_of(plane), "key", plane.lower()) for plane in planes]
    found = [one if isinstance(one, int) else keys.index(one) for one in asked if isinstance(one, int) or one in keys]
    if not found:
        return None
    if len(found) < len(asked) or max(found) >= len(bands):
        raise InputError(
            f"planes={','.join(map(str, planes))}: the files are in the bands {', '.join(bands)}; give some of these, "
            "by name or by number, counted from 0"
        )
    return found


def _belonging_files(names: Names, roles: Roles) -> dict[str, str]:
    """Of each image the file next to it that has the name of its noise or mask; empty where that is no file."""
    if len(names) != 1 or not isinstance(names[0], str):
        return {}
    wanted = set(re.findall(r"[a-z]+", names[0].lower()))
    found = {}
    for image, files in roles.belonging.items():
        for file in files:
            if wanted <= set(re.findall(r"[a-z]+", file.lower())):
                found[image] = file
    return found
