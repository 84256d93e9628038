import logging
import re

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.data.pack import packer as packing
from ssl_lens.data.pack import reader as reading
from ssl_lens.data.pack.packed_images import PackedImages
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)


def _save(path, shape=(8, 8), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, _RNG.normal(size=shape) if value is None else np.full(shape, value))


@pytest.fixture
def root(tmp_path):
    for name in ("vortex/a.npy", "vortex/deep/b.npy", "no_sub/c.npy", "cdm/d.npy"):
        _save(tmp_path / "set" / name)
    return tmp_path / "set"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_class_folders_become_labels_in_alphabetical_order(root, cache):
    loaded = load_images(root, cache=cache)
    assert loaded.names == ("cdm/d.npy", "no_sub/c.npy", "vortex/a.npy", "vortex/deep/b.npy")
    assert loaded.classes == ("cdm", "no_sub", "vortex")
    assert loaded.labels.tolist() == [0, 1, 2, 2]
    assert loaded.labels.dtype == np.int64
    assert loaded.images.shape == (4, 1, 8, 8)
    assert loaded.images.dtype == np.float32
    assert isinstance(loaded.images, PackedImages)
    for name, image in zip(loaded.names, loaded.images, strict=True):
        np.testing.assert_array_equal(image[0], np.load(root / name).astype(np.float32))


def test_an_image_outside_the_class_folders_means_no_labels(root, cache):
    _save(root / "e.npy")
    loaded = load_images(root, cache=cache)
    assert (len(loaded), loaded.labels, loaded.classes) == (5, None, ())


def test_subset_keeps_order_and_classes(root, cache):
    loaded = load_images(root, cache=cache)
    part = loaded.subset(np.array([3, 0]))
    assert part.names == ("vortex/deep/b.npy", "cdm/d.npy")
    assert part.labels.tolist() == [2, 0]
    assert part.classes == loaded.classes
    np.testing.assert_array_equal(part.images, loaded.images[[3, 0]])


def test_formats_mix_and_other_files_are_ignored_and_counted(root, cache, caplog):
    Image.fromarray(_RNG.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / "cdm" / "e.PNG")
    fits.PrimaryHDU(_RNG.normal(size=(8, 8))).writeto(root / "cdm" / "f.fits")
    for name in ("notes.csv", "cdm/README.txt", "cdm/.hidden.npy", ".git/g.npy"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    with caplog.at_level(logging.INFO):
        assert len(load_images(root, cache=cache)) == 6
    assert "3 files that are not images ignored" in caplog.text


def test_the_pack_is_reused_until_a_file_changes(root, cache, monkeypatch):
    reads = []
    read = reading.read_source
    monkeypatch.setattr(reading, "read_source", lambda root, source: reads.append(source.name) or read(root, source))
    first = load_images(root, cache=cache)
    again = load_images(root, cache=cache)
    assert sorted(reads) == ["cdm/d.npy", "no_sub/c.npy", "vortex/a.npy", "vortex/deep/b.npy"]
    np.testing.assert_array_equal(first.images, again.images)
    _save(root / "cdm" / "d.npy", value=None, shape=(1, 8, 8))
    changed = load_images(root, cache=cache)
    assert len(reads) == 8
    np.testing.assert_array_equal(changed.images[0], np.load(root / "cdm/d.npy").astype(np.float32))


def test_more_images_than_are_decoded_at_once(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 7)
    for i in range(30):
        _save(tmp_path / "set" / f"{i:02d}.npy", value=None)
    loaded = load_images(tmp_path / "set", cache=cache)
    expected = np.stack([np.load(tmp_path / "set" / name) for name in loaded.names])[:, None]
    np.testing.assert_array_equal(loaded.images, expected.astype(np.float32))


def test_two_processes_that_pack_at_once_do_no_harm(root, cache, monkeypatch):
    """The other is always done while this one is at it."""
    make_pack, others = packing.make_pack, []

    def overtaken(found, folder, **how):
        if not others:
            others.append(None)
            others[0] = load_images(root, cache=cache)
        make_pack(found, folder, **how)

    monkeypatch.setattr(packing, "make_pack", overtaken)
    assert load_images(root, cache=cache).names == others[0].names
    assert [path.name[:7] for path in cache.iterdir()] == ["packed-"]


def test_default_cache_is_named_by_the_environment(root, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "elsewhere"))
    load_images(root)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def _many(root, count):
    for i in range(count):
        _save(root / f"good{i:03d}.npy", shape=(2, 2))


