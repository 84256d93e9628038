"""Images of single files, read as those of a folder are."""

import io
import tarfile

import numpy as np
import pytest

from ssl_lens.data.images import load_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.reading import read_images
from ssl_lens.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        np.save(folder / f"{name}.npy", rng.normal(size=(12, 12)).astype(np.float32))
    return folder


def test_a_folder_is_loaded_as_ever(folder):
    for path in (folder, str(folder)):
        np.testing.assert_array_equal(read_images(path).images, load_images(folder).images)


def test_files_are_in_the_order_given(folder):
    files = [folder / "c.npy", folder / "a.npy"]
    images = read_images(files)
    assert images.names == tuple(map(str, files))
    assert images.labels is None
    np.testing.assert_array_equal(images.images, [np.load(file)[None] for file in files])
    np.testing.assert_array_equal(read_images(str(files[0])).images, images.images[:1])


def test_a_file_of_many_images_names_each(folder):
    stack = np.random.default_rng(1).normal(size=(3, 1, 12, 12)).astype(np.float32)
    np.save(folder / "stack.npy", stack)
    images = read_images([folder / "a.npy", folder / "stack.npy"])
    assert images.names[1:] == tuple(f"{folder}/stack.npy#{i:06d}" for i in range(3))
    np.testing.assert_array_equal(images.images[1:], stack)


def test_the_pixel_policy_is_the_folders(folder):
    image = np.load(folder / "a.npy")
    image[3, 4], image[5, 5] = 100, np.nan
    np.save(folder / "a.npy", image)
    np.save(folder / "b.npy", np.load(folder / "b.npy")[:10])
    policy = PixelPolicy(mask_value=100, sizes="crop")
    given = read_images(sorted(folder.glob("*.npy")), policy=policy)
    np.testing.assert_array_equal(given.images, load_images(folder, policy=policy).images)
    assert given.images.shape == (3, 1, 10, 12)


def test_what_cannot_be_read_is_one_line(folder, tmp_path):
    np.save(folder / "small.npy", np.random.default_rng(0).normal(size=(8, 8)))
    np.save(folder / "constant.npy", np.ones((12, 12)))
    (folder / "broken.npy").write_bytes(b"\x93NUMPY")
    good = folder / "a.npy"
    with tarfile.open(folder / "two.tar", "w") as archive:
        for name, content in (("a.npy", good.read_bytes()), ("b.npy", b"broken")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    wrong = {
        "mixes image shapes": [good, folder / "small.npy"],
        "constant.npy cannot be used: constant": [good, folder / "constant.npy"],
        "broken.npy cannot be read": folder / "broken.npy",
        "two.tar#b.* cannot be read": folder / "two.tar",
        "none.npy cannot be read": [good, folder / "none.npy"],
        "a.txt cannot be read": [good, folder / "a.txt"],
        "no image files are given": [],
    }
    for message, path in wrong.items():
        with pytest.raises(InputError, match=message) as error:
            read_images(path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="images of 1 channels, needed are 3"):
        read_images(good, in_channels=3)
