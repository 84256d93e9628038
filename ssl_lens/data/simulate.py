"""Sets of simulated lenses on disk: the same bits for a seed on any number of workers, continued when interrupted."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ssl_lens.data.lens_physics import (
    CLASSES,
    HALO_MASS_MSUN,
    SOURCE_OFFSET_ARCSEC,
    SOURCE_RADIUS_ARCSEC,
    Lens,
    Telescope,
    draw_lens,
    einstein_radius_arcsec,
)
from ssl_lens.data.packing import cache_folder
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

_VERSION = 1  # to be raised when the same settings give other images
_CHUNK = 50  # images per task
_IMAGES_PER_WORKER = 300  # fewer are done before another process has started


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What decides every bit of a set."""

    count_per_class: int
    image_size: int
    pixel_scale_arcsec: float
    subhalo_slope: float
    seed: int
    version: int = _VERSION


def simulate_lenses(
    out: Path,
    *,
    count_per_class: int,
    image_size: int = 64,
    pixel_scale_arcsec: float = 0.1,
    subhalo_slope: float = -0.9,
    seed: int,
    workers: int | None = None,
) -> Path:
    """Simulates lenses of the classes axion, cdm and no_sub; the physics is in `lens_physics`.

    Writes out/CLASS/CLASS_000123.npy, float32 [1, S, S] in counts per second, then out/parameters.csv, whose presence
    says that the set is whole. Image i of a class depends on the seed, the class and i alone (not on the workers),
    and the same call continues an interrupted one.

    Args:
        out: folder for the set; one with the same settings is continued, or returned when whole.
        image_size: side in pixels.
        subhalo_slope: s in dN/dm ~ m^s of the CDM subhalos. The default is what DeepLense's code draws. Its paper
            names -1.9, but then the subhalos hold 0.03 % of the mass and change no pixel by a noise's worth.
        workers: processes; one for every 300 images, up to the number of cores, if None.
    Returns:
        `out`.
    Raises:
        InputError: values out of range, an image too small for the ring, or another set in `out`.
    """
    settings = _Settings(count_per_class, image_size, pixel_scale_arcsec, subhalo_slope, seed)
    _check(settings)
    try:
        if not _claim(out, settings):
            return out
        todo = [(kind, i) for kind in CLASSES for i in range(count_per_class) if not _image_path(out, kind, i).exists()]
        logger.info(
            "simulating %d lenses of %d px in %s (%d there already)",
            len(todo),
            image_size,
            out,
            count_per_class * len(CLASSES) - len(todo),
        )
        _simulate(out, settings, todo, workers or min(os.cpu_count() or 1, -(-len(todo) // _IMAGES_PER_WORKER)))
        _write_parameters(out, settings)
    except OSError as error:
        raise InputError(f"cannot write simulated lenses to {out}: {error.strerror}; choose another folder") from error
    return out


def default_set(
    *,
    count_per_class: int,
    image_size: int,
    pixel_scale_arcsec: float,
    subhalo_slope: float = -0.9,
    seed: int,
    cache: Path | None = None,
    workers: int | None = None,
) -> Path:
    """The folder of such a set in the cache (by default `cache_folder()`), simulated unless it is there."""
    name = (
        f"lenses-{count_per_class}-per-class-{image_size}px-{pixel_scale_arcsec:g}arcsec"
        f"-slope{subhalo_slope:g}-seed{seed}-v{_VERSION}"
    )
    return simulate_lenses(
        (cache_folder() if cache is None else cache) / name,
        count_per_class=count_per_class,
        image_size=image_size,
        pixel_scale_arcsec=pixel_scale_arcsec,
        subhalo_slope=subhalo_slope,
        seed=seed,
        workers=workers,
    )


def _check(settings: _Settings) -> None:
    for name, least in (("count_per_class", 1), ("image_size", 1), ("seed", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"{name}={getattr(settings, name)} is too small; set it to {least} or more")
    if settings.subhalo_slope >= 0 or settings.subhalo_slope == -1:
        raise InputError(f"subhalo_slope={settings.subhalo_slope} is not possible; set it below 0, and not to -1")
    reach = einstein_radius_arcsec(HALO_MASS_MSUN) + SOURCE_OFFSET_ARCSEC + SOURCE_RADIUS_ARCSEC
    if settings.image_size * settings.pixel_scale_arcsec < 2 * reach:
        raise InputError(
            f"image_size={settings.image_size} at pixel_scale_arcsec={settings.pixel_scale_arcsec} cuts the lensed "
            f"arcs; set pixel_scale_arcsec to {2 * reach / settings.image_size + 5e-4:.3f} or more"
        )


def _claim(out: Path, settings: _Settings) -> bool:
    """Makes `out` the folder of this set; False if the set is whole already."""
    ours, record = dataclasses.asdict(settings), out / "simulation.json"
    out.mkdir(parents=True, exist_ok=True)
    if record.exists():
        theirs = json.loads(record.read_text())
        other = [f"{name}={theirs.get(name)}, not {value}" for name, value in ours.items() if theirs.get(name) != value]
        if other:
            raise InputError(f"{out} holds a simulation with {'; '.join(other)}; choose another folder")
    elif any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} holds files that are no simulation; choose an empty folder")
    else:
        with _whole_or_absent(record) as temporary:
            temporary.write_text(json.dumps(ours, indent=1))
    for kind in CLASSES:
        (out / kind).mkdir(exist_ok=True)
    if (out / "parameters.csv").exists():
        logger.info("using the simulated lenses in %s", out)
        return False
    return True


def _simulate(out: Path, settings: _Settings, todo: list[tuple[str, int]], workers: int) -> None:
    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    work = partial(_simulate_chunk, out, settings)
    with tqdm(total=len(todo), desc="simulating lenses", unit="image", disable=None) as bar:
        if workers == 1:
            for chunk in chunks:
                bar.update(work(chunk))
            return
        # Spawned, as forking a process that has run torch or numpy threads can hang.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for done in pool.map(work, chunks):
                bar.update(done)


def _simulate_chunk(out: Path, settings: _Settings, images: list[tuple[str, int]]) -> int:
    telescope = Telescope(settings.image_size, settings.pixel_scale_arcsec)
    for kind, i in images:
        lens, rng = _draw(settings, kind, i)
        image = telescope.observe(lens, rng)
        with _whole_or_absent(_image_path(out, kind, i)) as temporary, temporary.open("wb") as file:
            np.save(file, image)
    return len(images)


def _draw(settings: _Settings, kind: str, i: int) -> tuple[Lens, np.random.Generator]:
    """The lens of an image, and the generator that goes on with its noise."""
    rng = np.random.default_rng([settings.seed, CLASSES.index(kind), i])
    return draw_lens(rng, kind, settings.subhalo_slope), rng


def _write_parameters(out: Path, settings: _Settings) -> None:
    """Writes what was drawn for every image; drawn again, which is cheap, so that a continued set has all rows."""
    with _whole_or_absent(out / "parameters.csv") as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        drawn = [field.name for field in dataclasses.fields(Lens) if field.name != "point_masses"]
        table.writerow(
            ["name", "class", *drawn, "halo_einstein_radius_arcsec", "substructure_count", "substructure_mass_msun"]
        )
        for kind in CLASSES:
            for i in range(settings.count_per_class):
                lens, _ = _draw(settings, kind, i)
                table.writerow(
                    [
                        _image_path(out, kind, i).relative_to(out).as_posix(),
                        kind,
                        *(float(getattr(lens, name)) for name in drawn),
                        float(einstein_radius_arcsec(lens.halo_mass_msun)),
                        len(lens.point_masses),
                        float(lens.point_masses[:, 0].sum()),
                    ]
                )


def _image_path(out: Path, kind: str, i: int) -> Path:
    return out / kind / f"{kind}_{i:06d}.npy"


@contextlib.contextmanager
def _whole_or_absent(path: Path) -> Iterator[Path]:
    """A hidden file to write in the place of `path`, which it becomes at the end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