def _spoil(root):
    noise = _RNG.integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(root / "cut.jpg")
    whole = (root / "cut.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    _save(root / "zero.npy", shape=(2, 2), value=0.0)
    holed = np.ones((2, 2))
    holed[0, 1] = np.nan
    np.save(root / "nan.npy", holed)


def test_few_bad_images_are_left_out_and_listed(tmp_path, cache, caplog):
    _many(tmp_path / "set", 297)
    _spoil(tmp_path / "set")  # 3 of 300: exactly 1 %
    for _ in range(2):  # freshly packed, then from the cache
        (tmp_path / "bad.tsv").unlink(missing_ok=True)
        caplog.clear()
        loaded = load_images(tmp_path / "set", cache=cache, quarantine=tmp_path / "bad.tsv")
        assert len(loaded) == 297
        assert loaded.images.shape == (297, 1, 2, 2)
        rows = dict(line.split("\t") for line in (tmp_path / "bad.tsv").read_text().splitlines())
        assert list(rows) == ["cut.jpg", "nan.npy", "zero.npy"]
        assert "truncated" in rows["cut.jpg"]
        assert rows["nan.npy"] == "1 of 4 pixels are NaN or infinite"
        assert rows["zero.npy"] == "constant: every pixel is 0"
        assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == ["WARNING"]
        assert "3 of 300 images" in caplog.text
    np.testing.assert_array_equal(loaded.images[-1][0], np.load(tmp_path / "set/good296.npy").astype(np.float32))


def test_more_than_one_percent_of_bad_images_is_refused_and_listed(tmp_path, cache):
    _many(tmp_path / "set", 296)
    _spoil(tmp_path / "set")
    with pytest.raises(InputError, match=r"^3 of 299 images in .* cut.jpg: .*bad.tsv; .* at most 1% are left out$"):
        load_images(tmp_path / "set", cache=cache, quarantine=tmp_path / "run" / "bad.tsv")
    assert len((tmp_path / "run" / "bad.tsv").read_text().splitlines()) == 3


def test_only_bad_images_are_refused(tmp_path, cache):
    _save(tmp_path / "set" / "a.npy", value=0.0)
    with pytest.raises(InputError, match="1 of 1 images"):
        load_images(tmp_path / "set", cache=cache)


def test_pixels_that_float32_cannot_hold_are_not_numbers(tmp_path, cache):
    _save(tmp_path / "set" / "a.npy", value=1e300)
    with pytest.raises(InputError, match="64 of 64 pixels are NaN or infinite"):
        load_images(tmp_path / "set", cache=cache)


def test_a_tiny_flux_is_kept(tmp_path, cache):
    image = _RNG.normal(size=(8, 8)).astype(np.float32) * np.float32(1e-12)
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "set" / "a.npy", image)
    np.testing.assert_array_equal(load_images(tmp_path / "set", cache=cache).images[0][0], image)


def test_mixed_shapes_are_counted_with_an_example_each(root, cache):
    _save(root / "cdm" / "z.npy", shape=(8, 9))
    _save(root / "vortex" / "z.npy", shape=(3, 8, 8))
    expected = "4 of (1, 8, 8) (cdm/d.npy), 1 of (1, 8, 9) (cdm/z.npy), 1 of (3, 8, 8) (vortex/z.npy)"
    with pytest.raises(InputError, match=re.escape(expected)):
        load_images(root, cache=cache)
    assert list(cache.iterdir()) == []


