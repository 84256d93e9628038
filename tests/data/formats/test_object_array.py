import numpy as np
import pytest

from ssl_lens.data.formats.object_array import AXION_MASS
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_IMAGE = np.random.default_rng(0).normal(size=(64, 64))
_MASS = 3.2e-23


def _objects(*items) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def _wrapped(item) -> np.ndarray:
    array = np.empty((), dtype=object)
    array[()] = item
    return array


def _read(path, array):
    np.save(path, array, allow_pickle=True)
    return list(read_images(path))


@pytest.mark.parametrize(
    "array",
    [
        _objects(_IMAGE, _MASS),
        _objects(_IMAGE, np.float64(_MASS)),
        _objects(_IMAGE, np.array([_MASS])),
        _objects(_IMAGE[None], np.array(_MASS)),
        _wrapped(_objects(_IMAGE, _MASS)),
        _wrapped([_IMAGE, _MASS]),
        _wrapped((_IMAGE, _MASS)),
        _objects(_IMAGE, _MASS)[None],
        _objects(_objects(_IMAGE, _MASS)),
    ],
)
def test_an_image_and_its_mass(tmp_path, array):
    (sample,) = _read(tmp_path / "a.npy", array)
    assert sample.targets == {AXION_MASS: _MASS}
    assert AXION_MASS == "axion_mass_ev"
    np.testing.assert_array_equal(sample.image, _IMAGE[None].astype(np.float32))


@pytest.mark.parametrize(
    "array", [_IMAGE, _IMAGE.astype(object), _wrapped(_IMAGE), _objects(_IMAGE), _IMAGE[None].astype("O")]
)
def test_an_image_without_a_mass(tmp_path, array):
    (sample,) = _read(tmp_path / "a.npy", array)
    assert sample.targets == {}
    np.testing.assert_array_equal(sample.image, _IMAGE[None].astype(np.float32))


def test_pixels_as_python_integers(tmp_path):
    counts = np.arange(400).reshape(20, 20) % 7
    (sample,) = _read(tmp_path / "a.npy", counts.astype(object))
    np.testing.assert_array_equal(sample.image[0], counts)


def test_several_images_and_several_pairs(tmp_path):
    pairs = [(_IMAGE + i, _MASS * i) for i in range(5)]
    rows = np.empty((5, 2), dtype=object)
    for i, (image, mass) in enumerate(pairs):
        rows[i, 0], rows[i, 1] = image, mass
    for array in (rows, rows[:2], _objects(*(_objects(*pair) for pair in pairs)), _objects(*pairs)):
        samples = _read(tmp_path / "a.npy", array)
        assert [sample.targets[AXION_MASS] for sample in samples] == [pair[1] for pair in pairs[: len(array)]]
        np.testing.assert_array_equal(samples[1].image[0], (_IMAGE + 1).astype(np.float32))
    samples = _read(tmp_path / "a.npy", _objects(*(pair[0] for pair in pairs)))
    assert [sample.targets for sample in samples] == [{}] * 5


def test_archives_hold_object_arrays_too(tmp_path):
    np.savez(tmp_path / "a.npz", image=_objects(_IMAGE, _MASS))
    (sample,) = read_images(tmp_path / "a.npz")
    assert sample.targets == {AXION_MASS: _MASS}


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (_objects(_IMAGE, "a name"), "neither an image nor"),
        (_objects(1.0, 2.0, 3.0), "neither an image nor"),
        (_objects(_IMAGE, _MASS, 5.0), "neither an image nor"),
        (_objects(_IMAGE, {"mass": 1}), "opcode EMPTY_DICT refused"),
        (_objects(), "no image"),
        (_wrapped(5.0), "no image"),
        (_wrapped(_IMAGE.astype(complex)), "numbers of type 'c16': refused"),
        (_wrapped(np.zeros(8)), "no image"),
        (_wrapped(np.array(["a", "b"])), "numbers of type 'U1': refused"),
        (_wrapped(np.zeros((8, 8), dtype="M8[s]")), "refused"),
    ],
)
def test_other_objects_are_refused(tmp_path, array, reason):
    with pytest.raises(UnusableImage, match=reason):
        _read(tmp_path / "a.npy", array)


def test_one_image_listed_over_and_over(tmp_path):
    with pytest.raises(UnusableImage, match="far more bytes than it has"):
        _read(tmp_path / "a.npy", _objects(*[_IMAGE] * 1000))


def test_the_header_must_agree_with_the_pickle(tmp_path):
    np.save(tmp_path / "a.npy", _objects(_IMAGE, _MASS), allow_pickle=True)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(2,)", b"(3,)", 1))
    with pytest.raises(UnusableImage, match=r"not the array of shape \(3,\) that the file declares"):
        list(read_images(tmp_path / "a.npy"))
