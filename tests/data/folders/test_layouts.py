import numpy as np
import pytest

from ssl_lens.data.folders.layouts import labels_and_parts
from ssl_lens.data.images import load_images
from ssl_lens.data.pack import packer as packing
from ssl_lens.data.source import open_source
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("names", "labels", "parts"),
    [
        (("a/1.npy", "b/x/2.npy"), ("a", "b"), (None, None)),
        (("a/1.npy", "2.npy"), (None, None), (None, None)),
        (("train/no/1.npy", "val/vort/2.npy"), ("no", "vort"), ("train", "val")),
        (("train_lenses/1.npy", "test_nonlenses/2.npy"), ("lenses", "nonlenses"), ("train", "test")),
        (("Model_II/cdm/1.npy", "Model_II_test/axion/2.npy"), ("cdm", "axion"), ("train", "test")),
        (("axion/1.npy", "cdm/2.npy", "no_sub/3.npy"), ("axion", "cdm", "no_sub"), (None,) * 3),
        (("train/1.npy", "val/2.npy"), (None, None), ("train", "val")),  # without a class, but for tests all the same
        (("train/a/1.npy", "train/b/2.npy", "test/3.npy"), ("a", "b", None), ("train", "train", "test")),
        (("training/a/1.npy", "testing/b/2.npy"), ("a", "b"), ("train", "test")),
        (("train/a/1.npy", "dev/b/2.npy"), ("a", "b"), ("train", "val")),
        (("Train Set/a/1.npy", "Hold-Out/b/2.npy"), ("a", "b"), ("train", "test")),
        (("a/1.npy", "b/2.npy", "test/3.npy"), ("a", "b", None), ("train", "train", "test")),
        (("a/1.npy", "b/2.npy", "test/b/3.npy"), ("a", "b", "b"), ("train", "train", "test")),
        (("a/train/1.npy", "a/test/2.npy", "b/eval/3.npy"), ("a", "a", "b"), ("train", "test", "val")),
        (("DES/train/a/1.npy", "KiDS/test/b/2.npy"), ("a", "b"), ("train", "test")),
        (("lenses/1.npy", "lenses_test/2.npy"), ("lenses", "lenses"), ("train", "test")),
        (("trainA/1.npy", "testB/2.npy"), ("A", "B"), ("train", "test")),
        (("a/test_1.npy", "a/2.npy", "b/train_3.npy"), ("a", "a", "b"), ("test", "train", "train")),
        (("x_train.npy#000000", "x_test.npy#000000"), (None, None), ("train", "test")),
        (("train-000.tar#0", "test-000.tar#1"), (None, None), ("train", "test")),
        (("set.tar#train/a/0", "set.tar#hold_out/b/1"), ("a", "b"), ("train", "test")),
        (("set.tar#a/0", "set.tar#b/1"), (None, None), (None, None)),
        (("valid/1.npy", "invalid/2.npy"), ("valid", "invalid"), (None, None)),
        (("a/1.npy", "b/2.npy", "unlabelled/3.npy"), ("a", "b", None), ("train",) * 3),
        (("test/1.npy", "test/2.npy"), (None, None), ("test", "test")),
        (("tr/a/1.npy", "te/b/2.npy"), ("a", "b"), ("train", "test")),
        (("tr/1.npy", "a/2.npy"), ("tr", "a"), (None, None)),
        (("train_val/a/1.npy", "train_val/b/2.npy", "test/a/3.npy"), ("a", "b", "a"), ("train", "train", "test")),
        (("train_v2/a/1.npy", "train_v2/b/2.npy", "test_v2/b/3.npy"), ("a", "b", "b"), ("train", "train", "test")),
        (("train/a/1.npy", "test_open/a/2.npy", "test_secret/a/3.npy"), ("a",) * 3, ("train", "test", "test")),
        (("train_a/1/1.npy", "train_b/1/2.npy", "test_a/1/3.npy"), ("a", "b", "a"), ("train", "train", "test")),
        (("train_a/1/1.npy", "test_b/2/2.npy"), ("a", "b"), ("train", "test")),
        (("train/images/a/1.npy", "test/images/b/2.npy"), ("a", "b"), ("train", "test")),
        (("train/images/1.npy", "test/images/2.npy"), (None, None), ("train", "test")),
        (("data/train/1.npy", "data/test/2.npy"), (None, None), ("train", "test")),
        (("train/images/1.npy", "train/a/2.npy", "test/a/3.npy"), ("images", "a", "a"), ("train", "train", "test")),
    ],
)
def test_auto(names, labels, parts):
    assert labels_and_parts(names, "auto") == (labels, parts)


