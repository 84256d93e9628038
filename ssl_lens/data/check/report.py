"""The report of a check as text, JSON and pictures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ssl_lens.data.check.check import Report
from ssl_lens.data.check.tally import NO_CLASS, SHOWN_PER_CLASS, Shown
from ssl_lens.data.folders.parts import TRAIN
from ssl_lens.data.formats.planes import left_out_line
from ssl_lens.errors import InputError
from ssl_lens.files import whole_file
from ssl_lens.pictures import drawable, shown_channels

_LISTED = 5  # examples on the console; the JSON file has all
_BINS = 60


def lines(report: Report) -> Iterator[str]:
    """The report for a console."""
    yield f"{report.path}: {len(report.names)} usable images, {len(report.unusable)} unusable"
    yield from (f"  unusable: {name}: {reason}" for name, reason in report.unusable[:_LISTED])
    yield "shapes [C, H, W]: " + ", ".join(f"{shape} ({count})" for shape, count in report.shapes.items())
    yield "types in the files: " + ", ".join(f"{kind} ({count})" for kind, count in report.stored.items())
    if report.left_out:
        yield left_out_line(report.left_out)
    yield f"flagged pixels: {report.flagged[0]} in {report.flagged[1]} images"
    for value, count in report.suspects.items():
        yield f"  {count} images have several pixels of exactly {value:g}, far above others: mask_value={value:g}?"
    if report.bands:
        yield f"{'band':>4} {'lowest':>11} {'highest':>11} {'mean':>11} {'std':>11}"
    for i, band in enumerate(report.bands):
        yield f"{i:>4} " + " ".join(f"{value:>11.4g}" for value in band)
    parts = sorted(
        {part for counts in report.classes.values() for part in counts}, key=lambda part: (part != TRAIN, part)
    )
    width = max((len(name) for name in report.classes), default=5)
    yield f"{'label':>5} {'class':<{width}} " + " ".join(f"{part:>8}" for part in parts)
    for i, (name, counts) in enumerate(report.classes.items()):
        number = "-" if name == NO_CLASS else i - (NO_CLASS in report.classes)
        yield f"{number:>5} {name:<{width}} " + " ".join(f"{counts.get(part, 0):>8}" for part in parts)
    for name, (count, lowest, highest) in report.targets.items():
        yield f"number {name}: {count} images, {lowest:.4g} to {highest:.4g}"
    yield f"duplicates, also turned or mirrored: {sum(len(group) - 1 for group in report.duplicates)}"
    yield from (f"  {' = '.join(group[:_LISTED])}" for group in report.duplicates[:_LISTED])
    yield f"leaks from tests: {len(report.leaks)}"
    yield from (f"  {name} = {other}" for name, other in report.leaks[:_LISTED])
    yield from (
        f"{report.path}: {name} is no longer as it was packed; pack the images again" for name in report.damages
    )
    yield from (f"training would choose {choice}" for choice in report.choices)
    yield from (f"refused: {problem}" for problem in report.problems)
    yield _last_word(report)


def _last_word(report: Report) -> str:
    if report.problems:
        return "training would refuse this set"
    accepted = f"training would accept this set: {report.trained_on} images to train on"
    if report.damages:
        return f"{accepted}, not all as they were packed"
    return f"{accepted}, with images that are for tests among them" if report.leaks else accepted


def write_check(report: Report, folder: Path, *, rgb: tuple[int, int, int] | None = None) -> list[Path]:
    """Writes check.json, contact_sheet.png and histograms.png into a folder, all of them or none.

    Args:
        rgb: channels to draw as red, green and blue, as of `drawable`.

    Raises: InputError if they cannot be written, or there is no such channel.
    """
    writers: dict[str, Callable[[Report, Path], None]] = {"check.json": _write_json}
    if report.shown:
        writers["contact_sheet.png"] = partial(_draw_contact_sheet, rgb=rgb)
        if report.bands:
            writers["histograms.png"] = _draw_histograms
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as written:
            for name, write in writers.items():
                write(report, written.enter_context(whole_file(folder / name)))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()  # if nothing else is in it
        raise InputError(
            f"cannot write the report to {folder}: {error.strerror or error}; choose a folder with room"
        ) from error
    return [folder / name for name in writers]


def _write_json(report: Report, path: Path) -> None:
    record = {
        "path": str(report.path),
        "accepted": report.accepted,
        "usable": len(report.names),
        "unusable": report.unusable,
        "shapes": [{"shape": shape, "images": count} for shape, count in report.shapes.items()],
        "stored": report.stored,
        "planes_left_out": report.left_out,
        "flagged_pixels": report.flagged[0],
        "flagged_images": report.flagged[1],
        "bands": [band._asdict() for band in report.bands],
        "classes": report.classes,
        "targets": report.targets,
        "duplicates": report.duplicates,
        "leaks": report.leaks,
        "problems": report.problems,
        "damages": report.damages,
        "trained_on": report.trained_on,
        "choices": report.choices,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _draw_contact_sheet(report: Report, path: Path, rgb: tuple[int, int, int] | None = None) -> None:
    """Some images of each class, a row each; every image is stretched by its own scatter."""
    figure = Figure(figsize=(1.5 * SHOWN_PER_CLASS, 1.6 * len(report.shown) + 0.4), layout="constrained")
    axes = figure.subplots(len(report.shown), SHOWN_PER_CLASS, squeeze=False)
    for row, (name, images) in zip(axes, report.shown.items(), strict=True):
        for axis in row:
            axis.set_axis_off()
        for axis, shown in zip(row, images, strict=False):
            axis.imshow(_visible(shown, rgb), cmap="gray", vmin=0, vmax=1)
        row[0].set_title(name, loc="left", fontsize=9)
    first = next(iter(report.shown.values()))[0]
    channels = shown_channels(len(first.image), picture=first.picture, rgb=rgb)
    colours = f", channels {', '.join(map(str, channels))} as red, green, blue" if len(channels) == 3 else ""
    figure.suptitle(f"{report.path.name}: asinh of each image's own scatter{colours}", fontsize=9)
    figure.savefig(path, dpi=110, format="png")


def _visible(shown: Shown, rgb: tuple[int, int, int] | None) -> np.ndarray:
    """[H, W] or [H, W, 3] between 0 and 1, the row at the top first."""
    bands = drawable(shown.image, picture=shown.picture, rgb=rgb)
    bands = bands.astype(np.float64)  # the square of 1e30 is not a float32
    middle = np.median(bands, axis=(1, 2), keepdims=True)
    scatter = 1.4826 * np.median(np.abs(bands - middle), axis=(1, 2), keepdims=True)
    stretched = np.arcsinh((bands - middle) / np.where(scatter > 0, 3 * scatter, max(float(bands.std()), 1e-30)))
    low, high = np.percentile(stretched, (1, 99.7))
    visible = np.clip((stretched - low) / max(high - low, 1e-6), 0, 1)
    return visible[0] if len(visible) == 1 else np.moveaxis(visible, 0, 2)


def _draw_histograms(report: Report, path: Path) -> None:
    """Pixels of the shown images by band, and the mean pixel of every image by class."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    images = [shown.image for group in report.shown.values() for shown in group]
    for band in range(len(report.bands)):
        pixels = np.concatenate([image[band].ravel() for image in images]).astype(np.float64)
        edges = _edges(pixels, 0.1, _BINS)
        left.hist(np.clip(pixels, edges[0], edges[-1]), edges, histtype="step", log=True, label=f"band {band}")
    left.set(xlabel="pixel, in the file's unit (0.1 % clipped at each end)", ylabel="pixels of the images shown")
    if len(report.bands) > 1:
        left.legend()
    fluxes = report.fluxes.mean(axis=1)
    bins = max(8, min(_BINS, len(fluxes) // 10))
    edges = _edges(fluxes, 0.5, bins)
    for name in report.shown:
        chosen = fluxes[np.array(report.labels) == name]
        right.hist(np.clip(chosen, edges[0], edges[-1]), edges, histtype="step", density=True, label=name)
    right.set(
        xlabel="mean pixel of an image",
        ylabel="density",
        title="classes that differ here can be told apart without a lens",
    )
    right.title.set_fontsize(9)
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110, format="png")


def _edges(values: np.ndarray, outside: float, bins: int) -> np.ndarray:
    """Of bins over all values but `outside` percent at each end [bins + 1]; wide enough to tell apart."""
    low, high = np.percentile(values, (outside, 100 - outside))
    least = 1e-6 * max(abs(low), abs(high), 1e-30)
    return np.linspace(low, high, bins + 1) if high - low > least else np.linspace(low - least, high + least, bins + 1)
