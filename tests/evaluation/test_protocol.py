import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ssl_lens.data.images import UNLABELLED, ImageSet
from ssl_lens.data.splits import write_names
from ssl_lens.errors import InputError
from ssl_lens.evaluation.protocol import Prediction, divide_labelled, few_label_results


def _image_set(counts: tuple[int, ...]) -> ImageSet:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1)
    classes = tuple("abc"[: len(counts)])
    return ImageSet(images, tuple(f"{classes[label]}/{i}.npy" for i, label in enumerate(labels)), labels, classes)


def test_the_default_division_is_a_stratified_fifth_and_repeats():
    images = _image_set((50, 100))
    train, test = divide_labelled(images, Path("data"), None, labels_per_class=[40, None])
    again = divide_labelled(images, Path("data"), None, labels_per_class=[40, None])
    assert np.bincount(test.labels).tolist() == [10, 20]
    assert sorted([*train.names, *test.names]) == sorted(images.names)
    assert again.test.names == test.names


def test_a_split_file_names_the_evaluation_images(tmp_path):
    images = _image_set((5, 5))
    write_names(tmp_path / "split.txt", ["a/1.npy", "b/7.npy"])
    train, test = divide_labelled(images, Path("data"), tmp_path / "split.txt", labels_per_class=[None])
    assert test.names == ("a/1.npy", "b/7.npy")
    assert test.images.ravel().tolist() == [1, 7]
    assert len(train) == 8


def test_subsets_are_balanced_seeded_and_never_touch_the_test_part():
    division = divide_labelled(_image_set((50, 100)), Path("data"), None, labels_per_class=[10, None])
    seen = []

    def classify(index: np.ndarray, seed: int) -> Prediction:
        seen.append((seed, division.train.labels[index], division.train.names[index[0]]))
        return Prediction(np.eye(2)[division.test.labels])

    results = list(
        few_label_results("perfect", classify, division, labels_per_class=[10, None], seeds=3, repeat_all=False)
    )
    assert [(result.labels_per_class, result.seed) for result in results] == [(10, 0), (10, 1), (10, 2), (None, 0)]
    assert [np.bincount(labels).tolist() for _, labels, _ in seen] == [[10, 10]] * 3 + [[40, 80]]
    assert all(result.accuracy == 1 and result.auc == 1 for result in results)
    every = few_label_results("perfect", classify, division, labels_per_class=[None], seeds=3, repeat_all=True)
    assert [result.seed for result in every] == [0, 1, 2]


@pytest.mark.parametrize("images", [_image_set((9,)), ImageSet(np.zeros((4, 1, 1, 1)), tuple("abcd"), None, ())])
def test_without_two_classes(images):
    with pytest.raises(InputError, match="--data somewhere has no labels"):
        divide_labelled(images, Path("somewhere"), None, labels_per_class=[None])


def test_a_set_that_holds_images_out_is_divided_so():
    images = dataclasses.replace(_image_set((5, 5)), held_out=np.arange(10) % 5 == 0)
    division = divide_labelled(images, Path("data"), None, labels_per_class=[None])
    assert [len(part) for part in division] == [8, 2]
    assert division.test.names == (images.names[0], images.names[5])
    images = dataclasses.replace(images, held_out=np.arange(10) < 2)
    with pytest.raises(InputError, match="the images held out for tests have no image of class b; add some"):
        divide_labelled(images, Path("data"), None, labels_per_class=[None])


def test_images_of_unknown_class_are_left_out():
    images = _image_set((50, 100))
    labels = images.labels.copy()
    labels[:5] = UNLABELLED
    division = divide_labelled(dataclasses.replace(images, labels=labels), Path("data"), None, labels_per_class=[None])
    assert sum(len(part) for part in division) == 145
    assert np.bincount(np.concatenate([part.labels for part in division])).tolist() == [45, 100]


def test_more_labels_asked_for_than_there_are():
    with pytest.raises(InputError, match="--labels-per-class 41 exceeds the 40 training images of class a"):
        divide_labelled(_image_set((50, 100)), Path("data"), None, labels_per_class=[10, 41, None])


def test_a_split_that_names_no_image_of_a_class(tmp_path):
    write_names(tmp_path / "split.txt", ["a/1.npy"])
    with pytest.raises(InputError, match="names no image of class b"):
        divide_labelled(_image_set((5, 5)), Path("data"), tmp_path / "split.txt", labels_per_class=[None])