@pytest.mark.parametrize("layout", ["gri", "real_hst"])
def test_layouts_without_parts_hold_out_by_name(layout):
    names = ("lenses/1.npy", "test/2.npy", "lenses/test_3.npy")
    assert labels_and_parts(names, layout) == (("lenses", None, "lenses"), ("train", "test", "test"))


def test_folds_in_folders_are_refused():
    names = ("fold_0/a/1.npy", "fold_1/b/2.npy")
    with pytest.raises(InputError, match="the folders fold_0, fold_1 are folds, which do not say which images are for"):
        labels_and_parts(names, "auto")
    assert labels_and_parts(names, "folders") == (("fold_0", "fold_1"), (None, None))


@pytest.mark.parametrize("held_out", ["testing", "dev", "hold_out", "x_test", "Test Data"])
def test_what_folders_and_files_hold_out_is_not_pretrained_on(tmp_path, monkeypatch, held_out):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    for name in ("train/0.npy", f"{held_out}/1.npy", f"train/{held_out}_2.npy", "3.npy"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "set" / name, _RNG.normal(size=(8, 8)))
    assert open_source(str(tmp_path / "set")).names == ("3.npy", "train/0.npy")


def test_plain_folders_where_the_user_says_so():
    names = ("train_lenses/1.npy", "test_nonlenses/2.npy")
    assert labels_and_parts(names, "folders") == (("train_lenses", "test_nonlenses"), (None, None))


@pytest.mark.parametrize(
    ("layout", "names", "shape"),
    [
        ("model_i", ("Model_I/axion/a.npy", "Model_I_test/cdm/b.npy"), (150, 150)),
        ("model_i", ("axion/a.npy", "cdm/b.npy"), (1, 150, 150)),
        ("model_ii", ("axion/a.npy", "no_sub/b.npy"), (1, 64, 64)),
        ("model_iii", ("Model_III/axion/a.npy", "Model_III_test/cdm/b.npy"), (64, 64)),
        ("model_iv", ("train/axion/a.npy", "val/cdm/b.npy"), (64, 64, 3)),
        ("common_test", ("train/no/a.npy", "val/sphere/b.npy", "train/vort/c.npy"), (1, 150, 150)),
        ("lens_finding", ("train_lenses/a.npy", "test_nonlenses/b.npy"), (3, 64, 64)),
        ("real_hst", ("lenses/a.npy", "lenses/b.npy"), (1, 334, 334)),
    ],
)
def test_deeplense_by_name(tmp_path, layout, names, shape):
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "set" / name, _RNG.normal(size=shape))
    loaded = load_images(tmp_path / "set", cache=tmp_path / "cache", layout=layout)
    assert len(loaded) == len(names)
    divided = any(part in name for name in names for part in ("val/", "test"))
    assert (loaded.held_out is not None) == divided
    if divided:
        assert loaded.held_out.sum() == 1
    np.save(tmp_path / "set" / names[0], _RNG.normal(size=(32, 32)))
    np.save(tmp_path / "set" / names[1], _RNG.normal(size=(32, 32)))
    if len(names) == 2:
        with pytest.raises(
            InputError, match=rf"shape \(1, 32, 32\), but {layout} has \(., {shape[-2]}, .*; set layout"
        ):
            load_images(tmp_path / "set", cache=tmp_path / "cache", layout=layout)


def test_real_gri_cutouts_of_unequal_size_are_cropped(tmp_path):
    (tmp_path / "set").mkdir()
    for i, size in enumerate(((3, 40, 41), (3, 39, 42), (3, 41, 41))):
        np.save(tmp_path / "set" / f"{i}.npy", _RNG.normal(size=size))
    assert load_images(tmp_path / "set", cache=tmp_path / "cache", layout="gri").images.shape == (3, 3, 39, 41)
    with pytest.raises(InputError, match="mixes image shapes"):
        load_images(tmp_path / "set", cache=tmp_path / "cache")


def test_a_wrong_layout_is_reported_before_the_images_are_read(tmp_path, monkeypatch):
    (tmp_path / "set" / "a").mkdir(parents=True)
    np.save(tmp_path / "set" / "a" / "0.npy", _RNG.normal(size=(8, 8)))
    monkeypatch.setattr(packing, "read_all", None)
    with pytest.raises(InputError, match="layout=lens_finding: a/0.npy is not laid out as"):
        load_images(tmp_path / "set", cache=tmp_path / "cache", layout="lens_finding")


def test_wrong_names():
    with pytest.raises(InputError, match=r"layout=model_iv: axion/a.npy is not laid out as \{train,val\}/"):
        labels_and_parts(("axion/a.npy",), "model_iv")
    with pytest.raises(InputError, match="layout=model_v is unknown; set it to one of auto, folders, model_i,"):
        labels_and_parts(("axion/a.npy",), "model_v")
