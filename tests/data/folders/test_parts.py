"""The words by which people mark held-out images, and the words that only look alike."""

import pytest

from ssl_lens.data.folders.parts import is_fold, part_called, part_in, short_parts


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            "train",
            "train Train training TRAINING train_set trainset train-data x_train X_train train2017 trn unlabelled",
        ),
        (
            "val",
            "val valid validation Validation validating dev devel development eval evaluation val_set val2017 x_val",
        ),
        ("test", "test tests testing Testing holdout hold_out hold-out HoldOut held_out held-out heldout testset"),
        ("test", "test_set TestData test.data x_test X_test test1 test_0001 test-000 images_test data_test blind_test"),
        ("test", "unseen unseen_images withheld inference inference_set"),
    ],
)
def test_words_for_a_part(part, words):
    assert {word: part_called(word) for word in words.split()} == dict.fromkeys(words.split(), part)
    assert part_called("Test Data") == "test"


@pytest.mark.parametrize(
    "word",
    [
        "lens",
        "nolens",
        "latest",
        "contest",
        "attest",
        "tested",
        "value",
        "invalid",
        "deviation",
        "evolved",
        "threshold",
        "household",
        "7",
        "x",
        "007",
    ],
)
def test_words_for_none(word):
    assert part_in(word) is None


@pytest.mark.parametrize(
    ("name", "part", "rest", "leads"),
    [
        ("test_nonlenses", "test", "nonlenses", True),
        ("testLenses", "test", "Lenses", True),
        ("lenses_test", "test", "lenses", False),
        ("Model_II_test", "test", "Model_II", False),
        ("trainA", "train", "A", True),
        ("J0946_test_g", "test", "J0946_g", False),
        ("hold_out_lenses", "test", "lenses", True),
    ],
)
def test_a_part_and_something_else(name, part, rest, leads):
    assert part_in(name) == (part, rest, leads)
    assert part_called(name) is None


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("tr", "te", "lens"), {"tr": "train", "te": "test"}),
        (("Xtr", "x_va", "xts"), {"Xtr": "train", "x_va": "val", "xts": "test"}),
        (("te", "ts"), {}),
        (("tr", "lens"), {}),
        (("true", "ten"), {}),
    ],
)
def test_two_letters_are_parts_only_together(names, parts):
    assert {name: mark.part for name, mark in short_parts(names).items()} == parts


def test_folds():
    assert [
        is_fold(name)
        for name in ("fold0", "fold_3", "Fold 12", "kfold1", "cv2", "split_1", "unfold1", "fold", "field1")
    ] == [
        *[True] * 6,
        *[False] * 3,
    ]
