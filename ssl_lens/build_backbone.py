"""Where the name of a network becomes a network, and a network its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssl_lens.errors import InputError
from ssl_lens.models.backbone import Backbone
from ssl_lens.models.resnet import ResNet
from ssl_lens.models.stem import FoldedStem, StemmedBackbone
from ssl_lens.models.swin import Swin

if TYPE_CHECKING:  # an exported backbone is rebuilt here with torch and timm alone
    from ssl_lens.recipe import Recipe


def backbone(recipe: Recipe, in_channels: int) -> Backbone:
    """The recipe's network with fresh weights, its stem included.

    Raises: InputError if the recipe's model values do not fit together.
    """
    stem = recipe.model.stem
    if stem is None:
        return _plain_backbone(recipe, in_channels)
    from ssl_lens.models.steerable import SteerableStem

    steerable = SteerableStem(
        in_channels,
        group=stem.group,
        fields=stem.fields,
        depth=stem.depth,
        kernel_size=stem.kernel_size,
        downsample=stem.downsample,
    )
    return StemmedBackbone(steerable, _plain_backbone(recipe, steerable.out_channels))


def _plain_backbone(recipe: Recipe, in_channels: int) -> Backbone:
    match recipe.model.name:
        case "swin_tiny":
            return _swin(recipe, in_channels, 96, (2, 2, 6, 2), (3, 6, 12, 24))
        case "swin_small":
            return _swin(recipe, in_channels, 96, (2, 2, 18, 2), (3, 6, 12, 24))
        case "swin_base":
            return _swin(recipe, in_channels, 128, (2, 2, 18, 2), (4, 8, 16, 32))
        case "swin_micro":
            return _swin(recipe, in_channels, 48, (2, 2, 2), (2, 4, 8))
        case "resnet18":
            return _resnet(recipe, in_channels, 64, (2, 2, 2, 2), (1, 2, 2, 2))
        case "resnet_micro":
            return _resnet(recipe, in_channels, 32, (1, 1, 1), (1, 2, 1))  # the last stage keeps the map
        case name:
            raise AssertionError(f"the recipe let {name} through")


def _swin(
    recipe: Recipe, in_channels: int, embed_dim: int, depths: tuple[int, ...], num_heads: tuple[int, ...]
) -> Swin:
    model = recipe.model
    return Swin(
        in_channels,
        embed_dim=embed_dim,
        depths=depths[: model.stages],
        num_heads=num_heads[: model.stages],
        patch_size=model.patch_size,
        window_size=model.window_size,
        drop_path=model.drop_path,
        padding=model.padding,
    )


def _resnet(recipe: Recipe, in_channels: int, width: int, depths: tuple[int, ...], strides: tuple[int, ...]) -> ResNet:
    model = recipe.model
    return ResNet(in_channels, width, depths[: model.stages], strides[: model.stages], model.stem_stride)


def backbone_config(backbone: Backbone) -> dict[str, Any]:
    """What `backbone_from_config` needs to build the same architecture again, ready for JSON.

    A steerable stem must have been folded.
    """
    match backbone:
        case Swin():
            return {"architecture": "swin", **backbone.config()}
        case ResNet():
            return {"architecture": "resnet", **backbone.config()}
        case StemmedBackbone():
            assert isinstance(backbone.stem, FoldedStem), "fold the stem first"
            return {
                "architecture": "stemmed",
                "stem": backbone.stem.config(),
                "backbone": backbone_config(backbone.backbone),
            }
        case _:
            raise AssertionError(f"{type(backbone).__name__} has no architecture name")


def backbone_from_config(config: dict[str, Any]) -> Backbone:
    """The architecture described by `backbone_config`, with fresh weights; needs torch and timm alone.

    Raises: InputError if the architecture is unknown, as in an export by a newer version.
    """
    arguments = {key: value for key, value in config.items() if key != "architecture"}
    match config["architecture"]:
        case "swin":
            return Swin(**arguments)
        case "resnet":
            return ResNet(**arguments)
        case "stemmed":
            return StemmedBackbone(FoldedStem(**arguments["stem"]), backbone_from_config(arguments["backbone"]))
        case name:
            raise InputError(f"architecture {name!r} is unknown to this version of ssl_lens; install a newer one")
