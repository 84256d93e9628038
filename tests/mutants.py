"""Damaged files of every kind, by the thousand; `mutants.py COUNT FIRST KIND...` feeds the readers with them.

A mutant is made from its kind and number alone, so that these bring it back. The program is a process of its own, with
a limit on memory and, for each mutant, on time: the system's alarm ends also what loops in C.
"""

import gzip
import io
import json
import re
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import tifffile
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from PIL import Image

from ssl_lens.cli.console import show_progress
from ssl_lens.data.folders.tables import read_table
from ssl_lens.data.formats.reader import SUFFIXES, images_in
from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.quarantine import Unusable
from ssl_lens.errors import InputError

TABLES = (".csv", ".parquet", ".ecsv", ".vot", ".table.fits")
OTHER_NAMES = (
    ".jpeg",
    ".tiff",
    ".hdf5",
    ".fits.fz",
    *(f".{stem}{end}" for stem in ("fit", "fts") for end in ("", ".gz", ".fz")),
)  # of kinds that are there
KINDS = tuple(kind for kind in (*SUFFIXES, *TABLES) if kind not in OTHER_NAMES)
SECONDS = 5  # for one mutant, on a machine with other work
MEMORY = 1 << 30  # bytes beyond those of the libraries
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 255, (20, 24), dtype=np.uint8)
STACK = RNG.normal(size=(20, 16, 16)).astype(np.float32)
COLOUR = RNG.integers(0, 255, (20, 24, 3), dtype=np.uint8)


def saved(write: Callable[..., object], *arguments: object, **keywords: object) -> bytes:
    file = io.BytesIO()
    write(file, *arguments, **keywords)
    return file.getvalue()


def whole_files(suffix: str) -> list[bytes]:
    """A few sound files of a kind, small, and together using most of what its format has."""
    match suffix:
        case ".npy":
            pickled = np.array([STACK[0], 1e-22], dtype=object)
            arrays = (NOISE, STACK.astype(">f8"), np.asfortranarray(STACK))
            return [*(saved(np.save, array) for array in arrays), saved(np.save, pickled, allow_pickle=True)]
        case ".npz":
            return [saved(np.savez_compressed, image=NOISE), saved(np.savez, images=STACK, ans=np.arange(20))]
        case ".png":
            pictures = (Image.fromarray(NOISE), Image.fromarray(COLOUR), Image.fromarray(COLOUR).quantize(16))
            deep = Image.fromarray(NOISE.astype(np.uint16) * 200)
            return [saved(lambda file, picture: picture.save(file, "PNG"), picture) for picture in (*pictures, deep)]
        case ".jpg":
            pictures = [
                (Image.fromarray(NOISE), False),
                (Image.fromarray(COLOUR), False),
                (Image.fromarray(NOISE), True),
            ]
            return [saved(lambda file, p: p[0].save(file, "JPEG", progressive=p[1]), picture) for picture in pictures]
        case ".tif":
            return [*map(tiff_file, range(7))]
        case ".fits":
            return [fits_file(number) for number in range(4)]
        case ".fits.gz":
            return [gzip.compress(fits_file(number), mtime=0) for number in range(2)]
        case ".h5":
            return [hdf5_file(number) for number in range(4)]
        case ".tar":
            return [tar_file(tarfile.USTAR_FORMAT), tar_file(tarfile.PAX_FORMAT), tar_file(tarfile.GNU_FORMAT)]
        case ".csv":
            rows = "".join(f"{i}.npy,{'lens' if i % 2 else 'none'},{i / 7},{i}\n" for i in range(30))
            return [f"name,label,mass,count\n{rows}".encode(), b'name,class\n"a\nb.npy","x"\n']
        case ".parquet":
            names = pyarrow.array([f"{i}.npy" for i in range(30)])
            table = pyarrow.table({"name": names, "label": ["a", "b"] * 15, "mass": np.arange(30.0)})
            return [saved(lambda file: pyarrow.parquet.write_table(table, file))]
        case ".ecsv":
            return [astropy_table("ascii.ecsv"), astropy_table("ascii.ecsv", delimiter=",")]
        case ".vot":
            return [astropy_table("votable", tabledata_format=how) for how in ("tabledata", "binary", "binary2")]
        case ".table.fits":
            return [fits_table(0), fits_table(1)]
    raise NotImplementedError(f"a sound file of {suffix} is needed here, to be damaged with the others")


def astropy_table(kind: str, **options: str) -> bytes:
    rows = range(40)
    radius = MaskedColumn([i / 7 for i in rows], mask=[i == 3 for i in rows], unit="arcsec", description="Einstein's")
    names, kinds = [f"{i}.npy" for i in rows], ["lens" if i % 2 else "none" for i in rows]
    table = Table(
        {"name": names, "label": kinds, "radius": radius, "count": list(rows)},
        meta={"comments": ["made up, of no survey"] * 20},
    )
    table["is_test"] = [i > 8 for i in rows]
    file = io.BytesIO() if kind == "votable" else io.StringIO()
    table.write(file, format=kind, **options)
    data = file.getvalue()
    return data if isinstance(data, bytes) else data.encode()


