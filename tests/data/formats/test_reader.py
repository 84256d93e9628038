import contextlib
import gzip
import io
import os

import h5py
import numpy as np
import pytest
import tifffile
from astropy.io import fits
from PIL import Image
from shard_files import member, npy, write_tar

from ssl_lens.data.formats import fits_file
from ssl_lens.data.formats import reader as reading
from ssl_lens.data.formats.reader import SUFFIXES, images_in, is_image, read_images
from ssl_lens.data.formats.sample import UnusableImage

_NOISE = np.random.default_rng(3).integers(0, 255, (64, 64), dtype=np.uint8)


def _write(path):
    """The same noise in a file of any format; a new one needs its line here, and is then damaged with the others."""
    name = path.name
    if name.endswith(".npy"):
        np.save(path, _NOISE)
    elif name.endswith(".npz"):
        np.savez_compressed(path, _NOISE)
    elif name.endswith((".jpg", ".jpeg", ".png")):
        Image.fromarray(_NOISE).save(path)
    elif name.endswith((".tif", ".tiff")):
        tifffile.imwrite(path, _NOISE, compression="zlib", rowsperstrip=4)
    elif name.endswith((".h5", ".hdf5")):
        with h5py.File(path, "w") as file:
            file.create_dataset("image", data=_NOISE, chunks=(16, 16), compression="gzip")
    elif name.endswith(".tar"):
        write_tar(path, [member("a.npy", npy(_NOISE))])
        os.truncate(path, 6144)  # without the padding of tapes
    elif name.endswith(fits_file.SUFFIXES):
        fits.PrimaryHDU(_NOISE).writeto(path)
    else:
        pytest.fail(f"_write knows no {path.suffix}")
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_one_native_float32_image(tmp_path, suffix):
    (sample,) = read_images(_write(tmp_path / f"a{suffix}"))
    assert sample.image.dtype == np.float32
    assert sample.image.dtype.isnative
    assert sample.image.flags.c_contiguous
    assert sample.image.flags.writeable
    assert sample.targets == {}
    if "jp" in suffix:
        assert sample.image.shape == (1, 64, 64)
    else:
        np.testing.assert_array_equal(sample.image, _NOISE[None])


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_of_every_format_are_one_line(tmp_path, suffix):
    path = _write(tmp_path / f"a{suffix}")
    (whole,) = read_images(path)
    data = path.read_bytes()
    for damaged in (data[: len(data) * 2 // 3], data[: len(data) // 2], data[:100], data[:1], b"", b"no image at all"):
        path.write_bytes(damaged)
        with pytest.raises(UnusableImage) as error:
            list(read_images(path))
        assert str(error.value)
        assert "\n" not in str(error.value)
    for length in {*range(0, len(data), max(len(data) // 60, 1)), *range(len(data) - 20, len(data))}:
        path.write_bytes(data[:length])
        with contextlib.suppress(UnusableImage):
            (sample,) = read_images(path)
            np.testing.assert_array_equal(sample.image, whole.image)  # cut off was no pixel: padding, or a checksum


def test_a_gzipped_file_cut_short(tmp_path):
    whole = gzip.compress(_write(tmp_path / "a.fits").read_bytes())
    (tmp_path / "b.fits.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableImage, match="end-of-stream"):
        list(read_images(tmp_path / "b.fits.gz"))


def test_a_file_without_permission(tmp_path, no_override):
    path = _write(tmp_path / "a.npy")
    path.chmod(0)
    with pytest.raises(UnusableImage, match="Permission denied"):
        list(read_images(path))


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading, "without_waiting", denied)
    with pytest.raises(UnusableImage, match="^Permission denied$"):
        list(read_images(tmp_path / "a.npy"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pipe_is_not_waited_for(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path)
    with pytest.raises(UnusableImage, match="^not a regular file$"):
        list(read_images(path))
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UnusableImage, match="^not a regular file$"):
        list(read_images(path))


def test_an_unknown_type_and_a_missing_file(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UnusableImage, match="file type of a.txt is unknown; known are .npy"):
        list(read_images(tmp_path / "a.txt"))
    with pytest.raises(UnusableImage, match="No such file"):
        list(read_images(tmp_path / "a.npy"))


def test_bytes_of_an_archive_are_read_as_files(tmp_path):
    data = io.BytesIO(_write(tmp_path / "a.fits").read_bytes())
    (sample,) = images_in(data, "some/member.FITS")
    np.testing.assert_array_equal(sample.image, _NOISE[None])


def test_which_names_are_images():
    assert all(map(is_image, ["a.npy", "B.JPG", "c.jpeg", "d.fits", "e.fits.gz", "f.npz", "g.tiff", "h.TIF", "i.h5"]))
    assert not any(map(is_image, ["a.txt", "b.csv", ".c.npy", "._d.jpg", "e.gz", "npy"]))


def test_the_type_in_the_file_is_reported(tmp_path):
    np.save(tmp_path / "a.npy", _NOISE.astype(">f8"))
    fits.PrimaryHDU(_NOISE.astype("u2")).writeto(tmp_path / "b.fits")  # stored as signed, with BZERO
    Image.fromarray(_NOISE.astype("u1")).save(tmp_path / "c.png")
    kinds = [next(read_images(path)).stored.str for path in sorted(tmp_path.iterdir())]
    assert kinds[0] == ">f8"
    assert np.dtype(kinds[1]).name == "int16"
    assert kinds[2] == "|u1"