def test_wrong_channel_count(root, cache):
    with pytest.raises(InputError, match="images of 1 channels, needed are 3; give other images, or"):
        load_images(root, in_channels=3, cache=cache)
    assert len(load_images(root, in_channels=1, cache=cache)) == 4


def test_missing_empty_and_wrong_folders(tmp_path, cache):
    with pytest.raises(InputError, match="nowhere does not exist"):
        load_images(tmp_path / "nowhere", cache=cache)
    (tmp_path / "file.npy").write_text("")
    with pytest.raises(InputError, match="file.npy is a file"):
        load_images(tmp_path / "file.npy", cache=cache)
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(InputError, match=r"path=.*empty holds no images \(0 other files\)"):
        load_images(tmp_path / "empty", cache=cache)
    (tmp_path / "empty" / "notes.txt").write_text("text")
    with pytest.raises(InputError, match=r"path=.*empty holds no images \(1 other files\)"):
        load_images(tmp_path / "empty", cache=cache)


def test_a_link_to_nowhere_is_an_unusable_image(root, cache):
    (root / "cdm" / "gone.npy").symlink_to(root / "nothing.npy")
    with pytest.raises(InputError, match="1 of 5 images .* such as cdm/gone.npy: No such file"):
        load_images(root, cache=cache)


def test_a_full_disk_leaves_no_pack(root, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "_write_header", full)
    with pytest.raises(InputError, match="No space left on device; set SSL_LENS_CACHE"):
        load_images(root, cache=cache)
    assert list(cache.iterdir()) == []


def test_linked_class_folders_are_followed(root, cache, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "lens").symlink_to(root / "vortex")
    loaded = load_images(tmp_path / "linked", cache=cache)
    assert loaded.names == ("lens/a.npy", "lens/deep/b.npy")
    assert isinstance(loaded, ImageSet)


@pytest.mark.parametrize(
    ("folder", "count", "shape", "classes", "value_range"),
    [
        ("common_npy", 18, (1, 150, 150), ("no_substructure", "subhalo", "vortex"), (0, 1)),
        (
            "lens_finding_npy",
            20,
            (3, 64, 64),
            ("lenses", "nonlenses"),
            (0, 1),
        ),
        ("slacs_fits", 7, (1, 198, 198), (), (-1e3, 1e4)),
        ("bologna_fits/space_based", 10, (1, 101, 101), ("lens", "nolens"), (-1e-10, 100)),
        ("bologna_fits/ground_based", 8, (4, 101, 101), ("lens", "nolens"), (-1e-8, 100)),
    ],
)
def test_sets_of_others(lens_data, cache, folder, count, shape, classes, value_range):
    loaded = load_images(lens_data / folder, cache=cache)
    assert loaded.images.shape == (count, *shape)
    assert loaded.classes == classes
    assert loaded.images.dtype.isnative
    pixels = np.asarray(loaded.images)
    assert np.isfinite(pixels).all()
    assert value_range[0] <= pixels.min() < pixels.max() <= value_range[1]


def test_big_endian_fits_of_others_against_astropy(lens_data, cache):
    for folder, unit in (("slacs_fits", 1), ("bologna_fits/space_based", 0)):
        loaded = load_images(lens_data / folder, cache=cache)
        with fits.open(lens_data / folder / loaded.names[0]) as units:
            assert not units[unit].data.dtype.isnative
            np.testing.assert_array_equal(loaded.images[0][0], units[unit].data)


def test_the_binary_benchmark_of_others(lens_data, cache, tmp_path):
    for label in ("sub", "no_sub"):  # 40 of each: the whole set takes seconds
        (tmp_path / "set" / label).mkdir(parents=True)
        for path in sorted((lens_data / "lenses" / label).iterdir())[:40]:
            (tmp_path / "set" / label / path.name).symlink_to(path)
    loaded = load_images(tmp_path / "set", cache=cache)
    assert loaded.images.shape == (80, 1, 150, 150)
    assert np.bincount(loaded.labels).tolist() == [40, 40]
    pixels = np.asarray(loaded.images)
    assert (pixels.min(), pixels.max()) == (0, 255)
