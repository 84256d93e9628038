import io
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_STACK = np.random.default_rng(0).normal(size=(5, 3, 20, 24)).astype(np.float32)


def _images(path):
    return np.stack([sample.image for sample in read_images(path)])


@pytest.mark.parametrize("order", ["C", "F"])
def test_stacks_of_both_orders(tmp_path, order):
    np.save(tmp_path / "a.npy", np.array(_STACK, order=order))
    np.savez_compressed(tmp_path / "a.npz", np.array(_STACK, order=order))
    np.testing.assert_array_equal(_images(tmp_path / "a.npy"), _STACK)
    np.testing.assert_array_equal(_images(tmp_path / "a.npz"), _STACK)


def test_npz_takes_its_only_array_or_the_named_one(tmp_path):
    np.savez(tmp_path / "only.npz", _STACK[0])
    np.savez_compressed(tmp_path / "named.npz", mass=np.array(3.0), image=_STACK[0])
    np.savez(tmp_path / "many.npz", a=_STACK, b=_STACK)
    np.savez(tmp_path / "two.npz", image=_STACK, data=_STACK)
    np.testing.assert_array_equal(_images(tmp_path / "only.npz"), _STACK[:1])
    np.testing.assert_array_equal(_images(tmp_path / "named.npz"), _STACK[:1])
    with pytest.raises(UnusableImage, match=r"2 arrays in the file \(a, b\), and nothing says which .* planes=a$"):
        _images(tmp_path / "many.npz")
    with pytest.raises(UnusableImage, match=r"2 arrays in the file \(image, data\)"):
        _images(tmp_path / "two.npz")


def _header(shape) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (1 << 40, 3, 64, 64), (10**12, 10**12)])
def test_absurd_declared_shapes_are_refused_before_anything_is_allocated(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(_header(shape) + b"\0" * 1000)
    with pytest.raises(UnusableImage, match="declares .* bytes but 1000 are there"):
        _images(tmp_path / "a.npy")


def test_a_bomb_in_an_archive(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w") as member,
    ):
        member.write(_header((3200, 3200)))  # 82 MB of zeros in 80 kB
        for _ in range(100):
            member.write(b"\0" * (3200 * 32 * 8))
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    with pytest.raises(UnusableImage, match=r"array image.npy declares 81920128 bytes in \d{5} stored ones"):
        _images(tmp_path / "a.npz")


def test_an_archive_that_declares_less_than_its_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", _header((100, 100)) + b"\0" * 80)
    with pytest.raises(UnusableImage, match="declares 80000 bytes but 80 are there"):
        _images(tmp_path / "a.npz")


def test_records_are_not_images(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((8, 8), dtype=[("flux", "f4")]))
    with pytest.raises(UnusableImage, match="not real numbers"):
        _images(tmp_path / "a.npy")


def test_files_of_others(lens_data):
    for path in sorted((lens_data / "common_npy" / "vortex").iterdir()):
        np.testing.assert_array_equal(_images(path)[0], np.load(path).astype(np.float32))


def test_headers_are_parsed_one_at_a_time(tmp_path, monkeypatch):
    """Python 3.11's parser may fail where threads take turns within it, and a good image would be left out."""
    np.save(tmp_path / "a.npy", _STACK)
    parse, inside, most = np.lib.format.read_array_header_1_0, threading.Semaphore(0), []

    def slow(*arguments, **settings):
        inside.release()
        most.append(inside._value)
        time.sleep(0.01)
        inside.acquire()
        return parse(*arguments, **settings)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slow)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(_images, [tmp_path / "a.npy"] * 8))
    assert all(np.array_equal(images, _STACK) for images in read)
    assert most == [1] * 8
