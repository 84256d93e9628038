"""Reading images: each format next to the plain way, packed sets next to a memory map, and memory in training.

    python benchmarks/data.py --out FOLDER [--gigabytes 10]

The plain way is what a notebook does: numpy.load, PIL, tifffile.imread, astropy.io.fits.getdata, h5py, one file after
the other. Ours checks sizes, masks and finds axes as well. CPU seconds are counted, so that neighbours on the
machine do not; streaming is timed by the clock, since its readers are other processes. The large set is written to
FOLDER and removed; SSL_LENS_CACHE is not used.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch
from astropy.io import fits
from PIL import Image
from side_by_side import Comparison, compare, parser, report, time_in_turn

from ssl_lens.data.array_batches import ArrayBatches
from ssl_lens.data.batches import Plan
from ssl_lens.data.folders.tables import Table
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.pack.pack import IMAGES, describe_pack, image_hash
from ssl_lens.data.pack.packed_images import PackedImages
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.shards.shard_set import find_shards
from ssl_lens.data.shards.stream import Stream

FILES, SIDE = 200, 64  # per format
PACKED, BATCH = 20_000, 256
STREAMED, SHARDS = 8192, 8


def write_and_plain() -> dict[str, tuple[Callable[[Path, np.ndarray], object], Callable[[Path], np.ndarray]]]:
    """How a format is written, and read plainly."""

    def hdf5(path: Path, image: np.ndarray) -> None:
        with h5py.File(path, "w") as file:
            file["image"] = image

    def read_hdf5(path: Path) -> np.ndarray:
        with h5py.File(path) as file:
            return file["image"][()]

    def picture(path: Path, image: np.ndarray) -> None:
        Image.fromarray(np.clip(image * 20 + 100, 0, 255).astype(np.uint8)).save(path)

    def table(path: Path, image: np.ndarray) -> None:
        fits.PrimaryHDU(image).writeto(path)

    def pixels(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path))

    return {
        ".npy": (np.save, np.load),
        ".npz": (lambda path, image: np.savez_compressed(path, image), lambda path: np.load(path)["arr_0"]),
        ".jpg": (picture, pixels),
        ".png": (picture, pixels),
        ".tif": (lambda path, image: tifffile.imwrite(path, image), tifffile.imread),
        ".fits": (table, fits.getdata),
        ".fits.gz": (table, fits.getdata),
        ".h5": (hdf5, read_hdf5),
    }


def compare_formats(folder: Path, repeats: int) -> list[Comparison]:
    rng = np.random.default_rng(0)
    rows = []
    for suffix, (write, plain) in write_and_plain().items():
        paths = [folder / f"{i}{suffix}" for i in range(FILES)]
        for path in paths:
            write(path, rng.normal(size=(SIDE, SIDE)).astype(np.float32))
        seconds = time_in_turn(
            {
                "ours": lambda paths=paths: [sample.image for path in paths for sample in read_images(path)],
                "plain": lambda paths=paths, plain=plain: [plain(path).astype(np.float32)[None] for path in paths],
            },
            repeats,
            clock=time.process_time,
        )
        rows.append(
            compare(f"{suffix}", seconds["ours"], seconds["plain"], count=FILES, unit="images", target_ratio=None)
        )
    with tarfile.open(folder / "all.tar", "w") as tar:
        for i in range(FILES):
            tar.add(folder / f"{i}.npy", f"{i}.npy")
    paths = [folder / f"{i}.npy" for i in range(FILES)]
    seconds = time_in_turn(
        {
            "ours": lambda: [sample.image for sample in read_images(folder / "all.tar")],
            "plain": lambda: [np.load(path).astype(np.float32)[None] for path in paths],
        },
        repeats,
        clock=time.process_time,
    )
    rows.append(
        compare(".tar of .npy", seconds["ours"], seconds["plain"], count=FILES, unit="images", target_ratio=None)
    )
    return rows


def compare_packed(folder: Path, repeats: int) -> list[Comparison]:
    """An epoch of batches in random order."""
    images = np.random.default_rng(0).normal(size=(PACKED, 1, SIDE, SIDE)).astype(np.float32)
    np.save(folder / "packed.npy", images)
    packed, mapped = PackedImages(folder / "packed.npy"), np.load(folder / "packed.npy", mmap_mode="r")
    files = [folder / f"{i}.npy" for i in range(FILES)]
    order = np.random.default_rng(1).permutation(PACKED)
    batches = [order[start : start + BATCH] for start in range(0, PACKED, BATCH)]
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: [packed[batch] for batch in batches],
        "memory": lambda: [images[batch] for batch in batches],
        "memory map": lambda: [mapped[batch] for batch in batches],
        ".npy files": lambda: [np.load(file) for file in files],
    }
    seconds = time_in_turn(ways, repeats, clock=time.process_time)
    seconds[".npy files"] = [second * PACKED / FILES for second in seconds[".npy files"]]
    return [
        compare(f"pack, next to {way}", seconds["ours"], seconds[way], count=PACKED, unit="images", target_ratio=None)
        for way in ("memory", "memory map", ".npy files")
    ]


def compare_streaming(folder: Path, repeats: int) -> list[Comparison]:
    """An epoch of batches from local shards, next to one from a pack of the same images; by the clock on the wall."""
    images = np.random.default_rng(0).normal(size=(STREAMED, 1, SIDE, SIDE)).astype(np.float32)
    np.save(folder / "streamed.npy", images)
    for shard, part in enumerate(np.split(images, SHARDS)):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i, image in enumerate(part):
                data = io.BytesIO()
                np.save(data, image)
                member = tarfile.TarInfo(f"{i:06d}.npy")
                member.size = data.tell()
                data.seek(0)
                tar.addfile(member, data)
    plan, device = Plan(BATCH, accumulate=1, seed=0, rank=0, world_size=1), torch.device("cpu")
    packed = ArrayBatches(PackedImages(folder / "streamed.npy"), plan, device)
    shards = find_shards(f"{folder}/{{0..{SHARDS - 1}}}.tar", policy=PixelPolicy())
    epochs = itertools.count()

    def epoch(batches: ArrayBatches | Stream) -> Callable[[], object]:
        def read() -> None:
            start = next(epochs) * batches.steps_per_epoch if isinstance(batches, Stream) else 0
            for step in range(start, start + batches.steps_per_epoch):
                batches.at(step)

        return read

    rows = []
    for workers in (0, 1, 2):
        stream = Stream(dataclasses.replace(shards, workers=workers), plan, device)
        epochs = itertools.count()
        seconds = time_in_turn({"ours": epoch(stream), "pack": epoch(packed)}, repeats)
        stream.close()
        name = f"shards, {workers} workers, next to pack"
        rows.append(compare(name, seconds["ours"], seconds["pack"], count=STREAMED, unit="images", target_ratio=None))
    return rows


def make_large_pack(folder: Path, gigabytes: float) -> int:
    """A pack of random 64 px images, all different; returns their number."""
    count = int(gigabytes * 1e9 / (4 * SIDE * SIDE))
    folder.mkdir(parents=True)
    rng, hashes = np.random.default_rng(0), []
    array = np.lib.format.open_memmap(folder / IMAGES, "w+", np.float32, (count, 1, SIDE, SIDE))
    noise = rng.normal(size=(1024, 1, SIDE, SIDE)).astype(np.float32)
    for start in range(0, count, 1024):
        chunk = noise[: count - start] + np.float32(start)
        array[start : start + 1024] = chunk
        hashes += [image_hash(image) for image in chunk]
    array.flush()
    names = tuple(f"survey/tile{i // 1000:05d}/object{i:09d}.fits" for i in range(count))
    nothing = (None,) * count
    table = Table(names, nothing, nothing, {"z": rng.uniform(size=count)})
    describe_pack(
        folder,
        table,
        hashes,
        shape=(1, SIDE, SIDE),
        source=folder,
        quarantined=(),
        flagged=(0, 0),
        policy=PixelPolicy(),
    )
    return count


def memory_while_training(folder: Path, gigabytes: float) -> dict[str, float]:
    """Peak resident memory of a process that pretrains on a pack for a minute, then reads all of it in batches."""
    pack = folder / "large_pack"
    try:
        count = make_large_pack(pack, gigabytes)
        command = [sys.executable, __file__, "--train", str(pack), "--out", str(folder / "large_run")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return {"images": count, "gigabytes": gigabytes} | json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(pack, ignore_errors=True)
        shutil.rmtree(folder / "large_run", ignore_errors=True)


def train(pack: Path, out: Path) -> None:
    """The process that is measured."""
    import signal
    import threading

    from ssl_lens.engine.signals import InterruptedRun
    from ssl_lens.recipe.compose import compose
    from ssl_lens.recipe.recipe import load_recipe

    overrides = {
        "data.path": pack,
        "run.folder": out,
        "run.device": "cpu",
        "data.stretch": "none",
        "optim.batch_size": 32,  # activations, too, are memory
        "optim.epochs": 1,
        "optim.warmup_epochs": 0,
        "optim.precision": "no",
    }
    recipe = load_recipe(
        Path(__file__).parents[1] / "recipes" / "esvit_micro.yaml",
        [f"{key}={value}" for key, value in overrides.items()],
    )
    peaks = {"imported": resident_gigabytes()}
    pretraining = compose(recipe)
    peaks["built"] = resident_gigabytes()
    threading.Timer(60, lambda: signal.raise_signal(signal.SIGTERM)).start()
    try:
        pretraining.run()
    except InterruptedRun as stop:
        print(stop)
    peaks["trained"] = resident_gigabytes()
    for step in range(pretraining.batches.steps_per_epoch):
        pretraining.batches.at(step)
    print(json.dumps({"peak_gigabytes": peaks | {"read_whole": resident_gigabytes()}}))


def resident_gigabytes() -> float:
    """Highest resident memory of this process so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def main() -> None:
    options = parser(__doc__.splitlines()[0], repeats=7)
    options.add_argument("--gigabytes", type=float, default=10.0, help="of the set to train on; 0 for none")
    options.add_argument("--train", type=Path, metavar="PACK", help="only that, to be measured")
    given = options.parse_args()
    if given.train is not None:
        train(given.train, given.out)
        return
    folder = given.out / "files"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        rows = compare_formats(folder, given.repeats) + compare_packed(folder, given.repeats)
        rows += compare_streaming(folder, given.repeats)
    finally:
        shutil.rmtree(folder)
    report(rows, given.out / "data.json")
    if given.gigabytes:
        measured = memory_while_training(given.out, given.gigabytes)
        (given.out / "memory.json").write_text(json.dumps(measured, indent=2))
        print(json.dumps(measured))


if __name__ == "__main__":
    main()
