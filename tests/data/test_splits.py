import numpy as np
import pytest

from ssl_lens.data.images import ImageSet
from ssl_lens.data.splits import divide, per_class_subset, read_names, stratified_split, write_names
from ssl_lens.errors import InputError

_LABELS = np.repeat([0, 1, 2], [50, 30, 20])


def test_stratified_split_keeps_proportions_and_depends_on_the_seed():
    train, test = stratified_split(_LABELS, 0.2, seed=3)
    assert np.bincount(_LABELS[test]).tolist() == [10, 6, 4]
    assert sorted([*train, *test]) == list(range(100))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    np.testing.assert_array_equal(test, stratified_split(_LABELS, 0.2, seed=3)[1])
    assert not np.array_equal(test, stratified_split(_LABELS, 0.2, seed=4)[1])


@pytest.mark.parametrize(("labels", "fraction"), [([0, 0, 1], 0.5), ([0, 0, 1, 1], 0.1), ([0, 0, 1, 1], 1.5)])
def test_impossible_splits(labels, fraction):
    with pytest.raises(InputError, match=f"test fraction of {fraction}"):
        stratified_split(np.array(labels), fraction, seed=0)


def test_per_class_subset_is_balanced_nested_and_seeded():
    few, more = per_class_subset(_LABELS, 5, seed=1), per_class_subset(_LABELS, 12, seed=1)
    assert np.bincount(_LABELS[few]).tolist() == [5, 5, 5]
    assert set(few) < set(more)
    assert (np.diff(more) > 0).all()
    assert not np.array_equal(few, per_class_subset(_LABELS, 5, seed=2))
    np.testing.assert_array_equal(per_class_subset(_LABELS, None, seed=1), np.arange(100))


@pytest.mark.parametrize("n_per_class", [0, 21])
def test_per_class_subset_names_the_smallest_class(n_per_class):
    with pytest.raises(InputError, match=f"{n_per_class} labels per class asked but class 2 has 20 images"):
        per_class_subset(_LABELS, n_per_class, seed=0)


def test_split_files_round_trip(tmp_path):
    write_names(tmp_path / "split.txt", ["b/2.npy", "a/1 é.npy"], comment="held out")
    assert (tmp_path / "split.txt").read_text(encoding="utf-8") == "# held out\na/1 é.npy\nb/2.npy\n"
    assert read_names(tmp_path / "split.txt") == ("a/1 é.npy", "b/2.npy")


def test_bad_split_files(tmp_path):
    with pytest.raises(InputError, match="nowhere.txt cannot be read"):
        read_names(tmp_path / "nowhere.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="binary cannot be read"):
        read_names(tmp_path / "binary")
    (tmp_path / "twice").write_text("a.npy\n\n# b\na.npy\n")
    with pytest.raises(InputError, match="lists an image twice"):
        read_names(tmp_path / "twice")


def test_divide():
    images = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
    whole = ImageSet(images, ("a/0", "a/1", "b/2", "b/3"), np.array([0, 0, 1, 1]), ("a", "b"))
    rest, named = divide(whole, ("b/3", "a/0"))
    assert (rest.names, named.names) == (("a/1", "b/2"), ("a/0", "b/3"))
    assert (rest.images.ravel().tolist(), named.images.ravel().tolist()) == ([1, 2], [0, 3])
    assert (named.labels.tolist(), named.classes) == ([0, 1], ("a", "b"))
    with pytest.raises(InputError, match=r"1 of 2 names of the split are not in the image set, such as c/9"):
        divide(whole, ("a/0", "c/9"))
    with pytest.raises(InputError, match="leaves a part empty"):
        divide(whole, whole.names)
    with pytest.raises(InputError, match="names 0 of 4 images"):
        divide(whole, ())
