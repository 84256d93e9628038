"""What is evaluated, and where supervised training begins."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import write_run

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.resnet import VARIANTS, ResNet, ResNetOptions
from ssl_lens.backbones.steerable_cnn import SteerableCNN, SteerableCNNOptions
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.evaluation.targets import Target, subjects
from ssl_lens.representation.export import write_export
from ssl_lens.representation.frozen import FrozenBackbone


def _started(target: Target, seed: int) -> MapBackbone:
    assert target.network is not None
    return target.network(seed).backbone


def _set(raw: np.ndarray) -> ImageSet:
    return ImageSet(raw, tuple(f"{i}.npy" for i in range(len(raw))), None, ())


@pytest.mark.parametrize(
    ("backbone", "loses"),
    [
        (SteerableCNN(1, SteerableCNNOptions("C4", fields=(2, 2))), True),
        (ResNet(1, ResNetOptions(width=4)), False),
    ],
)
def test_an_export_whose_training_may_lose_the_symmetry_says_so(backbone, loses, tmp_path, caplog):
    write_export(FrozenBackbone(Preprocess.plain(1), backbone), tmp_path / "out", (16, 16))
    images = _set(np.zeros((2, 1, 16, 16), np.float32))
    found = subjects([tmp_path / "out"], untrained=True)
    assert [subject.name for subject in found] == ["out", "untrained"]
    with caplog.at_level(logging.WARNING):
        tuned, fresh = (_started(subject.open(images), 0) for subject in found)
    assert ("give its run to keep the symmetry" in caplog.text) == loses
    assert fresh.config() == backbone.config()  # steerable again
    pixels = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (tuned(pixels).view - backbone.eval()(pixels).view).abs().max() < 1e-5


def test_a_network_of_one_size_is_built_for_the_prepared_image():
    raw = np.random.default_rng(0).random((4, 1, 60, 60), dtype=np.float32)
    (subject,) = subjects(["levit"], ["data.center_crop=48", "data.bin=2"])
    target = subject.open(_set(raw))
    assert _started(target, 0).config()["image_size"] == 24
    first, again, other = (_started(target, seed).state_dict()["stem.conv1.linear.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_untrained_network_is_not_the_trained_one_and_pixels_are_the_preprocessed_ones(tmp_path):
    run = write_run(tmp_path / "tiny")
    raw = np.random.default_rng(0).gamma(2.0, 1e-12, (6, 1, 40, 40)).astype(np.float32)
    images, index = _set(raw), np.array([4, 1])
    tiny, fresh, pixels = (subject.open(images) for subject in subjects([run], untrained=True, pixels=True))
    assert np.abs(tiny.features(images, index) - fresh.features(images, index)).max() > 1e-3
    expected = tiny.preprocess(torch.from_numpy(raw[index])).flatten(1)
    np.testing.assert_array_equal(pixels.features(images, index), expected)
    np.testing.assert_array_equal(tiny.features(images, np.arange(6))[index], tiny.features(images, index))


def test_two_runs_of_one_name_are_called_by_their_paths(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        write_run(tmp_path / folder / "seed0")
    found = subjects([tmp_path / "first" / "seed0", tmp_path / "second" / "seed0"], untrained=True)
    names = [str(Path(tmp_path, folder, "seed0")) for folder in ("first", "second")]
    assert [subject.name for subject in found] == [
        names[0],
        f"{names[0]} untrained",
        names[1],
        f"{names[1]} untrained",
    ]


def test_the_weights_of_a_network_by_name_are_those_that_it_is_given(tmp_path):
    """Then it has been trained, and training goes on from its probe; so does what has no weights."""
    trained = ResNet(1, replace(VARIANTS["resnet_micro"], width=4))
    write_export(FrozenBackbone(Preprocess.plain(1), trained), tmp_path / "out", (16, 16))
    images = _set(np.random.default_rng(0).random((2, 1, 48, 48), dtype=np.float32))
    for overrides, expected in ((["model.width=4"], False), (["model.width=4", f"model.weights={tmp_path}/out"], True)):
        (subject,) = subjects(["resnet_micro"], overrides)
        target = subject.open(images)
        assert target.trained == expected
        same = torch.equal(_started(target, 0).state_dict()["stem.0.weight"], trained.state_dict()["stem.0.weight"])
        assert same == expected
    (subject,) = subjects(["lens_wavelets"])
    assert subject.open(images).trained
