"""Sets of simulated lenses on disk: the same bits for a seed on any number of workers, continued when interrupted."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import logging
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ssl_lens.data.folders.discovery import SIMULATION
from ssl_lens.data.pack.packer import cache_folder
from ssl_lens.errors import InputError
from ssl_lens.files import whole_file
from ssl_lens.simulation.galaxies import load_galaxies
from ssl_lens.simulation.instrument import instrument
from ssl_lens.simulation.lens import CLASSES, REDRAWN, Lens
from ssl_lens.simulation.parameters import Model, Parameters, Redraw
from ssl_lens.simulation.settings import VERSION, Image, Settings
from ssl_lens.simulation.telescope import Telescope

logger = logging.getLogger(__name__)

_CHUNK = 50  # images per task
_IMAGES_PER_WORKER = 300  # fewer are done before another process has started
_OF_AN_IMAGE = ("name", "class", "lens_number", "rendering")
_DERIVED = (
    "mass_msun",
    "halo_einstein_radius_arcsec",
    "substructure_mass_msun",
    "substructure_mass_fraction",
)  # of a lens, for the table


def simulate_lenses(
    out: Path,
    *,
    count_per_class: int,
    model: Model = "model_i",
    image_size: int | None = None,
    pixel_scale_arcsec: float | None = None,
    parameters: Parameters = Parameters(),  # noqa: B008 (frozen)
    galaxies: Path | None = None,
    seed: int,
    workers: int | None = None,
    renderings: int = 1,
    redraw: Sequence[Redraw] | None = None,
) -> Path:
    """Simulates lenses of the classes axion, cdm and no_sub; the physics is in `ssl_lens.simulation`.

    Writes out/CLASS/CLASS_000123.npy, float32 [B, S, S] in counts per second, then out/parameters.csv (a line for every
    image; what its class or its source does not have is empty), whose presence says that the set is whole. Image i of a
    class depends on the settings, the class and i alone (not on the workers), and the same call continues an
    interrupted one. With several renderings these are CLASS_000123_0.npy, _1 and so on, of one mass; the first is the
    image that there is with one.

    Args:
        out: folder for the set; one with the same settings is continued, or returned when whole.
        image_size: side in pixels; the model's if None, as `pixel_scale_arcsec`.
        parameters: ranges of everything drawn, and bands.
        galaxies: folder of images of real galaxies to take sources from; Sersic profiles if None.
        workers: processes; one for every 300 images, up to the number of cores, if None.
        renderings: images of each lens; its mass is the same in all, the noise never.
        redraw: what else its renderings do not share; source, exposure and lens light if None.
    Returns:
        `out`.
    Raises:
        InputError: values out of range, an image too small for the ring, another set in `out`, or a worker that ended.
    """
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size={image_size} is too small; set it to 1 or more")
    if pixel_scale_arcsec is not None and not pixel_scale_arcsec > 0:
        raise InputError(f"pixel_scale_arcsec={pixel_scale_arcsec} is not a scale; set it above 0")
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers} is too small; set it to 1 or more")
    parts = _redrawn_parts(renderings, redraw)
    telescope = instrument(model, image_size, pixel_scale_arcsec)
    settings = Settings(count_per_class, telescope, telescope.filled(parameters), seed, galaxies, renderings, parts)
    settings.check()
    try:
        if not _claim(out, settings):
            return out
        images = settings.images()
        todo = [image for image in images if not (out / image.name).exists()]
        there = len(images) - len(todo)
        logger.info("simulating %d images of %d px in %s (%d there)", len(todo), telescope.image_size, out, there)
        _simulate(out, settings, todo, workers or min(os.cpu_count() or 1, -(-len(todo) // _IMAGES_PER_WORKER)))
        _write_parameters(out, settings)
    except OSError as error:
        reason = error.strerror or error  # numpy says how much of an array it wrote
        raise InputError(f"cannot write simulated lenses to {out}: {reason}; choose another folder") from error
    return out


def default_set(
    *,
    count_per_class: int,
    model: Model = "model_i",
    image_size: int | None = None,
    pixel_scale_arcsec: float | None = None,
    parameters: Parameters = Parameters(),  # noqa: B008 (frozen)
    seed: int,
    renderings: int = 1,
    redraw: Sequence[Redraw] | None = None,
    cache: Path | None = None,
    workers: int | None = None,
) -> Path:
    """The folder of such a set in the cache (by default `cache_folder()`), simulated unless it is there.

    Arguments and errors are those of `simulate_lenses`; the folder's name holds all of them.
    """
    camera = instrument(model, image_size, pixel_scale_arcsec)
    pixels = f"{camera.image_size}px-{camera.pixel_scale_arcsec:g}arcsec"
    ranges = f"-{parameters.fingerprint()}" if parameters != Parameters() else ""
    alike = f"-{renderings}-renderings-{'-'.join(redraw or ('all',))}" if renderings > 1 else ""
    name = f"lenses-{model}-{count_per_class}-per-class-{pixels}{ranges}{alike}-seed{seed}-v{VERSION}"
    return simulate_lenses(
        (cache_folder() if cache is None else cache) / name,
        count_per_class=count_per_class,
        model=model,
        image_size=image_size,
        pixel_scale_arcsec=pixel_scale_arcsec,
        parameters=parameters,
        seed=seed,
        renderings=renderings,
        redraw=redraw if renderings > 1 else None,
        workers=workers,
    )


def _redrawn_parts(renderings: int, redraw: Sequence[Redraw] | None) -> tuple[Redraw, ...]:
    """What is drawn again, in the order of `REDRAWN`."""
    if redraw is None:
        return tuple(REDRAWN)
    unknown = [part for part in redraw if part not in REDRAWN]
    if unknown:
        raise InputError(f"redraw={unknown[0]} is not known; choose from {', '.join(REDRAWN)}")
    if renderings == 1:
        raise InputError(f"redraw={','.join(redraw)} has no effect with renderings=1; set renderings=2 or more")
    return tuple(part for part in REDRAWN if part in redraw)


def _claim(out: Path, settings: Settings) -> bool:
    """Makes `out` the folder of this set; False if the set is whole already."""
    ours, record = settings.record(), out / SIMULATION
    out.mkdir(parents=True, exist_ok=True)
    if record.exists():
        theirs = _read_record(record)
        other = [f"{name}={theirs.get(name)}, not {value}" for name, value in ours.items() if theirs.get(name) != value]
        if other:
            raise InputError(f"{out} holds a simulation with {'; '.join(other)}; choose another folder")
    elif any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} holds files that are not a simulation; choose an empty folder")
    else:
        with whole_file(record) as temporary:
            temporary.write_text(json.dumps(ours, indent=1))
    for kind in CLASSES:
        (out / kind).mkdir(exist_ok=True)
    if (out / "parameters.csv").exists():
        logger.info("using the simulated lenses in %s", out)
        return False
    return True


def _read_record(path: Path) -> dict[str, object]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); choose another folder") from None
    if not isinstance(record, dict):
        raise InputError(f"{path} is not the record of a simulation; choose another folder")
    return record


def _simulate(out: Path, settings: Settings, todo: list[Image], workers: int) -> None:
    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    work = functools.partial(_simulate_chunk, out, settings)
    with tqdm(total=len(todo), desc="simulating lenses", unit="image", disable=None) as bar:
        if workers == 1:
            for chunk in chunks:
                bar.update(work(chunk))
            return
        ours: set[int | None] = set()
        try:
            # Spawned, as forking a process that has run torch or numpy threads can hang.
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                results = pool.map(work, chunks)
                ours.update(child.pid for child in multiprocessing.active_children())
                for done in results:
                    bar.update(done)
        except BrokenProcessPool:  # it has ended the others
            _remove_unfinished(out, ours)
            there = sum((out / image.name).exists() for image in todo)
            raise InputError(
                f"one of the {workers} processes that simulate lenses ended early, perhaps killed for lack of memory; "
                f"{there} of {len(todo)} images were made in {out}: simulate again to go on, with workers=1 if need be"
            ) from None


def _remove_unfinished(out: Path, processes: set[int | None]) -> None:
    """Removes the hidden files that processes were writing when they ended."""
    for process in processes:
        for path in out.glob(f"*/.*.{process}"):
            path.unlink(missing_ok=True)


def _simulate_chunk(out: Path, settings: Settings, images: list[Image]) -> int:
    ranges = settings.parameters
    galaxies = load_galaxies(settings.galaxies) if settings.galaxies else None
    telescope = Telescope(settings.instrument, ranges.source_colour_mag, ranges.lens_colour_mag, galaxies)
    observe = telescope.observe if ranges.noise == "physical" else telescope.observe_as_deeplense
    for image in images:
        lens, rng = settings.draw(image)
        pixels = observe(lens, rng)
        with whole_file(out / image.name) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)
    return len(images)


def _write_parameters(out: Path, settings: Settings) -> None:
    """Writes what was drawn for every image; drawn again, which is cheap, so that a continued set has all rows."""
    no_number = ("source_image", "point_masses", "arcsec2_per_msun")
    drawn = [field.name for field in dataclasses.fields(Lens) if field.name not in no_number]
    with whole_file(out / "parameters.csv") as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*_OF_AN_IMAGE, *drawn, *_DERIVED, "substructure_count", "source_image"])
        for image in settings.images():
            lens, _ = settings.draw(image)
            values = [float(getattr(lens, column)) for column in (*drawn, *_DERIVED)]
            numbers = ["" if math.isnan(value) else value for value in values]
            names = [image.name, image.kind, settings.lens_number(image), image.rendering]
            table.writerow([*names, *numbers, len(lens.point_masses), lens.source_image])
