import dataclasses
import logging

import numpy as np
import pytest

from ssl_lens.data.images import UNLABELLED, ImageSet
from ssl_lens.data.splits import write_names
from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Normal
from ssl_lens.evaluation.division import Divisions, Question

ALL = Question(labels_per_class=[None], labels=[None])


def _image_set(counts: tuple[int, ...]) -> ImageSet:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1)
    classes = tuple("abc"[: len(counts)])
    return ImageSet(images, tuple(f"{classes[label]}/{i}.npy" for i, label in enumerate(labels)), labels, classes)


def _measured(values: np.ndarray) -> ImageSet:
    names = tuple(f"{i:03d}.npy" for i in range(len(values)))
    return ImageSet(np.zeros((len(values), 1, 1, 1), np.float32), names, None, (), {"t": values})


def _numbers(values: np.ndarray, **question):
    return Divisions(_measured(values), dataclasses.replace(ALL, target_columns=["t"], **question)).numbers


def test_the_default_division_is_a_stratified_fifth_and_repeats():
    division, again = (Divisions(_image_set((50, 100)), ALL).classes for _ in range(2))
    assert np.bincount(division.truth.labels).tolist() == [10, 20]
    assert sorted([*division.train, *division.test]) == list(range(150))
    np.testing.assert_array_equal(again.test, division.test)


def test_a_split_file_names_the_images_that_judge(tmp_path):
    write_names(tmp_path / "split.txt", ["a/1.npy", "b/7.npy"])
    division = Divisions(_image_set((5, 5)), dataclasses.replace(ALL, split=tmp_path / "split.txt")).classes
    assert division.test.tolist() == [1, 7]
    assert division.train.tolist() == [0, 2, 3, 4, 5, 6, 8, 9]
    write_names(tmp_path / "split.txt", ["a/1.npy"])
    with pytest.raises(InputError, match="the split names no image of class b"):
        _ = Divisions(_image_set((5, 5)), dataclasses.replace(ALL, split=tmp_path / "split.txt")).classes


def test_subsets_are_balanced_seeded_and_never_touch_the_test_part():
    question = dataclasses.replace(ALL, labels_per_class=[10, None])
    division = Divisions(_image_set((50, 100)), question).classes
    draws = list(division.draws(3, repeat_all=False))
    assert [(draw.labels, draw.seed) for draw in draws] == [("10", 0), ("10", 1), ("10", 2), ("all", 0)]
    counts = [np.bincount(division.learned.labels[draw.index]).tolist() for draw in draws]
    assert counts == [[10, 10]] * 3 + [[40, 80]]
    assert set(draws[0].index) != set(draws[1].index)
    assert [draw.seed for draw in division.draws(2, repeat_all=True)] == [0, 1, 0, 1]


@pytest.mark.parametrize("images", [_image_set((9,)), ImageSet(np.zeros((4, 1, 1, 1)), tuple("abcd"), None, ())])
def test_without_two_classes(images):
    with pytest.raises(InputError, match="the images have no labels; put them into one folder per class"):
        _ = Divisions(images, ALL).classes


def test_a_set_that_holds_images_out_is_divided_so():
    images = dataclasses.replace(_image_set((5, 5)), held_out=np.arange(10) % 5 == 0)
    assert Divisions(images, ALL).classes.test.tolist() == [0, 5]
    images = dataclasses.replace(images, held_out=np.arange(10) < 2)
    with pytest.raises(InputError, match="the images held out for tests have no image of class b; add some"):
        _ = Divisions(images, ALL).classes
    measured = dataclasses.replace(_measured(np.arange(6.0)), held_out=np.arange(6) % 3 == 0)
    division = Divisions(measured, dataclasses.replace(ALL, target_columns=["t"])).numbers
    assert (division.train.tolist(), division.test.tolist()) == ([1, 2, 4, 5], [0, 3])


def test_images_of_unknown_class_are_left_out(caplog):
    images = _image_set((50, 100))
    labels = images.labels.copy()
    labels[:5] = UNLABELLED
    with caplog.at_level(logging.INFO):
        division = Divisions(dataclasses.replace(images, labels=labels), ALL).classes
    assert caplog.messages == ["5 of 150 images left out, without a class"]
    used = np.concatenate([division.train, division.test])
    assert np.bincount(labels[used]).tolist() == [45, 100]