def fits_table(number: int) -> bytes:
    names, rows = np.array([f"{i}.npy" for i in range(12)]), np.arange(12)
    columns = [fits.Column("name", "6A" if number == 0 else "A6", array=names)]
    columns.append(fits.Column("radius", "D" if number == 0 else "D25.17", array=rows / 7))
    if number:
        return saved(fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(columns)]).writeto)
    pieces = np.array([np.arange(i % 3 + 1.0) for i in rows], dtype=object)
    columns += [fits.Column("is_lens", "L", array=rows % 2 == 0), fits.Column("count", "J", array=rows, bzero=2**31)]
    columns += [fits.Column("pieces", "PE()", array=pieces), fits.Column("shape", "2E", array=rows[:, None] * [1.0, 2])]
    return saved(fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto)


def tiff_file(number: int) -> bytes:
    def two_pages(file: io.BytesIO) -> None:
        with tifffile.TiffWriter(file) as tiff:
            tiff.write(NOISE)
            tiff.write(NOISE[::2, ::2], contiguous=False)

    grey, wide = NOISE, NOISE.astype(np.uint16) * 200
    match number:
        case 0:
            return saved(tifffile.imwrite, grey, compression="zlib", rowsperstrip=4)
        case 1:
            return saved(tifffile.imwrite, STACK[:4], byteorder=">", photometric="minisblack")
        case 2:
            return saved(tifffile.imwrite, grey, tile=(16, 16), compression="zlib")
        case 3:
            return saved(tifffile.imwrite, COLOUR, bigtiff=True, photometric="rgb")
        case 4:
            return saved(two_pages)
        case 5:
            return saved(lambda file: Image.fromarray(wide).save(file, "TIFF", compression="tiff_lzw"))
        case _:
            return saved(tifffile.imwrite, COLOUR, compression="lzma", predictor=True, photometric="rgb")


def fits_file(number: int) -> bytes:
    match number:
        case 0:
            return saved(lambda file: fits.PrimaryHDU(NOISE.astype(np.uint16)).writeto(file))  # stored with BZERO
        case 1:
            units = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(STACK[:2], name="SCI"), fits.ImageHDU(STACK[:2])])
            return saved(units.writeto)
        case 2:
            packed = fits.CompImageHDU(STACK[0], compression_type="RICE_1")
            return saved(fits.HDUList([fits.PrimaryHDU(), packed]).writeto)
        case _:
            column = fits.Column("a", "2E", array=STACK[0, :2, :2])
            table = fits.BinTableHDU.from_columns([column])
            return saved(fits.HDUList([fits.PrimaryHDU(STACK[0]), table]).writeto)


def hdf5_file(number: int) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w", libver="latest" if number == 3 else "earliest") as root:
        if number == 0:
            root["image"] = NOISE
        elif number == 1:
            root.create_dataset("a/images", data=STACK, chunks=(4, 16, 16), compression="gzip", shuffle=True)
            root["a/labels"] = np.arange(20)
        else:
            root.create_dataset("data", data=STACK[:2], chunks=(1, 8, 8), fletcher32=number == 2)
            root.attrs["note"] = "text " * 20
    return file.getvalue()


