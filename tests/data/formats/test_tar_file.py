"""Tar files: samples by WebDataset's convention, and tars that mean harm."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_files import image, member, npy, write_tar

from ssl_lens.data.formats import tar_file
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.data.quarantine import Unusable


def read(path: Path, *members) -> list:
    return list(read_images(write_tar(path / "set.tar", members)))


def test_members_side_by_side_are_one_sample(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture, "PNG")
    found = read(
        tmp_path,
        member("lens/0.3.json", json.dumps({"label": 7, "mass": 2, "z": 0.5, "on": True, "by": "x"}).encode()),
        member("lens/0.NPY", npy(image(5))),
        member("lens/0.txt", b"a caption"),
        member("./b.cls", b" ring\n"),
        member("./b.png", picture.getvalue()),
        member("b.json", b'{"label": "arc", "far": 1e999, "huge": 1' + b"0" * 400 + b"}"),
        member("._c.npy", npy(image(6))),
        member("c.fits.txt", b"no image"),
    )
    assert [(sample.name, sample.label, dict(sample.targets)) for sample in found] == [
        ("lens/0", "7", {"mass": 2.0, "z": 0.5}),
        ("b", "ring", {}),
    ]
    np.testing.assert_array_equal(found[0].image, image(5))
    np.testing.assert_array_equal(found[1].image, np.arange(64, dtype=np.float32).reshape(1, 8, 8))
    assert found[1].stored == np.uint8


DIRECTORY = tarfile.TarInfo("folder.npy")
DIRECTORY.type = tarfile.DIRTYPE


def link(kind: bytes, name: str = "x.npy") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info, b""


BOMB = io.BytesIO()
np.savez_compressed(BOMB, np.zeros((1, 4200, 4200), np.float32))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([link(tarfile.SYMTYPE)], "x.npy is a link, a device or sparse"),
        ([link(tarfile.LNKTYPE)], "x.npy is a link, a device or sparse"),
        ([link(tarfile.CHRTYPE)], "x.npy is a link, a device or sparse"),
        ([link(tarfile.FIFOTYPE)], "x.npy is a link, a device or sparse"),
        ([member("x.npy", npy(image(0))), member("x.png", b"")], "two images, x.npy and x.png"),
        ([member("x.npy", npy(np.zeros((3, 1, 4, 4))))], "x.npy holds several images"),
        ([member("x.npy", npy(image(0))[:-1])], "bytes"),
        ([member("x.npy", b"")], "magic"),
        ([member("x.npz", BOMB.getvalue())], "declares 70560128 bytes"),
        ([member("x.npy", npy(image(0))), member("x.json", b"{")], ".json cannot be read"),
        ([member("x.npy", npy(image(0))), member("x.json", b"[" * 100_000)], ".json cannot be read"),
        ([member("x.npy", npy(image(0))), member("x.json", b"[1]")], ".json holds a list"),
        ([member("x.npy", npy(image(0))), member("x.json", b'{"label": 1.5}')], "label 1.5"),
        ([member("x.npy", npy(image(0))), member("x.cls", b"\n")], "printable"),
        ([member("x.npy", npy(image(0))), member("x.cls", b"a\tb")], "printable"),
        ([member("x.npy", npy(np.array([{}], dtype=object)))], ""),
    ],
)
def test_a_damaged_image_is_named_and_the_next_is_read(tmp_path, members, reason):
    found = read(tmp_path, member("a.npy", npy(image(1))), *members, (DIRECTORY, b""), member("z.npy", npy(image(2))))
    assert [sample.name for sample in found] == ["a", "x", "z"]
    assert isinstance(found[1], Unusable)
    assert reason in found[1].reason
    assert "\n" not in found[1].reason
    assert (found[0].image[0, 0, 0], found[2].image[0, 0, 0]) == (1, 2)


def test_a_key_that_comes_back_is_refused(tmp_path):
    found = read(tmp_path, *(member(name, npy(image(0))) for name in ("a.npy", "b.npy", "a.npy")))
    assert [(type(sample).__name__, sample.name) for sample in found] == [
        ("Sample", "a"),
        ("Sample", "b"),
        ("Unusable", "a"),
    ]


def test_members_beyond_the_limit_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_file, "_LARGEST_IMAGE", 1000)
    monkeypatch.setattr(tar_file, "_LARGEST_TEXT", 10)
    found = read(
        tmp_path,
        member("a.npy", npy(image(1, side=16))),
        member("b.npy", npy(image(2))),
        member("b.cls", b"x" * 11),
        member("c.npy", npy(image(3))),
    )
    assert [(type(sample).__name__, sample.name) for sample in found] == [
        ("Unusable", "a"),
        ("Unusable", "b"),
        ("Sample", "c"),
    ]
    assert "a.npy has 1152 bytes; at most 1000" in found[0].reason


@pytest.mark.parametrize("name", ["/etc/cron.npy", "../up.npy", "a/../../up.npy", "a\tb.npy", "..", "../note.txt"])
def test_names_that_climb_out_end_the_tar_and_write_nothing(tmp_path, name):
    path = write_tar(
        tmp_path / "deep" / "set.tar", [member("a.npy", npy(image(1))), member(name, b"x"), member("b.npy", b"")]
    )
    before = {file for folder in os.walk(tmp_path) for file in folder[2]}
    samples = read_images(path)
    with pytest.raises(UnusableImage, match="names must be relative and without") as error:
        list(samples)
    assert "\n" not in str(error.value)
    assert {file for folder in os.walk(tmp_path) for file in folder[2]} == before == {"set.tar"}


def test_every_truncation_is_reported(tmp_path):
    """Cut at every 100th byte: the samples before the cut are given, then an error, whatever lies there."""
    path = write_tar(tmp_path / "set.tar", [member(f"{i}.npy", npy(image(i))) for i in range(3)])
    whole = path.read_bytes()
    ends = 3 * 1024 + 512  # three members of a header and a block; then zeros, of which one block ends the tar
    for size in range(0, len(whole), 100):
        path.write_bytes(whole[:size])
        samples, given = read_images(path), []
        if size >= ends:
            given = list(samples)
            assert len(given) == 3
            continue
        with pytest.raises(UnusableImage, match="truncated or damaged|is truncated|no images"):
            given.extend(samples)
        assert len(given) <= size // 1024


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_a_compressed_tar_is_refused_with_a_hint(tmp_path, pack):
    path = write_tar(tmp_path / "set.tar", [member("a.npy", npy(image(1)))])
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(UnusableImage, match="the tar is compressed, so that only all of it could be read; unpack it"):
        list(read_images(path))


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path):
    path = write_tar(tmp_path / "set.tar", [member(f"{i}.npy", npy(image(i))) for i in range(3)])
    data = bytearray(path.read_bytes())
    data[1024 + 100] ^= 1  # in the second header
    path.write_bytes(data)
    samples = read_images(path)
    with pytest.raises(UnusableImage, match="truncated or damaged at byte 1536"):
        list(samples)


def forged(name: bytes, size: bytes, kind: bytes) -> bytes:
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    header[: len(name) + 1] = name + b"\0"
    header[124:136] = size
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("kind", [b"0", b"L", b"x"], ids=["file", "long name", "attributes"])
@pytest.mark.parametrize(
    "size", [b"\xff" * 10 + b"\xfc\x00", b"77777777777\0"], ids=["minus 1024 bytes", "8 gigabytes"]
)
def test_forged_sizes_neither_hang_nor_fill_memory(tmp_path, kind, size):
    path = write_tar(tmp_path / "set.tar", [member("a.npy", npy(image(1)))])
    path.write_bytes(path.read_bytes()[:1024] + forged(b"b.npy", size, kind) + bytes(8192))
    with path.open("r+b") as file:
        file.truncate(3 << 30)  # sparse: reading it all would be noticed
    samples = read_images(path)
    with pytest.raises(UnusableImage, match="damaged|truncated|more than 1048576 bytes"):
        list(samples)
