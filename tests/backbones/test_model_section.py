"""The section `model` of a recipe: the options of the network it names, and no others."""

import pytest
from pydantic import ValidationError

from ssl_lens.backbones import catalog
from ssl_lens.backbones.section import Model
from ssl_lens.backbones.steerable.stem import StemOptions


def refused(values: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as error:
        Model.model_validate(values)
    return str(error.value.errors()[0].get("ctx", {}).get("error", error.value.errors()[0]["msg"]))


def test_what_is_given_of_the_networks_options_is_kept() -> None:
    model = Model.model_validate({"name": "swin_micro", "patch_size": 2, "depths": [1, 1, 1], "stem": {"group": "D4"}})
    assert model.options == {"patch_size": 2, "depths": (1, 1, 1)}
    assert model.stem == StemOptions(group="D4")
    assert Model.model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize("name", catalog.names())
def test_every_option_of_every_network_is_taken_and_comes_back_equal(name: str) -> None:
    options = catalog.published_options(name).config()
    model = Model.model_validate({"name": name, **options})
    assert catalog.chosen_options(name, model.options) == catalog.published_options(name)
    assert Model.model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "swin_micro", "stages": 4},
            "stages=4 is more than the 3 stages of depths=[2, 2, 2]; use stages",
        ),
        ({"name": "resnet_micro", "stages": 4}, "stages=4 is more than the 3 stages of depths=[1, 1, 1]; use stages=3"),
        ({"name": "cvt_windowed", "stages": 5}, "stages=5 is more than the 4 stages of depths=[2, 2, 6, 2]"),
        ({"name": "resnet18", "patch_size": 2}, "patch_size is not an option of resnet18, which has width, depths, st"),
        ({"name": "resnet18", "image_size": 64}, "image_size is not an option of resnet18"),
        ({"name": "swin_tiny", "pach_size": 2}, "pach_size is not an option of swin_tiny; the nearest is patch_size"),
        ({"name": "swin_tiny", "wieghts": "a.pth"}, "wieghts is not an option of swin_tiny; the nearest is weights"),
        ({"name": "swin_tiny", "group": "C4"}, "group is not an option of swin_tiny"),
        ({"name": "swin_tiny", "reference_size": 128}, "reference_size=128 does nothing with padding='clamp'"),
        ({"name": "swin_tiny", "patch_size": "2"}, "patch_size='2' should be an integer, 1 or more"),
        ({"name": "swin_tin"}, "name='swin_tin' is unknown; the nearest are swin_tiny, swin_micro"),
        ({"name": "timm/resnte18"}, "timm has no network 'resnte18'; the nearest are resnet18"),
        ({"weights": "pretrained"}, "weights=pretrained of swin_tiny are not known, only those of timm/NAME"),
        ({"stem": {"grup": "C4"}}, "grup is not an option of the stem; the nearest is group"),
        ({"stem": {"kernel_size": 4}}, "kernel_size=4 of the stem is not symmetric; use an odd number from 3"),
        ({"stem": 3}, "Input should be an instance of StemOptions"),
    ],
)
def test_what_does_nothing_is_refused_in_one_line(values: dict[str, object], message: str) -> None:
    error = refused(values)
    assert error.startswith(message)
    assert "\n" not in error


def test_a_network_of_timm_may_start_from_its_weights() -> None:
    model = Model.model_validate({"name": "timm/resnet18", "weights": "pretrained", "stages": 3})
    assert (model.weights, model.options) == ("pretrained", {"stages": 3})