def tar_file(kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        folder = "" if kind == tarfile.USTAR_FORMAT else "long/" * 30
        contents = {
            "a.npy": saved(np.save, NOISE),
            "a.json": b'{"label": "x", "mass": 1.5}',
            "b.npy": saved(np.save, NOISE),
        }
        for name, data in contents.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()[:8192]  # without the padding of tapes


def unwrapped(suffix: str, data: bytes, damage: Callable[[bytes], bytes]) -> bytes:
    """A file whose inner part is damaged, and whose outer sums are right again, so that damage is not seen at once."""
    match suffix:
        case ".fits.gz":
            return gzip.compress(damage(gzip.decompress(data)), mtime=0)
        case ".npz":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in members.items():
                    archive.writestr(name, damage(content))
            return file.getvalue()
        case ".png":
            return with_png_sums(damage(data))
        case ".tar":
            return with_tar_sums(damage(data))
    return damage(data)


def with_png_sums(data: bytes) -> bytes:
    whole, place = bytearray(data), 8
    while place + 12 <= len(whole):
        (length,) = struct.unpack_from(">I", whole, place)
        end = place + 8 + length
        if end + 4 > len(whole):
            break
        struct.pack_into(">I", whole, end, zlib.crc32(whole[place + 4 : end]))
        place = end + 4
    return bytes(whole)


def with_tar_sums(data: bytes) -> bytes:
    whole = bytearray(data)
    for place in range(0, len(whole) - 511, 512):
        header = whole[place : place + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            whole[place + 148 : place + 156] = f"{sum(header):06o}\0 ".encode()
    return bytes(whole)


NUMBERS = (b"0", b"-1", b"1", b"7", b"99", b"65536", b"2147483648", b"99999999999999", b"1e400", b"nan", b"-32", b"8")


def damaged(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """One kind of damage: bits, bytes, an end missing, parts moved or repeated, numbers that are extreme."""
    if not data:
        return data
    near = len(data) if rng.random() < 0.4 else min(len(data), 1024)  # most of the structure is at the start
    place = int(rng.integers(near))
    whole = bytearray(data)
    match int(rng.integers(8)):
        case 0:
            for spot in rng.integers(0, near, rng.integers(1, 9)):
                whole[spot] ^= 1 << int(rng.integers(8))
        case 1:
            for spot in rng.integers(0, near, rng.integers(1, 6)):
                whole[spot] = int(rng.integers(256))
        case 2:
            del whole[int(rng.integers(len(data))) :]
        case 3:
            length, source = int(rng.integers(1, 200)), int(rng.integers(len(other)))
            whole[place : place + length] = other[source : source + length]
        case 4:
            length = int(rng.integers(1, 64))
            whole[place:place] = whole[place : place + length] * int(rng.integers(1, 4))
        case 5:
            del whole[place : place + int(rng.integers(1, 64))]
        case 6:
            for _ in range(int(rng.integers(1, 4))):
                whole = extreme_integer(rng, whole, near)
        case _:
            found = [match for match in re.finditer(rb"-?\d+", bytes(whole[:near])) if match.group()] or None
            if found is None:
                whole = extreme_integer(rng, whole, near)
            else:
                number = found[int(rng.integers(len(found)))]
                new, old = NUMBERS[int(rng.integers(len(NUMBERS)))], number.end() - number.start()
                whole[number.end() - max(old, len(new)) : number.end()] = new.rjust(old)
    return bytes(whole)


def extreme_integer(rng: np.random.Generator, whole: bytearray, near: int) -> bytearray:
    size = int(rng.choice([1, 2, 4, 8]))
    place = int(rng.integers(near)) // size * size if rng.random() < 0.7 else int(rng.integers(near))
    bits = 8 * size
    values = (0, 1, 2, 2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1, 1 << (bits // 2), len(whole), place, 8)
    value = values[int(rng.integers(len(values)))] % 2**bits
    if len(whole) >= place + size:
        whole[place : place + size] = value.to_bytes(size, "little" if rng.random() < 0.5 else "big")
    return whole


def mutant(suffix: str, whole: list[bytes], number: int) -> bytes:
    """The mutant of this number: one to three damages to one of the sound files."""
    rng = np.random.default_rng([number, *suffix.encode()])
    data, other = (whole[int(rng.integers(len(whole)))] for _ in range(2))

    def damage(part: bytes) -> bytes:
        for _ in range(int(rng.integers(1, 4))):
            part = damaged(rng, part, other)
        return part

    return unwrapped(suffix, data, damage) if rng.random() < 0.6 else damage(data)


def read(suffix: str, data: bytes) -> str:
    """What a reader makes of a file: `images`, or `refused`; raises what a reader must not."""
    if suffix in TABLES:
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            Path(file.name).write_bytes(data)
            try:
                read_table(Path(file.name))
            except InputError as error:
                return refused(str(error))
            return "images"
    try:
        for sample in images_in(io.BytesIO(data), f"a{suffix}"):
            if isinstance(sample, Unusable):
                refused(sample.reason)
                continue
            assert isinstance(sample, Sample)
            assert sample.image.ndim == 3
            assert sample.image.dtype == np.float32
    except UnusableImage as error:
        return refused(str(error))
    return "images"


def refused(reason: str) -> str:
    assert reason, "no reason"
    assert "\n" not in reason, reason
    assert "MemoryError" not in reason
    assert "Unable to allocate" not in reason, reason
    assert "malloc" not in reason, reason
    return "refused"


def feed(suffix: str, count: int, first: int) -> Counter[str]:
    """Reads mutants `first` to `first + count` of a kind, each announced by a line; counts what became of them."""
    whole, results = whole_files(suffix), Counter[str]()
    for number in range(first, first + count):
        print(suffix, number, flush=True)
        data = mutant(suffix, whole, number)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        results[read(suffix, data)] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    return results


def limit_memory() -> None:
    """From here on the process may have `MEMORY` bytes more than it and its libraries have now."""
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main(count: int, first: int, kinds: list[str]) -> None:
    """Feeds the readers of these kinds; the last line says what became of the mutants, as JSON."""
    results = {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        show_progress()  # what the commands show of warnings
        for kind in kinds:  # libraries take what they need for themselves when they are first used
            for data in whole_files(kind):
                assert read(kind, data) == "images", f"a sound file of {kind} is refused"
        limit_memory()
        for kind in kinds:
            results[kind] = feed(kind, count, first)
    assert not said, said[0]
    print(json.dumps(results))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
