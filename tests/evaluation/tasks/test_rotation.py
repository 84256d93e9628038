import numpy as np
import pytest

from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.tasks.rotation import Rotation, relative_scatter

LABELS = Classes(np.array([0, 1]), ("a", "b"))


def test_invariant_outputs_and_images_that_differ_by_their_rotation_alone():
    images = np.arange(6.0).reshape(1, 3, 2).repeat(8, axis=0)
    assert relative_scatter(images) == 0
    rotations = np.arange(8.0).reshape(8, 1, 1).repeat(3, axis=1)
    assert relative_scatter(rotations) == 1


def test_what_changes_at_45_degrees_alone_is_distinguished_from_what_changes_at_90():
    said = np.zeros((8, 2, 1))
    said[1::2] = 2.0  # the odd eighths: a standard deviation of 1
    said[:, 1] += 1.0
    scores = Rotation().scores(LABELS, said)
    assert (scores["std_8x45"], scores["std_4x90"]) == (1, 0)
    assert scores["relative_8x45"] == pytest.approx(np.sqrt(1 / 1.25))
    assert scores["relative_4x90"] == 0


def test_numbers_have_a_scatter_each_in_their_units():
    said = np.zeros((8, 2, 2))
    said[:4, :, 0], said[:4, :, 1] = 2.0, 20.0
    truth = Numbers(np.zeros((2, 2)), ("mass", "size"), (False, True))
    scores = Rotation().scores(truth, said)
    assert (scores["std_8x45[mass]"], scores["std_8x45[log10 size]"]) == (1, 10)
