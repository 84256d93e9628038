"""The files that embeddings are written to, whole or not at all; the only place where Parquet is written."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_lens.data.images import UNLABELLED, ImageSet
from ssl_lens.errors import InputError
from ssl_lens.files import whole_file

# (file, images, features of successive images [n, F] float32, F)
Writer: TypeAlias = Callable[[Path, ImageSet, Iterator[np.ndarray], int], None]

VECTOR = "vector"


def write_parquet(out: Path, images: ImageSet, parts: Iterator[np.ndarray], dimension: int) -> None:
    """Columns name, label (null where unknown), the numbers (null as well), and vector, a list of F float32."""
    if VECTOR in images.targets:
        raise InputError(f"the images have a number called {VECTOR}, as the features' column is; rename it")
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("label", pa.string()),
            *((name, pa.float64()) for name in images.targets),
            (VECTOR, pa.list_(pa.float32(), dimension)),
        ]
    )
    labels = labels_of(images)
    with whole_file(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        start = 0
        for features in parts:
            rows = slice(start, start + len(features))
            columns = [
                pa.array(images.names[rows], pa.string()),
                pa.array(labels[rows], pa.string()),
                *(pa.array(values[rows], pa.float64(), from_pandas=True) for values in images.targets.values()),
                pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), dimension),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            start += len(features)


def write_npy(out: Path, images: ImageSet, parts: Iterator[np.ndarray], dimension: int) -> None:
    """The vectors as float32 [N, F], and a table of the other columns next to them, which is written first."""
    labels = labels_of(images)
    with (
        whole_file(out.with_suffix(".csv")) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["name", "label", *images.targets])
        numbers = [["" if np.isnan(x) else repr(float(x)) for x in values] for values in images.targets.values()]
        writer.writerows(zip(images.names, ("" if x is None else x for x in labels), *numbers, strict=True))
    with whole_file(out) as temporary, temporary.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), dimension)}
        np.lib.format.write_array_header_1_0(stream, header)
        for features in parts:
            stream.write(features.astype("<f4").tobytes())


WRITERS: dict[str, Writer] = {".parquet": write_parquet, ".npy": write_npy}


def labels_of(images: ImageSet) -> list[str | None]:
    """The name of each image's class, None where it is not known."""
    if images.labels is None:
        return [None] * len(images)
    return [None if label == UNLABELLED else images.classes[label] for label in images.labels]