def test_budgets_that_a_set_cannot_give_are_left_out_with_a_line_if_they_were_asked_for(caplog):
    caplog.set_level(logging.INFO)
    division = Divisions(_image_set((20, 30)), Question()).classes
    assert list(division.budgets) == [10, None]
    assert caplog.messages == []
    division = Divisions(_image_set((20, 30)), Question(labels_per_class=[5, 50, 100])).classes
    assert list(division.budgets) == [5]
    assert caplog.messages == ["50,100 labels per class left out: class a has 16 images to train on"]
    with pytest.raises(InputError, match="labels_per_class=41,100 is not possible: .*; ask for 1 to 40, or all"):
        _ = Divisions(_image_set((50, 100)), Question(labels_per_class=[41, 100])).classes
    with pytest.raises(InputError, match="labels=1 is not possible: there are 40 images to train on; ask for 2 to 40"):
        _numbers(np.arange(50.0), labels=[1])


def test_numbers_are_divided_by_a_seeded_fifth_and_few_labels_are_nested():
    division = _numbers(np.arange(50.0), labels=[10, 20, None])
    assert (len(division.train), len(division.test)) == (40, 10)
    np.testing.assert_array_equal(division.learned.values[:, 0], division.train)
    seen = [set(draw.index) for draw in division.draws(2, repeat_all=True)]
    assert [len(index) for index in seen] == [10, 10, 20, 20, 40, 40]
    assert seen[0] < seen[2]
    assert seen[0] != seen[1]


def test_a_split_file_may_name_images_without_a_value(tmp_path):
    values = np.arange(20.0)
    values[3] = np.nan
    (tmp_path / "split.txt").write_text("003.npy\n004.npy\n005.npy\n")
    division = _numbers(values, split=tmp_path / "split.txt")
    assert division.truth.values.ravel().tolist() == [4, 5]
    assert len(division.train) == 17


def test_logarithms_and_what_has_none():
    division = _numbers(10.0 ** np.arange(20), log_targets=["t"])
    assert division.truth.names == ("log10 t",)
    values = np.concatenate([division.learned.values, division.truth.values])[:, 0]
    np.testing.assert_allclose(np.sort(values), np.arange(20))
    with pytest.raises(InputError, match="log_targets=t has no logarithm for 000.npy"):
        _numbers(np.arange(20.0), log_targets=["t"])
    with pytest.raises(InputError, match="log_targets=u is not one of target_columns"):
        _numbers(np.arange(1.0, 20), log_targets=["u"])


def test_images_without_all_numbers_are_left_out_and_counted(caplog):
    caplog.set_level(logging.INFO)
    division = _numbers(np.array([0, np.nan, 2, 3, 4, 5]))
    assert sorted([*division.train, *division.test]) == [0, 2, 3, 4, 5]
    assert caplog.messages == ["1 of 6 images left out, without t"]
    with pytest.raises(InputError, match="t is known of 0 of 2 images; .* such as 000.npy"):
        _numbers(np.full(2, np.nan))
    with pytest.raises(InputError, match="t is 2.5 of all 40 images; nothing to learn"):
        _numbers(np.full(50, 2.5))
    with pytest.raises(InputError, match="width is not a number that the images have; there are t; give a table"):
        _ = Divisions(_measured(np.arange(6.0)), dataclasses.replace(ALL, target_columns=["width"])).numbers


def test_a_detector_sees_no_anomaly_and_is_judged_by_them():
    question = dataclasses.replace(ALL, anomaly=["b"])
    images = _image_set((50, 20, 30))
    division = Divisions(images, question).normal
    assert isinstance(division.learned, Normal)
    assert np.bincount(images.labels[division.train], minlength=3).tolist() == [40, 0, 24]
    np.testing.assert_array_equal(division.truth.labels, images.labels[division.test] == 1)
    with pytest.raises(InputError, match="anomaly=d is not one of several classes; the images have a, b, c"):
        _ = Divisions(images, dataclasses.replace(ALL, anomaly=["d"])).normal


def test_without_a_class_of_anomalies_all_images_are_searched():
    division = Divisions(_measured(np.arange(6.0)), ALL).normal
    assert division.train.tolist() == division.test.tolist() == list(range(6))
    assert division.truth is None
    assert [draw.labels for draw in division.draws(3, repeat_all=False)] == ["none"]
