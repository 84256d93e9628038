"""What a saved network says of a whole set, as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.formats.planes import Names
from ssl_lens.errors import InputError
from ssl_lens.files import whole_file
from ssl_lens.representation.inputs import BATCH_SIZE, best_device, images_of
from ssl_lens.representation.predictor import Classes, Outputs, SavedPredictor, load_predictor


class Predictions(NamedTuple):
    """What a network says of images.

    Attributes:
        path: the table.
        names: of the images.
        outputs: what the columns of `values` are.
        values: [N, O], probabilities of classes or numbers in their own units.
    """

    path: Path
    names: tuple[str, ...]
    outputs: Outputs
    values: np.ndarray


def predict(
    target: Path | str | SavedPredictor,
    data: Path | str,
    out: Path | str,
    *,
    batch_size: int = BATCH_SIZE,
    layout: LayoutName = "auto",
    table: Path | str | None = None,
    files: str | None = None,
    planes: Names | None = None,
    noise: Names | None = None,
    mask: Names | None = None,
) -> Predictions:
    """Applies a fine-tuned network or a probe to all images of a set and writes a CSV table, one row per image.

    Columns are `name`, `class` (the most probable one) and `score_CLASS`, its probability, for each class; or `name`
    and the numbers, in their own units. The table is whole or absent, in the set's order.

    Args:
        target: what `save_predictor` wrote, or `load_predictor` gave, which computes where it is; a path's, on a GPU if
            there is one.
        data: folder of images, table or pack, as `data.reading.read_images` takes it.
        out: the table, `NAME.csv`.
        batch_size: images computed at once.
        layout, table, files: as in `read_images`.
        planes, noise, mask: which planes of the files are read, in the place of those that the network was trained on.

    Raises: InputError if one of these cannot be used, or `out` cannot be written.
    """
    out = Path(out)
    if out.suffix != ".csv":
        raise InputError(f"{out} cannot be written; give a name that ends in .csv")
    predictor = target if isinstance(target, SavedPredictor) else load_predictor(target).to(best_device())
    preprocess = predictor.preprocess
    images = images_of(data, preprocess, layout=layout, table=table, files=files, planes=planes, noise=noise, mask=mask)
    values = predictor.predict(images.images, batch_size=batch_size, progress="predict")
    result = Predictions(out, images.names, predictor.outputs, values)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(result)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}; choose a folder with room") from error
    return result


def _write(result: Predictions) -> None:
    rows = [[repr(float(value)) for value in row] for row in result.values]
    if isinstance(result.outputs, Classes):
        classes = result.outputs.classes
        header = ["name", "class", *(f"score_{name}" for name in classes)]
        chosen = result.values.argmax(axis=1)
        rows = [[classes[place], *row] for place, row in zip(chosen, rows, strict=True)]
    else:
        header = ["name", *result.outputs.targets]
    with whole_file(result.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([name, *row] for name, row in zip(result.names, rows, strict=True))
