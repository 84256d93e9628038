import io

import h5py
import numpy as np
import pytest
from shard_files import member, write_tar

from ssl_lens.data.formats.planes import PlaneChoice
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_STACK = np.random.default_rng(0).normal(size=(20, 1, 16, 16)).astype(np.float32)
_ONE = _STACK[0, 0]
_HALVES = np.arange(20) % 2


@pytest.fixture(params=["h5", "npz"])
def write(request, tmp_path):
    def save(**arrays):
        path = tmp_path / f"a.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file[name] = array
        return path

    return save


@pytest.mark.parametrize("name", ["image_data", "img", "data", "anything"])
def test_lenstronomys_files(write, name):
    arrays = {name: _ONE, "exposure_time": np.ones((16, 16)), "background_rms": 0.1, "psf": np.ones((5, 5))}
    (sample,) = read_images(write(**arrays))
    np.testing.assert_array_equal(sample.image, _STACK[0])
    assert set(sample.left_out) == {"exposure_time", "psf"}
    assert sample.label is None


@pytest.mark.parametrize("name", ["ans", "y", "label", "labels", "target", "class", "Class", "y_train"])
def test_labels_next_to_the_images(write, name):
    samples = list(read_images(write(**{"x": _STACK, name: _HALVES})))
    np.testing.assert_array_equal(np.stack([sample.image for sample in samples]), _STACK)
    assert [sample.label for sample in samples] == ["0", "1"] * 10


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (_HALVES.astype(np.float64), ["0", "1"] * 10),
        (_HALVES[:, None], ["0", "1"] * 10),
        (np.eye(3)[np.arange(20) % 3], (["0", "1", "2"] * 7)[:20]),
        (_HALVES.astype(bool), ["False", "True"] * 10),
        (np.array([b"lens", b"none"] * 10), ["lens", "none"] * 10),
        (_HALVES[:19], [None] * 20),
    ],
)
def test_kinds_of_labels(write, labels, expected):
    assert [sample.label for sample in read_images(write(images=_STACK, labels=labels))] == expected


def test_one_image_has_one_label(write):
    (sample,) = read_images(write(image=_ONE, label=np.array(3)))
    assert sample.label == "3"


def test_fractions_are_numbers(write):
    radii = np.linspace(0.5, 2, 20)
    radii[3] = np.inf
    samples = list(read_images(write(images=_STACK, target=radii)))
    assert [sample.targets["target"] for sample in samples][::5] == radii[::5].tolist()
    assert np.isnan(samples[3].targets["target"])
    assert samples[0].label is None


@pytest.mark.parametrize(("name", "expected"), [("y", "y"), ("label", "label_number")])
def test_a_floating_number_of_one_image_is_no_class(write, name, expected):
    (sample,) = read_images(write(image=_ONE, **{name: np.float32(1)}))
    assert (sample.label, dict(sample.targets)) == (None, {expected: 1.0})


def test_labels_that_are_python_objects(tmp_path):
    np.savez(tmp_path / "a.npz", images=_STACK, labels=np.array(["lens", "none"] * 10, dtype=object))
    assert [sample.label for sample in read_images(tmp_path / "a.npz")] == ["lens", "none"] * 10


def test_a_label_that_is_none(write):
    with pytest.raises(UnusableImage, match=r"label .* in the file is not a whole number or 1 to 200 characters"):
        list(read_images(write(images=_STACK, labels=np.array([b"a\nb"] * 20))))


def test_bands_as_arrays_are_channels_in_the_order_of_their_wavelengths(write):
    planes = {name: _STACK[i, 0] for i, name in enumerate("gri")}
    (sample,) = read_images(write(**planes, g_noise=_ONE))
    np.testing.assert_array_equal(sample.image, _STACK[:3, 0])
    (sample,) = read_images(write(**planes), PlaneChoice(("i", "g")))
    np.testing.assert_array_equal(sample.image, _STACK[[2, 0], 0])


def test_stacks_of_bands_are_joined_image_by_image(write):
    path = write(VIS=_STACK[:, 0], NIR_Y=_STACK[:, 0] + 1, labels=_HALVES)
    samples = list(read_images(path))
    np.testing.assert_array_equal(samples[5].image, [_STACK[5, 0], _STACK[5, 0] + 1])
    assert (len(samples), samples[5].label) == (20, "1")


@pytest.mark.parametrize(
    "names",
    [
        "x_train y_train x_test y_test",
        "X_train Y_train X_test Y_test",
        "train_images train_labels test_images test_labels",
    ]
    + ["train/x train/y test/x test/y", "images_training labels_training images_testing labels_testing"],
)
def test_training_and_test_arrays_are_parts(write, names):
    x, y, x_test, y_test = names.split()
    arrays = {x: _STACK, y: _HALVES, x_test: _STACK[:18] + 1, y_test: _HALVES[:18] + 5, "psf": np.ones((5, 5))}
    path = write(**arrays)
    samples = list(read_images(path))
    assert [sample.name for sample in samples] == [
        *(f"train/{i:06d}" for i in range(20)),
        *(f"test/{i:06d}" for i in range(18)),
    ]
    np.testing.assert_array_equal(samples[23].image, _STACK[3] + 1)
    assert [sample.label for sample in samples] == ["0", "1"] * 10 + ["5", "6"] * 9
    assert samples[0].left_out == samples[30].left_out == ("psf",)
    samples = list(read_images(path, PlaneChoice((x_test,))))
    np.testing.assert_array_equal(samples[0].image, _STACK[0] + 1)
    assert [sample.label for sample in samples] == ["5", "6"] * 9
    assert samples[0].name is None


def test_arrays_of_tests_alone_are_for_tests_and_those_for_training_need_no_part(write):
    assert next(read_images(write(x_test=_STACK))).name == "test/000000"
    assert next(read_images(write(x_train=_STACK, y_train=_HALVES))).name is None
    assert next(read_images(write(x_val=_STACK, x_train=_STACK, noise=_STACK))).name == "train/000000"
    (sample, *_) = read_images(write(images=_STACK, valid=_STACK > 0))  # good pixels, and no part
    assert (sample.name, sample.left_out) == (None, ("valid",))


def test_a_member_of_a_tar_has_no_parts(tmp_path):
    file = io.BytesIO()
    np.savez(file, x_test=_ONE)
    write_tar(tmp_path / "a.tar", [member("a.npz", file.getvalue())])
    (found,) = read_images(tmp_path / "a.tar")
    assert found.reason == "a.npz holds the image test/000000, a part of a set; give such files in a folder"
