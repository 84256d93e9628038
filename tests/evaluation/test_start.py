"""Where supervised training begins."""

import logging

import numpy as np
import pytest
import torch

from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.steerable_cnn import SteerableCNN, SteerableCNNOptions
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.evaluation.start import from_backbone, from_recipe, recipe_of
from ssl_lens.recipe.recipe import recipe_of_network
from ssl_lens.representation.export import write_export
from ssl_lens.representation.frozen import FrozenBackbone


@pytest.mark.parametrize(
    ("backbone", "loses"),
    [(SteerableCNN(1, SteerableCNNOptions("C4", fields=(2, 2))), True), (ResNet(1, ResNetOptions(4)), False)],
)
def test_an_export_whose_training_may_lose_the_symmetry_says_so(backbone, loses, tmp_path, caplog):
    write_export(FrozenBackbone(Preprocess.plain(1), backbone), tmp_path / "out", (16, 16))
    with caplog.at_level(logging.WARNING):
        start = from_backbone(tmp_path / "out", scratch=True)
    assert ("give its run to keep the symmetry" in caplog.text) == loses
    fine_tuned, fresh = (make(0) for make in start.networks.values())
    assert fresh.config() == backbone.config()  # steerable again
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (fine_tuned(images).view - backbone.eval()(images).view).abs().max() < 1e-5


def test_a_network_of_one_size_is_built_for_the_prepared_image():
    recipe = recipe_of_network("levit", ["data.center_crop=48", "data.bin=2"])
    raw = np.random.default_rng(0).random((4, 1, 60, 60), dtype=np.float32)
    (make,) = from_recipe(recipe, "levit", ImageSet(raw, tuple("abcd"), None, ())).networks.values()
    assert make(0).config()["image_size"] == 24
    first, again, other = (make(seed).state_dict()["stem.conv1.linear.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_overrides_change_names_and_not_exports(tmp_path):
    assert recipe_of("eqcvt", ["model.group=D4"]).model.group == "D4"
    assert recipe_of(str(tmp_path), []) is None
    with pytest.raises(InputError, match="data.bin=2 cannot change .* are settled"):
        recipe_of(str(tmp_path), ["data.bin=2"])
